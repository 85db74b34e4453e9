"""Who sees what: every rule about what leaves the service for whom, in one place.

Callers are the vendor or one partner, and what is not shared here is not shared. A partner sees the accounts that are assigned to it
and no other. Of an explanation it sees the drivers that are shared; all other parts, the confidential ones and the shared ones too small
to be named, are merged exactly into one part. Whoever knows the score and all other parts could subtract: so if too few are merged, or
one confidential part makes up nearly all of the merged ones, no size at all is given for that score, only order and direction.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from features.errors import ConfigError, explain
from features.feature import Feature
from serving.policy import Action, Numbers, Policy, admits
from serving.reasons import Contribution, Driver, Explanation

__all__ = [
    "VENDOR",
    "Caller",
    "OtherFactors",
    "SharedExplanation",
    "View",
    "gives_away",
    "may_see_account",
    "parse_caller",
    "shared_explanation",
    "visible_accounts",
]


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


@dataclass(frozen=True)
class View:
    """What one caller may see and do, under one policy.

    Parameters
    ----------
    tier
        The partner's tier in the partner programme; None for the vendor, and where it is not known.
    """

    caller: Caller
    tier: str | None
    policy: Policy

    def share(self, record: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a response record that the caller may read; those it may not are None.

        Raises
        ------
        KeyError
            If the policy does not name the record or one of the fields.
        """
        named = self.policy.fields[record]
        if not values.keys() <= named.keys():
            raise KeyError(f"the policy has no line for {', '.join(sorted(values.keys() - named.keys()))} of {record}")
        if self.caller.is_vendor:
            return dict(values)
        open_fields = self.policy.open_fields(record, tier=self.tier)
        return {name: value if name in open_fields else None for name, value in values.items()}

    def may(self, action: Action) -> bool:
        """Tell whether the caller may do something with the accounts that it may see."""
        return self.caller.is_vendor or admits(self.policy.actions[action], self.tier)

    def sees(self, feature: Feature, *, supplied_by: Collection[str] = ()) -> bool:
        """Tell whether the caller may see a feature by name.

        Parameters
        ----------
        supplied_by
            The partners whose own data the account's value was made from.
        """
        if self.caller.is_vendor:
            return True
        if any(partner != self.caller.partner_id for partner in supplied_by):
            return False
        audience = self.policy.audience_of(feature)
        return bool(supplied_by) if audience == "partner" else admits(audience, self.tier)


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


def gives_away(confidential: Iterable[float], numbers: Numbers) -> bool:
    """Tell whether the sum of confidential parts would say too much about one of them.

    Every other part of the score may be known to the caller, by name now or on another day, so only these count: at least `fewest_merged`
    must differ from zero, and none may hold more than `dominant_share` of their absolute sum. Without any there is nothing to give away.
    """
    sizes = [abs(part) for part in confidential if part != 0.0]
    return bool(sizes) and (len(sizes) < numbers.fewest_merged or max(sizes) > numbers.dominant_share * math.fsum(sizes))


def shared_explanation(explanation: Explanation, view: View, *, named: int | None = None) -> SharedExplanation:
    """Choose the drivers that the caller is told by name, and merge all others exactly."""
    most = view.policy.numbers.named_drivers if named is None else named
    chosen: list[Driver] = []
    merged: list[Driver] = []
    for driver in explanation.drivers:
        nameable = driver.part != 0.0 and _may_see_driver(driver, view)
        (chosen if nameable and len(chosen) < most else merged).append(driver)
    hidden = [driver for driver in merged if not _may_see_driver(driver, view)]
    if gives_away((contribution.part for contribution in _contributions(hidden)), view.policy.numbers):
        other = OtherFactors(part=None, odds_factor=None, features=_names(merged), confidential=True)
        return SharedExplanation(named=tuple(chosen), other=other, sizes="withheld")
    part = math.fsum(contribution.part for contribution in _contributions(merged))
    factor = math.prod(driver.odds_factor for driver in merged)
    other = OtherFactors(part=part, odds_factor=factor, features=_names(merged), confidential=bool(hidden))
    return SharedExplanation(named=tuple(chosen), other=other, sizes="exact")


def _may_see_driver(driver: Driver, view: View) -> bool:
    return all(view.sees(member.feature) for member in driver.members)


def _contributions(drivers: Iterable[Driver]) -> list[Contribution]:
    return [member for driver in drivers for member in driver.members]


def _names(drivers: Iterable[Driver]) -> tuple[str, ...]:
    return tuple(contribution.feature.name for contribution in _contributions(drivers))
