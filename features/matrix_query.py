"""The feature matrix as one query, for engines that compute and write it where the tables lie.

`features.snapshots` brings each window's results into this process, which is fastest on one machine. Here nothing is brought: the
windows' aggregates are joined to the spine by its row, empty values filled in and derived features computed, all as one Ibis expression.
Spark runs it, and the tests compile it for warehouses. On DuckDB it gives the same matrix, to the bit.
"""

from collections.abc import Sequence

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from features.catalogue import Catalogue
from features.feature import Feature, Window
from features.slices import KnownTables, summed
from features.snapshots import by_window, with_derived

__all__ = ["matrix_query"]


def matrix_query(known: KnownTables, catalogue: Catalogue) -> ir.Table:
    """Return the query for every feature of the catalogue at every row of the spine.

    Returns
    -------
    ir.Table
        `row` (of the spine), `account_id`, `cutoff` (a timestamp in UTC) and one column for each feature in the catalogue's order: float64,
        or string for categories; null where missing. Shape `(n_rows, 3 + n_features)`, in no order.
    """
    keys = _keys(known)
    joined = keys
    for number, (window, features) in enumerate(by_window(catalogue)):
        found = _measured(known, window, features).rename({f"row_{number}": "row"})
        joined = joined.left_join(found, keys.row == found[f"row_{number}"])
    measured = {feature.name: _filled(feature, joined[feature.name]) for feature in catalogue if feature.source}
    columns = {name: joined[name] for name in ("row", "account_id", "cutoff", "segment")} | measured  # a feature may be called segment
    matrix = joined.select(**columns)
    return with_derived(matrix, catalogue).select("row", "account_id", "cutoff", *catalogue.names)


def _keys(known: KnownTables) -> ir.Table:
    """Return the spine as derived features see it."""
    times = pa.table({"cutoff": known.cutoffs, "time": known.cutoffs.astype("datetime64[us]")})
    spine = known.spine.join(known.accounts, "account").join(known.engine.hold(times, name="spine_cutoffs"), "cutoff")
    spine = spine.select("row", "account_id", cutoff=spine["time"])
    accounts = known.tables["accounts"]
    if "segment" not in accounts.columns:
        return spine.mutate(segment=_NO_TEXT)
    return spine.left_join(accounts.select("account_id", "segment"), "account_id").drop("account_id_right")


_NO_TEXT = ibis.null("string")


def _measured(known: KnownTables, window: Window, features: Sequence[Feature]) -> ir.Table:
    """Return `row` and the features of one window, for the rows of which there is anything in the window."""
    rows = summed(known.slice_at_once(window), window)
    if not window.each:
        return rows.group_by("row").agg(**{feature.name: _typed(feature, feature.expression(rows)) for feature in features})
    levels = known.levels[window.each]
    statistics = {feature.expression: f"value_{number}" for number, feature in enumerate(features)}
    named = rows.filter(rows.level.notnull())
    values = {name: expression(named) for expression, name in statistics.items()}
    found = named.group_by(["row", "level"]).agg(**values)
    return found.group_by("row").agg(
        **{
            feature.name: _typed(feature, found[statistics[feature.expression]].max(where=found.level == levels.index(str(feature.level))))
            for feature in features
        }
    )


def _typed(feature: Feature, value: ir.Value) -> ir.Value:
    return value if feature.kind == "category" else value.cast("float64")


def _filled(feature: Feature, value: ir.Value) -> ir.Value:
    """Fill in the feature's empty value, and leave out what is no number, such as the root of a negative one."""
    if feature.kind == "category":
        return value
    number = value.isnan().ifelse(None, value)
    return number if feature.empty is None else number.fill_null(feature.empty)
