"""Features as they would be without what one partner supplied: what its rows are worth is the difference.

For each account and partner that supplied rows about it, the engagement features are computed once more from the table without those rows,
at one cutoff. All pairs go through the engine at once: each is an account of its own there, with the account's rows less the partner's.

But: only the built-in features of the engagement table are computed again. Features of one's own keep their values, because what they are
computed by is run when features are made and at no other time.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa

from features import clock
from features.catalogue import Catalogue
from features.contributed import TABLE
from features.engagement import engagement_features
from features.engine import Engine
from features.slices import KnownTables, Spine
from features.snapshots import build_matrix

__all__ = ["SuppliedRows", "features_without", "supplied_features", "supplied_rows"]


@dataclass(frozen=True, kw_only=True)
class SuppliedRows:
    """What one partner supplied about one account.

    Parameters
    ----------
    rows
        How many rows were known at the cutoff.
    first_known_at
        When the first of them became known, naive in UTC.
    """

    account_id: str
    partner_id: str
    rows: int
    first_known_at: datetime


def supplied_rows(engine: Engine, tables: Mapping[str, ir.Table], *, cutoff: datetime) -> tuple[SuppliedRows, ...]:
    """Return which partners' rows of engagement were known of which accounts at the cutoff, and had not been taken back.

    A partner is who is named so in the assignments; a `source` that is none, such as the name of a system, supplied nothing.
    """
    if TABLE not in tables or "source" not in tables[TABLE].columns or "assignments" not in tables:
        return ()
    rows = tables[TABLE]
    instant = ibis.literal(clock.microseconds(cutoff), "int64")
    rows = rows.filter(clock.known_by(engine.microseconds(rows.known_at), instant))
    rows = rows.filter(clock.known_by(engine.microseconds(rows.occurred_at), instant))
    if "withdrawn_at" in rows.columns:
        rows = rows.filter(clock.not_withdrawn(engine.microseconds(rows.withdrawn_at), instant))
    named = rows.semi_join(tables["assignments"], rows["source"] == tables["assignments"].partner_id)
    counts = named.group_by(account_id=named.account_id, partner_id=named["source"]).agg(
        rows=named.count(), first_known_at=named.known_at.min()
    )
    found = engine.to_arrow(counts.order_by("account_id", "partner_id")).to_pylist()
    return tuple(SuppliedRows(**row) for row in found)


def supplied_features(columns: Collection[str], wanted: Collection[str]) -> Catalogue:
    """Return the features that rows of engagement feed, of those that are wanted and that the table's columns allow."""
    return Catalogue(tuple(feature for feature in engagement_features() if feature.name in wanted and feature.needs <= set(columns)))


def features_without(
    engine: Engine, engagement: ir.Table, pairs: Sequence[tuple[str, str]], *, cutoff: datetime, catalogue: Catalogue
) -> pa.Table:
    """Compute features of accounts without a partner's rows.

    Parameters
    ----------
    engagement
        The checked table.
    pairs
        Accounts, and the partner whose rows are left out.
    catalogue
        From `supplied_features`.

    Returns
    -------
    pa.Table
        One row a pair in their order, one column a feature.
    """
    names = [str(number) for number in range(len(pairs))]
    accounts, partners = zip(*pairs, strict=True)
    listed = engine.hold(pa.table({"pair": names, "account_id": list(accounts), "left_out": list(partners)}), name="absent_pairs")
    joined = engagement.join(listed, "account_id")
    without = joined.filter(joined["source"].isnull() | (joined["source"] != joined.left_out))
    table = engine.layer(without.mutate(account_id=without.pair).drop("pair", "left_out"))
    spine = Spine(pa.array(names, pa.string()), pa.array(np.full(len(names), np.datetime64(cutoff, "us"))))
    return build_matrix(KnownTables(engine, {TABLE: table}, spine), spine, catalogue).select(list(catalogue.names))
