"""How what people say about an account comes in and is told again, over the API and on the pages alike.

What is said or asked about an account that the caller does not see is answered with 404, what the policy lets it not say with 403, and
what lies in the future, or is about a score that was never made, with 422.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic

from features import clock
from features.errors import ServiceError
from serving.answers.feedback import Feedback, Note, Play, Remarks, Said, What
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
from serving.api.cursors import Cursors, Paging
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

_NEWEST = Paging(limit=200)
"""What of a list is shown where nobody asks for pages of it."""


async def record_play(desk: Desk, principal: Principal, account_id: str, request: PlayRequest) -> PlayEntry:
    """Keep what was done for a customer."""
    speaker = await _speaker(desk, principal, account_id, "record play")
    _refuse_future(request.performed_at, speaker.at, "/body/performed_at")
    return _play(await speaker.say(Play(**request.model_dump())), speaker.view)


async def give_feedback(desk: Desk, principal: Principal, account_id: str, request: FeedbackRequest) -> FeedbackEntry:
    """Keep whether somebody agrees with what a score set said of an account."""
    speaker = await _speaker(desk, principal, account_id, "give feedback")
    probability = await _probability(desk, speaker.score_set, account_id, request)
    return _feedback(await speaker.say(Feedback(**request.model_dump(), probability=probability)), speaker.view)


async def add_note(desk: Desk, principal: Principal, account_id: str, request: NoteRequest) -> NoteEntry:
    """Keep words about an account."""
    speaker = await _speaker(desk, principal, account_id, "write note")
    occurred_at = request.occurred_at or speaker.at
    _refuse_future(occurred_at, speaker.at, "/body/occurred_at")
    return _note(await speaker.say(Note(text=request.text, occurred_at=occurred_at)), speaker.view)


async def list_plays(desk: Desk, principal: Principal, account_id: str, paging: Paging = _NEWEST) -> PlayList:
    """Return what was done for an account, as far as the caller may know, the newest first."""
    heard = await _heard(desk, principal, account_id, Play, paging)
    lines = [_play(one, heard.view) for one in heard.said]
    return PlayList(**heard.view.share("PlayList", {"plays": lines, "next_cursor": heard.next_cursor}))


async def list_feedback(desk: Desk, principal: Principal, account_id: str, paging: Paging = _NEWEST) -> FeedbackList:
    """Return what was said about an account's scores, as far as the caller may know, the newest first."""
    heard = await _heard(desk, principal, account_id, Feedback, paging)
    lines = [_feedback(one, heard.view) for one in heard.said]
    return FeedbackList(**heard.view.share("FeedbackList", {"feedback": lines, "next_cursor": heard.next_cursor}))


async def list_notes(desk: Desk, principal: Principal, account_id: str, paging: Paging = _NEWEST) -> NoteList:
    """Return notes about an account, as far as the caller may read them, the newest first."""
    heard = await _heard(desk, principal, account_id, Note, paging)
    lines = [_note(one, heard.view) for one in heard.said]
    return NoteList(**heard.view.share("NoteList", {"notes": lines, "next_cursor": heard.next_cursor}))


@dataclass(frozen=True)
class _Speaker:
    """Somebody who may say something about an account, at a time."""

    desk: Desk
    principal: Principal
    account_id: str
    action: Action
    view: View
    score_set: ScoreSet
    at: datetime

    async def say(self, what: What) -> Said[What]:
        """Keep it, and note in the journal that it was said."""
        said = await asyncio.to_thread(Remarks(self.desk.store).add, self.principal, self.account_id, what, at=self.at)
        kept = f"{type(what).__name__.lower()} {said.said_id}"
        await self.desk.journal.wrote(kept, principal=self.principal, action=self.action, accounts=[self.account_id])
        return said


async def _speaker(desk: Desk, principal: Principal, account_id: str, action: Action) -> _Speaker:
    view, score_set = await _reader(desk, principal, account_id, action)
    if not view.may("feedback"):
        await desk.journal.refused("the policy lets it say nothing", principal=principal, action=action, accounts=[account_id])
        raise ProblemError(403, "You may not say anything about accounts here.")
    return _Speaker(desk, principal, account_id, action, view, score_set, now())


@dataclass(frozen=True)
class _Heard(Generic[What]):
    """A page of what was said, who reads it, and the cursor of the next page."""

    said: Sequence[Said[What]]
    view: View
    next_cursor: str | None


_READ: Mapping[type[object], Action] = {Play: "read plays", Feedback: "read feedback", Note: "read notes"}


async def _heard(desk: Desk, principal: Principal, account_id: str, kind: type[What], paging: Paging) -> _Heard[What]:
    view, _ = await _reader(desk, principal, account_id, _READ[kind])
    cursors = Cursors(desk.identity.secret, principal.caller, {"list": kind.__name__, "account_id": account_id})
    after = cursors.open_place(paging.cursor)
    page = await asyncio.to_thread(Remarks(desk.store).page, kind, view, account_id, after=after, limit=paging.limit)
    return _Heard(page.lines, view, cursors.seal_place(page.end))


async def _reader(desk: Desk, principal: Principal, account_id: str, action: Action) -> tuple[View, ScoreSet]:
    score_set = desk.live.current()
    view = view_of(desk, principal, score_set)
    await account_row(desk, score_set, account_id, principal, view, action=action)
    return view, score_set


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
