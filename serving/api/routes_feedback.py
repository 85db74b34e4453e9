"""What people say about an account: plays, whether they agree with a score, and notes."""

from functools import partial
from typing import Annotated

from fastapi import Depends

from serving.answers.problems import problems
from serving.answers.schema import AccountId
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
from serving.api import remarks
from serving.api.cursors import Paged
from serving.api.desk import DeskOf, Reader, require
from serving.api.routing import v1_router
from serving.callers.identity import Principal

__all__ = ["router"]

router = v1_router("feedback")

Speaker = Annotated[Principal, Depends(require("feedback"))]

_PLAYS, _FEEDBACK, _NOTES = (f"/v1/accounts/{{account_id}}/{kind}" for kind in ("plays", "feedback", "notes"))

_says = partial(router.post, status_code=201, responses=problems(404, 409, 413, 415, 503))
_lists = partial(router.get, responses=problems(404))


@_says(_PLAYS, operation_id="record_play", summary="Record what was done for a customer")
async def record_play(desk: DeskOf, principal: Speaker, account_id: AccountId, request: PlayRequest) -> PlayEntry:
    """Record a play: what you did for the customer, when, and of which kind. With an `Idempotency-Key` a repeated request counts once."""
    return await remarks.record_play(desk, principal, account_id, request)


@_lists(_PLAYS, operation_id="list_plays", summary="What was done for a customer")
async def list_plays(desk: DeskOf, principal: Reader, account_id: AccountId, paging: Paged) -> PlayList:
    """Return plays, the newest first, a page at a time.

    A partner sees its own, and the vendor's if the vendor's policy says so, without cost; never another's.
    """
    return await remarks.list_plays(desk, principal, account_id, paging)


@_says(_FEEDBACK, operation_id="give_feedback", summary="Agree or disagree with a score")
async def give_feedback(desk: DeskOf, principal: Speaker, account_id: AccountId, request: FeedbackRequest) -> FeedbackEntry:
    """Say whether you agree with a score, and why. No score changes by it; it tells where the models are wrong, or do not know enough."""
    return await remarks.give_feedback(desk, principal, account_id, request)


@_lists(_FEEDBACK, operation_id="list_feedback", summary="Who agrees with the scores, and who does not")
async def list_feedback(desk: DeskOf, principal: Reader, account_id: AccountId, paging: Paged) -> FeedbackList:
    """Return feedback about an account's scores, the newest first, a page at a time; a partner sees its own, the vendor everybody's."""
    return await remarks.list_feedback(desk, principal, account_id, paging)


@_says(_NOTES, operation_id="write_note", summary="Write a note about an account")
async def write_note(desk: DeskOf, principal: Speaker, account_id: AccountId, request: NoteRequest) -> NoteEntry:
    """Write a note. The vendor and you can read it, and no other partner, also when the account changes hands; no score rests on it."""
    return await remarks.add_note(desk, principal, account_id, request)


@_lists(_NOTES, operation_id="list_notes", summary="Notes about an account")
async def list_notes(desk: DeskOf, principal: Reader, account_id: AccountId, paging: Paged) -> NoteList:
    """Return notes that you may read, those that came with contributions among them, the newest first, a page at a time."""
    return await remarks.list_notes(desk, principal, account_id, paging)
