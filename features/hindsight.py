"""Hindsight: features that change when the future does.

The snapshots are made from all that is known today, and each row may have seen only what was known at its cutoff. So one instant of the
past is chosen, all that became known later is taken away, and the features are computed again: any that differ have seen the future.

Of a book with much telemetry, a sample of its accounts is computed again, always the same ones, each from all of its rows. Features that
compare accounts are held against themselves among the sample.

But: a leak that shows in few rows may have none in the sample. With 500 accounts, one that shows in one row of a hundred is found 99 times
of a hundred. More rows of fewer accounts would not do, as a leak may show in all rows of an account or in none: so a sample has so many
accounts, however many events they have.
"""

import hashlib
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
from features.numbered import NumberedTelemetry
from features.queries import QueryEngine
from features.sampled import SampledTelemetry, sample_telemetry
from features.slices import KnownTables, Spine
from features.snapshots import add_derived

__all__ = ["HINDSIGHT", "Rebuild", "find_hindsight", "probed_accounts", "probed_cutoffs", "probed_instant", "without_future"]

HINDSIGHT = "without the future"
"""Name of the probe."""

Rebuild = Callable[[Mapping[str, ir.Table], SampledTelemetry | None, Spine], pa.Table]
"""Computes the features of a spine from tables, as `features.snapshots.build_matrix` does; from sampled telemetry, where there is such."""

Rows = npt.NDArray[np.intp]

_ROWS = 1_000_000
"""A book with more rows of telemetry is looked at in a sample of about so many; computing its features again takes about a second."""
_FEWEST = 500
"""So many accounts are in a sample at least."""
_WEEKS = np.timedelta64(28, "D")
_EXAMPLES = 3


def find_hindsight(
    engine: QueryEngine,
    tables: Mapping[str, ir.Table],
    matrix: pa.Table,
    catalogue: Catalogue,
    rebuild: Rebuild,
    *,
    instant: np.datetime64,
    telemetry: NumberedTelemetry | None = None,
) -> Audit:
    """Compute features of the past again from tables that end there, and name every feature that differs.

    What is looked at are the rows of the probed accounts whose cutoffs lie in the four weeks up to an instant. Nothing changes the future
    more than taking it away, so it is the only change that is tried. Where something differs, all rows of these accounts are computed
    once more from all tables: a feature that differs then too depends on the order of rows, not on the future.

    Parameters
    ----------
    tables
        The checked tables.
    matrix
        The features that were made from them, at least of the accounts that `probed_accounts` returns.
    instant
        That of `probed_instant`, of all rows.
    telemetry
        The telemetry of `tables` with numbers for texts, where there is such: it is then read from there.
    """
    accounts = probed_accounts(engine, tables, _spine_of(matrix), instant)
    matrix = _among_themselves(engine, tables, matrix.filter(pc.is_in(matrix["account_id"], value_set=accounts)), catalogue)
    rows = pa.array(np.flatnonzero(_in_weeks_before(_spine_of(matrix).instants, instant)))
    seen = matrix.take(rows)
    past = {name: without_future(engine, name, table, instant) for name, table in tables.items()}
    again = rebuild(*_sampled(engine, past, telemetry, accounts, until=_microseconds(instant)), _spine_of(seen))
    differing = _differing(seen, again, catalogue)
    rows_seen = f"{len(seen):,} rows of {len(accounts):,} accounts up to {instant.astype('M8[D]')}"
    probes = {
        HINDSIGHT: f"whether {len(catalogue)} features of {rows_seen} are the same when they are computed from tables without anything "
        "that became known later"
    }
    if not differing:
        return Audit(probes=probes)
    unsteady = _differing(seen, rebuild(*_sampled(engine, tables, telemetry, accounts), _spine_of(matrix)).take(rows), catalogue)
    findings = [
        _unsteady_finding(names, differing[names[0]], seen)
        if names[0] in unsteady
        else _hindsight_finding(names, differing[names[0]], seen, again)
        for names in _by_cause(differing, catalogue)
    ]
    return Audit(tuple(findings), probes)


def _spine_of(matrix: pa.Table) -> Spine:
    return Spine(matrix["account_id"].combine_chunks(), matrix["cutoff"].combine_chunks())


def _sampled(
    engine: QueryEngine,
    tables: Mapping[str, ir.Table],
    telemetry: NumberedTelemetry | None,
    accounts: pa.Array,
    *,
    until: int | None = None,
) -> tuple[Mapping[str, ir.Table], SampledTelemetry | None]:
    """Read the telemetry of these accounts once: of numbered telemetry what was known by an instant, else all that is in the tables."""
    if telemetry is not None:
        return tables, sample_telemetry(engine, telemetry, accounts, until=until)
    held = engine.hold(pa.table({"account_id": accounts}), name="probed_accounts")
    return {**tables, "telemetry": engine.table(tables["telemetry"].semi_join(held, "account_id"), name="probed_telemetry")}, None


def _among_themselves(engine: QueryEngine, tables: Mapping[str, ir.Table], matrix: pa.Table, catalogue: Catalogue) -> pa.Table:
    """Return the matrix with its derived features computed among its rows: some compare an account with others, which may not be here."""
    measured = [feature.name for feature in catalogue if feature.source]
    return add_derived(KnownTables(engine, tables, _spine_of(matrix)), matrix.select(["account_id", "cutoff", *measured]), catalogue)


def probed_accounts(engine: QueryEngine, tables: Mapping[str, ir.Table], spine: Spine, instant: np.datetime64) -> pa.Array:
    """Return the accounts to look at: all that have a row in the four weeks up to the instant, or a sample of them.

    A sample holds the accounts with the lowest digests of their names, so that it is the same in every run, and the same whether it is
    taken of the whole spine or of a part of it that holds the sample.

    Returns
    -------
    Strings, sorted, shape `(n_probed,)`.
    """
    seen = pc.unique(spine.account_id.filter(pa.array(_in_weeks_before(spine.instants, instant)))).to_pylist()
    rows = max(1, engine.count(tables["telemetry"]))
    size = max(_FEWEST, engine.count(tables["accounts"]) * _ROWS // rows)
    if len(seen) > size and rows > _ROWS:
        seen = sorted(seen, key=lambda name: hashlib.blake2b(name.encode(), digest_size=8).digest())[:size]
    return pa.array(sorted(seen), pa.string())


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
    return ibis.literal(_microseconds(instant), "int64")


def _microseconds(instant: np.datetime64) -> int:
    return int(instant.astype("M8[us]").astype(np.int64))


def probed_cutoffs(spine: Spine) -> list[int]:
    """Return the cutoffs whose rows are looked at, in microseconds since 1970-01-01 UTC: what was known at them decides what is found."""
    found: list[int] = spine.cutoffs[_in_weeks_before(spine.cutoffs, probed_instant(spine))].tolist()
    return found


def probed_instant(spine: Spine) -> np.datetime64:
    """Return the cutoff to look at, a third of the way: the earlier it is, the more of the future there is, and the less past to read."""
    cutoffs = spine.cutoffs
    return np.datetime64(int(cutoffs[(len(cutoffs) + 1) // 3]), "us")


def _in_weeks_before(instants: npt.NDArray[np.int64], instant: np.datetime64) -> npt.NDArray[np.bool_]:
    times = instants.astype("M8[us]")
    until, since = (clock.not_after(times, np.asarray(end)) for end in (instant, instant - _WEEKS))
    return until & ~since


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
