"""Contributions and their worth, as their partner and the vendor are told."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from features import clock
from serving.answers.contributions import Contribution
from serving.answers.schema_contributions import (
    BrokenRow,
    ContributionList,
    ContributionSummary,
    Status,
    Worth,
    WorthOfAccount,
    WorthOfFeature,
    WorthOfTarget,
)
from serving.answers.schema_contributions import Contribution as ContributionAnswer
from serving.scores.scoring import ScoreSet
from serving.scores.sharing import View
from serving.scores.worth import AccountWorth

__all__ = ["contribution_answer", "contributions_answer", "worth_answer"]

MOST_ACCOUNTS = 200


def contribution_answer(contribution: Contribution, score_set: ScoreSet, view: View) -> ContributionAnswer:
    """Return one contribution with what is wrong with its rows."""
    broken = [
        BrokenRow(**view.share("BrokenRow", {"row": one.row, "kept": one.kept, "reasons": list(one.reasons)}))
        for one in contribution.broken
    ]
    found = {"reasons": dict(contribution.reasons), "broken": broken, "ignored": list(contribution.ignored)}
    return ContributionAnswer(**view.share("Contribution", _summary(contribution, score_set) | found))


def contributions_answer(
    contributions: Iterable[Contribution], score_set: ScoreSet, view: View, *, next_cursor: str | None
) -> ContributionList:
    """Return a page of contributions."""
    lines = [ContributionSummary(**view.share("ContributionSummary", _summary(one, score_set))) for one in contributions]
    return ContributionList(**view.share("ContributionList", {"contributions": lines, "next_cursor": next_cursor}))


def _summary(contribution: Contribution, score_set: ScoreSet) -> dict[str, Any]:
    status = _status(contribution, score_set.manifest.cutoff)
    facts = {
        name: getattr(contribution, name)
        for name in ("contribution_id", "partner_id", "received_at", "subject", "role", "file_name", "content_hash", "withdrawn_at")
    }
    counts = {name: getattr(contribution, name) for name in ("given", "accepted", "duplicates", "quarantined")}
    return facts | counts | {"status": status, "text": _told(contribution, status, score_set.manifest.cutoff)}


def _status(contribution: Contribution, cutoff: datetime) -> Status:
    if contribution.withdrawn_at is not None:
        return "withdrawn"
    if contribution.accepted == 0:
        return "nothing_kept"
    return "used" if clock.has_come(contribution.received_at, cutoff) else "waiting"


def _told(contribution: Contribution, status: Status, cutoff: datetime) -> str:
    rows = _counted(contribution.accepted, "row")
    match status:
        case "withdrawn":
            return f"Withdrawn on {contribution.withdrawn_at:%Y-%m-%d %H:%M} UTC: scores as of then or later do not rest on it."
        case "nothing_kept":
            before, wrong = contribution.duplicates, contribution.quarantined
            return f"No row was kept: {before:,} had been given before, and something is wrong with {wrong:,}."
        case "used":
            return f"{rows} known since {contribution.received_at:%Y-%m-%d %H:%M} UTC; the current scores rest on them."
        case "waiting":
            return (
                f"{rows} kept, known since {contribution.received_at:%Y-%m-%d %H:%M} UTC. The current scores are as of {cutoff:%Y-%m-%d}; "
                "the first scores as of a later time will rest on them."
            )


def worth_answer(
    found: Sequence[AccountWorth], standing: Iterable[Contribution], score_set: ScoreSet, view: View, *, partner_id: str
) -> Worth:
    """Return what one partner's data change in the scores of the accounts that it manages now.

    Parameters
    ----------
    found
        What the score set keeps, of all partners.
    standing
        The partner's contributions that nobody has withdrawn.
    """
    managed = score_set.assignments.rows_of(partner_id, view.at) if view.at is not None else np.array([], dtype=np.intp)
    names = set(score_set.accounts["account_id"][managed].tolist())
    own = [one for one in found if one.partner_id == partner_id and one.account_id in names]
    own.sort(key=lambda one: (-abs(_points(one)), one.account_id))
    changed = [one for one in own if _points(one)]
    waiting = sum(one.accepted for one in standing if not clock.has_come(one.received_at, score_set.manifest.cutoff))
    whose = "Your" if view.caller.partner_id == partner_id else "Its"
    values = {
        "partner_id": partner_id,
        "score_set": score_set.manifest.version,
        "cutoff": score_set.manifest.cutoff,
        "text": _in_words(own, changed, len(names), score_set, whose),
        "notes": _notes(own, waiting),
        "accounts_managed": len(names),
        "accounts_with_data": len(own),
        "accounts_changed": len(changed),
        "mean_points": _mean_points(changed),
        "rows": sum(one.rows for one in own),
        "rows_waiting": waiting,
        "accounts": [_account(one, score_set, view) for one in own[:MOST_ACCOUNTS]],
    }
    return Worth(**view.share("Worth", values))


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _points(worth: AccountWorth) -> int:
    return worth.health - worth.health_without


def _mean_points(changed: Sequence[AccountWorth]) -> float | None:
    return float(np.mean([abs(_points(one)) for one in changed])) if changed else None


def _in_words(own: Sequence[AccountWorth], changed: Sequence[AccountWorth], managed: int, score_set: ScoreSet, whose: str) -> str:
    accounts = f"{whose.lower()} {_counted(managed, 'account')}"
    if not own:
        return f"{whose} scores rest on no such data: none about {accounts} were known at {score_set.manifest.cutoff:%Y-%m-%d}."
    if not changed:
        return f"{whose} data about {len(own):,} of {accounts} were used, and changed the health of none of them."
    most = changed[0]
    name = score_set.accounts["name"][score_set.index[most.account_id]]
    by = _counted(abs(_points(most)), "point") if len(changed) == 1 else f"{_mean_points(changed):.1f} points on average"
    return (
        f"{whose} data changed the health of {len(changed):,} of {accounts}, by {by}. "
        f"The most: {name}, from {most.health_without} to {most.health}."
    )


def _notes(own: Sequence[AccountWorth], waiting: int) -> list[str]:
    notes = []
    if waiting:
        notes.append(f"{_counted(waiting, 'row')} came after the cutoff; the first scores as of a later time will rest on them.")
    if own and not any(one.features for one in own):
        notes.append("The models look at nothing that these data feed.")
    elif own and not any(target.learnt for one in own for target in one.targets):
        notes.append("The models were trained before the first of these data came: what such data mean they have learnt from others.")
    if own:
        notes.append("This is what the models make of the data, not what was done for the customers.")
    return notes


def _account(worth: AccountWorth, score_set: ScoreSet, view: View) -> WorthOfAccount:
    row = score_set.index[worth.account_id]
    targets = [
        WorthOfTarget(**view.share("WorthOfTarget", {"target": one.target, "probability": one.probability, "without": one.without}))
        for one in worth.targets
    ]
    values = {
        "account_id": worth.account_id,
        "name": score_set.accounts["name"][row],
        "rows": worth.rows,
        "health": worth.health,
        "health_without": worth.health_without,
        "points": _points(worth),
        "targets": targets,
        "features": _features(worth, score_set, view),
    }
    return WorthOfAccount(**view.share("WorthOfAccount", values))


def _features(worth: AccountWorth, score_set: ScoreSet, view: View) -> list[WorthOfFeature]:
    """Return the features that rest on the partner's data and that the viewer may see."""
    declared = {feature.name: feature for package in score_set.packages.values() for feature in package.catalogue}
    supplied = score_set.supplies.of(score_set.index[worth.account_id])
    shown = []
    for one in worth.features:
        feature = declared[one.feature]
        if view.sees(feature, supplied_by=supplied.get(one.feature, ())):
            values = {"feature": one.feature, "meaning": feature.meaning, "unit": feature.unit, "value": one.value, "without": one.without}
            shown.append(WorthOfFeature(**view.share("WorthOfFeature", values)))
    return shown
