"""How what people say about an account comes in and is told again, over the API and on the pages alike."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from features import clock
from features.errors import ServiceError
from serving.answers.feedback import Feedback, Note, Play, Remarks, Said
from serving.answers.problems import ProblemError
from serving.answers.schema import FieldProblem
from serving.answers.schema_feedback import (
    FeedbackEntry,
    FeedbackList,
    FeedbackRequest,
    NoteEntry,
    NoteList,
    NoteRequest,
    PlayEntry,
    PlayList,
    PlayRequest,
)
from serving.api.desk import Desk, account_row, view_of
from serving.callers.identity import Principal
from serving.callers.journal import Action
from serving.permissions.caller import VENDOR
from serving.records.tables import now
from serving.scores.scoring import ScoreSet
from serving.scores.sharing import View

__all__ = ["add_note", "give_feedback", "list_feedback", "list_notes", "list_plays", "record_play"]

_AHEAD = timedelta(minutes=5)
"""So far may the clock of whoever says when something happened be ahead."""


async def record_play(desk: Desk, principal: Principal, account_id: str, request: PlayRequest) -> PlayEntry:
    """Keep what was done for a customer.

    Raises
    ------
    ProblemError
        404 for an account that the caller does not see, 403 if the policy lets it say nothing, 422 for a time in the future.
    """
    view, _, at = await _speaking(desk, principal, account_id, "record play")
    _refuse_future(request.performed_at, at, "/body/performed_at")
    play = Play(**request.model_dump())
    said = await asyncio.to_thread(Remarks(desk.store).add, principal, account_id, play, at=at)
    await desk.journal.wrote(f"play {said.said_id}", principal=principal, action="record play", accounts=[account_id])
    return _play(said, view)


async def give_feedback(desk: Desk, principal: Principal, account_id: str, request: FeedbackRequest) -> FeedbackEntry:
    """Keep whether somebody agrees with what a score set said of an account.

    Raises
    ------
    ProblemError
        404 for an account that the caller does not see, 403 if the policy lets it say nothing, 422 for a score that was never made.
    """
    view, score_set, at = await _speaking(desk, principal, account_id, "give feedback")
    probability = await _probability(desk, score_set, account_id, request)
    feedback = Feedback(**request.model_dump(), probability=probability)
    said = await asyncio.to_thread(Remarks(desk.store).add, principal, account_id, feedback, at=at)
    await desk.journal.wrote(f"feedback {said.said_id}", principal=principal, action="give feedback", accounts=[account_id])
    return _feedback(said, view)


async def add_note(desk: Desk, principal: Principal, account_id: str, request: NoteRequest) -> NoteEntry:
    """Keep words about an account.

    Raises
    ------
    ProblemError
        404 for an account that the caller does not see, 403 if the policy lets it say nothing, 422 for a time in the future.
    """
    view, _, at = await _speaking(desk, principal, account_id, "write note")
    occurred_at = request.occurred_at or at
    _refuse_future(occurred_at, at, "/body/occurred_at")
    note = Note(text=request.text, occurred_at=occurred_at)
    said = await asyncio.to_thread(Remarks(desk.store).add, principal, account_id, note, at=at)
    await desk.journal.wrote(f"note {said.said_id}", principal=principal, action="write note", accounts=[account_id])
    return _note(said, view)


async def list_plays(desk: Desk, principal: Principal, account_id: str) -> PlayList:
    """Return what was done for an account, as far as the caller may know; 404 if it does not see the account."""
    view = await _reading(desk, principal, account_id, "read plays")
    said: Sequence[Said[Play]] = await asyncio.to_thread(Remarks(desk.store).listed, Play, view, account_id)
    return PlayList(**view.share("PlayList", {"plays": [_play(one, view) for one in said]}))


async def list_feedback(desk: Desk, principal: Principal, account_id: str) -> FeedbackList:
    """Return what was said about an account's scores, as far as the caller may know; 404 if it does not see the account."""
    view = await _reading(desk, principal, account_id, "read feedback")
    said: Sequence[Said[Feedback]] = await asyncio.to_thread(Remarks(desk.store).listed, Feedback, view, account_id)
    return FeedbackList(**view.share("FeedbackList", {"feedback": [_feedback(one, view) for one in said]}))


async def list_notes(desk: Desk, principal: Principal, account_id: str) -> NoteList:
    """Return notes about an account, as far as the caller may read them; 404 if it does not see the account."""
    view = await _reading(desk, principal, account_id, "read notes")
    said: Sequence[Said[Note]] = await asyncio.to_thread(Remarks(desk.store).listed, Note, view, account_id)
    return NoteList(**view.share("NoteList", {"notes": [_note(one, view) for one in said]}))


async def _reading(desk: Desk, principal: Principal, account_id: str, action: Action) -> View:
    score_set = desk.live.current()
    view = view_of(desk, principal, score_set)
    await account_row(desk, score_set, account_id, principal, view, action=action)
    return view


async def _speaking(desk: Desk, principal: Principal, account_id: str, action: Action) -> tuple[View, ScoreSet, datetime]:
    """Return what a caller sees who may say something about the account, and the time."""
    score_set = desk.live.current()
    view = view_of(desk, principal, score_set)
    await account_row(desk, score_set, account_id, principal, view, action=action)
    if not view.may("feedback"):
        await desk.journal.refused("the policy lets it say nothing", principal=principal, action=action, accounts=[account_id])
        raise ProblemError(403, "You may not say anything about accounts here.")
    return view, score_set, now()


def _refuse_future(time: datetime, at: datetime, pointer: str) -> None:
    if not clock.has_come(time, at + _AHEAD):
        raise ProblemError(422, "This lies in the future.", errors=[FieldProblem(pointer=pointer, message="must not lie in the future")])


async def _probability(desk: Desk, score_set: ScoreSet, account_id: str, request: FeedbackRequest) -> float:
    """Return what the score set that was looked at said."""
    if request.score_set == score_set.manifest.version:
        said = score_set.account(score_set.index[account_id]).probability
    else:
        said = await asyncio.to_thread(_said_before, desk, request.score_set, account_id)
    if request.target not in said:
        message = "this score set gave the account no such score, or is no longer kept"
        raise ProblemError(422, "There is no such score.", errors=[FieldProblem(pointer="/body/score_set", message=message)])
    return float(said[request.target])


def _said_before(desk: Desk, version: str, account_id: str) -> Any:
    if version not in desk.archive.versions():
        return {}
    try:
        standing = desk.archive.standing(version, account_id)
    except ServiceError:
        return {}  # it is just being removed
    return standing.probability if standing else {}


def _is_own_side(said: Said[Any], view: View) -> bool:
    return view.caller.is_vendor or said.author == view.caller


def _who(said: Said[Any], view: View) -> dict[str, Any]:
    """Return who said it and when; whose person it was is for that side and the vendor to know."""
    own = _is_own_side(said, view)
    return {
        "account_id": said.account_id,
        "partner_id": said.partner_id,
        "subject": said.subject if own else None,
        "role": said.role if own else None,
        "recorded_at": said.recorded_at,
    }


def _play(said: Said[Play], view: View) -> PlayEntry:
    values = {"play_id": said.said_id, **_who(said, view), **vars(said.what)}
    if not _is_own_side(said, view):
        values["cost"] = None
        values["note"] = said.what.note if view.shows_note("vendor_notes", author=VENDOR) else None
    return PlayEntry(**view.share("PlayEntry", values))


def _feedback(said: Said[Feedback], view: View) -> FeedbackEntry:
    return FeedbackEntry(**view.share("FeedbackEntry", {"feedback_id": said.said_id, **_who(said, view), **vars(said.what)}))


def _note(said: Said[Note], view: View) -> NoteEntry:
    return NoteEntry(**view.share("NoteEntry", {"note_id": said.said_id, **_who(said, view), **vars(said.what)}))
