"""Groups: by what a book is broken down, for each account as of each cutoff.

The partner is the one that managed the account at the cutoff, as was known then, so that a figure by partner keeps its assignment
when the account moves on. Attributes of the account itself are as they are today: the contract keeps no history of them.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.partner import assigned_partner
from features.slices import KnownTables, Spine

__all__ = ["ACCOUNT_GROUPS", "PARTNER_GROUPS", "build_groups"]

ACCOUNT_GROUPS = ("segment", "region", "industry")
"""Attributes of an account by which a book is broken down."""

PARTNER_GROUPS = ("partner_id", "partner_type", "partner_tier")
"""The partner in charge, and what it is."""


def build_groups(known: KnownTables, spine: Spine) -> pa.Table:
    """Return the groups of every row of the spine.

    Returns
    -------
    pa.Table
        account_id, cutoff, segment, region, industry, partner_id, partner_type and partner_tier in the spine's order: strings, null
        where the tables do not say. Shape `(n_rows, 8)`.
    """
    keys = pa.table({"account_id": spine.account_id, "cutoff": spine.cutoff})
    accounts = known.engine.to_arrow(known.tables["accounts"])
    own = _looked_up(accounts, pc.index_in(spine.account_id, value_set=accounts["account_id"]), ACCOUNT_GROUPS)
    rows = pa.array(np.arange(len(spine), dtype=np.int32))
    assigned = known.engine.to_arrow(assigned_partner(known)) if "assignments" in known else pa.table({"row": rows.slice(0, 0)})
    managed = _looked_up(assigned, pc.index_in(rows, value_set=assigned["row"]), PARTNER_GROUPS)
    return pa.table({name: table[name] for table in (keys, own, managed) for name in table.column_names})


def _looked_up(table: pa.Table, at: pa.Array, names: tuple[str, ...]) -> pa.Table:
    """Return the named columns at these positions; null where there is no position or no column."""
    there = set(table.column_names)
    return pa.table({name: table[name].take(at) if name in there else pa.nulls(len(at), pa.string()) for name in names})
