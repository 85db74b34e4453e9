"""Which accounts are looked at, and when: the cutoffs of a workspace and the spine that they span."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features import clock
from features.config import Cutoffs
from features.contracts import CONTRACT
from features.errors import NotEnoughDataError, explain
from features.queries import QueryEngine
from features.slices import Spine

__all__ = [
    "EARLIER_DAYS",
    "EARLIEST_DAYS",
    "LATEST_DAYS",
    "earlier_rows",
    "every_pair",
    "existing",
    "renewal_pairs",
    "scoring_cutoff",
    "shared_cutoffs",
]

FIRST_AFTER_DAYS = 28
"""The first cutoff lies at least so long after the first event: before that there is nothing to look back on."""

EARLIER_DAYS, EARLIEST_DAYS, LATEST_DAYS = 91, 182, 28
"""An account's present is held against its row nearest to a quarter before; one that is not from `(-182, -28]` days says too little."""


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
        The first and the last known time of the data, UTC. No cutoff lies after it, whatever `last` says.

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
    last = min(cutoffs.last or data_until, data_until)
    if cutoffs.every == "month":
        found = list(clock.month_starts(first, last))
    else:
        found = list(clock.steps_of_days(clock.midnight_from(first), last, 7 if cutoffs.every == "week" else int(cutoffs.every)))
    if not found:
        raise NotEnoughDataError(
            explain(
                "no cutoff lies within the data",
                given=f"cutoffs from {first:%Y-%m-%d} to {last:%Y-%m-%d}, data from {data_from:%Y-%m-%d} to {data_until:%Y-%m-%d}",
                todo="Give more history, or set first and last in [cutoffs].",
            )
        )
    return found


def earlier_rows(spine: Spine, end: datetime) -> np.ndarray:
    """Return the positions of the rows that the rows of a cutoff are held against: of each account there, the nearest to a quarter before.

    Parameters
    ----------
    end
        UTC.

    Returns
    -------
    Sorted, shape `(n_found,)`.
    """
    cutoff = spine.cutoff.to_numpy(zero_copy_only=False).astype("datetime64[us]")
    _, account = np.unique(spine.account_id.to_numpy(zero_copy_only=False).astype(str), return_inverse=True)
    age = (np.datetime64(end, "us") - cutoff) / np.timedelta64(1, "D")
    there = np.isin(account, account[age == 0])
    rows = np.flatnonzero(there & (age >= LATEST_DAYS) & (age < EARLIEST_DAYS))
    nearest = rows[np.lexsort((cutoff[rows], np.abs(age[rows] - EARLIER_DAYS), account[rows]))]
    _, first = np.unique(account[nearest], return_index=True)
    return np.sort(nearest[first])


def every_pair(account_id: pa.Array, cutoffs: Sequence[datetime]) -> Spine:
    """Return the spine of all accounts at all cutoffs, cutoff by cutoff."""
    instants = np.repeat(np.array(cutoffs, dtype="datetime64[us]"), len(account_id))
    return Spine(pa.concat_arrays([account_id] * len(cutoffs)), pa.array(instants))


def renewal_pairs(engine: QueryEngine, subscriptions: ir.Table, before_days: int, data_until: datetime) -> Spine:
    """Return the spine in which each account is looked at so many days before each of its renewal dates, at midnight.

    A renewal counts only if it was known by then: were accounts looked at before terms that had not begun yet, being looked at would
    itself tell that they stay.

    Raises
    ------
    NotEnoughDataError
        If no renewal was known so long before.
    """
    terms = engine.to_arrow(_versions(subscriptions.filter(subscriptions.end_date.notnull())))
    cutoff = pc.subtract(pc.floor_temporal(terms["end_date"], unit="day"), pa.scalar(timedelta(days=before_days), pa.duration("us")))
    instants = cutoff.to_numpy()
    seen = clock.not_after(terms["begins"].to_numpy(), instants) & ~clock.not_after(terms["gone"].to_numpy(), instants)
    looked_at = pa.table({"account_id": terms["account_id"], "cutoff": cutoff}).filter(
        pa.array(seen & clock.not_after(instants, data_until))
    )
    if not len(looked_at):
        raise NotEnoughDataError(
            explain(
                f"no renewal was known {before_days} days before it",
                given=f"{len(terms)} terms with an end, data until {data_until:%Y-%m-%d}",
                todo="Set before_renewal_days in [cutoffs] to less than the length of your terms, or look at accounts every month.",
            )
        )
    pairs = looked_at.group_by(["account_id", "cutoff"]).aggregate([]).sort_by([("cutoff", "ascending"), ("account_id", "ascending")])
    return Spine(pairs["account_id"].combine_chunks(), pairs["cutoff"].combine_chunks())


def _versions(terms: ir.Table) -> ir.Table:
    """Return account_id, end_date, and when each version of a term began to be known and was gone: replaced or known to have ended."""
    of_term = ibis.window(group_by=["account_id", *CONTRACT["subscriptions"].unique], order_by=terms.known_at)
    gone = [terms.known_at.lead().over(of_term), *([terms.ended_at] if "ended_at" in terms.columns else [])]
    return terms.select("account_id", "end_date", begins=ibis.greatest(terms.known_at, terms.start_date), gone=ibis.least(*gone))


def existing(spine: Spine, accounts: pa.Table) -> np.ndarray:
    """Tell which rows' accounts had been created by their cutoff; accounts without a creation date always had. Shape `(n_rows,)`."""
    if "created_at" not in accounts.column_names:
        return np.ones(len(spine), dtype=bool)
    created = accounts["created_at"].take(pc.index_in(spine.account_id, value_set=accounts["account_id"])).to_numpy()
    existed: np.ndarray = np.isnat(created) | clock.not_after(created, spine.cutoff.to_numpy(zero_copy_only=False))
    return existed
