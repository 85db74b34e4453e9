"""The plan of a workspace's snapshots: which features of which accounts at which cutoffs its checked tables give."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.catalogue import Catalogue
from features.config import Config, Measure
from features.engine import Engine
from features.errors import ConfigError, NotEnoughDataError, WorkspaceError, explain
from features.families import build_catalogue
from features.labels import eligible_rows
from features.numbered import NumberedTelemetry
from features.own import OwnFeature, add_own_features, read_own_features
from features.pieces import open_pieces
from features.queries import QueryEngine
from features.slices import KnownTables, Spine
from features.spine import every_pair, existing, renewal_pairs, scoring_cutoff, shared_cutoffs
from features.workspace import Workspace

__all__ = ["SnapshotPlan", "open_tables", "plan_snapshots"]

_MEASURED_IN: Mapping[Measure, tuple[str, str]] = {
    "arr": ("subscriptions", "arr"),
    "seats": ("subscriptions", "seats"),
    "active_users": ("telemetry", "user_id"),
    "events": ("telemetry", "events"),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class SnapshotPlan:
    """What there is to compute.

    Parameters
    ----------
    catalogue
        The features, those of one's own at its end.
    own
        The features of one's own, with their files.
    levels
        The kinds of event that have features of their own, as `levels["event"]`.
    spine
        The customers at each cutoff, those of the scoring cutoff last.
    data_until
        The end of the data, UTC.
    """

    catalogue: Catalogue
    own: tuple[OwnFeature, ...]
    levels: Mapping[str, tuple[str, ...]]
    spine: Spine
    data_until: datetime


def open_tables(engine: Engine, folder: Path) -> dict[str, ir.Table]:
    """Open the checked tables of a workspace.

    Raises
    ------
    WorkspaceError
        If they are not there.
    """
    files = sorted(folder.glob("*.parquet"))
    if not files:
        todo = "Run `renewcast check`. On Spark tables stay where they lie: work with a sample of them, in a workspace on DuckDB."
        raise WorkspaceError(explain("the tables of this workspace have not been checked yet", given=folder, todo=todo))
    return {file.stem: open_pieces(engine, file) for file in files}


def plan_snapshots(
    engine: QueryEngine, workspace: Workspace, tables: Mapping[str, ir.Table], *, telemetry: NumberedTelemetry | None = None
) -> SnapshotPlan:
    """Find the features that the tables allow, and the customers at each cutoff.

    Parameters
    ----------
    telemetry
        The telemetry of `tables` with numbers for texts, where there is such.

    Raises
    ------
    ConfigError
        If targets, cutoffs or a feature of one's own need a table or column that is not there.
    NotEnoughDataError
        If no account is a customer at any cutoff, or at the end of the data.
    """
    _refuse_impossible(workspace.config, tables)
    built_in, levels = _built_in(workspace.config, tables, _kinds(engine, tables) if telemetry is None else telemetry.kinds)
    own = read_own_features(workspace)
    catalogue = add_own_features(built_in, own, tables, engine=engine, levels=levels)
    data_from, last_known = _known_times(engine, tables, telemetry)
    data_until = workspace.config.data_until or last_known
    candidates = _spine(engine, workspace.config, tables, data_from, data_until)
    spine = _customers(KnownTables(engine, tables, candidates, telemetry=telemetry), workspace.config, candidates)
    _require_customers_at(scoring_cutoff(data_until), spine)
    return SnapshotPlan(catalogue=catalogue, own=own, levels=levels, spine=spine, data_until=data_until)


def _refuse_impossible(config: Config, tables: Mapping[str, ir.Table]) -> None:
    """Stop if targets or cutoffs need what the tables do not have.

    Raises
    ------
    ConfigError
        With the key and the table or column that it needs.
    """
    needs = [
        (f"measure of [targets.{name}]", *_MEASURED_IN[getattr(config.targets, name).measure]) for name in ("expansion", "contraction")
    ]
    if config.cutoffs.every == "renewal":
        needs.append(("every of [cutoffs]", "subscriptions", "end_date"))
    if config.targets.kind == "subscription":
        needs.append(("kind of [targets]", "subscriptions", "arr"))
    for key, table, column in needs:
        if table not in tables or column not in tables[table].columns:
            todo = f"Map {column} in [tables.{table}.columns], or choose another {key}."
            raise ConfigError(explain(f"{key} needs {column} of {table}, which is not there", given=", ".join(tables), todo=todo))


def _kinds(engine: QueryEngine, tables: Mapping[str, ir.Table]) -> pa.Table:
    """Count each kind of event, and the rows in which it carries a quantity."""
    telemetry = tables["telemetry"]
    carried = telemetry.quantity.count() if "quantity" in telemetry.columns else ibis.literal(0)
    return engine.to_arrow(telemetry.group_by("event").agg(events=telemetry.events.sum(), carried=carried))


def _built_in(config: Config, tables: Mapping[str, ir.Table], kinds: pa.Table) -> tuple[Catalogue, dict[str, tuple[str, ...]]]:
    """Build the catalogue, and list the kinds of event that have features of their own."""
    counted = kinds.sort_by([("events", "descending"), ("event", "ascending")])
    found = counted["event"].to_pylist()
    events = tuple(found[: config.features.top_events]) if config.features.events is None else tuple(dict.fromkeys(config.features.events))
    carrying = set(counted.filter(pc.greater(counted["carried"], 0))["event"].to_pylist())
    catalogue = build_catalogue(
        {name: table.columns for name, table in tables.items()},
        currency=config.currency,
        events=events,
        carrying=carrying,
        ratios=config.features.ratios,
        attributes=config.tables["accounts"].attributes,
    )
    return catalogue, {"event": events}


def _known_times(engine: QueryEngine, tables: Mapping[str, ir.Table], telemetry: NumberedTelemetry | None) -> tuple[datetime, datetime]:
    """Return the first and the last known time of telemetry."""
    if telemetry is not None:
        first, last = np.array(telemetry.known_span, dtype="datetime64[us]").tolist()
        return first, last
    known_at = tables["telemetry"].known_at
    found = engine.to_arrow(tables["telemetry"].aggregate(first=known_at.min(), last=known_at.max())).to_pylist()[0]
    if found["first"] is None:
        raise NotEnoughDataError(explain("telemetry has no rows", todo="Look at `renewcast check` and the quarantine."))
    return found["first"], found["last"]


def _spine(engine: QueryEngine, config: Config, tables: Mapping[str, ir.Table], data_from: datetime, data_until: datetime) -> Spine:
    """Return the accounts that there were at each cutoff."""
    accounts = engine.to_arrow(tables["accounts"]).sort_by("account_id")
    everyone = accounts["account_id"].combine_chunks()
    if config.cutoffs.every == "renewal":
        spine = renewal_pairs(engine, tables["subscriptions"], config.cutoffs.before_renewal_days, data_until)
    else:
        spine = every_pair(everyone, shared_cutoffs(config.cutoffs, data_from, data_until))
    now = scoring_cutoff(data_until)
    earlier = np.flatnonzero(spine.cutoff.to_numpy(zero_copy_only=False) != np.datetime64(now, "us"))
    spine = spine.take(earlier).followed_by(every_pair(everyone, [now]))
    return spine.take(np.flatnonzero(existing(spine, accounts)))


def _customers(known: KnownTables, config: Config, spine: Spine) -> Spine:
    """Return the customers among the accounts at each cutoff, by what was known then."""
    customers = eligible_rows(known, config.targets, n_rows=len(spine))
    if not customers.any():
        raise NotEnoughDataError(
            explain(
                "no account is a customer at any cutoff",
                given=f"{len(pc.unique(spine.account_id))} accounts, {len(pc.unique(spine.cutoff))} cutoffs",
                todo="Look at start_date and end_date of subscriptions, or at eligible_events in [targets].",
            )
        )
    return spine.take(np.flatnonzero(customers))


def _require_customers_at(end: datetime, spine: Spine) -> None:
    if end not in pc.unique(spine.cutoff).to_pylist():
        raise NotEnoughDataError(
            explain(
                f"no account is a customer at {end:%Y-%m-%d}, the end of the data, so there is none to score",
                given=f"the last cutoff with a customer is {pc.max(spine.cutoff).as_py():%Y-%m-%d}",
                todo="If the tables are complete only until an earlier day, say so: data_until = ... in [workspace].",
            )
        )
