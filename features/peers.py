"""Peer features: where the account stands among its segment at the same cutoff."""

import ibis
import ibis.expr.types as ir

from features.feature import Feature

__all__ = ["MINIMUM_PEERS", "peer_features"]

MINIMUM_PEERS = 10
"""A comparison with fewer accounts says more about single ones of them than about the group."""

_RANKED = {
    "active_users_28d": "active users in the last 28 days",
    "events_28d": "activity in the last 28 days",
    "events_trend_91d": "the trend of activity over 91 days",
    "seat_use_28d": "the share of paid seats in use",
    "tickets_91d": "tickets in the last 91 days",
    "arr": "ARR",
}


def peer_features() -> list[Feature]:
    """Return the ranks of central features within the segment, among the accounts of the same cutoff."""
    return [_ranked(name, words) for name, words in _RANKED.items()]


def _ranked(name: str, words: str) -> Feature:
    return Feature(
        name=f"{name}_rank",
        family="peers",
        unit="share",
        meaning=f"share of the segment's accounts that have less: {words}; missing with fewer than {MINIMUM_PEERS} peers",
        sentence=f"in {words} the account is ahead of {{value}} of its segment",
        inputs=(name,),
        expression=lambda rows: _rank(rows, name),
    )


def _rank(rows: ir.Table, name: str) -> ir.Value:
    """Return the share of the peers that have a value and are below the account's; equal values share the lowest rank."""
    value = rows[name]
    groups = [rows.cutoff, rows.segment, value.isnull()]
    peers = ibis.window(group_by=groups)
    below = ibis.rank().over(ibis.window(group_by=groups, order_by=value))
    n_peers = rows.count().over(peers)
    enough = value.notnull() & (n_peers >= MINIMUM_PEERS)
    return ibis.ifelse(enough, below.cast("float64") / (n_peers - 1).nullif(0), None)
