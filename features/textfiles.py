"""Reads CSV and JSON Lines into columns of text, and keeps each line that cannot be read, so that none is lost.

Text stays text here: what a number or a time is, is decided later from all values of a column. Files are streamed to Parquet in a
staging folder once, however often they are read afterwards.

But: a CSV file must have a header, the double quote is the only quote, and a blank line may shift the row numbers after it.
"""

import csv
import gzip
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import ibis.expr.types as ir

from features.engine import Engine, quoted, quoted_name
from features.errors import SourceError, explain

__all__ = ["FILE", "LINE", "PROBLEM", "PROVENANCE", "ROW", "StagedText", "name_files", "stage_csv", "stage_json_lines"]

FILE, ROW, PROBLEM, LINE = "__file", "__row", "__problem", "__line"
PROVENANCE = (FILE, ROW, PROBLEM, LINE)
"""Columns of every opened source: the file, the row's number in it (the header not counted), why it cannot be read, its text."""

_HEADER_BYTES = 1 << 20
_EMPTY = "Export the table again, or remove it from renewcast.toml."


@dataclass(frozen=True)
class StagedText:
    """Text files as a table of text columns, with what was noticed on the way.

    Parameters
    ----------
    layout
        How lines are cut into columns and of which kinds they are: files of equal layout, read together, give what each gives alone.
        Empty for files that are no text.
    """

    table: ir.Table
    notes: Mapping[str, int] = field(default_factory=dict)
    layout: str = ""


@dataclass(frozen=True)
class _Layout:
    """How lines are cut into columns; files of one layout are read together."""

    separator: str
    columns: tuple[str, ...]
    quote: str = '"'
    header: bool = True

    @classmethod
    def of_header(cls, text: str) -> Self | None:
        outside_quotes = "".join(text.split("\n", 1)[0].split('"')[::2])
        separator = max(",;\t|", key=outside_quotes.count)
        names = next(csv.reader(io.StringIO(text), delimiter=separator), None)
        return cls(separator, _unique(names)) if names else None


# a raw control character cannot be in JSON, so one as a separator leaves every line whole
_LINES = _Layout("\x01", ("line",), quote="", header=False)


def stage_csv(engine: Engine, files: Sequence[Path], folder: Path, *, hive: bool) -> StagedText:
    """Stage CSV files, joined by the names of their columns.

    Parameters
    ----------
    folder
        An empty folder to stage in.
    hive
        Whether `key=value` folders in the paths are columns.

    Raises
    ------
    SourceError
        If no file has a header, or one is not text in UTF-8.
    """
    layouts: dict[_Layout, list[Path]] = {}
    for file in files:
        if (layout := _layout(file)) is not None:
            layouts.setdefault(layout, []).append(file)
    if not layouts:
        raise SourceError(explain("the file is empty", given=name_files(files), todo=_EMPTY))
    for number, (layout, alike) in enumerate(layouts.items()):
        _stage_alike(engine, alike, folder / f"{number}.parquet", layout, hive=hive)
    notes = {f"files with the columns {', '.join(layout.columns)}": len(alike) for layout, alike in layouts.items()}
    return StagedText(engine.read_parquet(sorted(folder.glob("*.parquet"))), notes if len(layouts) > 1 else {}, repr(list(layouts)))


def stage_json_lines(engine: Engine, files: Sequence[Path], folder: Path, *, hive: bool) -> StagedText:
    """Stage JSON Lines files: one column of text for each key of any line, nested values as JSON.

    Raises
    ------
    SourceError
        If no line is a JSON object.
    """
    lines, out = folder / "lines.parquet", folder / "records.parquet"
    _stage_alike(engine, files, lines, _LINES, hive=hive)
    problem = "CASE WHEN NOT json_valid(line) THEN 'line is not JSON' WHEN json_type(line) <> 'OBJECT' THEN 'line is not a JSON object' END"
    source = (
        f"(SELECT * REPLACE (coalesce({PROBLEM}, {problem}) AS {PROBLEM}) FROM read_parquet({quoted(lines)}) "
        f"WHERE line IS NOT NULL OR {PROBLEM} IS NOT NULL)"
    )
    schemas = engine.rows(f"SELECT json_keys(line), count(*) FROM {source} WHERE {PROBLEM} IS NULL GROUP BY ALL")
    if not schemas:
        _refuse_json(files, engine.rows(f"SELECT {FILE}, coalesce(line, {LINE}) FROM {source} LIMIT 3"))
    keys = sorted({key for found, _ in schemas for key in found})
    columns = "".join(f", record.{quoted_name(key)} AS {quoted_name(key)}" for key in keys)
    record = f"CASE WHEN {PROBLEM} IS NULL THEN {_parsed(keys, 'VARCHAR')} END AS record"
    text = f"CASE WHEN {PROBLEM} IS NOT NULL THEN coalesce({LINE}, line) END AS {LINE}"
    engine.write_parquet(f"SELECT * EXCLUDE (line, record){columns} FROM (SELECT * REPLACE ({text}), {record} FROM {source})", out)
    kinds = _kinds(engine, source, keys)
    mixed = {f"{key}: text among numbers": texts for key, (texts, numbers) in kinds.items() if texts and numbers}
    lines.unlink()
    layout = repr({key: (texts > 0, numbers > 0) for key, (texts, numbers) in kinds.items()})
    return StagedText(engine.read_parquet(out), _schema_notes(keys, schemas) | mixed, layout)


def name_files(files: Sequence[Path]) -> str:
    """Name the first three files."""
    return "\n".join(str(file) for file in files[:3]) + (f"\nand {len(files) - 3} more" if len(files) > 3 else "")


def _layout(file: Path) -> _Layout | None:
    """Return the layout that a file's header shows, None if the file is empty."""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            text = stream.read(_HEADER_BYTES).removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="surrogateescape")
        layout = _Layout.of_header(text)
    except (OSError, EOFError) as error:
        raise SourceError(explain(f"the file cannot be read: {error}", given=file, todo="Copy or export it again.")) from error
    except csv.Error:
        layout = _Layout(",", ("\0",))
    if layout and any(character < " " or "\ud800" <= character < "\ue000" for name in layout.columns for character in name):
        todo = "Save it as CSV in UTF-8; for Parquet or JSON Lines write format = ... beside source."
        raise SourceError(explain("the file's header is not text in UTF-8", given=file, todo=todo))
    return layout


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    """Name columns that have no name, and number those that share one."""
    taken: list[str] = []
    for position, name in enumerate(names, start=1):
        plain = name.strip() or f"column_{position}"
        shared = plain.lower() in (other.lower() for other in taken)
        taken.append(f"{plain}_{position}" if shared else plain)
    return tuple(taken)


def _stage_alike(engine: Engine, files: Sequence[Path], out: Path, layout: _Layout, *, hive: bool) -> None:
    """Stage files of one layout, with the lines that cannot be read as rows of their own."""
    rejects = uuid4().hex
    readable = out.with_suffix(".readable")
    engine.write_parquet(f"SELECT *, row_number() OVER () AS __sequence FROM {_read_csv(files, layout, rejects, hive=hive)}", readable)
    found = f"{quoted_name(f'rejects_{rejects}')} JOIN {quoted_name(f'scans_{rejects}')} USING (scan_id, file_id)"
    ordinals = f"""
        SELECT * EXCLUDE (__sequence, first), __sequence - first + 1 AS {ROW}, NULL::VARCHAR AS {PROBLEM}, NULL::VARCHAR AS {LINE}
        FROM read_parquet({quoted(readable)})
        JOIN (SELECT {FILE}, min(__sequence) AS first FROM read_parquet({quoted(readable)}) GROUP BY ALL) USING ({FILE})"""
    rejected = engine.rows(f"SELECT count(*) FROM {found}")[0][0]
    engine.write_parquet(_with_rejected(ordinals, found, header=layout.header) if rejected else ordinals, out)
    readable.unlink()


def _with_rejected(ordinals: str, found: str, *, header: bool) -> str:
    """Return the readable rows and the rejected lines; the n-th readable row of a file is its row n plus the rejected ones before it."""
    return f"""
        WITH found AS (
            SELECT file_path AS {FILE}, line::BIGINT - {int(header)} AS {ROW},
                   'line cannot be read: ' || lower(any_value(error_message)) AS {PROBLEM}, any_value(trim(csv_line, E'\\r\\n')) AS {LINE}
            FROM {found} GROUP BY file_path, line),
        counted AS (SELECT *, row_number() OVER (PARTITION BY {FILE} ORDER BY {ROW}) AS before FROM found),
        rejects AS (SELECT {FILE}, {ROW} - before + 1 AS first_after, max(before) AS before FROM counted GROUP BY ALL),
        readable AS ({ordinals})
        SELECT readable.* REPLACE (readable.{ROW} + coalesce(before, 0) AS {ROW})
        FROM readable ASOF LEFT JOIN rejects ON readable.{FILE} = rejects.{FILE} AND readable.{ROW} >= first_after
        UNION ALL BY NAME SELECT * FROM found ORDER BY {FILE}, {ROW}"""


def _read_csv(files: Sequence[Path], layout: _Layout, rejects: str, *, hive: bool) -> str:
    options = {
        "auto_detect": "false",
        "delim": quoted(layout.separator),
        "quote": quoted(layout.quote),
        "escape": quoted(layout.quote),
        "header": str(layout.header).lower(),
        "columns": "{" + ", ".join(f"{quoted(name)}: 'VARCHAR'" for name in layout.columns) + "}",
        "filename": quoted(FILE),
        "hive_partitioning": str(hive).lower(),
        "store_rejects": "true",
        "rejects_table": quoted(f"rejects_{rejects}"),
        "rejects_scan": quoted(f"scans_{rejects}"),
    } | ({"hive_types_autocast": "false"} if hive else {})
    listed = "[" + ", ".join(quoted(file) for file in files) + "]"
    return f"read_csv({listed}, {', '.join(f'{key} = {value}' for key, value in options.items())})"


def _refuse_json(files: Sequence[Path], first: Sequence[tuple[Any, ...]]) -> None:
    if not first:
        raise SourceError(explain("the file is empty", given=name_files(files), todo=_EMPTY))
    array = "Write one object on each line, without the brackets: jq -c '.[]' FILE." if first[0][1].lstrip().startswith("[") else ""
    todo = array or "Write one JSON object on each line, or name the right format = ... beside source."
    given = "\n".join(f"{file}: {line[:100]}" for file, line in first)
    raise SourceError(explain("no line of the file is a JSON object", given=given, allowed="JSON Lines", todo=todo))


def _schema_notes(keys: Sequence[str], schemas: Sequence[tuple[Any, ...]]) -> dict[str, int]:
    """Count the records that lack a key."""
    missing = {key: sum(count for found, count in schemas if key not in found) for key in keys}
    return {f"{key}: not in the record": count for key, count in missing.items() if count}


def _kinds(engine: Engine, source: str, keys: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Count by key the values that are texts and those that are numbers."""
    first = [f"(record.{quoted_name(key)}::VARCHAR)[1]" for key in keys]
    conditions = [condition for start in first for condition in (f"{start} = '\"'", f"{start} BETWEEN '0' AND '9' OR {start} = '-'")]
    counts = ", ".join(f"count(*) FILTER (WHERE {condition})" for condition in conditions)  # `count_if` of nothing but NULL is NULL
    found = engine.rows(f"SELECT {counts} FROM (SELECT {_parsed(keys, 'JSON')} AS record FROM {source} WHERE {PROBLEM} IS NULL)")[0]
    return {key: (texts, numbers) for key, texts, numbers in zip(keys, found[::2], found[1::2], strict=True)}


def _parsed(keys: Sequence[str], kind: str) -> str:
    return f"from_json(line, {quoted(json.dumps(dict.fromkeys(keys, kind)))})"
