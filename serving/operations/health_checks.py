"""Whether the service can answer, and what around it is not as it should be.

A service that answers from its last good scores is ready, even if the database is down and newer scores are damaged: taking it out would
help nobody. So only two things make it unready: it has no scores at all, or it is leaving. Everything else is *degraded*: said to whoever
asks, in words without a path or a name, and told to the log in full. The looks run beside the requests; an answer repeats the last one.
"""

import asyncio
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

__all__ = ["LEAST_FREE_BYTES", "Check", "Finding", "Health", "HealthChecks", "disk_fault"]

LEAST_FREE_BYTES = 100 * 1024**2
"""With less room on the disk the service says so: the journal needs some."""

_LOG = logging.getLogger("renewcast.serving")


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing to look at.

    Parameters
    ----------
    fault
        Returns what is wrong, for the log, or None. It may take a while, and it does not raise what it looks for.
    words
        What anybody may read when something is wrong.
    needed
        Whether the service cannot answer without it.
    """

    name: str
    fault: Callable[[], str | None]
    words: str
    needed: bool = False


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found at one look at one thing."""

    name: str
    good: bool
    needed: bool
    detail: str


@dataclass(frozen=True)
class Health:
    """What was found at one look at everything."""

    findings: tuple[Finding, ...]

    @property
    def ready(self) -> bool:
        """Whether nothing that is needed is missing."""
        return all(finding.good for finding in self.findings if finding.needed)

    @property
    def degraded(self) -> bool:
        """Whether anything is wrong."""
        return not all(finding.good for finding in self.findings)


class HealthChecks:
    """Looks at everything, again and again, and remembers what it found last."""

    def __init__(self, checks: Sequence[Check]) -> None:
        self._checks = tuple(checks)
        self._faults: dict[str, str | None] = {}
        self._looking = Lock()

    def look(self) -> None:
        """Look at everything once; what has become wrong, or right again, goes to the log."""
        with self._looking:
            found = {check.name: _fault_of(check) for check in self._checks}
            for name, fault in found.items():
                _tell(name, fault, self._faults.get(name))
            self._faults = found

    async def health(self) -> Health:
        """Return what was found last; what is needed, and costs nothing to ask, is asked now."""
        if not self._faults:
            await asyncio.to_thread(self.look)
        return Health(tuple(_finding(check, check.fault() if check.needed else self._faults[check.name]) for check in self._checks))


def _tell(name: str, fault: str | None, before: str | None) -> None:
    if fault and not before:
        _LOG.warning("%s: %s", name, fault)
    if before and not fault:
        _LOG.info("%s: good again", name)


def _fault_of(check: Check) -> str | None:
    try:
        return check.fault()
    except Exception as error:  # a look that fails is a fault like any other, and must not end the watch
        _LOG.exception("%s could not be looked at", check.name)
        return type(error).__name__


def _finding(check: Check, fault: str | None) -> Finding:
    return Finding(name=check.name, good=fault is None, needed=check.needed, detail=check.words if fault else "")


def disk_fault(folder: Path) -> str | None:
    """Return what is wrong with the disk that the folder is on, or None."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return f"{folder} cannot be looked at: {error.strerror}"
    return f"{free // 1024**2} MB are free below {folder}" if free < LEAST_FREE_BYTES else None
