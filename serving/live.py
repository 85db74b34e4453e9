"""The score set that is served now: read once, swapped when a new one is there, without a restart."""

import logging
from pathlib import Path
from threading import Lock

from features.errors import RenewcastError
from serving.scoring import ScoreSet, load_score_set

__all__ = ["LiveScores"]

_LOG = logging.getLogger("renewcast.serving")


class LiveScores:
    """Holds the current score set and follows `scores/CURRENT`.

    A request asks once and keeps the answer, so it never mixes two versions. The request that notices a new version reads it; others
    are served from the old one until then. A new version that cannot be read is logged, and the old one stays.
    """

    def __init__(self, scores: Path) -> None:
        self._scores = scores
        self._mark = self._look()
        self._score_set = load_score_set(scores)
        self._reading = Lock()

    def current(self) -> ScoreSet:
        """Return the score set to answer a request with."""
        mark = self._look()
        if mark != self._mark and self._reading.acquire(blocking=False):
            try:
                self._score_set = load_score_set(self._scores)
                _LOG.info("now serving score set %s", self._score_set.manifest.version)
            except RenewcastError:
                _LOG.exception("a new score set cannot be read; still serving %s", self._score_set.manifest.version)
            finally:
                self._mark = mark
                self._reading.release()
        return self._score_set

    def _look(self) -> tuple[int, int] | None:
        """Return what changes whenever `CURRENT` is switched."""
        try:
            found = (self._scores / "CURRENT").stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_ino
