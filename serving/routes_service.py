"""Whether the service is alive and ready: the two addresses that answer anybody."""

from fastapi import APIRouter

from serving.desk import DeskOf
from serving.problems import problems
from serving.routing import StrictRoute

__all__ = ["router"]

router = APIRouter(tags=["service"], route_class=StrictRoute)


@router.get("/livez", operation_id="livez", summary="Is the process alive?")
async def livez() -> dict[str, str]:
    """Answer that the process runs."""
    return {"status": "alive"}


@router.get("/readyz", operation_id="readyz", summary="Can it answer?", responses=problems(503))
async def readyz(desk: DeskOf) -> dict[str, str]:
    """Answer that scores are loaded; the version is that of the score set."""
    return {"status": "ready", "score_set": desk.live.current().manifest.version}
