"""What if: levers that somebody can pull for an account, and what the models would say then."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from serving.answers import schema
from serving.answers.account_answers import account_answer
from serving.answers.problems import ProblemError
from serving.answers.schema_changes import Adjustable, WhatIf
from serving.answers.whatif import ImpossibleError
from serving.answers.whatif_answers import adjustable, what_if_answer
from serving.api.desk import DeskOf, account_row, view_of
from serving.callers.identity import Principal
from serving.scores.scoring import ScoreSet
from serving.scores.sharing import View
from serving.web.pages import Reader
from serving.web.pages_frame import frame, render_page

__all__ = ["MOST_LEVERS", "Lever", "Outcomes", "levers_of", "may_ask", "outcomes_of", "router"]

MOST_LEVERS = 6
"""So many levers are shown, those of the strongest reasons; an application can pull all of them."""

_SHARES = ("share", "ratio")
_USUAL = ("active_users_28d", "tickets_open", "outcomes_verified", "outcomes_overdue", "training_contacts_364d", "nps_last")
"""What people ask about first, where the reasons leave room."""

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, kw_only=True)
class Lever:
    """A feature that somebody can act on, as a form shows it; shares are shown in per cent.

    Parameters
    ----------
    present, lowest, highest
        As they are shown.
    """

    feature: str
    meaning: str
    unit: str
    present: str
    lowest: str
    highest: str
    step: str
    scale: float

    def value(self, text: str) -> float | str:
        """Return what somebody typed as the feature's value; what is no number stays as it is, to be refused."""
        try:
            return float(text.replace(",", ".")) / self.scale
        except ValueError:
            return text


@router.get("/accounts/{account_id}/what-if")
async def what_if_page(request: Request, desk: DeskOf, reader: Reader, account_id: str) -> Response:
    """Show what the models would say if some of an account's features had the values that the address asks for."""
    score_set = desk.live.current()
    view = view_of(desk, reader, score_set)
    row = await account_row(desk, score_set, account_id, reader, view, action="what-if")
    if not may_ask(reader, view):
        await desk.journal.refused("what-if", principal=reader, action="what-if", accounts=[account_id])
        raise ProblemError(403, "What-if is not open to you.")
    account = account_answer(score_set, row, view)
    levers = levers_of(score_set, row, view, account.scores)
    typed = {lever.feature: request.query_params[lever.feature].strip()[:40] for lever in levers if request.query_params.get(lever.feature)}
    outcome, wrong = await asyncio.to_thread(_ask, score_set, row, view, levers, typed)
    asked = {"account": account, "levers": levers, "typed": typed, "outcome": outcome, "wrong": wrong}
    return render_page(request, "what_if_page.html", frame(score_set, reader, here="book") | asked, status=422 if wrong else 200)


def may_ask(reader: Principal, view: View) -> bool:
    """Tell whether the reader may ask what if."""
    return "predict" in reader.scopes and view.may("what_if")


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """The success plan of an account: how many outcomes were agreed, proven from data, and missed their date."""

    agreed: float
    verified: float
    overdue: float


def outcomes_of(score_set: ScoreSet, row: int, view: View) -> Outcomes | None:
    """Return an account's success plan; None where none was agreed, or the view does not show it."""
    values = {one.feature: one.value for one in adjustable(score_set, row, view)}
    agreed, verified, overdue = (values.get(f"outcomes_{name}") for name in ("agreed", "verified", "overdue"))
    if not isinstance(agreed, float) or not isinstance(verified, float) or not agreed:
        return None
    return Outcomes(agreed=agreed, verified=verified, overdue=overdue if isinstance(overdue, float) else 0.0)


def levers_of(score_set: ScoreSet, row: int, view: View, scores: Iterable[schema.Score]) -> tuple[Lever, ...]:
    """Return the levers behind the reasons of an account's scores, the strongest reasons first, one a reason; then the usual ones."""
    numbers = {one.feature: one for one in adjustable(score_set, row, view) if one.levels is None and isinstance(one.value, float)}
    found: dict[str, Lever] = {}
    for score in scores:
        for driver in score.drivers:
            name = next((name for name in driver.features if name in numbers), None)
            if name and not any(member in found for member in driver.features):
                found[name] = _lever(numbers[name])
    usual = {name: _lever(numbers[name]) for name in _USUAL if name in numbers and name not in found}
    return tuple({**found, **usual}.values())[:MOST_LEVERS]


def _lever(one: Adjustable) -> Lever:
    scale = 100.0 if one.unit in _SHARES else 1.0
    lowest, highest = (one.lowest or 0.0) * scale, (one.highest or 0.0) * scale
    whole = one.whole or scale > 1
    return Lever(
        feature=one.feature or "",
        meaning=one.meaning or "",
        unit="%" if scale > 1 else one.unit or "",
        present=_shown(float(one.value or 0.0) * scale),
        lowest=_shown(lowest),
        highest=_shown(highest),
        step="1" if whole else _shown(max((highest - lowest) / 100, 0.01)),
        scale=scale,
    )


def _shown(number: float) -> str:
    """Write a number as a form's field takes it.

    Examples
    --------
    >>> _shown(41.0), _shown(0.4912), _shown(1234.5)
    ('41', '0.491', '1234.5')
    """
    return f"{number:.0f}" if number == round(number) else f"{number:.3g}" if abs(number) < 100 else f"{number:.1f}"


def _ask(
    score_set: ScoreSet, row: int, view: View, levers: Iterable[Lever], typed: Mapping[str, str]
) -> tuple[WhatIf | None, Mapping[str, str]]:
    """Return the answer, or why it is refused, by feature; what stays as it is, is not asked."""
    asked: dict[str, Any] = {lever.feature: lever.value(typed[lever.feature]) for lever in levers if _is_moved(lever, typed)}
    if not asked:
        return None, {}
    unreadable = {name: "write a number" for name, value in asked.items() if isinstance(value, str)}
    if unreadable:
        return None, unreadable
    try:
        return what_if_answer(score_set, row, asked, view), {}
    except ImpossibleError as error:
        return None, dict(error.problems)


def _is_moved(lever: Lever, typed: Mapping[str, str]) -> bool:
    return lever.feature in typed and typed[lever.feature] != lever.present
