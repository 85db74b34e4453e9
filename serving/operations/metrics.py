"""What the service counts, for Prometheus: by route template, never by address, so that there are as many series as there are routes.

Each worker counts for itself. In the process tree they share a folder of memory-mapped files, from which any worker adds up the counts of
all; what is a state rather than a count (how old the scores are, how far the book has drifted) is asked of the worker that answers. No
label holds an account, a partner, a key or an address that was made up.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

__all__ = ["CONTENT_TYPE", "METHODS", "Metrics", "States"]

_LOG = logging.getLogger("renewcast.serving")

CONTENT_TYPE = CONTENT_TYPE_LATEST
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

States = Callable[[], Iterable[Metric]]
"""Yields what is so at the moment that it is asked."""


class Metrics:
    """The counts of one worker, and the text in which all of them are read.

    Parameters
    ----------
    folder
        Where the workers of a process tree share their counts; None for a process on its own.
    """

    def __init__(self, folder: Path | None = None) -> None:
        own = CollectorRegistry()
        self._folder = folder
        self._read_from = own if folder is None else CollectorRegistry()
        if folder is not None:
            _forget_the_dead(folder)
            MultiProcessCollector(self._read_from, path=str(folder))  # type: ignore[no-untyped-call]
        self._requests = Counter("renewcast_requests", "Requests that were answered.", ("route", "method", "status"), registry=own)
        self._seconds = Histogram(
            "renewcast_request_seconds", "From the head of a request to the end of its answer.", ("route",), buckets=_SECONDS, registry=own
        )
        self._refusals = Counter("renewcast_refusals", "Requests that were refused, by kind of problem.", ("kind",), registry=own)
        self.in_flight = Gauge("renewcast_requests_in_flight", "Requests being answered.", registry=own, multiprocess_mode="livesum")
        self._series = lru_cache(maxsize=2048)(self._make_series)

    def answered(self, *, route: str, method: str, status: int, kind: str | None, seconds: float) -> None:
        """Count a request that was answered; `kind` is that of its problem, a name of `problems.KINDS`, if it was refused.

        Where there is no room for another series it is not counted: counting must not cost anybody an answer.
        """
        try:
            requests, duration = self._series(route, method if method in METHODS else "other", f"{status // 100}xx")
            requests.inc()
            duration.observe(seconds)
            if kind is not None:
                self._refusals.labels(kind).inc()
        except OSError as error:
            _LOG.warning("a request could not be counted: %s", error.strerror)

    def watch(self, states: States) -> None:
        """Show what the function yields with each reading."""
        self._read_from.register(_Watched(states))

    def text(self) -> bytes:
        """Return all counts and states in the format of Prometheus."""
        return generate_latest(self._read_from)

    def _make_series(self, route: str, method: str, status: str) -> tuple[Counter, Histogram]:
        return self._requests.labels(route, method, status), self._seconds.labels(route)


class _Watched(Collector):
    def __init__(self, states: States) -> None:
        self._states = states

    def collect(self) -> Iterator[Metric]:
        yield from self._states()

    def describe(self) -> Iterable[Metric]:
        return ()


def _forget_the_dead(folder: Path) -> None:
    """Take workers that are no longer there out of the sums of what is going on now."""
    for file in folder.glob("gauge_live*_*.db"):
        process = int(file.stem.rpartition("_")[2])
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            mark_process_dead(process, path=str(folder))  # type: ignore[no-untyped-call]
        except PermissionError:
            continue
