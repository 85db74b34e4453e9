"""What one caller is told about one account, what is kept from it, and why: the policy as somebody who wrote it wants to check it.

The rules are those of `serving.scores.sharing`, applied to the score set that is served; nothing is decided here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from features.feature import Family, Feature, Target
from serving.answers.account_answers import explain_account
from serving.permissions.caller import VENDOR
from serving.permissions.policy import Action, Note, Policy
from serving.permissions.policy_lines import audience_words
from serving.scores.reasons import group_drivers
from serving.scores.scoring import ScoreSet
from serving.scores.sharing import Secrecy, Sizes, View, confidential_parts, merge_parts

__all__ = ["Disclosure", "HiddenFeature", "KeptField", "ScoreDisclosure", "disclose"]

Doubt = Literal["too few", "one dominates"]
"""Why sizes are withheld: too few confidential parts move the score, or one of them makes up nearly all of it."""


@dataclass(frozen=True, kw_only=True)
class HiddenFeature:
    """A feature that the caller is not told by name.

    Parameters
    ----------
    because
        What kind of secret it is.
    rule
        Where that is written: the line of the policy, the catalogue, or whose data it is.
    moves
        Whether it moves this score at all.
    """

    name: str
    family: Family
    because: Secrecy
    rule: str
    moves: bool


@dataclass(frozen=True, kw_only=True)
class ScoreDisclosure:
    """What the caller is told of one score.

    Parameters
    ----------
    named
        The sentences of the drivers that it is told, the largest first.
    doubts
        Why sizes are withheld; None if they are exact.
    """

    target: Target
    named: tuple[str, ...]
    hidden: tuple[HiddenFeature, ...]
    sizes: Sizes
    doubts: Doubt | None


@dataclass(frozen=True, kw_only=True)
class KeptField:
    """A field of an answer that is null for the caller, and who may read it."""

    field: str
    readers: str


@dataclass(frozen=True, kw_only=True)
class Disclosure:
    """What one caller is told about one account.

    Parameters
    ----------
    visible
        Whether the account exists for the caller; if not, it is told nothing of what follows.
    partner
        Who manages the account now; None for nobody.
    peers
        How many accounts the account's segment has.
    """

    caller: str
    tier: str | None
    account_id: str
    at: datetime
    visible: bool
    partner: str | None
    scores: tuple[ScoreDisclosure, ...]
    fields: tuple[KeptField, ...]
    peers: int
    peers_needed: int
    may: tuple[Action, ...]
    may_not: tuple[Action, ...]
    notes: tuple[Note, ...]


def disclose(score_set: ScoreSet, row: int, view: View) -> Disclosure:
    """Return what a view is told about one account of a score set; the view has an instant."""
    if view.at is None:
        raise ValueError("who manages an account is a question of the instant")
    actions = get_args(Action)
    segment = score_set.accounts["segment"][row]
    return Disclosure(
        caller=view.caller.name,
        tier=view.tier,
        account_id=str(score_set.accounts["account_id"][row]),
        at=view.at,
        visible=view.manages(row, score_set.assignments),
        partner=score_set.assignments.partner_of(row, view.at),
        scores=tuple(_score(score_set, row, target, view) for target in score_set.packages),
        fields=tuple(_kept_fields(view)),
        peers=int((score_set.accounts["segment"] == segment).sum()) if segment is not None else 0,
        peers_needed=view.policy.numbers.peers_needed,
        may=tuple(action for action in actions if view.may(action)),
        may_not=tuple(action for action in actions if not view.may(action)),
        notes=tuple(kind for kind in get_args(Note) if view.shows_note(kind, author=VENDOR)),
    )


def _score(score_set: ScoreSet, row: int, target: Target, view: View) -> ScoreDisclosure:
    supplied = score_set.supplies.of(row)
    members = [member for driver in explain_account(score_set, row, target).drivers for member in driver.members]
    drivers = group_drivers(members, slope=1.0, audience_of=view.policy.audience_of)
    merged = merge_parts(drivers, view, supplied=supplied)
    hidden = [
        HiddenFeature(
            name=member.feature.name,
            family=member.feature.family,
            because=because,
            rule=_rule(member.feature, because, view.policy, supplied.get(member.feature.name, ())),
            moves=member.part != 0.0,
        )
        for member in members
        if (because := view.hidden_because(member.feature, supplied_by=supplied.get(member.feature.name, ()))) is not None
    ]
    moving = sum(part != 0.0 for part in confidential_parts(drivers, view, supplied=supplied))
    doubt: Doubt = "too few" if moving < view.policy.numbers.fewest_merged else "one dominates"
    return ScoreDisclosure(
        target=target,
        named=tuple(driver.sentence for driver in merged.named),
        hidden=tuple(sorted(hidden, key=lambda feature: feature.name)),
        sizes=merged.sizes,
        doubts=doubt if merged.sizes == "withheld" else None,
    )


def _rule(feature: Feature, because: Secrecy, policy: Policy, supplied_by: frozenset[str] | tuple[()]) -> str:
    """Say where it is written that a feature is a secret."""
    if because == "another partner's":
        return f"made from data of, or about, {', '.join(sorted(supplied_by))}"
    audience = policy.audience_of(feature)
    readers = "" if audience == "partner" else f" is for {audience_words(audience)}"
    if feature.name in policy.features:
        return f"[features] {feature.name}{readers}"
    if feature.family in policy.families:
        return f"[families] {feature.family}{readers}"
    return f"the catalogue says {feature.sensitivity}"


def _kept_fields(view: View) -> Iterator[KeptField]:
    if view.caller.is_vendor:
        return
    for record, lines in view.policy.fields.items():
        readable = view.policy.open_fields(record, tier=view.tier)
        for name, audience in lines.items():
            if name not in readable:
                yield KeptField(field=f"{record}.{name}", readers=audience_words(audience))
