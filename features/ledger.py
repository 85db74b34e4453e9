"""What a workspace has done so far, and how results are put in place so that a reader never sees a half-written one.

A step is *current* when the fingerprint of everything that it reads (files, settings, code version, the steps before it) equals
the one noted when it last finished. Results are written beside their place under a temporary name and renamed at the end; a step
that was interrupted leaves its temporary files behind, which the next run removes.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from features.errors import WorkspaceError, explain

__all__ = ["Ledger", "code_digest", "fingerprint", "fingerprint_files", "link_file", "remove_unfinished", "replace_file", "replace_folder"]

_UNFINISHED, _OLD = ".unfinished-", "-old"


def fingerprint(*parts: object) -> str:
    """Return a SHA-256 digest of JSON-able parts.

    Examples
    --------
    >>> fingerprint("a", 1) == fingerprint("a", 1) != fingerprint("a", 2)
    True
    """
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint_files(files: Mapping[str, Path]) -> str:
    """Return a digest of the files' names, sizes and modification times; their contents are not read."""
    facts = [(name, path.stat().st_size, path.stat().st_mtime_ns) for name, path in sorted(files.items())]
    return fingerprint(facts)


def code_digest() -> str:
    """Return a digest of this package's source code: what was made by other code is made again."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, and rename it to `path` when the block ends without an error."""
    temporary = _beside(path)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder to fill, and put it in the place of `path` when the block ends without an error.

    The old folder is moved aside first; a crash between the two renames leaves no folder at `path`, and the next writer puts the old
    one back.
    """
    temporary = _beside(path)
    temporary.mkdir()
    try:
        yield temporary
        old = temporary.with_name(f"{temporary.name}{_OLD}")
        if path.exists():
            path.replace(old)
        temporary.replace(path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def link_file(file: Path, place: Path) -> None:
    """Put a file that nobody changes at a further place, as a hard link where the file system has such."""
    try:
        os.link(file, place)
    except OSError:
        shutil.copyfile(file, place)


def remove_unfinished(*folders: Path) -> None:
    """Remove what interrupted writers left in these folders; the caller sees to it that nobody is writing there."""
    for folder in folders:
        for left_over in sorted(folder.glob(f"{_UNFINISHED}*")):
            _restore_or_remove(left_over)


def _restore_or_remove(left_over: Path) -> None:
    """Put a folder back that was moved aside for one that never came; remove everything else."""
    place = left_over.with_name(left_over.name.removeprefix(_UNFINISHED).removesuffix(_OLD).rpartition("-")[0] or left_over.name)
    if left_over.name.endswith(_OLD) and not place.exists():
        left_over.replace(place)
    else:
        _remove(left_over)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _beside(path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left_over in sorted(path.parent.glob(f"{_UNFINISHED}{path.name}-*")):
            _restore_or_remove(left_over)
    except OSError as error:
        raise WorkspaceError(
            explain(
                f"the workspace cannot be written to: {error.strerror}",
                given=path.parent,
                todo="Give yourself the right to write to this folder, or copy the workspace to one where you may.",
            )
        ) from error
    return path.parent / f"{_UNFINISHED}{path.name}-{uuid4().hex[:8]}"


@dataclass(frozen=True)
class Ledger:
    """The steps that a workspace has finished, kept in one JSON file."""

    path: Path

    def recorded(self, step: str, mark: str) -> dict[str, Any] | None:
        """Return the step's summary if it finished with this fingerprint, else None."""
        entry = self._read().get(step)
        return entry["summary"] if entry and entry["fingerprint"] == mark else None

    def fingerprint_of(self, step: str) -> str | None:
        """Return the fingerprint with which the step last finished."""
        entry = self._read().get(step)
        return entry["fingerprint"] if entry else None

    def record(self, step: str, mark: str, summary: Mapping[str, Any]) -> None:
        """Note that the step finished with this fingerprint, and what it did."""
        steps = self._read() | {step: {"fingerprint": mark, "summary": dict(summary)}}
        with replace_file(self.path) as temporary:
            temporary.write_text(json.dumps(steps, indent=2, default=str), encoding="utf-8")

    def _read(self) -> dict[str, Any]:
        try:
            steps: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return steps
