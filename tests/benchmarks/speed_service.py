"""The service with one more address, `GET /v1/empty`, that answers `{}` and asks for no key: what a request costs at the least.

It goes the way of every request: BentoML's worker, all layers of the application, FastAPI's routing and JSON response.
"""

import sys
from pathlib import Path
from typing import Any

import bentoml
from starlette.types import ASGIApp

from features.workspace import load_workspace
from serving import service


async def empty() -> dict[str, str]:
    """Answer with nothing."""
    return {}


class WithEmpty(service.Mounted):
    """The service, its application with the empty address."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Return the application that a worker serves."""
        front: Any = super().to_asgi(is_main)
        front._application.add_api_route("/v1/empty", empty)
        return front


@bentoml.service(name="renewcast", service_class=WithEmpty, workers=1, metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Speed:
    """The service that is measured."""


if __name__ == "__main__":
    import speed_service

    service.Renewcast = speed_service.Speed
    service.serve(load_workspace(Path(sys.argv[1]), {}), host="127.0.0.1", port=int(sys.argv[2]))
