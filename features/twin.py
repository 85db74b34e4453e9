"""A feature held against its twin: the same definition once more, in plain pandas, slow and easy to read.

The twin is handed the rows of one account as they were known at one cutoff, picked here from the checked tables without the engine
that computes features, and returns the value. If the two agree on many accounts and cutoffs, the fast expression says what its author
meant, and needs nothing that was not known.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import ibis.expr.types as ir
import numpy as np
import pandas as pd
import pyarrow as pa

from features import clock
from features.catalogue import Catalogue
from features.config import ATTRIBUTE
from features.contracts import CONTRACT, TableContract
from features.engine import Engine
from features.errors import FeatureError, explain
from features.families import VIEWS
from features.feature import Feature
from features.own import OwnFeature, add_own_features, build_matrix_of_own, with_inputs
from features.plan import open_tables, plan_snapshots
from features.slices import KnownTables, Spine
from features.workspace import Workspace

__all__ = ["Twin", "check_feature", "rows_known"]

Value = float | int | str | None
Twin = Callable[[pd.DataFrame, pd.Timestamp], Value]
"""From an account's known rows and the cutoff to the value; for a derived feature, the rows are one row of its inputs."""

_SHOWN = 5


def check_feature(
    workspace: Workspace, feature: Feature, twin: Twin, *, rows: int = 200, seed: int = 0, tolerance: float = 1e-9
) -> pd.DataFrame:
    """Compute a feature for accounts and cutoffs drawn at random, and hold each value against the twin's.

    Parameters
    ----------
    workspace
        Its tables have been checked; whether the feature is in one of its files yet does not matter.
    twin
        Given the account's rows of the feature's table, with the contract's columns and times in UTC, as they were known at the cutoff:
        rows that were not known are left out, fields that became known later are empty. It picks its window itself.
    rows
        How many rows are drawn among the customers at all cutoffs.
    tolerance
        The difference between two numbers that is none, relative and absolute.

    Returns
    -------
    pd.DataFrame
        `account_id`, `cutoff`, `value` and `twin`, shape `(rows, 4)`.

    Raises
    ------
    FeatureError
        If they differ, with the first rows where they do; or if the feature is missing in all rows, which proves nothing.
    ConfigError
        If the feature cannot be computed, or reads a table of which single accounts have no rows, such as `partner_book`.

    Notes
    -----
    A derived feature is handed to its twin row by row, so one that ranks accounts among each other cannot be checked like this.
    """
    own = OwnFeature(Path("check_feature"), feature)
    with Engine() as engine:
        tables = open_tables(engine, workspace.tables)
        plan = plan_snapshots(engine, workspace, tables)
        others = Catalogue(tuple(known for known in plan.catalogue if known.name != feature.name))
        catalogue = with_inputs(feature, add_own_features(others, [own], tables, engine=engine, levels=plan.levels))
        drawn = np.sort(np.random.default_rng(seed).permutation(len(plan.spine))[:rows])
        spine = plan.spine.take(drawn)
        known = KnownTables(engine, tables, spine, levels=plan.levels, views=VIEWS)
        matrix = build_matrix_of_own(known, spine, catalogue, [own])
        given = _account_rows(engine, tables, own, spine) if feature.source else _input_rows(feature, matrix)
    frame: pd.DataFrame = matrix.select(["account_id", "cutoff", feature.name]).to_pandas()
    frame.columns = pd.Index(["account_id", "cutoff", "value"])
    pairs = zip(frame["account_id"], frame["cutoff"], strict=True)
    frame["twin"] = [twin(given(account_id, cutoff), cutoff) for account_id, cutoff in pairs]
    _refuse_differences(feature.name, frame, tolerance)
    return frame


Rows = Callable[[str, pd.Timestamp], pd.DataFrame]


def _account_rows(engine: Engine, tables: Mapping[str, ir.Table], own: OwnFeature, spine: Spine) -> Rows:
    """Return the function that hands out an account's known rows of the feature's table."""
    assert own.feature.source is not None
    name = own.feature.source.table
    if name not in CONTRACT:
        raise own.wrong(f"reads {name}, of which single accounts have no rows", allowed=", ".join(CONTRACT))
    wanted = tables[name].filter(tables[name].account_id.isin(spine.account_id.unique().to_pylist()))
    table = engine.to_arrow(wanted).to_pandas()
    by_account = dict(iter(table.groupby("account_id", observed=True)))
    none = table.iloc[:0]
    return lambda account_id, cutoff: rows_known(by_account.get(account_id, none), CONTRACT[name], cutoff)


def _input_rows(feature: Feature, matrix: pa.Table) -> Rows:
    inputs = matrix.to_pandas().set_index(["account_id", "cutoff"])[list(feature.inputs)]
    return lambda account_id, cutoff: inputs.loc[[(account_id, cutoff)]]


def rows_known(rows: pd.DataFrame, contract: TableContract, cutoff: pd.Timestamp) -> pd.DataFrame:
    """Return an account's rows of a checked table as they were known at the cutoff.

    Rows that were not known are left out, of several versions of a row the newest stays, and a field that became known later (or
    nobody knows when) is empty.
    """
    if contract.occurred:
        rows = rows[clock.not_after(rows[contract.occurred].to_numpy(), cutoff) & clock.not_after(rows["known_at"].to_numpy(), cutoff)]
    if contract.withdrawn in rows.columns:
        rows = rows[~clock.not_after(rows[contract.withdrawn].to_numpy(), cutoff)]
    if "recorded_at" in rows.columns and contract.unique:
        rows = rows.sort_values(["known_at", "recorded_at"], na_position="first", kind="stable")
        rows = rows.drop_duplicates(["account_id", *contract.unique], keep="last")
    shown = {name: rows[name] for name in rows.columns if name in contract.columns or name.startswith(ATTRIBUTE)}
    for name, values in shown.items():
        known_from = _known_from(name, values, contract)
        if known_from is not None:
            known = clock.not_after(rows[known_from].to_numpy(), cutoff) if known_from in rows.columns else np.zeros(len(rows), dtype=bool)
            shown[name] = values.where(known)
    return pd.DataFrame(shown).reset_index(drop=True)


def _known_from(name: str, values: pd.Series, contract: TableContract) -> str | None:
    """Return the column that says when a field became known: declared, or for an attribute that is a date the date itself."""
    if name in contract.columns:
        return contract.columns[name].known_from
    return name if pd.api.types.is_datetime64_dtype(values) else None


def _refuse_differences(name: str, frame: pd.DataFrame, tolerance: float) -> None:
    if frame["value"].isna().all():
        todo = "Draw more rows, or look at the expression: nothing was compared."
        raise FeatureError(explain(f"{name} is missing in all rows that were drawn", given=f"{len(frame)} rows", todo=todo))
    same = [_same(mine, other, tolerance) for mine, other in zip(frame["value"], frame["twin"], strict=True)]
    differing = frame[~np.array(same)]
    if len(differing):
        shown = differing.head(_SHOWN).to_string(index=False)
        raise FeatureError(explain(f"{name} differs from its twin in {len(differing)} of {len(frame)} rows", given=shown))


def _same(value: Value, other: Value, tolerance: float) -> bool:
    if pd.isna(value) or pd.isna(other):
        return bool(pd.isna(value) and pd.isna(other))
    if isinstance(value, str) or isinstance(other, str):
        return value == other
    assert value is not None
    assert other is not None
    return math.isclose(value, other, rel_tol=tolerance, abs_tol=tolerance)
