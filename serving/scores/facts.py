"""What the tables say about each account at the cutoff beside its features: who it is, who looks after it, how much is known of it."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pandas as pd

from features import clock
from features.engine import Engine
from features.pieces import open_pieces
from serving.scores.scoring import NEW_ACCOUNT_DAYS, Source

__all__ = ["SILENT_AFTER_DAYS", "read_facts", "read_sources"]

SILENT_AFTER_DAYS = 28
"""A source of events of which nothing became known for longer than this is called silent."""

_EVENT_TABLES = ("telemetry", "engagement", "tickets")


def read_facts(engine: Engine, tables: Path, cutoff: datetime) -> pd.DataFrame:
    """Return the facts about each account at the cutoff.

    Of several partners whose assignments hold at the cutoff, the one that was assigned last counts.

    Returns
    -------
    One row an account, indexed by account_id: name, segment, csm, partner_id, partner_name (None where not known), age_days (NaN where
    not known), new_account, no_telemetry.
    """
    canonical = {path.stem: open_pieces(engine, path) for path in sorted(tables.glob("*.parquet"))}
    instant = ibis.literal(clock.microseconds(cutoff), "int64")
    facts = _frame(engine, _account_columns(engine, canonical["accounts"], instant)).set_index("account_id")
    first_event = _first_event_age(engine, canonical["telemetry"], instant)
    facts = facts.join(first_event).join(_partners(engine, canonical, instant))
    facts["age_days"] = facts["age_days"].fillna(facts["first_event_age_days"])
    facts["new_account"] = facts["age_days"] < NEW_ACCOUNT_DAYS
    facts["no_telemetry"] = facts["first_event_age_days"].isna()
    return facts.drop(columns="first_event_age_days")


def read_sources(engine: Engine, tables: Path, cutoff: datetime) -> tuple[Source, ...]:
    """Return how fresh each table with times was at the cutoff; only tables of events can be silent."""
    instant = ibis.literal(clock.microseconds(cutoff), "int64")
    sources = []
    for path in sorted(tables.glob("*.parquet")):
        rows = open_pieces(engine, path)
        if "known_at" not in rows.columns:
            continue
        known = rows.filter(clock.known_by(engine.microseconds(rows.known_at), instant))
        newest = _frame(
            engine, known.agg(latest=known.known_at.max(), age_days=clock.age_days(engine.microseconds(known.known_at), instant).min())
        )
        latest, age_days = newest["latest"][0], newest["age_days"][0]
        silent = path.stem in _EVENT_TABLES and not age_days <= SILENT_AFTER_DAYS
        sources.append(Source(table=path.stem, latest=None if pd.isna(latest) else latest.to_pydatetime(), silent=silent))
    return tuple(sources)


def _account_columns(engine: Engine, accounts: ir.Table, instant: ir.IntegerValue) -> ir.Table:
    text = {name: accounts[name] if name in accounts.columns else ibis.null("string") for name in ("name", "segment", "csm")}
    known_age = "created_at" in accounts.columns
    age = clock.age_days(engine.microseconds(accounts.created_at), instant) if known_age else ibis.null("float64")
    return accounts.select("account_id", **text, age_days=age)


def _first_event_age(engine: Engine, telemetry: ir.Table, instant: ir.IntegerValue) -> pd.DataFrame:
    known = telemetry.filter(clock.known_by(engine.microseconds(telemetry.known_at), instant))
    age = clock.age_days(engine.microseconds(known.occurred_at), instant)
    return _frame(engine, known.group_by("account_id").agg(first_event_age_days=age.max())).set_index("account_id")


def _partners(engine: Engine, canonical: Mapping[str, ir.Table], instant: ir.IntegerValue) -> pd.DataFrame:
    if "assignments" not in canonical:
        return pd.DataFrame({"partner_id": [], "partner_name": []}, index=pd.Index([], name="account_id"), dtype=object)
    rows = canonical["assignments"]
    end = engine.microseconds(rows.valid_to) if "valid_to" in rows.columns else ibis.null("int64")
    running = clock.active_at(engine.microseconds(rows.valid_from), end, instant)
    held = rows.filter(running & clock.known_by(engine.microseconds(rows.known_at), instant))
    last = ibis.row_number().over(ibis.window(group_by=held.account_id, order_by=[held.valid_from.desc(), held.partner_id.desc()]))
    current = held.mutate(recency=last).filter(lambda ranked: ranked.recency == 0).select("account_id", "partner_id")
    frame = _frame(engine, current).set_index("account_id")
    names = (
        _frame(engine, canonical["partners"].select("partner_id", "name"))
        if "partners" in canonical
        else pd.DataFrame(columns=["partner_id", "name"])
    )
    frame["partner_name"] = frame["partner_id"].map(names.set_index("partner_id")["name"])
    return frame


def _frame(engine: Engine, table: ir.Table) -> pd.DataFrame:
    """Compute a table, with text as Python strings and None where it is missing."""
    frame: pd.DataFrame = engine.to_arrow(table).to_pandas()
    return frame.assign(**{name: _text(frame[name]) for name in frame.columns if _is_text(frame[name])})


def _is_text(column: pd.Series) -> bool:
    return not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_any_dtype(column))


def _text(column: pd.Series) -> pd.Series:
    return column.astype(object).where(column.notna(), None)
