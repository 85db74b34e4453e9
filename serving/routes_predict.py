"""`/v1/predict`: scores of accounts, or of rows of features."""

from collections.abc import Mapping

import pandas as pd

from features.errors import PackageError, nearest
from serving import schema
from serving.answers import as_of, predict_account, predict_rows
from serving.desk import Desk, DeskOf, Predictor, view_of
from serving.identity import Principal
from serving.problems import ProblemError, problems
from serving.routing import v1_router
from serving.scoring import ScoreSet
from serving.sharing import Caller, may_see_account

__all__ = ["router"]

router = v1_router("predictions")


@router.post(
    "/v1/predict",
    response_model=schema.Predictions,
    operation_id="predict",
    summary="Score accounts or rows of features",
    responses=problems(413, 415),
)
async def predict(desk: DeskOf, principal: Predictor, request: schema.PredictRequest) -> schema.Predictions:
    """Return scores with their reasons: of accounts from the score set, or of rows of features, scored on the fly.

    Rows may be sent with the vendor's keys only: trying values out would tell a partner what is confidential about its accounts.
    """
    score_set = desk.live.current()
    if request.rows is not None:
        results, missing = await _predict_rows(desk, score_set, request.rows, principal), list[str]()
    else:
        results, missing = await _predict_accounts(desk, score_set, request.accounts or [], principal)
    view = view_of(desk, principal, score_set)
    values = {"results": results, "not_found": missing, "as_of": as_of(score_set, view)}
    return schema.Predictions(**view.share("Predictions", values))


async def _predict_accounts(
    desk: Desk, score_set: ScoreSet, accounts: list[str], principal: Principal
) -> tuple[list[schema.Prediction], list[str]]:
    caller = principal.caller
    rows = {account: score_set.index.get(account) for account in dict.fromkeys(accounts)}
    found = {account: row for account, row in rows.items() if row is not None and _visible(score_set, row, caller)}
    missing = [account for account in rows if account not in found]
    if missing:
        reason = "no such account, or assigned to somebody else"
        await desk.journal.refused(reason, principal=principal, action="predict", accounts=missing)
    await desk.journal.read(found, principal=principal, action="predict", score_set=score_set.manifest.version)
    return [predict_account(score_set, row, view_of(desk, principal, score_set)) for row in found.values()], missing


def _visible(score_set: ScoreSet, row: int, caller: Caller) -> bool:
    return may_see_account(score_set.accounts["partner_id"][row], caller)


async def _predict_rows(desk: Desk, score_set: ScoreSet, rows: list[schema.FeatureRow], principal: Principal) -> list[schema.Prediction]:
    if not principal.caller.is_vendor:
        await desk.journal.refused("rows of features", principal=principal, action="predict")
        raise ProblemError(403, "Rows of features may be scored with the vendor's keys only; ask for accounts instead.")
    wrong = [problem for position, row in enumerate(rows) for problem in _wrong_features(score_set, row.features, position)]
    if wrong:
        raise ProblemError(422, "The rows do not have the features of the models.", errors=wrong[:20])
    frame = pd.DataFrame([row.features for row in rows], columns=list(score_set.features), dtype=object)
    try:
        return predict_rows(score_set, [row.id for row in rows], frame, view_of(desk, principal, score_set))
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
