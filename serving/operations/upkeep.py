"""What a service does beside answering: follow new scores, look after itself, count, and leave in good order."""

import asyncio
import gc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

from prometheus_client.core import Metric

from features.errors import ServiceError
from features.workspace import Workspace
from serving.answers.retention_answers import prepare_retention
from serving.api.desk import Desk
from serving.callers.background import repeating
from serving.operations import gauges
from serving.operations.draining import Drain
from serving.operations.health_checks import Check, Health, HealthChecks, disk_fault
from serving.operations.metrics import Metrics
from serving.permissions.caller import VENDOR
from serving.records.store import SERVICE, Store
from serving.records.tables import now
from serving.scores.drift import read_drift
from serving.scores.sharing import View

__all__ = ["Upkeep"]

_SCORES_SECONDS = 1.0
_CHECKS_SECONDS = 2.0
_PAGES_SECONDS = 1.0

_LARGE = 100_000
"""Accounts of a book beyond which nothing is read that nobody has asked for."""


class Upkeep:
    """The part of the application that nobody asks for and everybody needs."""

    def __init__(self, workspace: Workspace, desk: Desk, *, drain: Drain, metrics: Metrics) -> None:
        self.drain = drain
        self.metrics = metrics
        self._desk = desk
        self._workspace = workspace
        self._checks = HealthChecks(_checks(workspace, desk, drain))
        self._health = Health(())
        metrics.watch(self._states)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Keep up, in threads, while the block runs."""
        with ExitStack() as running:
            running.enter_context(repeating(self._follow_scores, seconds=_SCORES_SECONDS, name="scores"))
            running.enter_context(repeating(self._prepare_pages, seconds=_PAGES_SECONDS, name="pages"))
            running.enter_context(repeating(self._checks.look, seconds=_CHECKS_SECONDS, name="checks"))
            running.enter_context(self._desk.identity.refreshing())
            running.enter_context(self._desk.journal.shipping())
            running.enter_context(self._desk.once.settling())
            yield

    async def health(self) -> Health:
        """Return whether the service can answer, and what is not as it should be."""
        self._health = await self._checks.health()
        return self._health

    async def metrics_text(self) -> bytes:
        """Return counts and states in the format of Prometheus."""
        await self.health()
        return await asyncio.to_thread(self.metrics.text)

    def _follow_scores(self) -> None:
        before = self._desk.live.loaded
        self._desk.live.refresh()
        if self._desk.live.loaded != before:
            gc.freeze()  # what stays as long as a score set need not be looked through at each collection; costs nothing

    def _prepare_pages(self) -> None:
        """Make ready what would keep the first reader of a page waiting: after new scores, a new forecast and an edited policy."""
        score_set = self._desk.live.held
        if score_set is not None and len(score_set) <= _LARGE and not self.drain.begun:
            view = View(VENDOR, None, self._desk.policies.current(), now())
            prepare_retention(self._workspace, score_set, view)

    def _states(self) -> Iterator[Metric]:
        live = self._desk.live
        yield from gauges.live_gauges(live)
        yield from gauges.journal_gauges(self._desk.journal.backlog())
        yield from gauges.health_gauges(self._health)
        if live.held is not None:
            yield from gauges.score_gauges(live.held, datetime.now(UTC).replace(tzinfo=None))
            if (drift := read_drift(self._workspace.scores / live.held.manifest.version)) is not None:
                yield from gauges.drift_gauges(drift)


def _checks(workspace: Workspace, desk: Desk, drain: Drain) -> list[Check]:
    live = desk.live
    return [
        Check(
            name="scores",
            fault=lambda: None if live.held else live.fault or "no score set",
            words="There are no scores to answer from yet.",
            needed=True,
        ),
        Check(name="staying", fault=lambda: "draining" if drain.begun else None, words="The service is about to stop.", needed=True),
        Check(
            name="newest scores",
            fault=lambda: live.fault if live.held else None,
            words="Newer scores cannot be read; the ones before are served.",
        ),
        Check(
            name="database",
            fault=lambda: _store_fault(desk.store),
            words="The operational database does not answer: what was read is kept to be noted later, what is to be stored has to wait.",
        ),
        Check(name="keys", fault=desk.identity.fault, words="Keys are checked against the list that was last read from the database."),
        Check(name="journal", fault=desk.journal.fault, words="Lines of the journal wait to be stored."),
        Check(name="policy", fault=lambda: desk.policies.fault, words="The policy was edited and cannot be used; the one before holds."),
        Check(name="disk", fault=lambda: disk_fault(workspace.state), words="The disk is almost full."),
    ]


def _store_fault(store: Store) -> str | None:
    try:
        with store.tenant(SERVICE) as connection:
            connection.exec_driver_sql("SELECT 1")
    except ServiceError as error:
        return str(error)
    return None
