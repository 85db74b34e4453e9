"""Who sees what: every rule about what leaves the service for whom, in one place.

Callers are the vendor or one partner, and what is not shared here is not shared. A partner sees the accounts that are assigned to it
and no other. Of an explanation it sees the drivers that are shared; all other parts, the confidential ones and the shared ones too small
to be named, are merged exactly into one part. Whoever knows the score and all other parts could subtract: so if too few are merged, or
one confidential part makes up nearly all of the merged ones, no size at all is given for that score, only order and direction.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from features.errors import ConfigError, explain
from serving.reasons import Contribution, Driver, Explanation

__all__ = [
    "PEERS_NEEDED",
    "POLICY",
    "VENDOR",
    "Audience",
    "Caller",
    "OtherFactors",
    "SharedExplanation",
    "may_see_account",
    "parse_caller",
    "share",
    "shared_explanation",
    "visible_accounts",
]

PEERS_NEEDED = 10
"""A median or an average over fewer accounts than this would say too much about one of them."""

NAMED_DRIVERS = 5
"""How many drivers an explanation names; the rest is merged."""

FEWEST_MERGED = 3
"""Fewer merged parts than this could be guessed from their sum."""

DOMINANT_SHARE = 0.9
"""A confidential part above this share of all merged parts, by absolute size, is as good as shown by their sum."""


@dataclass(frozen=True)
class Caller:
    """Who asks: the vendor (`partner_id` is None) or one partner.

    Examples
    --------
    >>> Caller("p1").name, VENDOR.name
    ('partner:p1', 'vendor')
    """

    partner_id: str | None

    @property
    def is_vendor(self) -> bool:
        """Whether the vendor asks."""
        return self.partner_id is None

    @property
    def name(self) -> str:
        """How the journal calls the caller."""
        return "vendor" if self.partner_id is None else f"partner:{self.partner_id}"


VENDOR = Caller(None)


def parse_caller(text: str) -> Caller:
    """Return the caller that `vendor` or `partner:<partner_id>` names.

    Raises
    ------
    ConfigError
        If the text is neither.

    Examples
    --------
    >>> parse_caller("partner:p1").partner_id
    'p1'
    """
    kind, _, partner_id = text.partition(":")
    if text == "vendor":
        return VENDOR
    if kind == "partner" and partner_id:
        return Caller(partner_id)
    raise ConfigError(explain("this is no caller", given=text, allowed="vendor, or partner:<partner_id>"))


Audience = Literal["shared", "vendor"]

_SUMMARY: Mapping[str, Audience] = {
    "account_id": "shared",
    "name": "shared",
    "segment": "shared",
    "csm": "shared",
    "partner_id": "shared",
    "partner_name": "shared",
    "health": "shared",
    "band": "shared",
    "churn_probability": "shared",
    "expansion_probability": "shared",
    "arr": "shared",
    "arr_at_risk": "shared",
    "renewal_at": "shared",
    "first_driver": "shared",
    "limits": "shared",
}

POLICY: Mapping[str, Mapping[str, Audience]] = {
    "AccountSummary": _SUMMARY,
    "Account": {**_SUMMARY, "earlier_at": "shared", "seats": "shared", "scores": "shared", "as_of": "shared"},
    "Score": {
        "target": "shared",
        "probability": "shared",
        "book_average": "shared",
        "horizon_days": "shared",
        "lead_days": "shared",
        "raw_score": "shared",
        "base": "shared",
        "base_probability": "shared",
        "drivers": "shared",
        "other_factors": "shared",
        "sizes": "shared",
        "package": "shared",
    },
    "Driver": {
        "features": "shared",
        "family": "shared",
        "sentence": "shared",
        "effect": "shared",
        "part": "shared",
        "odds_factor": "shared",
        "value": "shared",
        "earlier": "shared",
        "peers": "shared",
        "unit": "shared",
        "actionable": "shared",
        "sensitivity": "vendor",
    },
    "OtherFactors": {"part": "shared", "odds_factor": "shared", "features": "vendor", "confidential": "shared"},
    "FirstDriver": {"sentence": "shared", "effect": "shared"},
    "Limit": {"code": "shared", "text": "shared"},
    "AsOf": {
        "score_set": "shared",
        "cutoff": "shared",
        "scored_at": "shared",
        "health_version": "shared",
        "currency": "shared",
        "provisional": "shared",
        "sources": "shared",
    },
    "Source": {"table": "shared", "latest": "shared", "silent": "shared"},
    "Book": {"accounts": "shared", "totals": "shared", "page": "shared", "pages": "shared", "page_size": "shared", "as_of": "shared"},
    "Totals": {"accounts": "shared", "arr": "shared", "arr_at_risk": "shared", "bands": "shared"},
    "Prediction": {"id": "shared", "health": "shared", "band": "shared", "scores": "shared", "notes": "shared"},
    "Predictions": {"results": "shared", "not_found": "shared", "as_of": "shared"},
}
"""Each field of each response, and who may read it. A field without a line here cannot leave: `share` raises KeyError."""


def share(record: str, values: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
    """Return the fields of a response record that the caller may read; those it may not are None.

    Raises
    ------
    KeyError
        If the policy does not name the record or one of the fields.
    """
    audience = POLICY[record]
    return {name: value if audience[name] == "shared" or caller.is_vendor else None for name, value in values.items()}


def visible_accounts(partner_id: npt.NDArray[np.object_], caller: Caller) -> npt.NDArray[np.bool_]:
    """Tell which accounts `(n,)` the caller may see, given the partner that each is assigned to (None for none)."""
    if caller.is_vendor:
        return np.ones(len(partner_id), dtype=bool)
    return np.array([assigned is not None and assigned == caller.partner_id for assigned in partner_id], dtype=bool)


def may_see_account(assigned: str | None, caller: Caller) -> bool:
    """Tell whether the caller may see an account that is assigned to this partner (None for none)."""
    return caller.is_vendor or (assigned is not None and assigned == caller.partner_id)


@dataclass(frozen=True, kw_only=True)
class OtherFactors:
    """All parts that are not named, merged.

    Parameters
    ----------
    part
        Exact sum, log-odds; None where sizes are withheld.
    odds_factor
        What they multiply the odds by; None where sizes are withheld.
    features
        Their names, for the vendor.
    confidential
        Whether parts are among them that this caller may not see.
    """

    part: float | None
    odds_factor: float | None
    features: tuple[str, ...]
    confidential: bool


@dataclass(frozen=True, kw_only=True)
class SharedExplanation:
    """An explanation as one caller may read it.

    Parameters
    ----------
    named
        The largest drivers that the caller may see.
    sizes
        `exact`, or `withheld` if the merged part would give a confidential one away.
    """

    named: tuple[Driver, ...]
    other: OtherFactors
    sizes: Literal["exact", "withheld"]


def shared_explanation(explanation: Explanation, caller: Caller, *, named: int = NAMED_DRIVERS) -> SharedExplanation:
    """Choose the drivers that the caller is told by name, and merge all others exactly."""
    chosen: list[Driver] = []
    merged: list[Driver] = []
    for driver in explanation.drivers:
        nameable = driver.part != 0.0 and _may_see_driver(driver, caller)
        (chosen if nameable and len(chosen) < named else merged).append(driver)
    hidden = [driver for driver in merged if not _may_see_driver(driver, caller)]
    if hidden and _gives_one_away(hidden, merged):
        other = OtherFactors(part=None, odds_factor=None, features=_names(merged), confidential=True)
        return SharedExplanation(named=tuple(chosen), other=other, sizes="withheld")
    part = math.fsum(contribution.part for contribution in _contributions(merged))
    factor = math.prod(driver.odds_factor for driver in merged)
    other = OtherFactors(part=part, odds_factor=factor, features=_names(merged), confidential=bool(hidden))
    return SharedExplanation(named=tuple(chosen), other=other, sizes="exact")


def _may_see_driver(driver: Driver, caller: Caller) -> bool:
    return caller.is_vendor or driver.sensitivity == "shared"


def _gives_one_away(hidden: list[Driver], merged: list[Driver]) -> bool:
    parts = [abs(contribution.part) for contribution in _contributions(merged)]
    largest_hidden = max(abs(contribution.part) for contribution in _contributions(hidden))
    return len(parts) < FEWEST_MERGED or largest_hidden > DOMINANT_SHARE * math.fsum(parts)


def _contributions(drivers: Iterable[Driver]) -> list[Contribution]:
    return [member for driver in drivers for member in driver.members]


def _names(drivers: Iterable[Driver]) -> tuple[str, ...]:
    return tuple(contribution.feature.name for contribution in _contributions(drivers))
