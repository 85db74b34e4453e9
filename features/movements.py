"""Movements: what each account paid at the start of each month, by all that is known today.

From these the actual Net Dollar Retention of any cohort follows (`features.retention`). ARR is that of the terms that run at the
instant, as in labels. Between two terms less than the grace period apart an account is held at the ARR that it paid last: a renewal
that is booked late is neither churn nor a return, and what it changes counts from the day on which it begins. A renewal that has not
been booked by the end of the data is not made up: for a grace period before that end, months are provisional.

Amounts are in the workspace's currency at its fixed rates, so exchange rates make no movement. Only books with subscriptions have ARR.
"""

from collections.abc import Mapping
from datetime import datetime
from itertools import takewhile

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features import clock
from features.groups import build_groups
from features.queries import QueryEngine
from features.slices import KnownTables, Spine
from features.spine import every_pair
from features.sums import exact_sum
from features.terms import bridged, final_terms

__all__ = ["MOVEMENTS_OF", "MOVEMENT_GROUPS", "build_movements"]

MOVEMENTS_OF = ("accounts", "subscriptions", "partners", "assignments")
"""The tables that movements are made of."""
MOVEMENT_GROUPS = ("segment", "partner_id", "partner_type")
"""The groups of an account that its movements carry."""


def build_movements(
    engine: QueryEngine, tables: Mapping[str, ir.Table], *, data_until: datetime, grace_days: int, earlier: pa.Table | None = None
) -> pa.Table:
    """Return the ARR of every account that pays, at the first midnight of each month and at the last midnight of the data.

    Parameters
    ----------
    tables
        The checked tables, subscriptions among them.
    data_until
        The end of the data, UTC; the first month is the one after payment began.
    grace_days
        Terms less than so many days apart are one spell of payment.
    earlier
        What this returned of the same tables and grace period for an end of the data before; its months are not computed again.

    Returns
    -------
    pa.Table
        account_id; month: the instant, a timestamp in UTC; arr > 0; segment, partner_id and partner_type: strings, the partner being
        the one that managed the account then. One row an account and instant, by month and account; no row where nothing is paid.
    """
    accounts = engine.to_arrow(tables["accounts"].select("account_id").order_by("account_id"))["account_id"].combine_chunks()
    known = KnownTables(engine, tables, every_pair(accounts, [clock.midnight(data_until)]))
    terms = engine.table(bridged(final_terms(known), grace_days), name="bridged_terms")
    instants = _instants(engine, terms, data_until)
    months = set() if earlier is None else {*pc.unique(earlier["month"]).to_pylist()}
    there = list(takewhile(lambda instant: instant in months, instants))
    paid = _paid(known, terms, instants[len(there) :])
    spine = Spine(paid["account_id"].combine_chunks(), paid["month"].combine_chunks())
    groups = build_groups(KnownTables(engine, tables, spine), spine)
    found = pa.table({name: paid[name] for name in paid.column_names} | {name: groups[name] for name in MOVEMENT_GROUPS})
    if earlier is None or not there:
        return found
    kept = earlier.filter(pc.is_in(earlier["month"], value_set=pa.array(there, pa.timestamp("us"))))
    return pa.concat_tables([kept.cast(found.schema), found]).combine_chunks()


def _instants(engine: QueryEngine, terms: ir.Table, data_until: datetime) -> list[datetime]:
    """Return the month starts from the first payment on, and the last midnight of the data."""
    now = clock.midnight(data_until)
    first = engine.to_arrow(terms.aggregate(first=terms.starts.min()))["first"].cast(pa.timestamp("us"))[0].as_py()
    months = [] if first is None else list(clock.month_starts(first, now))
    return months if now in months else [*months, now]


def _paid(known: KnownTables, terms: ir.Table, instants: list[datetime]) -> pa.Table:
    """Return account_id, month and arr of those that pay at the instants."""
    months = pa.table({"month": pa.array(np.array([clock.microseconds(instant) for instant in instants], dtype=np.int64))})
    pairs = terms.cross_join(known.engine.hold(months, name="movement_months"))
    running = pairs.filter(clock.active_at(pairs.starts, pairs.ends, pairs.month))
    sums = running.group_by(["account", "month"]).agg(arr=exact_sum(running.arr))
    found = known.engine.to_arrow(sums.join(known.accounts, "account").select("account_id", "month", "arr"))
    found = found.set_column(1, "month", pc.cast(found["month"], pa.timestamp("us")))
    return found.sort_by([("month", "ascending"), ("account_id", "ascending")])
