"""Who sees what: every rule about what leaves the service for whom, in one place.

Callers are the vendor or one partner, and what is not shared here is not shared. A partner sees the accounts that are assigned to it and no
other. Which fields and features it sees of those is the policy's to say (`serving.permissions.policy`); a `View` applies it to one caller.

Of an explanation a partner sees the drivers that are shared; all other parts, the confidential ones and the shared ones too small to be
named, are merged exactly into one part. Whoever knows the score and all other parts can subtract, and may know the other parts from
another answer: from another day, another list, a what-if. So sizes are exact only if the *confidential* parts by themselves keep each
other's secret, as if every shared part were known: at least three of them, none of which holds nearly all. If they do not, no part of
that score is given a size at all, only order and direction. What compares two scores, a change or a what-if, is exact only if both scores
are and the differences keep each other's secret too; else the exact one of the two would give the sizes of the other.

But: the score itself is shared. Where nothing else moves it, it says what a confidential part is, and no rule of subtraction helps.
And a partner that keeps two answers from different days can tell by how much its confidential parts moved together in between.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from features.feature import Feature
from serving.permissions.assignments import Assignments
from serving.permissions.caller import Caller
from serving.permissions.policy import Action, Note, Numbers, Policy, admits
from serving.permissions.supplies import SUPPLIED
from serving.scores.reasons import Driver, Explanation

__all__ = [
    "NOTHING_SUPPLIED",
    "MergedParts",
    "OtherFactors",
    "Secrecy",
    "SharedExplanation",
    "Sizes",
    "Supplied",
    "View",
    "confidential_parts",
    "gives_away",
    "merge_parts",
    "shared_explanation",
]


Sizes = Literal["exact", "withheld"]
Secrecy = Literal["the vendor's", "other tiers'", "another partner's", "unknown whose"]
"""Why a partner may not see a feature."""
Supplied = Mapping[str, Collection[str]]
"""By feature, the partners whose data an account's value was made from; a feature that is not there has only the vendor's in it."""

NOTHING_SUPPLIED: Supplied = MappingProxyType({})


@dataclass(frozen=True)
class View:
    """What one caller may see and do, under one policy.

    Parameters
    ----------
    tier
        The partner's tier in the partner programme; None for the vendor, and where it is not known.
    at
        The instant of the request, UTC without a zone: who manages which account is asked for it. A view that has none sees no account
        of a partner's.
    """

    caller: Caller
    tier: str | None
    policy: Policy
    at: datetime | None = None

    def manages(self, row: int, assignments: Assignments) -> bool:
        """Tell whether the caller may see an account: the vendor all, a partner those that are assigned to it now."""
        if self.caller.is_vendor:
            return True
        return self.at is not None and assignments.partner_of(row, self.at) == self.caller.partner_id

    def managed_rows(self, assignments: Assignments) -> npt.NDArray[np.intp]:
        """Return the rows of the accounts that the caller may see, ascending."""
        partner = self.caller.partner_id
        if partner is None:
            return np.arange(len(assignments))
        return assignments.rows_of(partner, self.at) if self.at is not None else np.array([], dtype=np.intp)

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
        """Tell whether the caller may see a feature by name; see `hidden_because`."""
        return self.hidden_because(feature, supplied_by=supplied_by) is None

    def hidden_because(self, feature: Feature, *, supplied_by: Collection[str] = ()) -> Secrecy | None:
        """Return why the caller may not see a feature by name; None if it may.

        Parameters
        ----------
        supplied_by
            The partners whose data the account's value was made from, or that it is about; see `serving.permissions.supplies`.
        """
        if self.caller.is_vendor:
            return None
        if any(partner != self.caller.partner_id for partner in supplied_by):
            return "another partner's"
        audience = self.policy.audience_of(feature)
        if audience == "partner":  # not known to hold nobody else's, unless its table says who supplied each row
            known = bool(supplied_by) or (feature.source is not None and feature.source.table == SUPPLIED)
            return None if known else "unknown whose"
        if admits(audience, self.tier):
            return None
        return "the vendor's" if audience == "vendor" else "other tiers'"

    def shows_note(self, kind: Note, *, author: Caller) -> bool:
        """Tell whether the caller may read what somebody wrote down about an account that the caller sees."""
        if self.caller.is_vendor or author == self.caller:
            return True
        return author.is_vendor and admits(self.policy.notes[kind], self.tier)


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
    sizes: Sizes


@dataclass(frozen=True, kw_only=True)
class MergedParts:
    """Drivers as one caller may read them.

    Parameters
    ----------
    named
        The largest drivers that the caller may see, the largest first.
    rest
        All others.
    part
        The exact sum of the rest, in the unit of the drivers' parts; None where sizes are withheld.
    sizes
        Whether parts may be told: those of `named` are withheld with that of the rest.
    confidential
        Whether the rest holds drivers that the caller may not see.
    """

    named: tuple[Driver, ...]
    rest: tuple[Driver, ...]
    part: float | None
    sizes: Sizes
    confidential: bool


def merge_parts(
    drivers: Iterable[Driver],
    view: View,
    *,
    supplied: Supplied = NOTHING_SUPPLIED,
    beside: Iterable[Iterable[float]] = (),
    named: int | None = None,
) -> MergedParts:
    """Choose the drivers that the caller is told by name, and merge all others exactly.

    Parameters
    ----------
    drivers
        All of a score, a change or a what-if, the largest absolute part first.
    supplied
        By feature, the partners whose data the account's value was made from.
    beside
        Confidential parts of other answers that lead to this one by subtraction: for a change, those of both scores.
    named
        How many drivers are named; the policy's number if not given.
    """
    most = view.policy.numbers.named_drivers if named is None else named
    chosen: list[Driver] = []
    rest: list[Driver] = []
    hidden: list[float] = []
    for driver in drivers:
        seen = _sees_driver(driver, view, supplied)
        hidden += [] if seen else [member.part for member in driver.members]
        (chosen if seen and driver.part != 0.0 and len(chosen) < most else rest).append(driver)
    withheld = any(gives_away(parts, view.policy.numbers) for parts in (hidden, *beside))
    return MergedParts(
        named=tuple(chosen),
        rest=tuple(rest),
        part=None if withheld else math.fsum(member.part for driver in rest for member in driver.members),
        sizes="withheld" if withheld else "exact",
        confidential=bool(hidden),
    )


def confidential_parts(drivers: Iterable[Driver], view: View, *, supplied: Supplied = NOTHING_SUPPLIED) -> list[float]:
    """Return the parts of the drivers that the caller may not see."""
    return [member.part for driver in drivers if not _sees_driver(driver, view, supplied) for member in driver.members]


def shared_explanation(
    explanation: Explanation, view: View, *, supplied: Supplied = NOTHING_SUPPLIED, named: int | None = None
) -> SharedExplanation:
    """Choose the drivers of a score that the caller is told by name, and merge all others exactly; see `merge_parts`."""
    merged = merge_parts(explanation.drivers, view, supplied=supplied, named=named)
    other = OtherFactors(
        part=merged.part,
        odds_factor=None if merged.part is None else math.prod(driver.odds_factor for driver in merged.rest),
        features=tuple(member.feature.name for driver in merged.rest for member in driver.members),
        confidential=merged.confidential,
    )
    return SharedExplanation(named=merged.named, other=other, sizes=merged.sizes)


def gives_away(confidential: Iterable[float], numbers: Numbers) -> bool:
    """Tell whether the sum of confidential parts would say too much about one of them.

    Every other part of the score may be known to the caller, by name now or on another day, so only these count: at least `fewest_merged`
    must differ from zero, and none may hold more than `dominant_share` of their absolute sum. Without any there is nothing to give away.
    """
    sizes = [abs(part) for part in confidential if part != 0.0]
    return bool(sizes) and (len(sizes) < numbers.fewest_merged or max(sizes) > numbers.dominant_share * math.fsum(sizes))


def _sees_driver(driver: Driver, view: View, supplied: Supplied) -> bool:
    return all(view.sees(member.feature, supplied_by=supplied.get(member.feature.name, ())) for member in driver.members)
