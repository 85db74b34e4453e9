"""The page of one account: how it stands, and why."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from serving.answers import account_answer
from serving.charts import hundred, ruler, waterfall
from serving.desk import DeskOf, account_row, view_of
from serving.pages import Reader
from serving.pages_frame import frame, render_page

__all__ = ["router"]

router = APIRouter(include_in_schema=False)


@router.get("/accounts/{account_id}")
async def account_page(request: Request, desk: DeskOf, reader: Reader, account_id: str) -> Response:
    """Show one account and why it scores as it does."""
    score_set = desk.live.current()
    view = view_of(desk, reader, score_set)
    row = await account_row(desk, score_set, account_id, reader, view)
    answer = account_answer(score_set, row, view)
    context = {
        "account": answer,
        "charts": {score.target: waterfall(score) for score in answer.scores},
        "rulers": {score.target: [ruler(driver) for driver in score.drivers] for score in answer.scores},
        "hundred": hundred,
        "definition": score_set.manifest.health,
        "models": score_set.manifest.models,
    }
    return render_page(request, "account.html", frame(score_set, reader, here="book") | context)
