"""The web application: the API and the pages over one workspace, without the process tree around it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from features.workspace import Workspace
from serving import api, pages
from serving.borders import BodyLimit, SecurityHeaders
from serving.identity import Identity, read_secret
from serving.journal import Journal
from serving.live import LiveScores
from serving.problems import add_problem_handlers
from serving.store import open_store

__all__ = ["create_app"]


def create_app(workspace: Workspace) -> FastAPI:
    """Make the application that serves a workspace's current score set.

    Raises
    ------
    ServiceError
        If nothing has been scored yet, or the score set is damaged.
    """
    live = LiveScores(workspace.scores)
    store = open_store(workspace.database)
    desk = api.Desk(live, Identity(store, read_secret(workspace.state / "secret.key")), Journal(store))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        store.dispose()

    app = FastAPI(
        title="Renewcast",
        summary="Explained churn and expansion scores that a vendor and its partners share.",
        version="1",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        separate_input_output_schemas=False,
    )
    app.state.desk = desk
    app.include_router(api.router)
    app.include_router(pages.router)
    app.mount("/static", StaticFiles(directory=pages.STATIC), name="static")
    app.add_middleware(BodyLimit)
    app.add_middleware(SecurityHeaders)
    add_problem_handlers(app, pages.problem_answer)
    return app
