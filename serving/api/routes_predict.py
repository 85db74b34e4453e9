"""`/v1/predict`: scores of accounts, or of rows of features."""

import asyncio
from collections.abc import Mapping

from starlette.responses import Response, StreamingResponse

from features.errors import PackageError, nearest
from serving.answers import schema
from serving.answers.account_answers import predict_rows, predictions_bytes, predictions_stream
from serving.answers.problems import ProblemError, problems
from serving.api.desk import Desk, DeskOf, Predictor, view_of
from serving.api.routing import v1_router
from serving.callers.identity import Principal
from serving.scores.scoring import ScoreSet
from serving.scores.sharing import View

__all__ = ["router"]

router = v1_router("predictions")

_JSON = "application/json"
_FEW = 16
"""So few accounts are answered at once, without the detour of a thread."""


@router.post(
    "/v1/predict",
    response_model=schema.Predictions,
    operation_id="predict",
    summary="Score accounts or rows of features",
    responses=problems(413, 415),
)
async def predict(desk: DeskOf, principal: Predictor, request: schema.PredictRequest) -> Response:
    """Return scores with their reasons: of accounts from the score set, or of rows of features, scored on the fly.

    Rows may be sent with the vendor's keys only: trying values out would tell a partner what is confidential about its accounts.
    """
    score_set = desk.live.current()
    view = view_of(desk, principal, score_set)
    if request.rows is not None:
        return Response(await _predict_rows(desk, score_set, request.rows, principal, view), media_type=_JSON)
    found, missing = await _find_accounts(desk, score_set, request.accounts or [], principal, view)
    answer = predictions_stream(score_set, found, missing, view)
    if len(found) <= _FEW:
        return Response(b"".join(answer), media_type=_JSON)
    return StreamingResponse(answer, media_type=_JSON)  # which takes each chunk in a thread


async def _find_accounts(
    desk: Desk, score_set: ScoreSet, accounts: list[str], principal: Principal, view: View
) -> tuple[list[int], list[str]]:
    """Return the rows of the accounts that are there for the caller, and the others; the journal notes both."""
    rows = {account: score_set.index.get(account) for account in dict.fromkeys(accounts)}
    found = {account: row for account, row in rows.items() if row is not None and view.manages(row, score_set.assignments)}
    missing = [account for account in rows if account not in found]
    if missing:
        reason = "no such account, or assigned to somebody else"
        await desk.journal.refused(reason, principal=principal, action="predict", accounts=missing)
    await desk.journal.read(found, principal=principal, action="predict", score_set=score_set.manifest.version)
    return list(found.values()), missing


async def _predict_rows(desk: Desk, score_set: ScoreSet, rows: list[schema.FeatureRow], principal: Principal, view: View) -> bytes:
    if not principal.caller.is_vendor:
        await desk.journal.refused("rows of features", principal=principal, action="predict")
        raise ProblemError(403, "Rows of features may be scored with the vendor's keys only; ask for accounts instead.")
    wrong = [problem for position, row in enumerate(rows) for problem in _wrong_features(score_set, row.features, position)]
    if wrong:
        raise ProblemError(422, "The rows do not have the features of the models.", errors=wrong[:20])
    try:
        if len(rows) == 1:
            return predictions_bytes(score_set, predict_rows(score_set, rows, view), view)
        results = await asyncio.to_thread(predict_rows, score_set, rows, view)
        return await asyncio.to_thread(predictions_bytes, score_set, results, view)
    except PackageError as error:
        raise ProblemError(422, str(error)) from error


def _wrong_features(score_set: ScoreSet, given: Mapping[str, object], position: int) -> list[schema.FieldProblem]:
    known = score_set.features
    pointer = f"/body/rows/{position}/features"
    wrong = [
        schema.FieldProblem(pointer=f"{pointer}/{name}", message=f"no model knows this feature; {nearest(name, known)}".rstrip("; "))
        for name in given
        if name not in known
    ]
    missing = [name for name in known if name not in given]
    if missing:
        wrong.append(schema.FieldProblem(pointer=pointer, message=f"missing, write null if not known: {', '.join(missing)}"))
    kinds = {"number": (float, int), "category": (str,)}
    wrong += [
        schema.FieldProblem(pointer=f"{pointer}/{name}", message=f"must be a {known[name].kind} or null")
        for name, value in given.items()
        if name in known and value is not None and not isinstance(value, kinds[known[name].kind])
    ]
    return wrong
