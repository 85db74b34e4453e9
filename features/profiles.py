"""Looks at the files of a folder: which belong together, what their columns are called and what their values look like."""

import gzip
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import ibis.expr.types as ir
import pyarrow as pa

from features.engine import Engine, QueryError
from features.errors import SourceError
from features.expressions import gather_evidence
from features.readings import Evidence
from features.sources import file_format, file_suffix, list_files, open_files

__all__ = ["ColumnProfile", "SourceProfile", "profile_folder"]

ValueKind = Literal["time", "number", "flag", "text", "empty"]

_SAMPLE_BYTES = 2_000_000
_SAMPLE_ROWS = 20_000
_DATA = (".parquet", ".pq", ".csv", ".tsv", ".jsonl", ".ndjson", ".json")


@dataclass(frozen=True, kw_only=True)
class ColumnProfile:
    """What a sample of a column's values looks like.

    Parameters
    ----------
    kind
        What at least nine tenths of the values are.
    whole_days
        Whether all times are midnights.
    filled, distinct
        Shares of the sample's rows that are filled, and that are distinct values.
    examples
        The first three different values, as text.
    levels
        How many different values there are.
    ambiguous
        Whether the order of day and month cannot be told.
    """

    name: str
    kind: ValueKind
    whole_days: bool
    filled: float
    distinct: float
    levels: int
    examples: tuple[str, ...]
    ambiguous: bool = False


@dataclass(frozen=True, kw_only=True)
class SourceProfile:
    """Files that belong together, and their columns.

    Parameters
    ----------
    location
        Relative to the folder that was looked at.
    rows
        How many rows the sample has.
    """

    location: str
    files: int
    columns: tuple[ColumnProfile, ...]
    rows: int

    @property
    def words(self) -> set[str]:
        """The words of the file's name."""
        name = Path(self.location).name.lower().split(".")[0]
        return set(name.replace("-", "_").replace(" ", "_").split("_")) | {name}

    def column(self, name: str) -> ColumnProfile:
        """Return a column's profile."""
        return next(column for column in self.columns if column.name == name)


def profile_folder(engine: Engine, folder: Path, staging: Path) -> tuple[list[SourceProfile], dict[str, str]]:
    """Look at all data files below a folder.

    Returns
    -------
    tuple[list[SourceProfile], dict[str, str]]
        What was found, and the files that could not be read, with the reason.

    Raises
    ------
    SourceError
        If the folder does not exist.
    """
    if not folder.is_dir():
        raise SourceError(f"the folder does not exist: {folder}")
    found: list[SourceProfile] = []
    unreadable: dict[str, str] = {}
    for number, location in enumerate(_locations(folder)):
        here = staging / f"sample_{number}"
        here.mkdir(parents=True)
        try:
            found.append(_profile(engine, folder, location, here))
        except (SourceError, QueryError, OSError) as error:
            unreadable[str(location.relative_to(folder))] = str(error).split("\n", 1)[0]
    return found, unreadable


def _locations(folder: Path) -> Iterator[Path]:
    """Yield files, and folders whose files are parts of one table."""
    visible = sorted(path for path in folder.iterdir() if not path.name.startswith((".", "_")))
    files = [path for path in visible if path.is_file() and file_suffix(path) in _DATA]
    yield from files
    for below in filter(Path.is_dir, visible):
        if _is_one_table(below):
            yield below
        else:
            yield from _locations(below)


def _is_one_table(folder: Path) -> bool:
    try:
        files = list_files(folder, None)
    except SourceError:
        return False
    if any("=" in part for part in files[0].relative_to(folder).parts[:-1]):
        return True
    if len(files) < 2 or any(path.parent != folder for path in files):
        return False
    stems = {"".join(character for character in path.name if not character.isdigit()) for path in files}
    return len(stems) == 1


def _profile(engine: Engine, folder: Path, location: Path, staging: Path) -> SourceProfile:
    files = list_files(location, None)
    rows = _sample(engine, location, files, staging)
    names = [name for name in rows.columns if not name.startswith("__")]
    evidence = gather_evidence(engine, rows, {name: "anything" for name in names if rows[name].type().is_string()})
    sample = engine.to_arrow(rows.select(names))
    columns = tuple(_column(name, rows[name], sample[name], evidence.get(name)) for name in names)
    return SourceProfile(location=str(location.relative_to(folder)), files=len(files), columns=columns, rows=len(sample))


def _sample(engine: Engine, location: Path, files: Sequence[Path], staging: Path) -> ir.Table:
    """Return rows of the first, the middle and the last file."""
    kind = file_format(files[0])
    if kind == "parquet":
        return open_files(engine, location, None, staging).table.limit(_SAMPLE_ROWS)
    heads, out = staging / "heads", staging / "staged"
    heads.mkdir()
    out.mkdir()
    for number, path in enumerate(sorted({files[0], files[len(files) // 2], files[-1]})):
        text = _head(path)
        if text:
            (heads / f"{number}{file_suffix(path)}").write_bytes(text)
    opened = open_files(engine, heads, kind, out)
    return opened.table.filter(opened.table["__problem"].isnull())


def _head(path: Path) -> bytes:
    """Return the first lines of a text file."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        start = stream.read(_SAMPLE_BYTES)
    return start if len(start) < _SAMPLE_BYTES else start[: start.rindex(b"\n") + 1]


def _column(name: str, column: ir.Column, values: pa.ChunkedArray, evidence: Evidence | None) -> ColumnProfile:
    texts = [str(value) for value in values.to_pylist() if value is not None and value != ""]
    levels = sorted(set(texts))
    return ColumnProfile(
        name=name,
        kind=_kind_of_text(evidence) if evidence else _kind_of_type(column),
        whole_days=all(re.fullmatch(r"[^T:]*|.*[T ]00:00(:00)?", text) for text in levels),
        filled=len(texts) / len(values) if len(values) else 0.0,
        distinct=len(levels) / len(values) if len(values) else 0.0,
        levels=len(levels),
        examples=tuple(levels[:3]),
        ambiguous=bool(evidence and evidence.is_ambiguous),
    )


def _kind_of_text(evidence: Evidence) -> ValueKind:
    most = 0.9 * evidence.stated
    if not evidence.stated:
        return "empty"
    if evidence.flags >= most:
        return "flag"
    if evidence.times + evidence.slashed >= most and evidence.times + evidence.slashed > evidence.whole:
        return "time"
    return "number" if evidence.numbers >= most and not evidence.padded else "text"


def _kind_of_type(value: ir.Value) -> ValueKind:
    kind = value.type()
    if kind.is_timestamp() or kind.is_date():
        return "time"
    if kind.is_boolean():
        return "flag"
    return "number" if kind.is_numeric() else "text"
