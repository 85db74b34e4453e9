"""Deliveries: what a table's sources offer to be read, and what of it has come, changed or gone since it was last read.

A delivery is one file of a source. A source that is a database, or that SQL looks at as a whole, is one delivery: a database cannot say
which of its rows are new, as rows may be changed, removed or booked late with an earlier time of recording, so it is read again. A file
is unchanged if its size and time of change are those of the last reading, or else its size and contents. But: a file that is changed
within the same instant to the same size goes unnoticed.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

from features.config import TableConfig, TableSource
from features.ledger import fingerprint
from features.readings import Evidence
from features.sources import list_files

__all__ = ["Delivery", "Found", "Plan", "digest_of", "evidence_of", "find_deliveries", "is_read_otherwise", "plan_reading", "source_files"]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What is there to be read.

    Parameters
    ----------
    source
        Number of the source within its table.
    path
        The file; empty for a source that is read as a whole.
    size, mark
        Its size in bytes, and what else tells without reading it that it has changed.
    """

    source: int
    path: str
    size: int
    mark: str


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What was read, and what was counted in it.

    Parameters
    ----------
    number
        Its number in the pieces; none is ever used again.
    digest
        Of the file's contents; empty for a source that is read as a whole.
    rows, left_out
        Rows that were read, and rows that the source's `where` left out.
    filled, empty
        Values by column of the contract, and empty values by column of the source.
    doubts
        Rows that were kept although they are doubtful, by the doubt.
    evidence
        How the values of its text columns are written, by column of the contract: the counts of `features.readings.Evidence`.
    """

    number: int
    source: int
    path: str
    size: int
    mark: str
    digest: str
    rows: int = 0
    left_out: int = 0
    filled: Mapping[str, int] = field(default_factory=dict)
    empty: Mapping[str, int] = field(default_factory=dict)
    doubts: Mapping[str, int] = field(default_factory=dict)
    evidence: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What stays as it was read before, and what is to be read."""

    kept: tuple[Delivery, ...]
    read: tuple[Found, ...]

    def files(self, source: int) -> list[Path] | None:
        """Return the files of a source to read; None for all that it has."""
        paths = [found.path for found in self.read if found.source == source]
        return None if "" in paths else [Path(path) for path in paths]

    @property
    def sources(self) -> list[int]:
        """The sources of which anything is to be read."""
        return sorted({found.source for found in self.read})


def source_files(source: TableSource) -> list[Path]:
    """Return all files that a source is made of, those of lookups and the logs of databases too.

    Raises
    ------
    SourceError
        If one is missing.
    """
    files = []
    for location in filter(None, [source.location, *source.lookups.values()]):
        files += [*list_files(location, source.format), *location.parent.glob(f"{location.name}-wal")]
    return files


def find_deliveries(table: TableConfig) -> list[Found]:
    """Look at what a table's sources offer.

    Raises
    ------
    SourceError
        If a file is missing.
    """
    found = []
    for number, source in enumerate(table.sources):
        if source.database is None and source.query is None:
            found += [_found(number, file) for file in source_files(source)]
        else:
            facts = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in source_files(source)]
            mark = uuid4().hex if source.database == "postgresql" else fingerprint(facts)
            found.append(Found(source=number, path="", size=0, mark=mark))
    return found


def _found(source: int, file: Path) -> Found:
    facts = file.stat()
    return Found(source=source, path=str(file), size=facts.st_size, mark=str(facts.st_mtime_ns))


def plan_reading(found: Sequence[Found], before: Iterable[Delivery], *, whole: Iterable[int]) -> Plan:
    """Compare what there is with what was read.

    Parameters
    ----------
    before
        What was read before and need not be read again for another reason.
    whole
        Sources that are read as a whole if anything about them has changed.
    """
    known = {(delivery.source, delivery.path): delivery for delivery in before}
    offered = {(here.source, here.path): here for here in found}
    kept = {key: _seen_again(here, known[key]) for key, here in offered.items() if key in known and _is_same(here, known[key])}
    changed = {source for source, _ in (known.keys() | offered.keys()) - kept.keys()} & set(whole)
    kept = {key: delivery for key, delivery in kept.items() if delivery.source not in changed}
    return Plan(tuple(kept.values()), tuple(here for key, here in offered.items() if key not in kept))


def _is_same(here: Found, before: Delivery) -> bool:
    if here.mark == before.mark and here.size == before.size:
        return True
    return bool(before.digest) and here.size == before.size and digest_of(here) == before.digest


def _seen_again(here: Found, before: Delivery) -> Delivery:
    return before if here.mark == before.mark else replace(before, mark=here.mark)


def evidence_of(deliveries: Iterable[Delivery], source: int) -> dict[str, Evidence]:
    """Return how the values of a source's text columns are written in all of some deliveries, by column of the contract."""
    found: dict[str, Evidence] = {}
    for delivery in deliveries:
        if delivery.source == source:
            for name, counts in delivery.evidence.items():
                found[name] = found.get(name, Evidence()) + Evidence(**counts)
    return found


def is_read_otherwise(source: int, before: Iterable[Delivery], now: Iterable[Delivery]) -> bool:
    """Tell whether all values of a source's text columns decide otherwise now than before how each of them is read."""
    earlier, later = evidence_of(before, source), evidence_of(now, source)
    return any(earlier.get(name, Evidence()).decided != later.get(name, Evidence()).decided for name in earlier.keys() | later.keys())


def digest_of(found: Found) -> str:
    """Return a digest of a file's contents; of a source that is read as a whole there is none."""
    if not found.path:
        return ""
    with Path(found.path).open("rb") as stream:
        return hashlib.file_digest(stream, hashlib.blake2b).hexdigest()[:32]
