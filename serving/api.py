"""The API for applications, `/v1`: the book, an account, predictions; and whether the service is alive and ready."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import pandas as pd
from fastapi import APIRouter, Depends, Query, Request

from features.errors import PackageError, nearest
from serving import schema
from serving.answers import account_answer, as_of, book_answer, predict_account, predict_rows
from serving.health import Band
from serving.identity import Identity, Principal, RefusedError, Scope
from serving.journal import Journal
from serving.live import LiveScores
from serving.portfolio import DEFAULT_PAGE_SIZE, LARGEST_PAGE, BookQuery, Sort, select_accounts
from serving.problems import PROBLEM_JSON, ProblemError, not_found
from serving.scoring import ScoreSet
from serving.sharing import Caller, may_see_account, share

__all__ = ["Desk", "account_row", "router"]


@dataclass(frozen=True)
class Desk:
    """What every request works with."""

    live: LiveScores
    identity: Identity
    journal: Journal


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"model": schema.Problem, "description": "Problem", "content": content} for status in statuses}


router = APIRouter(responses=_problems(401, 403, 422))


def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


DeskOf = Annotated[Desk, Depends(_desk)]


def _principal(request: Request, desk: Desk, scope: Scope) -> Principal:
    kind, _, key = request.headers.get("authorization", "").partition(" ")
    unknown = ProblemError(401, "Send an API key: `Authorization: Bearer rk_...`.", headers={"WWW-Authenticate": "Bearer"})
    if kind.casefold() != "bearer" or not key:
        raise unknown
    try:
        principal = desk.identity.check_key(key.strip())
    except RefusedError as error:
        desk.journal.refused(str(error), caller="unknown", credential="key", action="authenticate")
        raise unknown from error
    if scope not in principal.scopes:
        desk.journal.refused(f"lacks scope {scope}", caller=principal.caller.name, credential=principal.credential, action="authenticate")
        raise ProblemError(403, f"This key may not do that: it lacks the scope {scope}.")
    return principal


def _reader(request: Request, desk: DeskOf) -> Principal:
    return _principal(request, desk, "accounts:read")


def _predictor(request: Request, desk: DeskOf) -> Principal:
    return _principal(request, desk, "predict")


Reader = Annotated[Principal, Depends(_reader)]
Predictor = Annotated[Principal, Depends(_predictor)]


def account_row(desk: Desk, score_set: ScoreSet, account_id: str, principal: Principal) -> int:
    """Return the account's row and note in the journal that it was read.

    Raises
    ------
    ProblemError
        404, the same whether the account does not exist or belongs to somebody else; the journal knows which.
    """
    row = score_set.index.get(account_id)
    caller, credential = principal.caller, principal.credential
    if row is None or not may_see_account(score_set.accounts["partner_id"][row], caller):
        reason = "no such account" if row is None else "assigned to somebody else"
        desk.journal.refused(reason, caller=caller.name, credential=credential, action="read account", accounts=[account_id])
        raise not_found()
    desk.journal.read([account_id], caller=caller, credential=credential, action="read account", score_set=score_set.manifest.version)
    return row


@router.get("/v1/accounts", response_model=schema.Book, tags=["accounts"], summary="The book")
def list_accounts(
    desk: DeskOf,
    principal: Reader,
    band: Annotated[Band | None, Query()] = None,
    segment: Annotated[str | None, Query()] = None,
    partner: Annotated[str | None, Query(description="A partner's id.")] = None,
    csm: Annotated[str | None, Query()] = None,
    search: Annotated[str, Query(max_length=200, description="Part of a name or of an account id.")] = "",
    sort: Annotated[Sort | None, Query(description="ARR at risk by default; probability of churn where there is no ARR.")] = None,
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
    page_size: Annotated[int, Query(ge=1, le=LARGEST_PAGE)] = DEFAULT_PAGE_SIZE,
) -> schema.Book:
    """Return the accounts that you may see, those that need you first."""
    score_set = desk.live.current()
    query = BookQuery(band=band, segment=segment, partner=partner, csm=csm, search=search, sort=sort, page=page, page_size=page_size)
    selected = select_accounts(score_set, query, principal.caller)
    answer = book_answer(score_set, selected, principal.caller, page_size=page_size)
    read = [account.account_id for account in answer.accounts]
    desk.journal.read(
        read, caller=principal.caller, credential=principal.credential, action="list accounts", score_set=score_set.manifest.version
    )
    return answer


@router.get("/v1/accounts/{account_id}", response_model=schema.Account, tags=["accounts"], summary="One account", responses=_problems(404))
def get_account(desk: DeskOf, principal: Reader, account_id: str) -> schema.Account:
    """Return one account with its scores explained."""
    score_set = desk.live.current()
    row = account_row(desk, score_set, account_id, principal)
    return account_answer(score_set, row, principal.caller)


@router.post("/v1/predict", response_model=schema.Predictions, tags=["predictions"], summary="Score accounts or rows of features")
def predict(desk: DeskOf, principal: Predictor, request: schema.PredictRequest) -> schema.Predictions:
    """Return scores with their reasons: of accounts from the score set, or of rows of features, scored on the fly.

    Rows may be sent with the vendor's keys only: trying values out would tell a partner what is confidential about its accounts.
    """
    score_set = desk.live.current()
    if request.rows is not None:
        results, missing = _predict_rows(desk, score_set, request.rows, principal), list[str]()
    else:
        results, missing = _predict_accounts(desk, score_set, request.accounts or [], principal)
    values = {"results": results, "not_found": missing, "as_of": as_of(score_set, principal.caller)}
    return schema.Predictions(**share("Predictions", values, principal.caller))


def _predict_accounts(
    desk: Desk, score_set: ScoreSet, accounts: list[str], principal: Principal
) -> tuple[list[schema.Prediction], list[str]]:
    caller, credential = principal.caller, principal.credential
    rows = {account: score_set.index.get(account) for account in dict.fromkeys(accounts)}
    found = {account: row for account, row in rows.items() if row is not None and _visible(score_set, row, caller)}
    missing = [account for account in rows if account not in found]
    desk.journal.refused(
        "no such account, or assigned to somebody else", caller=caller.name, credential=credential, action="predict", accounts=missing
    )
    desk.journal.read(found, caller=caller, credential=credential, action="predict", score_set=score_set.manifest.version)
    return [predict_account(score_set, row, caller) for row in found.values()], missing


def _visible(score_set: ScoreSet, row: int, caller: Caller) -> bool:
    return may_see_account(score_set.accounts["partner_id"][row], caller)


def _predict_rows(desk: Desk, score_set: ScoreSet, rows: list[schema.FeatureRow], principal: Principal) -> list[schema.Prediction]:
    if not principal.caller.is_vendor:
        desk.journal.refused("rows of features", caller=principal.caller.name, credential=principal.credential, action="predict")
        raise ProblemError(403, "Rows of features may be scored with the vendor's keys only; ask for accounts instead.")
    problems = [problem for position, row in enumerate(rows) for problem in _wrong_features(score_set, row.features, position)]
    if problems:
        raise ProblemError(422, "The rows do not have the features of the models.", errors=problems[:20])
    frame = pd.DataFrame([row.features for row in rows], columns=list(score_set.features), dtype=object)
    try:
        return predict_rows(score_set, [row.id for row in rows], frame, principal.caller)
    except PackageError as error:
        raise ProblemError(422, str(error)) from error


def _wrong_features(score_set: ScoreSet, given: Mapping[str, object], position: int) -> list[schema.FieldProblem]:
    known = score_set.features
    pointer = f"/body/rows/{position}/features"
    problems = [
        schema.FieldProblem(pointer=f"{pointer}/{name}", message=f"no model knows this feature; {nearest(name, known)}".rstrip("; "))
        for name in given
        if name not in known
    ]
    missing = [name for name in known if name not in given]
    if missing:
        problems.append(schema.FieldProblem(pointer=pointer, message=f"missing, write null if not known: {', '.join(missing)}"))
    kinds = {"number": (float, int), "category": (str,)}
    problems += [
        schema.FieldProblem(pointer=f"{pointer}/{name}", message=f"must be a {known[name].kind} or null")
        for name, value in given.items()
        if name in known and value is not None and not isinstance(value, kinds[known[name].kind])
    ]
    return problems


@router.get("/livez", tags=["service"], summary="Is the process alive?", responses={})
def livez() -> dict[str, str]:
    """Answer that the process runs."""
    return {"status": "alive"}


@router.get("/readyz", tags=["service"], summary="Can it answer?", responses=_problems(503))
def readyz(desk: DeskOf) -> dict[str, str]:
    """Answer that scores are loaded; the version is that of the score set."""
    return {"status": "ready", "score_set": desk.live.current().manifest.version}
