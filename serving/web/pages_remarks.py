"""What readers say about an account on its page: plays that were done, whether a score is right, and notes."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import date, datetime, time
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from serving.answers.feedback import Category, Reason
from serving.answers.problems import ProblemError
from serving.answers.schema import FieldProblem, Strict
from serving.answers.schema_feedback import FeedbackRequest, NoteRequest, PlayRequest, SaidEntry
from serving.api import remarks
from serving.api.desk import Desk
from serving.callers.identity import Principal
from serving.records.tables import now

__all__ = ["REASONS", "Keep", "keep_feedback", "keep_note", "keep_play", "remarks_of"]

REASONS: Mapping[Reason, str] = {
    "customer_said_so": "the customer said so",
    "renewal_agreed": "the renewal is agreed",
    "leaving_announced": "they announced that they leave",
    "people_changed": "the people there changed",
    "use_misleads": "the use of the product misleads",
    "data_wrong": "the data are wrong",
    "known_otherwise": "I know it from elsewhere",
    "other": "another reason",
}

Keep = Callable[[Desk, Principal, str, Mapping[str, str]], Awaitable[SaidEntry]]
"""Keeps what a form says about an account."""

Request = TypeVar("Request", bound=Strict)


async def remarks_of(desk: Desk, reader: Principal, account_id: str) -> dict[str, Any]:
    """Return what was said about an account, as far as the reader may know it, the newest first, and what can be said."""
    plays = (await remarks.list_plays(desk, reader, account_id)).plays
    notes = (await remarks.list_notes(desk, reader, account_id)).notes
    feedback = (await remarks.list_feedback(desk, reader, account_id)).feedback
    said: list[SaidEntry] = [*plays, *notes, *feedback]
    return {
        "said": sorted(said, key=lambda entry: entry.recorded_at, reverse=True),
        "reasons_said": REASONS,
        "categories": get_args(Category),
    }


async def keep_play(desk: Desk, reader: Principal, account_id: str, typed: Mapping[str, str]) -> SaidEntry:
    """Keep what was done for a customer; without a day it was done now."""
    request = _request(
        PlayRequest,
        play=typed.get("play", "").strip(),
        category=typed.get("category", ""),
        performed_at=_day(typed.get("performed_on", "")),
        note=typed.get("text", "").strip() or None,
    )
    return await remarks.record_play(desk, reader, account_id, request)


async def keep_feedback(desk: Desk, reader: Principal, account_id: str, typed: Mapping[str, str]) -> SaidEntry:
    """Keep whether the reader agrees with the score of churn."""
    request = _request(
        FeedbackRequest,
        target="churn",
        agrees={"yes": True, "no": False}.get(typed.get("agrees", "")),
        reason=typed.get("reason") or None,
        words=typed.get("text", "").strip() or None,
        score_set=typed.get("score_set", ""),
    )
    return await remarks.give_feedback(desk, reader, account_id, request)


async def keep_note(desk: Desk, reader: Principal, account_id: str, typed: Mapping[str, str]) -> SaidEntry:
    """Keep a note."""
    return await remarks.add_note(desk, reader, account_id, _request(NoteRequest, text=typed.get("text", "").strip()))


def _request(model: type[Request], **values: object) -> Request:
    """Return a request of the API.

    Raises
    ------
    ProblemError
        422 with what is wrong with which field.
    """
    try:
        return model(**values)
    except ValidationError as error:
        errors = [FieldProblem(pointer=f"/body/{_place(one['loc'])}", message=_words(one)) for one in error.errors()]
        raise ProblemError(422, "Something is missing or wrong.", errors=errors) from error


def _place(location: tuple[int | str, ...]) -> str:
    return str(location[0]) if location else ""


def _words(found: Mapping[str, Any]) -> str:
    """Say what is wrong to whoever filled in a form."""
    if found["type"] in ("string_too_short", "bool_type", "literal_error", "missing"):
        return "fill this in"
    return str(found["msg"]).removeprefix("Value error, ")


def _day(text: str) -> datetime:
    """Return noon of a day, or the present time for today and for no day."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return now()
    return now() if day == now().date() else datetime.combine(day, time(12))
