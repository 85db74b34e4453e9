"""Labels: what happened to each account after each cutoff.

Labels are the one place that looks past a cutoff. They use all that is known today, not what was known then: the newest version of
each term, and the day on which it really ended.

With subscriptions, for an account that pays at the cutoff and with the label window `(cutoff + lead, cutoff + lead + horizon]`,

churn
    1 if its ARR falls to zero within the window and stays there for the grace period (late renewals are not churn). An account that
    left between cutoff and window has no label: nobody could act on it any more.
contraction, expansion
    0 if it churned; else 1 if the measure at the window's end is below, above, that at the cutoff by at least the threshold and the
    minimum change. An account that is between two terms at the window's end has no label.

Without subscriptions churn is no telemetry in the whole window, and the measure in the window is held against the measure in as many
days before the cutoff. A cutoff whose window, and grace, has not closed by the end of the data is censored: all its labels are missing.
"""

from collections.abc import Callable, Iterator
from datetime import datetime

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features import clock
from features.config import ChangeTarget, Measure, Targets
from features.contracts import CONTRACT
from features.feature import Window
from features.slices import KnownTables, Spine, gather

__all__ = ["build_labels", "eligible_rows"]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_TERMS = Window(table="subscriptions")
_NEVER = clock.microseconds(datetime(9999, 1, 1))


def eligible_rows(known: KnownTables, targets: Targets, *, n_rows: int) -> Flags:
    """Tell which rows of the spine are customers, by what was known at the cutoff; shape `(n_rows,)`.

    With subscriptions these are the accounts that pay at the cutoff, or did within the grace period before it, as their renewal may
    not have been booked yet; without, those with enough events in the days before it.
    """
    if targets.kind == "subscription":
        return _gathered(known, known.slices(_TERMS), lambda terms: _paying_terms(terms, targets.grace_days), n_rows) > 0
    parts = known.outcome_slices("telemetry", days=targets.eligible_days, lead_days=-targets.eligible_days)
    return _gathered(known, parts, _known_events, n_rows) >= targets.eligible_events


def _paying_terms(terms: ir.Table, grace_days: int) -> ir.Value:
    lapsed_at_most = terms.ends_age_days.isnull() | (terms.ends_age_days < max(grace_days, 0)) | terms.running
    return terms.count(where=(terms.age_days >= 0) & lapsed_at_most & (terms.arr > 0))


def _known_events(rows: ir.Table) -> ir.Value:
    if "recorded_at" not in rows.columns:
        return rows.events.sum()
    return rows.events.sum(where=clock.known_by(rows.known_at, rows.cutoff))


def _gathered(known: KnownTables, parts: Iterator[ir.Table], value: Callable[[ir.Table], ir.Value], n_rows: int) -> Floats:
    """Compute one number for each row of the spine; 0 where there is nothing to compute it from."""
    numbers = np.zeros(n_rows)
    for found in gather(known.engine, parts, lambda rows: rows.group_by("row").agg(value=value(rows).cast("float64").fill_null(0.0))):
        numbers[found["row"].to_numpy()] = found["value"].to_numpy()
    return numbers


def build_labels(known: KnownTables, spine: Spine, targets: Targets, *, data_until: datetime) -> pa.Table:
    """Label every row of the spine.

    Returns
    -------
    pa.Table
        account_id, cutoff; churn, contraction, expansion: float64 1 or 0, null where there is no label; arr and arr_end: ARR at the
        cutoff and at the window's end, in the workspace's currency, null without subscriptions or where the window is not closed;
        renewal_at: the next end of a running term as known at the cutoff. Shape `(n_rows, 8)`.
    """
    n_rows = len(spine)
    closed = _closed(spine, targets, data_until)
    at_end = targets.lead_days + targets.horizon_days
    if targets.kind == "subscription":
        churn = _subscription_churn(known, targets, n_rows)
    else:
        churn = (_gathered(known, _after(known, "telemetry", targets), lambda rows: rows.count(), n_rows) == 0).astype(float)
    arr = arr_end = np.full(n_rows, np.nan)
    renewal = pa.nulls(n_rows, pa.timestamp("us"))
    if "subscriptions" in known:
        arr = _running_sum(known, "arr", 0, n_rows)
        arr_end = np.where(closed, _running_sum(known, "arr", at_end, n_rows), np.nan)
        renewal = _renewals(known, n_rows)
    churn = np.where(closed, churn, np.nan)
    columns = {"account_id": spine.account_id, "cutoff": spine.cutoff, "churn": churn}
    for name, sign in (("contraction", -1), ("expansion", 1)):
        target = targets.contraction if name == "contraction" else targets.expansion
        columns[name] = _change(*_measured(known, target.measure, targets, n_rows), churn, target, sign)
    columns |= {"arr": arr, "arr_end": arr_end, "renewal_at": renewal}
    return pa.table(
        {name: values if isinstance(values, pa.Array) else pa.array(values, from_pandas=True) for name, values in columns.items()}
    )


def _closed(spine: Spine, targets: Targets, data_until: datetime) -> Flags:
    grace = targets.grace_days if targets.kind == "subscription" else 0
    window = {"horizon_days": targets.horizon_days, "lead_days": targets.lead_days, "grace_days": grace}
    cutoffs, which = np.unique(spine.cutoff.to_numpy(zero_copy_only=False).astype("datetime64[us]"), return_inverse=True)
    return np.array([clock.closed_by(cutoff, data_until, **window) for cutoff in cutoffs.tolist()], dtype=bool)[which]


def _after(known: KnownTables, table: str, targets: Targets) -> Iterator[ir.Table]:
    return known.outcome_slices(table, days=targets.horizon_days, lead_days=targets.lead_days)


def _change(before: Floats, after: Floats, churn: Floats, target: ChangeTarget, sign: int) -> Floats:
    """Return 1 where the measure moved in the direction of `sign` by the threshold and the minimum change, 0 where not or churned."""
    moved = sign * (after - before)
    enough = (moved >= target.threshold * before) & (moved >= target.minimum_change) & (moved > 0)
    label = np.where(np.isnan(before) | np.isnan(after), np.nan, enough.astype(float))
    return np.where(np.isnan(churn), np.nan, np.where(churn == 1, 0.0, label))


def _measured(known: KnownTables, measure: Measure, targets: Targets, n_rows: int) -> tuple[Floats, Floats]:
    """Return the measure at the cutoff and at the window's end; for telemetry, in the days before and in the window."""
    if measure in ("arr", "seats"):
        at_end = targets.lead_days + targets.horizon_days
        after = _running_sum(known, measure, at_end, n_rows)
        between_terms = _running_sum(known, "arr", at_end, n_rows) == 0
        return _running_sum(known, measure, 0, n_rows), np.where(between_terms, np.nan, after)
    value = _distinct_users if measure == "active_users" else _all_events
    before = known.outcome_slices("telemetry", days=targets.horizon_days, lead_days=-targets.horizon_days)
    return _gathered(known, before, value, n_rows), _gathered(known, _after(known, "telemetry", targets), value, n_rows)


def _distinct_users(rows: ir.Table) -> ir.Value:
    return rows.user_id.nunique()


def _all_events(rows: ir.Table) -> ir.Value:
    return rows.events.sum()


def _final_terms(known: KnownTables) -> ir.Table:
    """Return the newest version of each paid term: account, starts, ends (the real end), arr, and seats if there are any."""
    terms = known.loaded("subscriptions")
    if "recorded_at" in terms.columns:
        newest_first = ibis.window(group_by=list(CONTRACT["subscriptions"].unique), order_by=terms.known_at.desc())
        terms = terms.filter(ibis.row_number().over(newest_first) == 0)
    ends = ibis.coalesce(terms.ended_at, terms.end_date) if "ended_at" in terms.columns else terms.end_date
    seats = {"seats": terms.seats} if "seats" in terms.columns else {}
    return terms.filter(terms.arr > 0).select("account", "arr", starts=terms.start_date, ends=ends.fill_null(_NEVER), **seats)


def _running_sum(known: KnownTables, measure: str, after_days: int, n_rows: int) -> Floats:
    """Sum the measure over the terms that run so many days after the cutoff."""
    pairs = _final_terms(known).join(known.spine, "account")
    running = pairs.filter(clock.active_at(pairs.starts, pairs.ends, clock.shifted(pairs.cutoff, after_days)))
    return _gathered(known, iter([running]), lambda rows: rows[measure].sum(), n_rows)


def _subscription_churn(known: KnownTables, targets: Targets, n_rows: int) -> Floats:
    """Return 1 where the spell of payment that holds the cutoff ends in the label window, missing where it ends before, else 0."""
    pairs = _spells(known, targets.grace_days).join(known.spine, "account")
    holding = pairs.filter(clock.active_at(pairs.starts, pairs.ends, pairs.cutoff))
    window = {"horizon_days": targets.horizon_days, "lead_days": targets.lead_days}
    ends_inside = _gathered(known, iter([holding]), lambda rows: clock.in_label_window(rows.ends, rows.cutoff, **window).max(), n_rows)
    labelled = _running_sum(known, "arr", 0, n_rows) > 0
    if targets.lead_days:
        early = {"horizon_days": targets.lead_days, "lead_days": 0}
        labelled &= (
            _gathered(known, iter([holding]), lambda rows: clock.in_label_window(rows.ends, rows.cutoff, **early).max(), n_rows) == 0
        )
    return np.where(labelled, ends_inside, np.nan)


def _spells(known: KnownTables, grace_days: int) -> ir.Table:
    """Join an account's paid terms into spells: terms less than the grace period apart belong together."""
    terms = known.engine.table(_final_terms(known), name="final_terms")
    earlier = ibis.window(group_by="account", order_by=["starts", "ends"], rows=(None, -1))
    gap = terms.starts - terms.ends.max().over(earlier)
    shortest = max(grace_days * clock.MICROSECONDS_PER_DAY, 1)
    begun = terms.mutate(begins=(gap.isnull() | (gap >= shortest)).cast("int32"))
    so_far = ibis.window(group_by="account", order_by=["starts", "ends"], rows=(None, 0))
    numbered = begun.mutate(spell=begun.begins.sum().over(so_far))
    return numbered.group_by(["account", "spell"]).agg(starts=numbered.starts.min(), ends=numbered.ends.max())


def _renewals(known: KnownTables, n_rows: int) -> pa.Array:
    instants = np.full(n_rows, _NEVER, dtype=np.int64)
    for found in gather(
        known.engine, known.slices(_TERMS), lambda terms: terms.group_by("row").agg(at=terms.end_date.min(where=terms.running))
    ):
        instants[found["row"].to_numpy()] = found["at"].fill_null(_NEVER).to_numpy()
    return pa.array(instants, mask=instants == _NEVER).cast(pa.timestamp("us"))
