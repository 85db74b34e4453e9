"""Every term of the hazard of a simulated world, and the truth that follows from it.

For an account in a week, the log hazard relative to an average account is a sum of parts::

    eta = -1.30 * health                      what telemetry shows, in part
        + 1.20 * (the champion has left)
        + 0.50 * (support pain - 0.6)
        + 1.00 * price pressure * sensitivity
        - 0.70 * (value realised - 0.4)
        - 0.35 * skill of the partner
        - 0.20 * training stock
        - relief by plays
        + (0.22, -0.15, -0.90)[segment]
        + 0.50 * frailty                      never shown

and an account leaves

- at the end of a term, decided on a day up to 30 days before it, with probability `1 - exp(-signal * RENEWAL[term] * exp(eta))`;
- in mid-term, in any week, with probability `1 - exp(-rate)`, where
  `rate = exp((1 - signal) * log(CONSTANT) + signal * (log(MID_TERM) + 0.8 * eta)) + signal * INSOLVENCY`; insolvency never shows.

The *true* hazard at a cutoff adds these over the next 90 days: the parts stay as they are, but for health, which goes on towards what
pulls it. The *observable* hazard is the same without what no table reveals: frailty, the account's own sensitivity to prices (its
segment's mean stands for it), the health of an account whose telemetry does not arrive, the days of decision before they are booked.
A notice that was given makes both 1.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.world import HORIZON_DAYS, Calendar, Flags, Floats, Ints, coded
from features.world_population import Population

__all__ = [
    "CHURN_CAUSES",
    "HEALTH_MEMORY",
    "PARTS",
    "SENSITIVITY_MEANS",
    "Outlook",
    "attribute_cause",
    "churn_parts",
    "hazard_table",
    "mid_term_rate",
    "renewal_hazard",
]

PARTS: Final = ("health", "champion", "support", "price", "value", "partner", "training", "plays", "segment", "unobserved")
# The first six causes are the first six parts, as a churned customer's file would call them.
CHURN_CAUSES: Final = ("decline", "champion_left", "support_pain", "price", "no_value", "partner", "sudden", "insolvency")

HEALTH_MEMORY: Final = 0.92  # share of the distance to its pull that health keeps from one week to the next
SENSITIVITY_MEANS: Final = np.array([1.3, 0.9, 0.6])
_HEALTH: Final = 1.3
_SEGMENT: Final = np.array([0.22, -0.15, -0.90])
_FRAILTY: Final = 0.50

_CONSTANT: Final = 0.042 / 13
_MID_TERM: Final = 0.0056 / 13
_INSOLVENCY: Final = 0.0036 / 13
_MID_TERM_STEEPNESS: Final = 0.8
_RENEWAL_MONTHS: Final = np.array([1, 3, 6, 12, 24, 36])
_RENEWAL: Final = np.array([0.0060, 0.0150, 0.025, 0.041, 0.050, 0.054])


def churn_parts(
    population: Population,
    *,
    health: Floats,
    champion: Flags,
    pain: Floats,
    pressure: Floats,
    value: Floats,
    skill: Floats,
    training: Floats,
    relief: Floats,
) -> Floats:
    """Return the parts of the log hazard, shape `(n_parts, n_accounts)`, in the order of `PARTS`."""
    return np.array(
        [
            -_HEALTH * health,
            1.2 * ~champion,
            0.5 * (pain - 0.6),
            1.0 * pressure * population.sensitivity,
            -0.7 * (value - 0.4),
            -0.35 * skill,
            -0.2 * training,
            -relief,
            _SEGMENT[population.segment],
            _FRAILTY * population.frailty,
        ]
    )


def renewal_hazard(months: Ints, eta: Floats, *, signal: float) -> Floats:
    """Return the cumulated hazard of one end of a term; its churn probability is `1 - exp(-hazard)`."""
    hazard: Floats = signal * _RENEWAL[np.searchsorted(_RENEWAL_MONTHS, months)] * np.exp(eta)
    return hazard


def mid_term_rate(eta: Floats, *, signal: float) -> Floats:
    """Return the hazard of leaving in a week within the term."""
    shown = (1 - signal) * np.log(_CONSTANT) + signal * (np.log(_MID_TERM) + _MID_TERM_STEEPNESS * eta)
    rate: Floats = np.exp(shown) + signal * _INSOLVENCY
    return rate


def attribute_cause(parts: Floats, *, random: np.random.Generator, mid_term: bool) -> Ints:
    """Return the code in `CHURN_CAUSES` of what had the largest share of the hazard, shape `(n_accounts,)`.

    Parts above zero share what they add to the hazard; what would be there without them is `sudden`, or, in mid-term, `insolvency`
    as often as that makes up the rate.
    """
    raised = np.maximum(parts[: CHURN_CAUSES.index("sudden")], 0.0)
    total = raised.sum(axis=0)
    without = np.exp(-total)
    shares = np.vstack([raised / np.maximum(total, 1e-9) * (1 - without), without])
    cause: Ints = np.argmax(shares, axis=0)
    insolvent = random.random(len(cause)) < _INSOLVENCY / mid_term_rate(parts.sum(axis=0), signal=1.0)
    return np.where(insolvent & mid_term, CHURN_CAUSES.index("insolvency"), cause)


@dataclass(frozen=True)
class Outlook:
    """What is ahead of some accounts at a cutoff; arrays of shape `(n,)`, days counted from the cutoff.

    `decides` is the day of the decision about the current term (before 0: it is made), `leaves` whether it was made against the vendor,
    `booked` when the renewal was recorded (infinite if it was not), `silent` whether telemetry is missing.
    """

    account: Ints
    ends: Ints
    months: Ints
    decides: Ints
    leaves: Flags
    booked: Floats
    silent: Flags
    parts: Floats
    pull: Floats
    pressure: Floats


def hazard_table(calendar: Calendar, population: Population, outlooks: dict[int, Outlook], *, signal: float) -> pa.Table:
    """Return the truth's hazards, one row for each paying account and cutoff."""
    tables = [_hazards_at(calendar, population, cutoff, outlook, signal) for cutoff, outlook in outlooks.items()]
    return pa.concat_tables(tables)


def _hazards_at(calendar: Calendar, population: Population, cutoff: int, outlook: Outlook, signal: float) -> pa.Table:
    decided = outlook.decides <= 0
    notice = decided & outlook.leaves
    settled = decided & ~outlook.leaves
    true = _look_ahead(calendar, cutoff, outlook, outlook.parts, outlook.pull, settled=settled, decides=outlook.decides, signal=signal)
    shown = outlook.parts.copy()
    shown[PARTS.index("unobserved")] = _FRAILTY**2 / 2
    shown[PARTS.index("price")] = outlook.pressure * SENSITIVITY_MEANS[population.segment[outlook.account]]
    shown[PARTS.index("health")] = np.where(outlook.silent, 0.0, shown[PARTS.index("health")])
    pull = np.where(outlook.silent, 0.0, outlook.pull)
    observable = _look_ahead(
        calendar, cutoff, outlook, shown, pull, settled=settled & (outlook.booked <= 0), decides=outlook.ends, signal=signal
    )
    columns = {
        "account_id": coded(outlook.account, population.ids),
        "cutoff": calendar.instants(np.full(len(outlook.account), cutoff)),
        "observable_hazard": np.where(notice, 1.0, 1 - np.exp(-observable)),
        "true_hazard": np.where(notice, 1.0, 1 - np.exp(-true)),
    }
    return pa.table(columns | {name: outlook.parts[k] * signal for k, name in enumerate(PARTS)})


def _look_ahead(
    calendar: Calendar, cutoff: int, outlook: Outlook, parts: Floats, pull: Floats, *, settled: Flags, decides: Ints, signal: float
) -> Floats:
    """Add the hazards of the next 90 days, from the parts as they are at the cutoff."""
    health, rest = -parts[0] / _HEALTH, parts[1:].sum(axis=0)

    def eta_in(days: npt.NDArray[np.float64]) -> Floats:
        toward = HEALTH_MEMORY ** (np.maximum(days, 0) / 7)
        later: Floats = rest - _HEALTH * (pull + toward * (health - pull))
        return later

    total = HORIZON_DAYS / 7 * mid_term_rate(eta_in(np.full(rest.shape, HORIZON_DAYS / 2)), signal=signal)
    for ahead in range(3):
        ends = calendar.plus_months(outlook.ends + cutoff, ahead * outlook.months) - cutoff
        counts = (ends <= HORIZON_DAYS) & (ends > 0) & ~(settled & (ahead == 0))
        decided = (decides if ahead == 0 else ends).astype(np.float64)
        total = total + counts * renewal_hazard(outlook.months, eta_in(decided), signal=signal)
    return total
