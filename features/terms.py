"""Terms: what each account paid for and when, by all that is known today.

Labels and retention look back on what happened, so they take the newest version of each term and the day on which it really ended.
Features never do. A *spell* is a time of payment without a gap as long as the grace period: a renewal that is booked late, within the
grace, is no churn.
"""

from datetime import datetime

import ibis
import ibis.expr.types as ir

from features import clock
from features.contracts import CONTRACT
from features.slices import KnownTables, newest_versions, real_ends

__all__ = ["NEVER", "bridged", "final_terms", "spells"]

NEVER = clock.microseconds(datetime(9999, 1, 1))
"""The end of terms that have none, in microseconds since 1970-01-01 UTC."""


def final_terms(known: KnownTables) -> ir.Table:
    """Return the newest version of each term that was paid and ran at all.

    Returns
    -------
    ir.Table
        account, arr, starts and ends (the real end) in microseconds, and seats where the table has them.
    """
    contract = CONTRACT["subscriptions"]
    terms = known.loaded("subscriptions")
    if "recorded_at" in terms.columns:
        terms = newest_versions(terms, contract, of=("account",))
    terms = terms.mutate(starts=terms.start_date, ends=real_ends(terms, contract).fill_null(NEVER))
    ran = clock.active_at(terms.starts, terms.ends, terms.starts)
    return terms.filter(ran & (terms.arr > 0)).select("account", "arr", "starts", "ends", *({"seats"} & set(terms.columns)))


def spells(terms: ir.Table, grace_days: int) -> ir.Table:
    """Join an account's paid terms into spells: terms less than the grace period apart belong together.

    Returns
    -------
    ir.Table
        account, spell (numbered from 1), starts and ends.
    """
    gaps = _with_gaps(terms)
    begun = gaps.mutate(begins=(gaps.gap.isnull() | (gaps.gap >= _shortest_break(grace_days))).cast("int32"))
    so_far = ibis.window(group_by="account", order_by=["starts", "ends"], rows=(None, 0))
    numbered = begun.mutate(spell=begun.begins.sum().over(so_far))
    return numbered.group_by(["account", "spell"]).agg(starts=numbered.starts.min(), ends=numbered.ends.max())


def bridged(terms: ir.Table, grace_days: int) -> ir.Table:
    """Hold the terms that ran last before a gap inside a spell until it is over, so that ARR never falls to zero within a spell.

    Returns
    -------
    ir.Table
        The terms, those with a later end.
    """
    gaps = _with_gaps(terms)
    inside = gaps.filter((gaps.gap > 0) & (gaps.gap < _shortest_break(grace_days)))
    bridges = inside.select("account", ends=inside.ends_before, until=inside.starts).distinct()
    held = terms.left_join(bridges, ["account", "ends"])
    return held.select(*(name for name in terms.columns if name != "ends"), ends=ibis.coalesce(held.until, held.ends))


def _with_gaps(terms: ir.Table) -> ir.Table:
    """Add `ends_before`, the latest end of the terms that began earlier, and `gap`, the time from it; negative where they overlap."""
    earlier = ibis.window(group_by="account", order_by=["starts", "ends"], rows=(None, -1))
    before = terms.mutate(ends_before=terms.ends.max().over(earlier))
    return before.mutate(gap=before.starts - before.ends_before)


def _shortest_break(grace_days: int) -> int:
    """Return how long payment must stop to end a spell, in microseconds: without a grace period any moment does."""
    return max(grace_days * clock.MICROSECONDS_PER_DAY, 1)
