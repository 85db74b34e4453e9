"""`/v1/features` and `/v1/models`: what the scores are made of, and by."""

import asyncio
from typing import Annotated, Any

from fastapi import Path, Request
from starlette.responses import Response

from features.feature import Target
from serving.answers.model_answers import features_answer, find_card, models_answer
from serving.answers.problems import ProblemError, problems
from serving.answers.schema_portfolio import FeatureReference, ModelList
from serving.api.desk import DeskOf, Reader, view_of
from serving.api.routing import v1_router
from serving.api.tags import NOT_MODIFIED, not_modified, tag_of, tagged

__all__ = ["MARKDOWN", "router"]

router = v1_router("models")

MARKDOWN = "text/markdown"

_CARD = "# Churn\n\n## What it answers\n\nWill this customer, active today, have left within 90 days?\n"


@router.get("/v1/features", response_model=FeatureReference, operation_id="list_features", summary="The features", responses=NOT_MODIFIED)
async def list_features(request: Request, desk: DeskOf, principal: Reader) -> Any:
    """Return the features that the models read, as far as you may know of them."""
    score_set = desk.live.current()
    view = view_of(desk, principal, score_set)
    tag = tag_of(score_set, view)
    return not_modified(request, tag) or tagged(features_answer(score_set, view), tag)


@router.get("/v1/models", response_model=ModelList, operation_id="list_models", summary="The models", responses=NOT_MODIFIED)
async def list_models(request: Request, desk: DeskOf, principal: Reader) -> Any:
    """Return the models that made the scores."""
    score_set = desk.live.current()
    view = view_of(desk, principal, score_set)
    tag = tag_of(score_set, view)
    return not_modified(request, tag) or tagged(models_answer(score_set, view), tag)


@router.get(
    "/v1/models/{target}/card",
    response_class=Response,
    operation_id="get_model_card",
    summary="The card of a model",
    responses=problems(404)
    | {200: {"description": "The card in Markdown.", "content": {MARKDOWN: {"schema": {"type": "string"}, "example": _CARD}}}},
)
async def get_model_card(
    desk: DeskOf, principal: Reader, target: Annotated[Target, Path(description="What the model predicts.")]
) -> Response:
    """Return the card of the model that made a target's scores, in Markdown: what it is for, how good, for whom, and what not for.

    Cards name what is confidential, so they are the vendor's unless its policy shares them.
    """
    score_set = desk.live.current()
    if view_of(desk, principal, score_set).share("ModelCard", {"text": True})["text"] is None:
        await desk.journal.refused(f"model card of {target}", principal=principal, action="read models")
        raise ProblemError(403, "Model cards are not shared with you.")
    model = score_set.manifest.models.get(target)
    card = None if model is None else await asyncio.to_thread(find_card, desk.workspace.training, target, model.package_hash)
    if card is None:
        raise ProblemError(404, "There is no card of such a model.")
    return Response(card, media_type=MARKDOWN)
