"""Snapshots: the feature matrix, one row for each account and cutoff.

Features that share a window are computed by one query a slice. Results come back keyed by the number of the spine's row and are
written straight into the columns of the matrix, so nothing is ever pivoted or joined by the engine. Derived features follow, as
formulae on the finished columns.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.catalogue import Catalogue
from features.feature import Feature, Window
from features.habits import Habits
from features.month_tallies import MonthTallies
from features.progress import Progress, silent
from features.slices import KnownTables, Spine, gather, summed
from features.tally import Tallies
from features.use_counts import UseCounts

__all__ = ["build_matrix", "by_window", "with_derived"]

Columns = dict[str, np.ndarray]


def build_matrix(known: KnownTables, spine: Spine, catalogue: Catalogue, *, on_progress: Progress = silent) -> pa.Table:
    """Compute every feature of the catalogue at every row of the spine.

    Returns
    -------
    pa.Table
        `account_id`, `cutoff` and one column for each feature in the catalogue's order, shape `(n_rows, 2 + n_features)`: float64, or
        string for categories; null where missing.
    """
    measured = [feature for feature in catalogue if feature.source]
    columns = {feature.name: _unfilled(feature, len(spine)) for feature in measured}
    windows = by_window(catalogue)
    parts = sum(known.n_parts(window.table) for window, _ in windows)
    done = 0
    ways, counts = (MonthTallies(known, spine), Habits(known, spine), Tallies(known, spine)), UseCounts(known, spine)
    for window, features in windows:
        how = next((way.fill for way in ways if way.answer(window, features)), partial(_fill, known, counts))
        for _ in how(columns, window, features):
            done += 1
            on_progress("features", done, parts)
    filled = {feature.name: _arrow(_with_empty(feature, columns[feature.name])) for feature in measured}
    matrix = pa.table({"account_id": spine.account_id, "cutoff": spine.cutoff} | filled)
    return _with_derived(known, matrix, catalogue).select(["account_id", "cutoff", *catalogue.names])


def by_window(catalogue: Catalogue) -> list[tuple[Window, list[Feature]]]:
    """Group the measured features by the window that they share, a table's windows together."""
    windows: dict[Window, list[Feature]] = {}
    for feature in catalogue:
        if feature.source:
            windows.setdefault(feature.source, []).append(feature)
    return sorted(windows.items(), key=lambda item: item[0].table)


def _measure(known: KnownTables, counts: UseCounts, window: Window, features: Sequence[Feature]) -> Iterator[pa.Table]:
    """Yield, for each part of the window's slice, `row` (and `level`) and one column for each different expression."""
    expressions = _expressions(features)

    def query(rows: ir.Table) -> ir.Table:
        rows = rows.filter(rows.level.notnull()) if window.each else rows
        values = {name: expression(rows) for expression, name in expressions.items()}
        return rows.group_by(["row", "level"] if window.each else "row").agg(**values)

    if counts.answer(window):
        return gather(known.engine, counts.parts(window, list(expressions)), query)
    return gather(known.engine, known.slices(window), lambda part: query(summed(part, window)))


def _expressions(features: Sequence[Feature]) -> dict[Callable[[ir.Table], ir.Value], str]:
    """Return the different expressions with a name for each; the levels of one statistic share theirs."""
    return {expression: f"value_{i}" for i, expression in enumerate(dict.fromkeys(feature.expression for feature in features))}


def _fill(known: KnownTables, counts: UseCounts, columns: Columns, window: Window, features: Sequence[Feature]) -> Iterator[None]:
    """Write the features of one window into their columns, part by part; a feature of a level takes the rows of that level."""
    names = _expressions(features)
    levels = known.levels[window.each] if window.each else ()
    for values in _measure(known, counts, window, features):
        rows = values["row"].to_numpy()
        of_level = {name: np.flatnonzero(values["level"].to_numpy() == number) for number, name in enumerate(levels)}
        for feature in features:
            found = values[names[feature.expression]]
            array = found.to_numpy() if feature.kind == "category" else pc.cast(found, pa.float64()).to_numpy()
            here = slice(None) if feature.level is None else of_level[feature.level]
            columns[feature.name][rows[here]] = array[here]
        yield


def _unfilled(feature: Feature, n_rows: int) -> np.ndarray:
    if feature.kind == "category":
        return np.full(n_rows, None, dtype=object)
    return np.full(n_rows, np.nan if feature.empty is None else feature.empty)


def _with_empty(feature: Feature, values: np.ndarray) -> np.ndarray:
    """Fill in the feature's empty value where its expression found nothing, as a sum does of rows that it left out."""
    return values if feature.empty is None else np.where(np.isnan(values), feature.empty, values)


def _arrow(values: np.ndarray) -> pa.Array:
    return pa.array(values, pa.string() if values.dtype == object else pa.float64(), from_pandas=True)


def _with_derived(known: KnownTables, matrix: pa.Table, catalogue: Catalogue) -> pa.Table:
    """Add the derived features, those first whose inputs are there."""
    if all(feature.source for feature in catalogue):
        return matrix
    context = {"row": pa.array(np.arange(len(matrix), dtype=np.int64)), "segment": known.segments(matrix["account_id"])}
    table = known.engine.hold(pa.table(context | {name: matrix[name] for name in matrix.column_names}), name="matrix")
    return known.engine.to_arrow(with_derived(table, catalogue).order_by("row"))


def with_derived(table: ir.Table, catalogue: Catalogue) -> ir.Table:
    """Add the derived features of a catalogue to a table that has its measured ones, and row, account_id, cutoff and segment."""
    waiting = [feature for feature in catalogue if feature.source is None]
    while waiting:
        ready = [feature for feature in waiting if set(feature.inputs) <= set(table.columns)]
        if not ready:
            raise KeyError(f"no input of these derived features is in the catalogue: {[feature.name for feature in waiting]}")
        table = table.mutate(**{feature.name: feature.expression(table).cast("float64") for feature in ready})
        waiting = [feature for feature in waiting if feature not in ready]
    return table
