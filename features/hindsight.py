"""Hindsight: features that change when the future does.

The snapshots are made from all that is known today, and each row may have seen only what was known at its cutoff. So one instant of the
past is chosen, all that became known later is taken away, and the features are computed again: any that differ have seen the future.
"""

from collections.abc import Callable, Mapping, Sequence

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features import clock
from features.catalogue import Catalogue
from features.config import ATTRIBUTE
from features.contracts import CONTRACT
from features.feature import Feature
from features.findings import Audit, Finding, listed
from features.queries import QueryEngine
from features.slices import Spine

__all__ = ["HINDSIGHT", "Rebuild", "find_hindsight", "probed_cutoffs", "probed_instant", "without_future"]

HINDSIGHT = "without the future"
"""Name of the probe."""

Rebuild = Callable[[Mapping[str, ir.Table], Spine], pa.Table]
"""Computes the features of a spine from tables, as `features.snapshots.build_matrix` does."""

Rows = npt.NDArray[np.intp]

_ROWS = 1_000_000
"""So many rows of telemetry take about two seconds (measured on 2 cores)."""
_WEEKS = np.timedelta64(28, "D")
_EXAMPLES = 3


def find_hindsight(engine: QueryEngine, tables: Mapping[str, ir.Table], matrix: pa.Table, catalogue: Catalogue, rebuild: Rebuild) -> Audit:
    """Compute features of the past again from tables that end there, and name every feature that differs.

    One cutoff in the middle of the history is looked at, or an earlier one where more than `_ROWS` rows of telemetry were known by
    then, with all rows of the snapshot whose cutoffs lie in the four weeks up to it. Nothing changes the future more than taking it
    away, so it is the only change that is tried. Where something differs, the features are computed once more from all tables: one
    that differs then too depends on the order of rows, not on the future.

    Parameters
    ----------
    tables
        The checked tables, and `matrix` the features that were made from them.
    """
    instant = probed_instant(engine, tables["telemetry"], matrix)
    seen = matrix.filter(_in_weeks_before(matrix["cutoff"], instant))
    spine = Spine(seen["account_id"].combine_chunks(), seen["cutoff"].combine_chunks())
    again = rebuild({name: without_future(engine, name, table, instant) for name, table in tables.items()}, spine)
    differing = _differing(seen, again, catalogue)
    probes = {
        HINDSIGHT: f"whether {len(catalogue)} features of {len(seen):,} rows up to {instant.astype('M8[D]')} are the same when they are "
        "computed from tables without anything that became known later"
    }
    if not differing:
        return Audit(probes=probes)
    unsteady = _differing(seen, rebuild(tables, spine), catalogue)
    findings = [
        _unsteady_finding(names, differing[names[0]], seen)
        if names[0] in unsteady
        else _hindsight_finding(names, differing[names[0]], seen, again)
        for names in _by_cause(differing, catalogue)
    ]
    return Audit(tuple(findings), probes)


def without_future(engine: QueryEngine, name: str, table: ir.Table, instant: np.datetime64) -> ir.Table:
    """Return a checked table as it was at the instant: rows and fields that became known later are not there."""
    now = _literal(instant)
    rows = table
    if "known_at" in table.columns:
        rows = rows.filter(rows.known_at.isnull() | clock.known_by(engine.microseconds(rows.known_at), now))
    late = {column: declared.known_from for column, declared in CONTRACT[name].columns.items() if declared.known_from}
    late |= {column: column for column, type_ in table.schema().items() if column.startswith(ATTRIBUTE) and type_.is_timestamp()}
    dated = {column: known_from for column, known_from in late.items() if {column, known_from} <= set(table.columns)}
    fields = {
        column: clock.unless_unknown(rows[column], engine.microseconds(rows[known_from]), now) for column, known_from in dated.items()
    }
    return rows.mutate(**fields) if fields else rows


def _literal(instant: np.datetime64) -> ir.IntegerValue:
    return ibis.literal(int(instant.astype("M8[us]").astype(np.int64)), "int64")


def probed_cutoffs(engine: QueryEngine, tables: Mapping[str, ir.Table], matrix: pa.Table) -> list[int]:
    """Return the cutoffs whose rows are looked at, in microseconds since 1970-01-01 UTC: what was known at them decides what is found."""
    instant = probed_instant(engine, tables["telemetry"], matrix)
    seen = matrix["cutoff"].filter(_in_weeks_before(matrix["cutoff"], instant))
    return sorted(pc.unique(seen.cast(pa.timestamp("us")).cast(pa.int64())).to_pylist())


def probed_instant(engine: QueryEngine, telemetry: ir.Table, matrix: pa.Table) -> np.datetime64:
    """Return the cutoff to look at: the middle one, or an earlier one if that takes too many rows."""
    cutoffs = np.unique(matrix["cutoff"].to_numpy().astype("M8[us]"))
    candidates = list(dict.fromkeys(cutoffs[len(cutoffs) // part] for part in (2, 3, 4, 8, 16, len(cutoffs) + 1)))
    known_at = engine.microseconds(telemetry.known_at)
    counts = {f"at_{number}": clock.known_by(known_at, _literal(cutoff)).sum() for number, cutoff in enumerate(candidates)}
    rows = engine.to_arrow(telemetry.aggregate(**counts)).to_pylist()[0]
    few = [cutoff for number, cutoff in enumerate(candidates) if (rows[f"at_{number}"] or 0) <= _ROWS]
    return np.datetime64((few or candidates[-1:])[0])


def _in_weeks_before(cutoffs: pa.ChunkedArray, instant: np.datetime64) -> pa.Array:
    times = cutoffs.to_numpy().astype("M8[us]")
    until, since = (clock.not_after(times, np.asarray(end)) for end in (instant, instant - _WEEKS))
    return pa.array(until & ~since)


def _differing(seen: pa.Table, again: pa.Table, catalogue: Catalogue) -> dict[str, Rows]:
    """Return the rows in which features differ, by name; sums in another order are the same."""
    rows = {feature.name: np.flatnonzero(_differ(seen[feature.name], again[feature.name], feature)) for feature in catalogue}
    return {name: found for name, found in rows.items() if len(found)}


def _differ(one: pa.ChunkedArray, other: pa.ChunkedArray, feature: Feature) -> npt.NDArray[np.bool_]:
    if feature.kind == "category":
        return np.asarray(pc.fill_null(one, "\0").to_numpy() != pc.fill_null(other, "\0").to_numpy())
    return np.asarray(~np.isclose(one.to_numpy(), other.to_numpy(), rtol=1e-6, atol=1e-9, equal_nan=True))


def _by_cause(differing: Mapping[str, Rows], catalogue: Catalogue) -> list[list[str]]:
    """Group the features that differ by the table from which it comes, those first that do not have it from another feature."""

    def inputs(name: str) -> list[str]:
        return [other for other in catalogue.feature(name).inputs if other in differing]

    def cause(name: str) -> str:
        source = catalogue.feature(name).source
        return cause(inputs(name)[0]) if inputs(name) else f"table {source.table}" if source else name

    groups: dict[str, list[str]] = {}
    for name in sorted(differing, key=lambda name: bool(inputs(name))):
        groups.setdefault(cause(name), []).append(name)
    return list(groups.values())


def _hindsight_finding(names: Sequence[str], rows: Rows, seen: pa.Table, again: pa.Table) -> Finding:
    first = names[0]
    return Finding(
        probe=HINDSIGHT,
        severity="leak",
        subject=listed(names, at_most=3),
        message=(
            f"{len(rows):,} of {len(seen):,} values of {first} change when what became known after their cutoffs is taken away"
            f"{_others(names)}. It has seen the future."
        ),
        todo="Let its expression read only the rows that it is given, and no column that is filled in later.",
        evidence={"rows": len(seen), "differing": len(rows), "features": len(names)},
        examples=tuple(
            f"{_which(seen, row)}: {seen[first][row].as_py()} with the future, {again[first][row].as_py()} without"
            for row in rows[:_EXAMPLES].tolist()
        ),
    )


def _unsteady_finding(names: Sequence[str], rows: Rows, seen: pa.Table) -> Finding:
    return Finding(
        probe=HINDSIGHT,
        severity="look at",
        subject=listed(names, at_most=3),
        message=f"{names[0]} differs when it is computed again from the same tables{_others(names)}, so what it has seen is unknown.",
        todo="Make it independent of the order of rows: say which of several equal ones counts.",
        evidence={"rows": len(seen), "differing": len(rows), "features": len(names)},
        examples=tuple(_which(seen, row) for row in rows[:_EXAMPLES].tolist()),
    )


def _others(names: Sequence[str]) -> str:
    return f" (and with it {listed(names[1:])})" if names[1:] else ""


def _which(seen: pa.Table, row: int) -> str:
    return f"account {seen['account_id'][row].as_py()} at {seen['cutoff'][row].as_py():%Y-%m-%d}"
