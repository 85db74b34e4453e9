"""Opens what a table's source names, whatever its kind, as one table of raw columns that knows where each row came from.

Beside its own columns an opened table has those in `PROVENANCE`. Parquet is read in place with its types; everything else is staged
to Parquet first, CSV, JSON Lines, SQLite and PostgreSQL as text.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from glob import has_magic
from pathlib import Path

import ibis
import ibis.expr.types as ir

from features.config import FileFormat, TableSource
from features.databases import Exported, export_postgresql, export_sqlite, label, selection
from features.engine import Engine, QueryError
from features.errors import SourceError, explain, nearest
from features.textfiles import FILE, LINE, PROBLEM, PROVENANCE, ROW, StagedText, name_files, stage_csv, stage_json_lines

__all__ = [
    "FILE",
    "LINE",
    "PROBLEM",
    "PROVENANCE",
    "ROW",
    "OpenedSource",
    "file_format",
    "file_suffix",
    "list_files",
    "open_files",
    "open_source",
    "queries_before_reading",
]

_QUERIES_OF_TEXT: Mapping[FileFormat, int] = {"csv": 4, "jsonl": 7}
_QUERIES_OF_DATABASES = {"spark": 0, "duckdb": 1, "sqlite": 1 + _QUERIES_OF_TEXT["csv"], "postgresql": 1 + _QUERIES_OF_TEXT["csv"]}
_SUFFIXES: Mapping[str, FileFormat] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}


@dataclass(frozen=True)
class OpenedSource:
    """A source that can be queried.

    Parameters
    ----------
    table
        Its raw columns and those in `PROVENANCE`.
    label
        What people call it: the path, or the database and table.
    notes
        What was noticed while reading and how often, such as records that lack a key.
    layout
        As of `features.textfiles.StagedText`.
    """

    table: ir.Table
    label: str
    notes: Mapping[str, int]
    layout: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """The source's own columns."""
        return tuple(name for name in self.table.columns if name not in PROVENANCE)

    @property
    def types(self) -> dict[str, str]:
        """The types of the source's own columns, as texts."""
        return {name: str(kind) for name, kind in self.table.schema().items() if name not in PROVENANCE}


def open_source(
    engine: Engine,
    source: TableSource,
    staging: Path,
    *,
    only: Sequence[Path] | None = None,
    like: Mapping[str, str] | None = None,
    may_be_empty: bool = False,
) -> OpenedSource:
    """Open a source; its `query` over files, `where` and columns are not applied yet.

    Parameters
    ----------
    staging
        A folder for temporary files, to be kept until the table was read.
    only
        Those of its files that are read; all if None.
    like
        The names and types of its columns as of an earlier reading: columns that these files lack are added, empty, and all are put
        into that order. Text files, and files with other columns or types, are left as they are.
    may_be_empty
        Whether Parquet files may have no rows, as other files of the source have some.

    Raises
    ------
    SourceError
        If it is not there, empty, damaged or of another format.
    """
    folder = staging / f"source_{len(list(staging.iterdir()))}"
    folder.mkdir()
    if source.database is not None:
        return _open_database(engine, source, folder)
    if source.location is None:
        raise SourceError(explain("the source has no location", given=source.table, todo='Write source = "..." in renewcast.toml.'))
    opened = open_files(engine, source.location, source.format, folder, only=only, may_be_empty=may_be_empty)
    return _as_before(opened, like or {})


def queries_before_reading(source: TableSource, *, only: Sequence[Path] | None = None) -> int:
    """Return about how many queries go through all rows of a source, or only of some files of it, before its rows can be mapped.

    Text is staged, and looked at for how it is written; databases are exported, most of them as text; and a `query` over files has its
    result staged.
    """
    if source.database is not None:
        return _QUERIES_OF_DATABASES[source.database]
    if source.location is None:
        return 0
    files = list_files(source.location, source.format) if only is None else only
    return _QUERIES_OF_TEXT.get(source.format or file_format(files[0]), 0) + (source.query is not None)


def _as_before(opened: OpenedSource, like: Mapping[str, str]) -> OpenedSource:
    types = opened.types
    if opened.layout or not types.items() <= like.items():
        return opened
    columns = {name: opened.table[name] if name in types else ibis.null(kind) for name, kind in like.items()}
    return replace(opened, table=opened.table.select(*(opened.table[name] for name in PROVENANCE), **columns))


def open_files(
    engine: Engine,
    location: Path,
    given: FileFormat | None,
    folder: Path,
    *,
    only: Sequence[Path] | None = None,
    may_be_empty: bool = False,
) -> OpenedSource:
    """Open a file, a glob or a folder, or only some files of it, staging text in an empty folder.

    Raises
    ------
    SourceError
        If there is no such file, or it cannot be read.
    """
    files = list_files(location, given) if only is None else list(only)
    kind = given or file_format(files[0])
    hive = any("=" in part for part in files[0].parts[len(_fixed_part(location).parts) : -1])
    try:
        staged = _staged(engine, files, kind, folder, hive=hive)
        if not (may_be_empty and kind == "parquet"):
            _refuse_empty(engine, staged.table, files)
    except QueryError as error:
        todo = "Look whether the files are complete and of one format; name it with format = ... if their names do not tell it."
        wrong = f"the files cannot be read as {kind}: {_first_line(error)}"
        raise SourceError(explain(wrong, given=name_files(files), todo=todo)) from error
    return OpenedSource(staged.table, str(location), staged.notes, staged.layout)


def list_files(location: Path, given: FileFormat | None) -> list[Path]:
    """Return the files of a path, a glob or a folder, sorted.

    Raises
    ------
    SourceError
        If there is none, or their formats differ.
    """
    if location.is_file():
        return [location]
    if location.is_dir():
        found = [path for path in location.rglob("*") if given or file_suffix(path) in _SUFFIXES]
    elif has_magic(str(location)):
        fixed = _fixed_part(location)
        found = list(fixed.glob(str(location.relative_to(fixed))))
    else:
        raise _missing(location)
    above = len(_fixed_part(location).parts)
    files = sorted(path for path in found if path.is_file() and not _is_hidden(path.parts[above:]))
    if not files:
        raise SourceError(explain("no file is there", given=location, todo="Look at the path, or at what the glob should match."))
    kinds = {file_format(file) for file in files} if given is None else {given}
    if len(kinds) > 1:
        todo = "Name one kind by a glob, such as folder/*.csv."
        raise SourceError(explain("files of several formats are there", given=f"{location}: {', '.join(sorted(kinds))}", todo=todo))
    return files


def file_suffix(path: Path) -> str:
    """Return the suffix that tells the format, whatever the compression.

    Examples
    --------
    >>> file_suffix(Path("events.jsonl.gz"))
    '.jsonl'
    """
    name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
    return Path(name).suffix


def file_format(path: Path) -> FileFormat:
    """Tell a file's format from its name.

    Raises
    ------
    SourceError
        If the name does not tell it.
    """
    suffix = file_suffix(path)
    if suffix not in _SUFFIXES:
        allowed = ", ".join(_SUFFIXES)
        todo = 'Write format = "csv" (or parquet, jsonl) beside source; for a database, database = "sqlite" (or duckdb, postgresql).'
        raise SourceError(explain("the name of the file does not tell its format", given=path, allowed=allowed, todo=todo))
    return _SUFFIXES[suffix]


def _staged(engine: Engine, files: Sequence[Path], kind: FileFormat, folder: Path, *, hive: bool) -> StagedText:
    match kind:
        case "csv":
            return stage_csv(engine, files, folder, hive=hive)
        case "jsonl":
            return stage_json_lines(engine, files, folder, hive=hive)
        case "parquet":
            options = {"filename": FILE, "file_row_number": True, "hive_partitioning": hive} | (
                {"hive_types_autocast": False} if hive else {}
            )
            table = engine.read_parquet(files, **options)
            whole = table.mutate(**{ROW: table.file_row_number + 1, PROBLEM: ibis.null("string"), LINE: ibis.null("string")})
            return StagedText(whole.drop("file_row_number"))


def _open_database(engine: Engine, source: TableSource, folder: Path) -> OpenedSource:
    if source.location is not None and not source.location.is_file():
        raise _missing(source.location)
    if source.database == "duckdb" and source.location is not None:
        out = folder / "rows.parquet"
        try:
            engine.export_database(source.location, selection(source), out)
        except QueryError as error:
            todo = "Look at the name of the table and the query; close programs that write to the database."
            raise SourceError(explain(f"the database cannot be read: {_first_line(error)}", given=label(source), todo=todo)) from error
    else:
        out, done = folder / "rows.csv", Exported()
        with engine.measured(done.share):
            (export_sqlite if source.database == "sqlite" else export_postgresql)(source, out, done)
    staged = folder / "staged"
    staged.mkdir()
    try:
        opened = open_files(engine, out, None, staged)
    except SourceError as error:
        raise SourceError(str(error).replace(str(out), label(source))) from error
    return replace(opened, table=opened.table.mutate(**{FILE: ibis.literal(label(source))}), label=label(source))


def _refuse_empty(engine: Engine, table: ir.Table, files: Sequence[Path]) -> None:
    if engine.count(table.limit(1)) == 0:
        todo = "Export the table again, or remove it from renewcast.toml if you have no such data."
        raise SourceError(explain("the table has no rows", given=name_files(files), todo=todo))


def _missing(location: Path) -> SourceError:
    folder = location.parent
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    allowed = ", ".join(there[:20]) if there else f"{folder} is {'empty' if folder.is_dir() else 'no folder'}"
    return SourceError(
        explain("the file does not exist", given=location, allowed=allowed, todo=nearest(location.name, there) or "Correct the path.")
    )


def _is_hidden(parts: Sequence[str]) -> bool:
    return any(part.startswith((".", "_")) for part in parts)


def _fixed_part(location: Path) -> Path:
    """Return the part of a glob before the first pattern; a folder as it is."""
    return next((parent for parent in (location, *location.parents) if not has_magic(str(parent))), location)


def _first_line(error: Exception) -> str:
    return re.sub(r"^\w[\w ]* Error: ", "", str(error).split("\n", 1)[0])
