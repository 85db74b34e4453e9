"""An account's past for whoever asks: what was said of it before, and what changed between two dates."""

from collections.abc import Mapping
from datetime import datetime

from features.errors import RenewcastError, explain
from features.feature import Target
from serving.answers import schema_changes as schema
from serving.answers.account_answers import as_of
from serving.answers.moves import health_answer, move_answer, share_move, standing_answer
from serving.answers.namesakes import share_alike
from serving.health import band_of
from serving.scores.changes import Standing, score_move
from serving.scores.scoring import ScoreSet
from serving.scores.sharing import View
from serving.scores.standings import Archive, Moment, earlier_standing, present_standing, select_moment
from serving.scores.timeline import Point, read_points
from serving.wording import day
from training.package import Package

__all__ = ["NoMomentError", "changes_answer", "history_answer", "moves_between"]

When = datetime | str | None
"""A time, the version of a score set, or nothing for the usual."""


class NoMomentError(RenewcastError):
    """There are no scores to compare as of the time that was asked for.

    Parameters
    ----------
    parameter
        `from` or `to`.
    """

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(message)
        self.parameter = parameter


def changes_answer(
    archive: Archive, score_set: ScoreSet, row: int, view: View, *, since: When = None, until: When = None
) -> schema.AccountChanges:
    """Return what changed of an account between two times.

    Parameters
    ----------
    since, until
        A time stands for the scores with the newest cutoff not after it. By default the present scores, and the newest older ones of
        another cutoff; where none are kept, the account's values about a quarter before, as the present models score them.

    Raises
    ------
    NoMomentError
        If there are no scores as of one of the times, or they are in the wrong order.
    ServiceError, PackageError
        If older scores cannot be read.
    """
    account_id = score_set.account(row).account_id
    moments = _moments(archive, score_set, row)
    later = _chosen(moments, until, "to") if until is not None else moments[-1]
    older = _chosen(moments, since, "from") if since is not None else _usual(moments, later)
    if older is not None and moments.index(older) > moments.index(later):
        raise NoMomentError("from", explain("from lies after to", given=f"{day(older.cutoff)} and {day(later.cutoff)}"))
    after = _look_up(archive, score_set, row, later)
    before = _look_up(archive, score_set, row, older) if older else None
    if after is None:
        raise NoMomentError("to", explain("the account was not in the book then", given=day(later.cutoff)))
    packages = score_set.packages if later.score_set in (None, score_set.manifest.version) else archive.packages(later.score_set)
    health, moves = moves_between(packages, before=before, after=after, view=view) if before else (None, None)
    values = {
        "account_id": account_id,
        "before": before and standing_answer(before, view),
        "after": standing_answer(after, view),
        "health": health,
        "moves": moves,
        "notes": _notes(before, after),
        "as_of": as_of(score_set, view),
    }
    return schema.AccountChanges(**share_alike(view, "AccountChanges", values))


def moves_between(
    packages: Mapping[Target, Package], *, before: Standing, after: Standing, view: View
) -> tuple[schema.HealthMove, list[schema.Move]]:
    """Return the moves of all targets that both standings have, and that of health.

    Parameters
    ----------
    packages
        The models that scored `after`.
    """
    targets = [target for target in packages if target in before.log_odds]
    moves = {target: score_move(packages[target], before=before, after=after) for target in targets}
    shared = {target: share_move(move, before=before, after=after, view=view) for target, move in moves.items()}
    answers = [move_answer(move, view, before=before, after=after) for move in shared.values()]
    return health_answer(shared["churn"], view), answers


def history_answer(archive: Archive, score_set: ScoreSet, row: int, view: View) -> schema.AccountHistory:
    """Return how an account's health went, for whoever may see the account today: its past is the account's.

    It holds numbers that were said of the account and nothing of what they were made from.
    """
    account_id = score_set.account(row).account_id
    points = archive.read(score_set.manifest.version, lambda folder: read_points(folder, account_id))
    values = {
        "account_id": account_id,
        "points": [_point(point, view) for point in points],
        "note": _REPLAYED if any(point.origin == "replayed" for point in points) else None,
        "as_of": as_of(score_set, view),
    }
    return schema.AccountHistory(**share_alike(view, "AccountHistory", values))


_REPLAYED = (
    "Replayed points are what a later model says of what was known at their time. They are no track record: the model may have learnt "
    "from those very months."
)


def _point(point: Point, view: View) -> schema.HistoryPoint:
    values = {
        "cutoff": point.cutoff,
        "scored_at": point.scored_at,
        "origin": point.origin,
        "health": point.health,
        "band": band_of(point.health),
        "health_version": point.health_version,
        **{f"{target}_probability": probability for target, probability in point.probability.items()},
        "arr": point.arr,
        "score_set": point.score_set,
        "package": point.package,
    }
    return schema.HistoryPoint(**share_alike(view, "HistoryPoint", values))


def _moments(archive: Archive, score_set: ScoreSet, row: int) -> list[Moment]:
    """Return the moments that an account can be looked up for, in the order of their cutoffs, the present one last."""
    present = Moment(score_set=score_set.manifest.version, cutoff=score_set.manifest.cutoff)
    kept = {Moment(score_set=version, cutoff=archive.manifest(version).cutoff) for version in archive.versions()}
    earlier_at = score_set.account(row).earlier_at
    values = {Moment(score_set=None, cutoff=earlier_at)} if earlier_at else set()
    moments = sorted(kept | values | {present}, key=lambda moment: (moment.cutoff, moment.score_set or ""))
    return moments[: moments.index(present) + 1]


def _chosen(moments: list[Moment], when: datetime | str, parameter: str) -> Moment:
    if isinstance(when, str):
        named = next((moment for moment in moments if moment.score_set == when), None)
        if named is None:
            raise NoMomentError(parameter, explain("this score set is not kept", given=when, allowed=_range(moments)))
        return named
    chosen = select_moment(moments, when)
    if chosen is None:
        raise NoMomentError(parameter, explain("there are no scores as of then", given=day(when), allowed=_range(moments)))
    return chosen


def _range(moments: list[Moment]) -> str:
    return f"from {day(moments[0].cutoff)} to {day(moments[-1].cutoff)}"


def _usual(moments: list[Moment], later: Moment) -> Moment | None:
    """Return the newest kept score set before, of another cutoff; a quarter before where there is none."""
    before = [moment for moment in moments[: moments.index(later)] if moment.cutoff != later.cutoff]
    kept = [moment for moment in before if moment.score_set is not None]
    return kept[-1] if kept else before[-1] if before else None


def _look_up(archive: Archive, score_set: ScoreSet, row: int, moment: Moment) -> Standing | None:
    if moment.score_set is None:
        return earlier_standing(score_set, row)
    if moment.score_set == score_set.manifest.version:
        return present_standing(score_set, row)
    return archive.standing(moment.score_set, score_set.account(row).account_id, score_set.features.values())


def _notes(before: Standing | None, after: Standing) -> list[str]:
    if before is None:
        return ["The account was not in the book before, so there is nothing to compare with."]
    notes = []
    if before.score_set is None:
        notes.append(
            f"Nothing that was said as of {day(before.cutoff)} is kept: the values of that time are scored by the present models, "
            "so none of the move is theirs."
        )
    if before.score_set is not None and after.score_set is not None and before.score_set > after.score_set:
        notes.append("The older scores were made afterwards, from what was known then; nobody was told them at that time.")
    if before.models != after.models and before.score_set is not None:
        notes.append("The models changed in between; what they did by themselves is given apart.")
    if before.definition != after.definition:
        notes.append("The definition of health changed in between; what it did by itself is given apart.")
    lost = sorted(set(before.log_odds) - set(after.log_odds))
    if lost:
        notes.append(f"There is no model of {', '.join(lost)} any more.")
    return notes
