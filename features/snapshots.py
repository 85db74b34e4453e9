"""Snapshots: the feature matrix, one row for each account and cutoff.

Features that share a window are computed by one query a slice. Results come back keyed by the number of the spine's row and are
written straight into the columns of the matrix, so nothing is ever pivoted or joined by the engine. Derived features follow, as
formulae on the finished columns.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.ahead import in_advance, side_by_side
from features.catalogue import Catalogue
from features.day_counts import DayCounts
from features.day_tallies import DayTallies
from features.feature import Feature, Window
from features.habits import Habits
from features.month_tallies import MonthTallies
from features.progress import Progress, silent
from features.queries import QueryEngine
from features.slices import KnownTables, Spine, gather, summed
from features.tally import Tallies
from features.use_counts import UseCounts
from features.use_tallies import UseTallies

__all__ = ["add_derived", "build_matrix", "by_window", "with_derived"]

Columns = dict[str, np.ndarray]

_Windows = Sequence[tuple[Window, Sequence[Feature]]]
_Fill = Callable[[Columns, _Windows], Iterator[None]]
_Pass = tuple[_Fill, _Windows]

_COUNTING = (MonthTallies, Habits, DayTallies, UseTallies)
"""What counts without the engine."""


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
    queried, counted = _passes(known, spine, by_window(catalogue))
    parts = sum(known.n_parts(window.table) for window, _ in (asked[0] for _, asked in (*queried, *counted)))
    waiting = iter(counted)  # who is done with a pass takes the next; queries stay in this thread, where they can be interrupted
    for done, _ in enumerate(side_by_side(_filled(columns, chain(queried, waiting)), _filled(columns, waiting)), start=1):
        on_progress("features", done, parts)
    found = {feature.name: _arrow(_with_empty(feature, columns.pop(feature.name))) for feature in measured}
    matrix = pa.table({"account_id": spine.account_id, "cutoff": spine.cutoff} | found)
    return add_derived(known, matrix, catalogue)


def by_window(catalogue: Catalogue) -> list[tuple[Window, list[Feature]]]:
    """Group the measured features by the window that they share, a table's windows together."""
    windows: dict[Window, list[Feature]] = {}
    for feature in catalogue:
        if feature.source:
            windows.setdefault(feature.source, []).append(feature)
    return sorted(windows.items(), key=lambda item: item[0].table)


def _passes(known: KnownTables, spine: Spine, windows: _Windows) -> tuple[Sequence[_Pass], Sequence[_Pass]]:
    """Return how columns are filled, and with the features of which windows at once: by the engine, and without it.

    What no tally answers is left to queries. Those that take longest come first, which are those of users.
    """
    ways = [way(known, spine) for way in (*_COUNTING, Tallies)]
    counts = UseCounts(known, spine), DayCounts(known, spine)
    shared: dict[tuple[type, Window], tuple[_Fill, list[tuple[Window, Sequence[Feature]]]]] = {}
    others: list[_Pass] = []
    for window, features in windows:
        for way in ways:
            taken = [feature for feature in features if isinstance(feature.expression, way.takes)]
            if taken and way.answer(window, taken):
                _, asked = shared.setdefault((type(way), way.shares_with(window)), (way.fill, []))
                asked.append((window, taken))
                features = [feature for feature in features if not isinstance(feature.expression, way.takes)]
        if features:
            others.append((partial(_fill, known, counts), [(window, features)]))
    counted = [shared.pop(key) for key in [*shared] if key[0] in _COUNTING]
    return [*shared.values(), *others], sorted(counted, key=_is_not_of_users)


def _is_not_of_users(counted: _Pass) -> bool:
    _, ((window, _), *_) = counted
    return "user_id" not in window.by


def _filled(columns: Columns, passes: Iterable[_Pass]) -> Iterator[None]:
    """Fill columns by one pass after the other, and yield after each part of one."""
    for fill, asked in passes:
        yield from fill(columns, asked)


def _measure(
    known: KnownTables, counts: Sequence[UseCounts | DayCounts], window: Window, features: Sequence[Feature]
) -> Iterator[pa.Table | None]:
    """Yield tables of `row` (and `level`) and one column for each different expression, and None after each part of the slice."""
    expressions = _expressions(features)

    def query(rows: ir.Table) -> ir.Table:
        rows = rows.filter(rows.level.notnull()) if window.each else rows
        values = {name: expression(rows) for expression, name in expressions.items()}
        return rows.group_by(["row", "level"] if window.each else "row").agg(**values)

    for counted in counts:
        if counted.answer(window, list(expressions)):
            asked = _Asked(known.engine, query)
            tables = in_advance(counted.tables(window, list(expressions)))
            return (None if table is None else asked.of(table) for table in tables)
    found = gather(known.engine, known.slices(window), lambda part: query(summed(part, window)))
    return (table for part in found for table in (part, None))


@dataclass
class _Asked:
    """A query that is compiled once and asked of one table after the other."""

    engine: QueryEngine
    query: Callable[[ir.Table], ir.Table]
    sql: str = ""

    def of(self, table: pa.Table) -> pa.Table:
        """Return the query's answer of a table that was counted."""
        held = self.engine.hold(table, name="summed_up")
        self.sql = self.sql or self.engine.compile(self.query(held))
        return self.engine.fetch(self.sql)


def _expressions(features: Sequence[Feature]) -> dict[Callable[[ir.Table], ir.Value], str]:
    """Return the different expressions with a name for each; the levels of one statistic share theirs."""
    return {expression: f"value_{i}" for i, expression in enumerate(dict.fromkeys(feature.expression for feature in features))}


def _fill(known: KnownTables, counts: Sequence[UseCounts | DayCounts], columns: Columns, asked: _Windows) -> Iterator[None]:
    """Write the features of one window into their columns, part by part; a feature of a level takes the rows of that level."""
    ((window, features),) = asked
    names = _expressions(features)
    levels = known.levels[window.each] if window.each else ()
    for values in _measure(known, counts, window, features):
        if values is None:
            yield
            continue
        rows = values["row"].to_numpy()
        of_level = {name: np.flatnonzero(values["level"].to_numpy() == number) for number, name in enumerate(levels)}
        for feature in features:
            found = values[names[feature.expression]]
            array = found.to_numpy() if feature.kind == "category" else pc.cast(found, pa.float64()).to_numpy()
            here = slice(None) if feature.level is None else of_level[feature.level]
            columns[feature.name][rows[here]] = array[here]


def _unfilled(feature: Feature, n_rows: int) -> np.ndarray:
    if feature.kind == "category":
        return np.full(n_rows, None, dtype=object)
    return np.full(n_rows, np.nan if feature.empty is None else feature.empty)


def _with_empty(feature: Feature, values: np.ndarray) -> np.ndarray:
    """Fill in the feature's empty value where its expression found nothing, as a sum does of rows that it left out."""
    if feature.empty is not None:
        values[np.isnan(values)] = feature.empty
    return values


def _arrow(values: np.ndarray) -> pa.Array:
    return pa.array(values, pa.string() if values.dtype == object else pa.float64(), from_pandas=True)


def add_derived(known: KnownTables, matrix: pa.Table, catalogue: Catalogue) -> pa.Table:
    """Add the derived features of a catalogue to a matrix that has its measured ones, and return all in the catalogue's order.

    The engine takes their inputs only and gives them only, as it would hold the matrix several times.
    """
    order = ["account_id", "cutoff", *catalogue.names]
    derived = [feature for feature in catalogue if feature.source is None]
    if not derived:
        return matrix.select(order)
    inputs = {name for feature in derived for name in feature.inputs} & set(matrix.column_names)
    context = {"row": pa.array(np.arange(len(matrix), dtype=np.int64)), "segment": known.segments(matrix["account_id"])}
    taken = {name: matrix[name] for name in ["account_id", "cutoff", *sorted(inputs)]}
    table = with_derived(known.engine.hold(pa.table(context | taken), name="matrix"), catalogue)
    found = known.engine.to_arrow(table.select("row", *(feature.name for feature in derived)).order_by("row"))
    for feature in derived:
        matrix = matrix.append_column(feature.name, found[feature.name])
    return matrix.select(order)


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
