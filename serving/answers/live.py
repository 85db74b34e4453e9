"""The score set that is served now: read beside the requests, swapped when a new one is there, without a restart."""

import logging
from pathlib import Path
from threading import Lock

from features.errors import RenewcastError
from serving.answers.problems import ProblemError
from serving.scores.explained import json_value, score_features
from serving.scores.scoring import ScoreSet, load_score_set

__all__ = ["LiveScores"]

_LOG = logging.getLogger("renewcast.serving")
_RETRY_SECONDS = 30

Mark = tuple[tuple[str, int, int, int], ...]


class LiveScores:
    """Holds the current score set and follows `scores/CURRENT`.

    A request asks once and keeps the answer, so it never mixes two versions. No request reads a file: `refresh` is called beside them, in
    another thread, and the swap is one assignment. A set that cannot be read, because it is damaged or not all there yet, is refused and
    logged once; the one before it stays, and as soon as a file of the new one changes it is tried again. Without any scores the service
    answers that it is not ready, until there are some.

    Parameters
    ----------
    scores
        The folder of the score sets. It is read once before the constructor returns.

    Attributes
    ----------
    fault
        Why the newest scores are not the ones that are served, for the operator; None if they are.
    loaded, refused
        How many sets were taken and were not, since the start.
    """

    def __init__(self, scores: Path) -> None:
        self._scores = scores
        self._mark: Mark | None = None
        self._score_set: ScoreSet | None = None
        self._reading = Lock()
        self.fault: str | None = None
        self.loaded = 0
        self.refused = 0
        self.refresh()

    def current(self) -> ScoreSet:
        """Return the score set to answer a request with.

        Raises
        ------
        ProblemError
            503 if there is none yet.
        """
        if self._score_set is None:
            detail = "There are no scores to answer from yet. Whoever runs this service finds in its log what to do."
            raise ProblemError(503, detail, headers={"Retry-After": str(_RETRY_SECONDS)})
        return self._score_set

    @property
    def held(self) -> ScoreSet | None:
        """The score set that is served; None if there is none yet."""
        return self._score_set

    def refresh(self) -> None:
        """Look whether there are new scores, and take them; returns when that is done."""
        with self._reading:
            mark = _look(self._scores)
            if mark != self._mark:
                self._take()
                self._mark = mark

    def _take(self) -> None:
        serving = self._score_set.manifest.version if self._score_set else "nothing"
        try:
            score_set = load_score_set(self._scores)
            _prepare(score_set)
        except (RenewcastError, OSError, MemoryError) as error:
            self.fault = f"{type(error).__name__}: {error}"
            self.refused += 1
            _LOG.exception("the newest scores cannot be read; still serving %s", serving)
        else:
            self._score_set = score_set
            self.fault = None
            self.loaded += 1
            _LOG.info("now serving score set %s", score_set.manifest.version)


def _prepare(score_set: ScoreSet) -> None:
    """Have all made that the models make once, the tables of their leaves first, so that no request waits for it.

    For the models of the simulated book that is 0.3 s of a processor.
    """
    if len(score_set):
        row = {name: json_value(column[0]) for name, column in score_set.values.items()}
        score_features(score_set.packages, [row])


def _look(scores: Path) -> Mark:
    """Return what changes whenever `CURRENT` is switched or a file of the set that it names changes."""
    current = scores / "CURRENT"
    try:
        folder = scores / current.read_text(encoding="utf-8").strip()
        files = [current, *sorted(file for file in folder.rglob("*") if file.is_file())]
        return tuple((str(file), found.st_ino, found.st_mtime_ns, found.st_size) for file in files for found in (file.stat(),))
    except (OSError, ValueError):
        return ()
