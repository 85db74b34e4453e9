"""What the service writes down: one JSON object a line on standard error, each with the id of its request, none with data of an account.

A line says what happened in words that the code chose. Of an error that nobody foresaw it names the kind and the places that it came
through, but not its message: `KeyError: 'acc-17'` would put into the log what was asked for.
"""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TextIO

from features.errors import RenewcastError
from serving.callers.journal import REQUEST_ID

__all__ = ["ACCESS", "JsonLines", "configure_logs"]

ACCESS = logging.getLogger("renewcast.access")
"""Takes one line a request; the parts stand in `extra={"request": {...}}`."""

_PROJECT = Path(__file__).parents[2]
_DEEPEST = 12


class JsonLines(logging.Formatter):
    """Writes a record as one line of JSON.

    Examples
    --------
    >>> record = logging.LogRecord("renewcast.serving", logging.INFO, "live.py", 1, "now serving score set %s", ("v1",), None)
    >>> line = json.loads(JsonLines().format(record))
    >>> line["level"], line["logger"], line["message"]
    ('info', 'renewcast.serving', 'now serving score set v1')
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.casefold(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if identifier := REQUEST_ID.get():
            line["request_id"] = identifier
        line |= getattr(record, "request", {})
        if record.exc_info and record.exc_info[1] is not None:
            line |= _error(record.exc_info[1], record.exc_info[2])
        return json.dumps(line, ensure_ascii=False)


def _error(error: BaseException, trace: TracebackType | None) -> dict[str, object]:
    frames = traceback.extract_tb(trace)[-_DEEPEST:]
    told: dict[str, object] = {"error": type(error).__name__, "frames": [f"{_short(frame.filename)}:{frame.lineno}" for frame in frames]}
    if isinstance(error, RenewcastError):  # was composed for whoever runs the service
        told["detail"] = str(error)
    return told


def _short(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(_PROJECT)) if path.is_relative_to(_PROJECT) else "/".join(path.parts[-2:])


def configure_logs(stream: TextIO = sys.stderr) -> None:
    """Send the records of all loggers to the stream as lines of JSON, whatever was set up before.

    Libraries are heard from warnings on, and BentoML from errors on: at its usual level it tells each step of its own start.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    for name in [None, *logging.root.manager.loggerDict]:
        logger = logging.getLogger(name)
        for old in list(logger.handlers):
            logger.removeHandler(old)
        logger.propagate, logger.disabled = True, False
    logging.root.addHandler(handler)
    logging.root.setLevel(logging.WARNING)
    logging.getLogger("renewcast").setLevel(logging.INFO)
    logging.getLogger("bentoml").setLevel(logging.ERROR)
    addresses = logging.getLogger("uvicorn.access")  # accounts stand in them
    addresses.propagate, addresses.disabled = False, True
