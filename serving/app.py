"""The web application: the API and the pages over one workspace, without the process tree around it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache, partial

import pyarrow.parquet as pq
from fastapi import APIRouter, FastAPI
from opentelemetry.sdk.trace import TracerProvider
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles

from features.config import Serving
from features.workspace import Workspace
from serving.answers.live import LiveScores
from serving.answers.problems import add_problem_handlers
from serving.api import (
    routes_accounts,
    routes_changes,
    routes_contributions,
    routes_export,
    routes_feedback,
    routes_models,
    routes_partners,
    routes_predict,
    routes_retention,
    routes_track,
)
from serving.api.api_document import api_document
from serving.api.desk import Desk
from serving.api.idempotency import OnlyOnce
from serving.api.methods import AnswerHead, options_or_problem
from serving.api.rates import Rates
from serving.callers.credentials import identity_of, opened_identity
from serving.callers.journal import Journal
from serving.operations import routes_service
from serving.operations.access import Access
from serving.operations.borders import BodyLimit, HeadLimit, RequestLimit, SecurityHeaders, TimeLimit
from serving.operations.draining import Drain
from serving.operations.forwarded import Forwarded
from serving.operations.metrics import Metrics
from serving.operations.tracing import Traced
from serving.operations.upkeep import Upkeep
from serving.permissions.caller import VENDOR, Caller
from serving.permissions.policies import LivePolicy
from serving.records.store import open_store
from serving.scores.scoring import current_version
from serving.scores.standings import Archive
from serving.web import pages, routes_document
from serving.web.pages_all import PAGES
from serving.web.pages_frame import STATIC

__all__ = ["ROUTERS", "SignInLinks", "create_app", "has_accounts", "sign_in_links"]

ROUTERS: tuple[APIRouter, ...] = (
    routes_accounts.router,
    routes_changes.router,
    routes_contributions.router,
    routes_feedback.router,
    routes_predict.router,
    routes_partners.router,
    routes_retention.router,
    routes_models.router,
    routes_export.router,
    routes_track.router,
    routes_service.router,
    routes_document.router,
    *PAGES,
)
"""All that is served, most wanted first. Their routes are put side by side: FastAPI matches each router that it includes twice."""


_FLUSH_MILLISECONDS = 2000


@dataclass(frozen=True, kw_only=True)
class SignInLinks:
    """A link for the vendor, and one for the partner with the most accounts; None if no account has a partner."""

    vendor: str
    partner: str | None
    partner_name: str | None


def create_app(workspace: Workspace, *, metrics: Metrics | None = None, traces: TracerProvider | None = None) -> FastAPI:
    """Make the application that serves a workspace's current score set, and the next ones.

    Parameters
    ----------
    metrics
        Where it counts; counts of its own if None.
    traces
        Makes spans of the requests; none are made if None.

    Raises
    ------
    ConfigError
        If the workspace's policy cannot be used.
    """
    live = LiveScores(workspace.scores)
    store = open_store(workspace.database, seconds=workspace.config.serving.limits.database_seconds)
    journal = Journal(store, workspace.state / "journal")
    desk = Desk(
        live=live,
        identity=identity_of(workspace, store, journal),
        journal=journal,
        policies=LivePolicy(workspace),
        archive=Archive(workspace.scores),
        workspace=workspace,
        store=store,
        once=OnlyOnce(store),
        rates=_rates(workspace.config.serving),
    )
    upkeep = Upkeep(workspace, desk, drain=Drain(workspace.config.serving.drain_seconds), metrics=metrics or Metrics())

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        with upkeep.running():
            yield
        store.dispose()
        if traces is not None:
            await asyncio.to_thread(traces.force_flush, _FLUSH_MILLISECONDS)

    app = FastAPI(
        openapi_url=None,
        lifespan=lifespan,
    )
    app.state.desk, app.state.upkeep = desk, upkeep
    app.openapi = cache(partial(api_document, app.routes))  # type: ignore[method-assign]
    for router in ROUTERS:
        app.router.routes.extend(router.routes)
    app.mount("/static", GZipMiddleware(StaticFiles(directory=STATIC)), name="static")  # pages hold secrets: they are not compressed
    if traces is not None:
        app.add_middleware(Traced, provider=traces)
    _guard(app, upkeep, workspace.config.serving)
    add_problem_handlers(app, pages.problem_answer, other_method=options_or_problem)
    return app


def _rates(serving: Serving) -> Rates:
    """Return the share of one worker."""
    limits = serving.limits
    return Rates(requests=limits.requests_per_minute, failures=limits.failures_per_minute, workers=serving.workers)


def _guard(app: FastAPI, upkeep: Upkeep, serving: Serving) -> None:
    """Put what holds for every request around the application; what is added last stands outermost."""
    limits = serving.limits
    app.add_middleware(AnswerHead)
    app.add_middleware(TimeLimit, limits=limits)
    app.add_middleware(BodyLimit, limits=limits)
    app.add_middleware(RequestLimit, limits=limits)
    app.add_middleware(HeadLimit)
    app.add_middleware(Access, metrics=upkeep.metrics, drain=upkeep.drain, answer=pages.problem_answer)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(Forwarded, proxies=serving.trusted_proxies)


def sign_in_links(workspace: Workspace, *, address: str) -> SignInLinks:
    """Make fresh sign-in links for the service at an address such as `http://127.0.0.1:3000`."""
    partners = _partners(workspace)
    counts = Counter(row["partner_id"] for row in partners if row["partner_id"] is not None)
    largest = min(counts, key=lambda partner: (-counts[partner], partner), default=None)
    names = {row["partner_id"]: row["partner_name"] for row in partners}
    with opened_identity(workspace) as identity:
        vendor = f"{address}/sign-in?token={identity.sign_in_token(VENDOR, role='administrator')}"
        if largest is None:
            return SignInLinks(vendor=vendor, partner=None, partner_name=None)
        partner = f"{address}/sign-in?token={identity.sign_in_token(Caller(largest), role='analyst')}"
    return SignInLinks(vendor=vendor, partner=partner, partner_name=names[largest] or largest)


def has_accounts(workspace: Workspace, partner_id: str) -> bool:
    """Tell whether an account of the current scores is assigned to the partner; before the first scoring none is."""
    return any(row["partner_id"] == partner_id for row in _partners(workspace))


def _partners(workspace: Workspace) -> list[dict[str, str | None]]:
    if not (workspace.scores / "CURRENT").exists():
        return []
    accounts = workspace.scores / current_version(workspace.scores) / "accounts.parquet"
    rows: list[dict[str, str | None]] = pq.read_table(accounts, columns=["partner_id", "partner_name"]).to_pylist()
    return rows
