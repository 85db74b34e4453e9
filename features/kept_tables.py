"""Tables that stay as the last check left them, because nothing has changed that decides what becomes of their rows.

That is their files and settings, the code, the accounts and partners that their rows are held against, and the clock: a table in which
a row lay in the future is checked again, and so is one whose SQL asks for the time, for chance or for files that the config does not
name. What a check found in a table, and of what, is kept in a record beside the table.

But: a database cannot say that nothing has changed, as what is read of it may be a view of anything, so it is read again.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from features.checks import RowCounts, TableCheck
from features.config import TableConfig, TableSource
from features.deliveries import Found, digest_of, source_files
from features.expressions import is_steady
from features.ledger import link_file
from features.mapping import IN_FUTURE

__all__ = ["SeenFile", "TableRecord", "is_repeatable", "look_at_files", "read_record"]


@dataclass(frozen=True, kw_only=True)
class SeenFile:
    """A file as it was before it was read.

    Parameters
    ----------
    size, mark
        Its size in bytes, and the time at which it was changed.
    digest
        Of its contents.
    """

    path: str
    size: int
    mark: str
    digest: str

    def seen_again(self) -> Self | None:
        """Return what is to be kept of the file now; None if it has changed or gone."""
        here = _found(Path(self.path))
        if here is None or here.size != self.size or (here.mark != self.mark and digest_of(here) != self.digest):
            return None
        return replace(self, mark=here.mark)


def look_at_files(table: TableConfig) -> tuple[SeenFile, ...]:
    """Look at all files of a table, before any is read: what changes later is then seen to have changed.

    Raises
    ------
    SourceError
        If one is missing.
    """
    found = [here for path in _paths(table) if (here := _found(Path(path))) is not None]
    return tuple(SeenFile(path=here.path, size=here.size, mark=here.mark, digest=digest_of(here)) for here in found)


def _paths(table: TableConfig) -> list[str]:
    return [str(file) for source in table.sources for file in source_files(source)]


def _found(path: Path) -> Found | None:
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return Found(source=0, path=str(path), size=facts.st_size, mark=str(facts.st_mtime_ns))


def is_repeatable(table: TableConfig) -> bool:
    """Tell whether a table's sources give the same as long as their files are the same."""
    return all(_is_repeatable(source) for source in table.sources)


def _is_repeatable(source: TableSource) -> bool:
    if source.database is not None:
        return False
    tables = {"source", *(name.lower() for name in source.lookups)}
    written = [source.query, source.where, *(column.sql for column in source.columns.values())]
    return all(is_steady(sql, tables=tables) for sql in written if sql is not None)


@dataclass(frozen=True, kw_only=True)
class TableRecord:
    """What a check found in a table.

    Parameters
    ----------
    mark
        Digest of the settings and the code.
    now
        What the check took for the present, in UTC without a zone.
    files
        The files that it read.
    """

    mark: str
    now: datetime
    files: tuple[SeenFile, ...]
    check: TableCheck

    def seen_again(self, table: TableConfig, *, mark: str, now: datetime) -> Self | None:
        """Return the record as of now; None if anything has changed but the tables that this one is held against."""
        future = any(reason.endswith(IN_FUTURE) for reason in [*self.check.reasons, *self.check.blanked])
        if mark != self.mark or now < self.now or future or _paths(table) != [file.path for file in self.files]:
            return None
        files = tuple(here for file in self.files if (here := file.seen_again()) is not None)
        return replace(self, files=files) if len(files) == len(self.files) else None

    def store(self, folder: Path, listed: Path) -> None:
        """Write the record beside its table, with the list of broken rows: that in quarantine may be of a later check that was refused."""
        text = json.dumps(dataclasses.asdict(self) | {"now": self.now.isoformat()})
        _record_file(folder, self.check.table).write_text(text, encoding="utf-8")
        if listed.exists():
            link_file(listed, _list_file(folder, self.check.table))

    def take_over(self, earlier: Path, folder: Path, quarantine: Path) -> None:
        """Put the table, its record and the list of its broken rows from the folder of an earlier check into new ones."""
        name = f"{self.check.table}.parquet"
        link_file(earlier / name, folder / name)
        listed = quarantine / f"{self.check.table}.csv"
        if _list_file(earlier, self.check.table).exists():
            link_file(_list_file(earlier, self.check.table), listed)
        self.store(folder, listed)


def read_record(folder: Path, table: str) -> TableRecord | None:
    """Read what an earlier check left of a table; None if there is nothing."""
    if not (folder / f"{table}.parquet").exists():
        return None
    try:
        stored: dict[str, Any] = json.loads(_record_file(folder, table).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    files = tuple(SeenFile(**file) for file in stored["files"])
    return TableRecord(mark=stored["mark"], now=datetime.fromisoformat(stored["now"]), files=files, check=_check(stored["check"]))


def _check(stored: Mapping[str, Any]) -> TableCheck:
    contributed = {name: RowCounts(**counts) for name, counts in stored["contributed"].items()}
    lists = {name: tuple(stored[name]) for name in ("unused", "missing")}
    return TableCheck(**{**stored, **lists, "contributed": contributed})


def _record_file(folder: Path, table: str) -> Path:
    return folder / f"_{table}.json"


def _list_file(folder: Path, table: str) -> Path:
    return folder / f"_{table}.csv"
