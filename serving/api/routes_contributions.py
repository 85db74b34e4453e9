"""`/v1/contributions`: what partners add to the data about their own accounts, and what it is worth."""

import asyncio
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, TypeVar

from fastapi import Depends, File, Form, Query, UploadFile
from fastapi import Path as InPath

from features.config import FileFormat
from features.errors import ContractError, SourceError
from serving.answers import schema
from serving.answers.contribution_answers import contribution_answer, contributions_answer, worth_answer
from serving.answers.contributions import Contribution, Contributions, Given, given_file, given_rows_of
from serving.answers.problems import ProblemError, problems
from serving.answers.schema_contributions import Contribution as ContributionAnswer
from serving.answers.schema_contributions import ContributionList, ContributionRequest, Worth
from serving.api.cursors import Cursors, Paged
from serving.api.desk import Desk, DeskOf, Reader, require, view_of
from serving.api.routing import v1_router
from serving.callers.identity import Principal
from serving.records.tables import now
from serving.scores.sharing import View
from serving.scores.worth import read_worth

__all__ = ["router"]

router = v1_router("contributions")

Contributor = Annotated[Principal, Depends(require("contribute"))]
ContributionId = Annotated[
    str,
    InPath(
        min_length=1,
        max_length=64,
        pattern=schema.WITHOUT_CONTROLS,
        description="The id of a contribution.",
        examples=["5b6c7d8e9f00112233445566778899aa"],
    ),
]
PartnerQuery = Annotated[
    str | None,
    Query(min_length=1, max_length=200, pattern=schema.WITHOUT_CONTROLS, description="One partner's; for the vendor.", examples=["p1"]),
]

T = TypeVar("T")
_FORMATS: dict[str, FileFormat] = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}

_CHECKER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="contributions")
"""Contributions are checked one after the other, so that however many come, other requests find threads."""


@router.post(
    "/v1/contributions",
    response_model=ContributionAnswer,
    status_code=201,
    operation_id="contribute_rows",
    summary="Add rows about your accounts",
    responses=problems(409, 413, 415, 503),
)
async def contribute_rows(desk: DeskOf, principal: Contributor, request: ContributionRequest) -> ContributionAnswer:
    """Add trainings, meetings, business reviews, survey answers and health notes that you know of, about accounts assigned to you now.

    Each row is checked. What is wrong with one is answered with its number, and keeps no other row back; a row about an account that is
    not yours is one about an unknown account. Rows count from their receipt on, and enter the scores with the next scoring. Sending the
    same again changes nothing.
    """
    rows = [row.model_dump() for row in request.rows]
    return await _contribute(desk, principal, lambda folder: given_rows_of(rows, folder / "rows.parquet"))


@router.post(
    "/v1/contributions/file",
    response_model=ContributionAnswer,
    status_code=201,
    operation_id="contribute_file",
    summary="Add a file of rows about your accounts",
    responses=problems(409, 413, 503),
)
async def contribute_file(
    desk: DeskOf,
    principal: Contributor,
    file: Annotated[UploadFile, File(description="CSV with a header, JSON Lines or Parquet, with the columns of a row sent as JSON.")],
    kind: Annotated[FileFormat | None, Form(alias="format", description="Told from the file's name if not given.")] = None,
) -> ContributionAnswer:
    """Add a file of rows: the same as sending them as JSON. Columns that are not known are ignored, and named in the answer."""
    name = Path(file.filename or "").name[:200]
    form = kind or _FORMATS.get(Path(name).suffix.lower())
    if form is None:
        errors = [schema.FieldProblem(pointer="/body/format", message=f"say the format, or name the file {', '.join(_FORMATS)}")]
        raise ProblemError(422, "The name of the file does not tell its format.", errors=errors)

    def given(folder: Path) -> Given:
        path = folder / f"given.{form}"
        with path.open("wb") as stream:
            shutil.copyfileobj(file.file, stream)
        return given_file(path, form, name=_printable(name) or None)

    return await _contribute(desk, principal, given)


@router.get(
    "/v1/contributions",
    response_model=ContributionList,
    operation_id="list_contributions",
    summary="Your contributions",
    responses=problems(404),
)
async def list_contributions(desk: DeskOf, principal: Reader, paging: Paged, partner: PartnerQuery = None) -> ContributionList:
    """Return your contributions, the newest first, a page at a time; for the vendor those of all partners, or of one."""
    score_set = desk.live.current()
    view, partner_id = view_of(desk, principal, score_set), _asked(principal, partner)
    cursors = Cursors(desk.identity.secret, principal.caller, {"list": "contributions", "partner": partner_id})
    after = cursors.open_place(paging.cursor)
    page = await asyncio.to_thread(_contributions(desk).page, principal.caller, partner_id=partner_id, after=after, limit=paging.limit)
    return contributions_answer(page.lines, score_set, view, next_cursor=cursors.seal_place(page.end))


@router.get(
    "/v1/contributions/worth",
    response_model=Worth,
    operation_id="get_worth",
    summary="What your data are worth",
    responses=problems(404),
)
async def get_worth(desk: DeskOf, principal: Reader, partner: PartnerQuery = None) -> Worth:
    """Return what your data change in your own accounts' scores: the same accounts and the same models, with your data and without.

    The vendor names a partner.
    """
    score_set = desk.live.current()
    view = view_of(desk, principal, score_set)
    partner_id = _asked(principal, partner)
    if partner_id is None:
        errors = [schema.FieldProblem(pointer="/query/partner", message="name a partner")]
        raise ProblemError(422, "Say which partner's data: `?partner=p1`.", errors=errors)
    folder = desk.archive.folder(score_set.manifest.version)
    found = await asyncio.to_thread(read_worth, folder)
    standing = await asyncio.to_thread(_contributions(desk).standing, principal.caller, partner_id=partner_id)
    answer = worth_answer(found, standing, score_set, view, partner_id=partner_id)
    read = [one.account_id for one in answer.accounts]
    await desk.journal.read(read, principal=principal, action="read worth", score_set=score_set.manifest.version)
    return answer


@router.get(
    "/v1/contributions/{contribution_id}",
    response_model=ContributionAnswer,
    operation_id="get_contribution",
    summary="One contribution",
    responses=problems(404),
)
async def get_contribution(desk: DeskOf, principal: Reader, contribution_id: ContributionId) -> ContributionAnswer:
    """Return a contribution with what is wrong with its rows."""
    score_set = desk.live.current()
    found = await asyncio.to_thread(_contributions(desk).find, contribution_id, principal.caller)
    if found is None:
        raise await _no_contribution(desk, principal)
    return contribution_answer(found, score_set, view_of(desk, principal, score_set))


@router.post(
    "/v1/contributions/{contribution_id}/withdraw",
    response_model=ContributionAnswer,
    operation_id="withdraw_contribution",
    summary="Take a contribution back",
    responses=problems(404, 409, 503),
)
async def withdraw_contribution(desk: DeskOf, principal: Contributor, contribution_id: ContributionId) -> ContributionAnswer:
    """Take a contribution back: scores as of a later time do not rest on it. What was said on its strength before stays as it was said."""
    score_set = desk.live.current()
    view = await _contributing(desk, principal)
    work = _contributions(desk).withdraw
    found = await _one_after_the_other(lambda: work(contribution_id, principal, at=now()))
    if found is None:
        raise await _no_contribution(desk, principal)
    await desk.journal.wrote(f"contribution {contribution_id}", principal=principal, action="withdraw contribution")
    return contribution_answer(found, score_set, view)


async def _contribute(desk: Desk, principal: Principal, prepare: Callable[[Path], Given]) -> ContributionAnswer:
    """Check and keep what `prepare` puts into a folder."""
    score_set = desk.live.current()
    view = await _contributing(desk, principal)
    if principal.caller.is_vendor:
        await desk.journal.refused("the vendor's rows are in its own tables", principal=principal, action="contribute")
        raise ProblemError(403, "Partners contribute here. The vendor's own rows are read from the tables of the workspace.")
    found = await _one_after_the_other(lambda: _received(_contributions(desk), principal, prepare))
    if unknown := found.reasons.get("account_id: unknown account"):
        reason = f"contribution {found.contribution_id}: {unknown} rows about accounts that are not there or somebody else's"
        await desk.journal.refused(reason, principal=principal, action="contribute")
    await desk.journal.wrote(f"contribution {found.contribution_id}", principal=principal, action="contribute")
    return contribution_answer(found, score_set, view)


def _received(contributions: Contributions, principal: Principal, prepare: Callable[[Path], Given]) -> Contribution:
    with TemporaryDirectory(prefix="renewcast-contribution-") as folder:
        given = prepare(Path(folder))
        try:
            return contributions.receive(given, principal, at=now())
        except (SourceError, ContractError) as error:
            raise _unreadable(error, given) from error


def _unreadable(error: Exception, given: Given) -> ProblemError:
    """Say what is wrong with a whole contribution, without the advice that is for the owner of a workspace."""
    said = str(error).partition("\n  next:")[0].replace(str(given.file), given.name or "what was sent")
    what, _, more = said.partition("\n")
    errors = [schema.FieldProblem(pointer="/body", message=" ".join(more.split())[:500])] if more else []
    detail = f"{what[0].upper()}{what[1:]}. Nothing was kept. Times are best written as 2025-06-12T09:00:00Z."
    return ProblemError(422, detail, errors=errors)


async def _one_after_the_other(work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(_CHECKER, work)


async def _contributing(desk: Desk, principal: Principal) -> View:
    """Return the view of a caller whom the policy lets contribute."""
    view = view_of(desk, principal, desk.live.current())
    if not view.may("contribute"):
        await desk.journal.refused("the policy lets it contribute nothing", principal=principal, action="contribute")
        raise ProblemError(403, "You may not contribute.")
    return view


def _contributions(desk: Desk) -> Contributions:
    return Contributions(desk.workspace, desk.store)


def _asked(principal: Principal, partner: str | None) -> str | None:
    """Return whose contributions are asked for; another partner does not exist for a partner."""
    own = principal.caller.partner_id
    if own is not None and partner not in (None, own):
        raise ProblemError(404, "There is no such partner.")
    return own or partner


async def _no_contribution(desk: Desk, principal: Principal) -> ProblemError:
    await desk.journal.refused("no such contribution, or another partner's", principal=principal, action="read contributions")
    return ProblemError(404, "There is no such contribution.")


def _printable(name: str) -> str:
    return "".join(character for character in name if character.isprintable())
