"""`/v1/export`: the book as a file."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Annotated

from fastapi import Depends, Query
from starlette.responses import StreamingResponse

from serving.answers.exports import MEDIA_TYPES, ExportFormat, Piece, export_pieces
from serving.answers.portfolio import book_rows
from serving.answers.problems import ProblemError
from serving.api.desk import Desk, DeskOf, require, view_of
from serving.api.filters import Filters, require_open
from serving.api.routing import v1_router
from serving.api.tags import CACHE_HEADERS
from serving.callers.identity import Principal

__all__ = ["router"]

router = v1_router("export")

Exporter = Annotated[Principal, Depends(require("export"))]

_EXAMPLES = {
    "csv": "account_id,name,segment,csm,health,band\r\nacc-0001,Aster Logistics,Enterprise,Ada Moreau,34,red\r\n",
    "jsonl": '{"account_id": "acc-0001", "name": "Aster Logistics", "health": 34, "band": "red"}\n',
}
_CONTENT = {
    media_type: {"schema": {"type": "string"} | ({"format": "binary"} if form == "parquet" else {})}
    | ({"example": _EXAMPLES[form]} if form in _EXAMPLES else {})
    for form, media_type in MEDIA_TYPES.items()
}


@router.get(
    "/v1/export/accounts",
    response_class=StreamingResponse,
    operation_id="export_accounts",
    summary="The book as a file",
    responses={200: {"description": "The file.", "content": _CONTENT}},
)
async def export_accounts(
    desk: DeskOf,
    principal: Exporter,
    query: Filters,
    format: Annotated[ExportFormat, Query(description="CSV, Parquet, or JSON Lines.")] = "csv",
) -> StreamingResponse:
    """Return all accounts that you may see and the filters leave, in one file, from one score set.

    The columns are those of the list of accounts that you may read. In CSV, text that a spreadsheet would take for a formula begins with
    an apostrophe.
    """
    score_set = desk.live.current()
    view = view_of(desk, principal, score_set)
    if not view.may("export"):
        await desk.journal.refused("export", principal=principal, action="export")
        raise ProblemError(403, "Exports are not shared with you.")
    await require_open(desk, query, view, principal, action="export")
    _, rows = book_rows(score_set, query, view)
    name = f"accounts-{score_set.manifest.cutoff:%Y-%m-%d}.{format}"
    headers = {"content-disposition": f'attachment; filename="{name}"', **CACHE_HEADERS}
    pieces = export_pieces(score_set, rows, view, format)
    stream = _journalled(pieces, desk, principal, score_set.manifest.version)
    return StreamingResponse(stream, media_type=MEDIA_TYPES[format], headers=headers)


async def _journalled(pieces: Iterator[Piece], desk: Desk, principal: Principal, version: str) -> AsyncIterator[bytes]:
    """Hand a piece over when the journal has its accounts."""
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        accounts, content = piece
        if accounts:
            await desk.journal.read(accounts, principal=principal, action="export", score_set=version)
        yield content
