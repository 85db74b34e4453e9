"""About the service itself: whether it is alive and ready, which anybody may ask, and what it has counted, which takes a key."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from serving.answers.problems import ProblemError, problems
from serving.answers.schema import FieldProblem
from serving.answers.schema_service import Alive, Readiness, ReadinessCheck
from serving.api.desk import require
from serving.api.routing import StrictRoute
from serving.callers.identity import Principal
from serving.operations.health_checks import Health
from serving.operations.metrics import CONTENT_TYPE
from serving.operations.upkeep import Upkeep

__all__ = ["router"]

router = APIRouter(tags=["service"], route_class=StrictRoute)

_AGAIN_SECONDS = 5
_EXAMPLE = 'renewcast_requests_total{method="GET",route="/v1/accounts/{account_id}",status="2xx"} 7.0\n'


async def _upkeep(request: Request) -> Upkeep:
    upkeep: Upkeep = request.app.state.upkeep
    return upkeep


UpkeepOf = Annotated[Upkeep, Depends(_upkeep)]
Watcher = Annotated[Principal, Depends(require("metrics"))]


@router.get("/livez", operation_id="livez", summary="Is the process alive?", response_model=Alive)
async def livez() -> Alive:
    """Answer that the process runs. It needs no key, and is answered however busy the service is."""
    return Alive(status="alive")


@router.get("/readyz", operation_id="readyz", summary="Can it answer?", response_model=Readiness, responses=problems(503))
async def readyz(request: Request, upkeep: UpkeepOf) -> Readiness:
    """Answer 200 if requests can be answered, with whatever is not as it should be around the service; else 503 with the reasons.

    It needs no key. A service that leans on its last good scores, or keeps its journal on disk until the database is back, is ready.
    """
    health = await upkeep.health()
    if not health.ready:
        raise _not_ready(health)
    return Readiness(
        status="degraded" if health.degraded else "ready",
        score_set=request.app.state.desk.live.current().manifest.version,
        checks=[ReadinessCheck(name=finding.name, good=finding.good, detail=finding.detail) for finding in health.findings],
    )


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="What the service has counted",
    response_class=Response,
    responses=problems(401, 403) | {200: {"content": {"text/plain": {"example": _EXAMPLE}}}},
)
async def metrics(_watcher: Watcher, upkeep: UpkeepOf) -> Response:
    """Return the counts of all workers and the state of the scores in the format of Prometheus; takes a key with the scope `metrics`.

    Routes are named by their templates; no series carries an account, a partner or an address that somebody made up.
    """
    return Response(await upkeep.metrics_text(), media_type=CONTENT_TYPE)


def _not_ready(health: Health) -> ProblemError:
    bad = [finding for finding in health.findings if not finding.good]
    needed = " ".join(finding.detail for finding in bad if finding.needed)
    errors = [FieldProblem(pointer=f"/checks/{finding.name}", message=finding.detail) for finding in bad]
    return ProblemError(503, needed, errors=errors, headers={"Retry-After": str(_AGAIN_SECONDS)})
