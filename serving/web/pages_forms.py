"""The forms of an account's page: what a reader says comes in here.

What somebody typed is never lost. If the session has ended meanwhile, the page that says so holds the text and sends it again; if the form
came from an earlier session, the page asks once more; and what cannot be kept is shown again, with what is wrong at its field.
"""

from collections.abc import Mapping
from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from serving.answers.problems import ProblemError
from serving.api.desk import Desk, DeskOf, account_row, view_of
from serving.callers.identity import Principal
from serving.web.pages import StaleFormError, signed_form, signed_in
from serving.web.pages_account import account_context
from serving.web.pages_frame import render_page
from serving.web.pages_remarks import Keep, keep_feedback, keep_note, keep_play

__all__ = ["LARGEST_FORM", "router"]

LARGEST_FORM = 64 * 1024
"""Bytes."""

router = APIRouter(include_in_schema=False)


@router.post("/accounts/{account_id}/plays")
async def say_play(request: Request, desk: DeskOf, account_id: str) -> Response:
    """Keep what was done for a customer."""
    return await _take(request, desk, account_id, keep_play)


@router.post("/accounts/{account_id}/feedback")
async def say_feedback(request: Request, desk: DeskOf, account_id: str) -> Response:
    """Keep whether the reader agrees with a score."""
    return await _take(request, desk, account_id, keep_feedback)


@router.post("/accounts/{account_id}/notes")
async def say_note(request: Request, desk: DeskOf, account_id: str) -> Response:
    """Keep a note."""
    return await _take(request, desk, account_id, keep_note)


async def _take(request: Request, desk: Desk, account_id: str, keep: Keep) -> Response:
    """Keep what a form says, and go back to the account; or show the form again with what was typed and what is wrong."""
    typed = await _typed(request)
    try:
        reader = await signed_in(request, desk)
        await signed_form(request, desk)
        if "feedback" not in reader.scopes:
            raise ProblemError(403, "Your role does not let you say anything about accounts.")
        await keep(desk, reader, account_id, typed)
    except StaleFormError:
        return render_page(request, "unsent.html", {"unsent": typed, "ended": False}, status=403)
    except ProblemError as problem:
        if problem.status == 401:
            return render_page(request, "unsent.html", {"unsent": typed, "ended": True}, status=401)
        if problem.status != 422:
            raise
        return await _show_again(request, desk, reader, account_id, typed, problem)
    part = request.url.path.rsplit("/", 1)[1]
    return RedirectResponse(f"/accounts/{quote(account_id, safe='')}?sent={part}#said", status_code=303)


async def _typed(request: Request) -> dict[str, str]:
    """Return the texts of a form.

    Raises
    ------
    ProblemError
        413 if it is larger than any form of these pages.
    """
    if int(request.headers.get("content-length") or 0) > LARGEST_FORM:
        raise ProblemError(413, f"A form may have at most {LARGEST_FORM // 1024} kB: write less at a time.")
    form = await request.form(max_fields=20, max_files=0)
    return {name: value for name, value in form.items() if isinstance(value, str) and name != "csrf"}


async def _show_again(
    request: Request, desk: Desk, reader: Principal, account_id: str, typed: Mapping[str, str], problem: ProblemError
) -> Response:
    """Show the account's page with what was typed and what is wrong with it."""
    score_set = desk.live.current()
    view = view_of(desk, reader, score_set)
    row = await account_row(desk, score_set, account_id, reader, view)
    wrong = {error.pointer.rsplit("/", 1)[1]: error.message for error in problem.errors}
    context = await account_context(desk, reader, score_set, row, view)
    said = {"typed": typed, "wrong": wrong or {"": problem.detail}, "form": request.url.path.rsplit("/", 1)[1], "sent": ""}
    return render_page(request, "account.html", context | said, status=422)
