"""Local files that only grow, for lines that are written before a request is answered and taken to the database after it.

Each process writes a segment of its own, which it holds locked; a segment that nobody holds was left by a process that ended, and anybody
may take it over. One write holds all lines of a request. When a process is killed, no line is lost whose request was answered. When the
whole machine fails, the lines of the last moments may be: they were handed to the operating system, not forced to the disk.

Assumes a local file system on which a lock ends with its process; network file systems do not promise that.
"""

import fcntl
import os
import secrets
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

__all__ = ["LARGEST_SEGMENT", "Segment", "Segments", "SegmentsFullError"]

LARGEST_SEGMENT = 16 * 1024 * 1024
"""Bytes after which the next segment is begun, so that one that waits long is taken away piece by piece."""

_HELD_AT_MOST = 4 * 1024 * 1024
_SUFFIX = ".jsonl"


class SegmentsFullError(Exception):
    """The disk takes nothing more, and neither does the memory that stands in for it."""


@dataclass(frozen=True)
class Segment:
    """A segment that nobody writes any more; it is held locked as long as its file is open."""

    path: Path
    handle: int

    def lines(self) -> Iterator[bytes]:
        """Yield the whole lines, without their ends; a last line without an end was never answered and is left out."""
        with os.fdopen(os.dup(self.handle), "rb") as file:
            file.seek(0)
            for line in file:
                if line.endswith(b"\n"):
                    yield line[:-1]

    def remove(self) -> None:
        """Delete the file and give up the lock."""
        try:
            self.path.unlink(missing_ok=True)
        finally:
            self.close()

    def set_aside(self) -> None:
        """Keep the file under another name, for somebody to look at: nobody ships it again."""
        self.path.rename(self.path.with_suffix(".damaged"))
        self.close()

    def close(self) -> None:
        """Give up the lock; somebody else may take the segment over."""
        os.close(self.handle)


class Segments:
    """Appends to a segment in a folder, and hands over the segments that are finished.

    Parameters
    ----------
    held_at_most
        Bytes that are kept in memory while the disk is full.
    """

    def __init__(self, folder: Path, *, held_at_most: int = _HELD_AT_MOST) -> None:
        self._folder = folder
        self._held_at_most = held_at_most
        self._held: deque[bytes] = deque()
        self._held_bytes = 0
        self._handle: int | None = None
        self._path = folder
        self._size = 0
        self._lock = Lock()

    @property
    def held(self) -> tuple[bytes, ...]:
        """The lines that are in memory because the disk takes none; each part holds those of one request."""
        return tuple(self._held)

    def release(self, parts: tuple[bytes, ...]) -> None:
        """Forget parts that were held: they are kept elsewhere now."""
        known = set(map(id, parts))
        with self._lock:
            while self._held and id(self._held[0]) in known:
                self._held_bytes -= len(self._held.popleft())

    def append(self, lines: bytes) -> None:
        """Write whole lines behind those that are there, or keep them in memory while the disk is full.

        Raises
        ------
        SegmentsFullError
            If the memory for that is used up.
        """
        with self._lock:
            self._write_held()
            if not self._held and self._write(lines):
                return
            if self._held_bytes + len(lines) > self._held_at_most:
                raise SegmentsFullError
            self._held.append(lines)
            self._held_bytes += len(lines)

    def finished(self) -> Iterator[Segment]:
        """End the segment that is written, and yield all that nobody writes, the oldest first; who takes one ends its life or closes it."""
        with self._lock:
            self._write_held()
            if self._handle is not None and self._size:
                self._end()
        for path in self._waiting():
            if (segment := _taken_over(path)) is not None:
                yield segment

    def backlog(self) -> Iterator[Path]:
        """Yield the files of all processes that hold lines still."""
        for path in self._waiting():
            with suppress(FileNotFoundError):
                if path.stat().st_size:
                    yield path

    def close(self) -> None:
        """End the segment that is written; what it holds is taken over by whoever comes next."""
        with self._lock:
            self._write_held()
            if self._handle is not None:
                empty = not self._size
                path = self._path
                self._end()
                if empty:
                    path.unlink(missing_ok=True)

    def _waiting(self) -> list[Path]:
        # names begin with the time, in nanoseconds, at which the segment was begun
        return sorted(self._folder.glob(f"*{_SUFFIX}")) if self._folder.exists() else []

    def _write_held(self) -> None:
        while self._held and self._write(self._held[0]):
            self._held_bytes -= len(self._held.popleft())

    def _write(self, lines: bytes) -> bool:
        """Write all or nothing, and tell which."""
        if self._size > LARGEST_SEGMENT:
            self._end()
        try:
            handle = self._handle if self._handle is not None else self._begin()
            written = os.write(handle, lines)
            if written == len(lines):
                self._size += written
                return True
            os.ftruncate(handle, self._size)
        except OSError:
            # a part may be there: what follows goes to a segment of its own
            self._end()
        return False

    def _begin(self) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        name = self._folder / f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        handle = os.open(name, os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        # others see it by its suffix only, and so never unlocked
        self._path = name.rename(name.with_suffix(_SUFFIX))
        self._handle, self._size = handle, 0
        return handle

    def _end(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
        self._handle, self._size = None, 0


def _taken_over(path: Path) -> Segment | None:
    """Lock a segment that nobody holds."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # between the two calls somebody else may have shipped and removed it
        if os.fstat(handle).st_nlink:
            return Segment(path, handle)
    except BlockingIOError:
        pass
    os.close(handle)
    return None
