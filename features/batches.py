"""Batches: the files of a table that are read at one time, staged together, with what was counted in each."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import ibis
import ibis.expr.types as ir

from features.deliveries import Delivery, Found, digest_of
from features.engine import Engine, quoted
from features.mapping import MappedSource
from features.pieces import DELIVERY
from features.quarantine import SOURCE
from features.readings import Evidence, is_empty
from features.sources import FILE, PROBLEM
from features.staging import DOUBTS

__all__ = ["Batch", "count_deliveries", "hold_deliveries", "with_deliveries"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """What was read this time, judged by itself and by its accounts.

    Parameters
    ----------
    staged
        The mapped rows, with the number of their delivery.
    columns
        The contract's columns in it and their types.
    """

    mapped: Mapping[int, MappedSource]
    staged: ir.Table
    deliveries: tuple[Delivery, ...]
    columns: Mapping[str, str]


def with_deliveries(engine: Engine, staged: ir.Table, numbers: Mapping[Found, int]) -> ir.Table:
    """Add the number of each row's delivery.

    Parameters
    ----------
    numbers
        The number that each file or source was given.
    """
    whole = {found.source: number for found, number in numbers.items() if not found.path}
    files = {found: number for found, number in numbers.items() if found.path}
    if len(numbers) == 1:
        return staged.mutate(**{DELIVERY: ibis.literal(next(iter(numbers.values())), "int32")})
    held = hold_deliveries(engine, {number: found for found, number in files.items()}, name="deliveries_read")
    joined = staged.left_join(held, (staged[SOURCE] == held["__of"]) & (staged[FILE] == held["__from"]))
    number = joined["__number"]
    for source, of_whole in whole.items():
        number = ibis.ifelse(joined[SOURCE] == source, ibis.literal(of_whole, "int32"), number)
    return joined.mutate(**{DELIVERY: number}).drop("__of", "__from", "__number")


def hold_deliveries(engine: Engine, deliveries: Mapping[int, Found | Delivery], *, name: str) -> ir.Table:
    """Give the engine deliveries by their numbers: `__number`, `__of` (the source) and `__from` (the path)."""
    sources = [delivery.source for delivery in deliveries.values()]
    paths = ", ".join(quoted(delivery.path) for delivery in deliveries.values())
    columns = (
        f"unnest({[*deliveries]}::INTEGER[]) AS __number, unnest({sources}::SMALLINT[]) AS __of, unnest([{paths}]::VARCHAR[]) AS __from"
    )
    return engine.table(f"SELECT {columns}", name=name)  # an Arrow table would load pandas, which takes longer than all of a small check


def count_deliveries(
    engine: Engine, numbers: Mapping[Found, int], mapped: Mapping[int, MappedSource], staged: ir.Table, *, columns: Sequence[str]
) -> tuple[Delivery, ...]:
    """Count what is in each delivery.

    Parameters
    ----------
    staged
        The rows, from `with_deliveries`.
    columns
        The contract's columns in them.
    """
    filled_in = _filled(engine, staged, columns)
    doubtful = staged.filter(staged[DOUBTS] != "").group_by(DELIVERY, DOUBTS).agg(rows=lambda t: t.count())
    doubts: dict[int, dict[str, int]] = {}
    for row in engine.to_arrow(doubtful).to_pylist():
        doubts.setdefault(row[DELIVERY], {})[row[DOUBTS]] = row["rows"]
    raw = {number: _raw_counts(engine, source) for number, source in mapped.items()}
    deliveries = []
    for found, number in numbers.items():
        given, empty = raw[found.source].get(found.path, (0, {})) if found.path else _all(raw[found.source])
        counts = filled_in.get(number, {"rows": 0})
        deliveries.append(
            Delivery(
                number=number,
                **vars(found),
                digest=digest_of(found),
                rows=counts["rows"],
                left_out=given - counts["rows"] if found.path else mapped[found.source].left_out,
                filled={name: count for name, count in counts.items() if name != "rows"},
                empty=empty,
                doubts=doubts.get(number, {}),
                evidence={name: _counts(of[found.path]) for name, of in mapped[found.source].evidence.items() if found.path in of},
            )
        )
    return tuple(deliveries)


def _counts(evidence: Evidence) -> dict[str, int]:
    return {what: count for what, count in asdict(evidence).items() if count}


def _filled(engine: Engine, staged: ir.Table, columns: Sequence[str]) -> dict[int, dict[str, int]]:
    counts = {name: staged[name].count() for name in columns}
    found = engine.to_arrow(staged.group_by(DELIVERY).agg(rows=staged.count(), **counts)).to_pylist()
    return {row.pop(DELIVERY): row for row in found}


def _raw_counts(engine: Engine, source: MappedSource) -> dict[str, tuple[int, dict[str, int]]]:
    """Count by file the rows and, among those that can be read, the empty values of each column."""
    raw, readable = source.opened.table, source.opened.table[PROBLEM].isnull()
    empty = {f"empty_{place}": is_empty(raw[name]).sum(where=readable) for place, name in enumerate(source.opened.columns)}
    found = engine.to_arrow(raw.group_by(FILE).agg(rows=raw.count(), **empty)).to_pylist()
    names = source.opened.columns
    return {
        row[FILE]: (row["rows"], {name: int(row[f"empty_{place}"]) for place, name in enumerate(names) if row[f"empty_{place}"]})
        for row in found
    }


def _all(counts: Mapping[str, tuple[int, dict[str, int]]]) -> tuple[int, dict[str, int]]:
    """Add up what was counted in the files of a source."""
    empty: dict[str, int] = {}
    for _, of_file in counts.values():
        for name, count in of_file.items():
            empty[name] = empty.get(name, 0) + count
    return sum(rows for rows, _ in counts.values()), empty
