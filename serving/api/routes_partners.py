"""`/v1/partners`: the partners and their books."""

from typing import Any

from fastapi import Request
from starlette.responses import Response

from serving.answers import schema
from serving.answers.partner_books import partner_answer, partners_answer
from serving.answers.problems import ProblemError, problems
from serving.answers.schema_portfolio import PartnerDetail, PartnerList
from serving.api.desk import DeskOf, Reader, view_of
from serving.api.routing import v1_router
from serving.api.tags import NOT_MODIFIED, not_modified, tag_of, tagged

__all__ = ["router"]

router = v1_router("partners")


@router.get(
    "/v1/partners", response_model=PartnerList, operation_id="list_partners", summary="The partners and their books", responses=NOT_MODIFIED
)
async def list_partners(request: Request, desk: DeskOf, principal: Reader) -> Any:
    """Return what the accounts of each partner add up to; for a partner, what its own do."""
    score_set = desk.live.current()
    view = view_of(desk, principal, score_set)
    tag = tag_of(score_set, view)
    if (unchanged := not_modified(request, tag)) is not None:
        return unchanged
    return tagged(partners_answer(score_set, view), tag)


@router.get(
    "/v1/partners/{partner_id}",
    response_model=PartnerDetail,
    operation_id="get_partner",
    summary="One partner and its book",
    responses=problems(404) | NOT_MODIFIED,
)
async def get_partner(request: Request, desk: DeskOf, principal: Reader, partner_id: schema.PartnerId) -> Response:
    """Return what one partner's accounts add up to, by segment, and what the accounts of other partners are like.

    A partner asks about itself; any other does not exist for it.
    """
    score_set = desk.live.current()
    view = view_of(desk, principal, score_set)
    answer = partner_answer(score_set, partner_id, view)
    if answer is None:
        await desk.journal.refused(f"no such partner, or another one: {partner_id}", principal=principal, action="read partners")
        raise ProblemError(404, "There is no such partner.")
    tag = tag_of(score_set, view)
    return not_modified(request, tag) or tagged(answer, tag)
