"""What accounts really paid at any instant, by all that is known today; movements only know the starts of months."""

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import pandas as pd
import pyarrow as pa

from features import clock
from features.engine import Engine
from features.plan import open_tables
from features.slices import KnownTables
from features.spine import every_pair
from features.sums import exact_sum
from features.terms import bridged, final_terms
from features.workspace import Workspace

__all__ = ["read_paid"]


def read_paid(workspace: Workspace, instants: Sequence[datetime]) -> pd.DataFrame:
    """Return the ARR of every account at some instants, as `features.movements` counts it: held between terms less than a grace apart.

    Parameters
    ----------
    instants
        UTC.

    Returns
    -------
    One row for each account that ever pays at one of them, by account_id, and one column for each instant; 0 where nothing is paid.

    Raises
    ------
    WorkspaceError
        If the tables have not been checked.
    """
    with Engine() as engine:
        tables = open_tables(engine, workspace.book_tables)
        accounts = engine.to_arrow(tables["accounts"].select("account_id"))["account_id"].combine_chunks()
        known = KnownTables(engine, tables, every_pair(accounts, list(instants)))
        terms = engine.table(bridged(final_terms(known), workspace.config.targets.grace_days), name="paid_terms")
        asked = pa.table({"instant": pa.array(np.array([clock.microseconds(instant) for instant in instants], dtype=np.int64))})
        pairs = terms.cross_join(engine.hold(asked, name="asked_instants"))
        running = pairs.filter(clock.active_at(pairs.starts, pairs.ends, pairs.instant))
        sums = running.group_by(["account", "instant"]).agg(arr=exact_sum(running.arr))
        found = engine.to_arrow(sums.join(known.accounts, "account").select("account_id", "instant", "arr")).to_pandas()
    paid: pd.DataFrame = found.pivot(index="account_id", columns="instant", values="arr").fillna(0.0).sort_index()
    paid = paid.reindex(columns=[clock.microseconds(instant) for instant in instants], fill_value=0.0)
    return paid.set_axis(list(instants), axis=1)
