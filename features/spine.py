"""Which accounts are looked at, and when: the cutoffs of a workspace and the spine that they span."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features import clock
from features.config import Cutoffs
from features.engine import Engine
from features.errors import NotEnoughDataError, explain
from features.slices import Spine

__all__ = ["every_pair", "existing", "renewal_pairs", "scoring_cutoff", "shared_cutoffs"]

FIRST_AFTER_DAYS = 28
"""The first cutoff lies at least so long after the first event: before that there is nothing to look back on."""


def scoring_cutoff(data_until: datetime) -> datetime:
    """Return the last midnight of the data: the cutoff at which accounts are scored."""
    return clock.midnight(data_until)


def shared_cutoffs(cutoffs: Cutoffs, data_from: datetime, data_until: datetime) -> list[datetime]:
    """Return the cutoffs that all accounts share, in order, without the scoring cutoff.

    Parameters
    ----------
    cutoffs
        What the workspace says; `every` is not `renewal`.
    data_from, data_until
        The first and the last known time of the data, UTC.

    Raises
    ------
    NotEnoughDataError
        If no cutoff lies within the data.

    Examples
    --------
    >>> found = shared_cutoffs(Cutoffs(every="month"), datetime(2024, 1, 10), datetime(2024, 4, 15))
    >>> [f"{cutoff:%Y-%m-%d}" for cutoff in found]
    ['2024-03-01', '2024-04-01']
    """
    first = cutoffs.first or clock.midnight(data_from) + timedelta(days=FIRST_AFTER_DAYS)
    last = cutoffs.last or data_until
    if cutoffs.every == "month":
        found = list(clock.month_starts(first, last))
    else:
        found = list(clock.steps_of_days(clock.midnight(first), last, 7 if cutoffs.every == "week" else int(cutoffs.every)))
    if not found:
        raise NotEnoughDataError(
            explain(
                "no cutoff lies within the data",
                given=f"cutoffs from {first:%Y-%m-%d} to {last:%Y-%m-%d}, data from {data_from:%Y-%m-%d} to {data_until:%Y-%m-%d}",
                todo="Give more history, or set first and last in [cutoffs].",
            )
        )
    return found


def every_pair(account_id: pa.Array, cutoffs: Sequence[datetime]) -> Spine:
    """Return the spine of all accounts at all cutoffs, cutoff by cutoff."""
    instants = np.repeat(np.array(cutoffs, dtype="datetime64[us]"), len(account_id))
    return Spine(pa.concat_arrays([account_id] * len(cutoffs)), pa.array(instants))


def renewal_pairs(engine: Engine, subscriptions: ir.Table, before_days: int, data_until: datetime) -> Spine:
    """Return the spine in which each account is looked at so many days before each of its renewal dates, at midnight."""
    ends = engine.to_arrow(subscriptions.filter(subscriptions.end_date.notnull()).select("account_id", "end_date").distinct())
    cutoffs = pc.subtract(pc.floor_temporal(ends["end_date"], unit="day"), pa.scalar(timedelta(days=before_days), pa.duration("us")))
    table = pa.table({"account_id": ends["account_id"], "cutoff": cutoffs}).group_by(["account_id", "cutoff"]).aggregate([])
    past = table.filter(pa.array(clock.not_after(table["cutoff"].to_numpy(), data_until))).sort_by(
        [("cutoff", "ascending"), ("account_id", "ascending")]
    )
    return Spine(past["account_id"].combine_chunks(), past["cutoff"].combine_chunks())


def existing(spine: Spine, accounts: pa.Table) -> np.ndarray:
    """Tell which rows' accounts had been created by their cutoff; accounts without a creation date always had. Shape `(n_rows,)`."""
    if "created_at" not in accounts.column_names:
        return np.ones(len(spine), dtype=bool)
    created = accounts["created_at"].take(pc.index_in(spine.account_id, value_set=accounts["account_id"])).to_numpy()
    existed: np.ndarray = np.isnat(created) | clock.not_after(created, spine.cutoff.to_numpy(zero_copy_only=False))
    return existed
