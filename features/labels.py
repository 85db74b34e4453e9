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
nonrenewal
    Only where the next renewal, as known at the cutoff, lies within the window: 1 if the account churned at or before it, 0 if it went
    on past it. Only accounts whose contract was due are asked: the complement is the renewal rate by accounts.

Without subscriptions churn is no telemetry in the whole window, and the measure in the window is held against the measure in as many
days before the cutoff. A cutoff whose window, and grace, has not closed by the end of the data is censored: all its labels are missing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features import clock
from features.config import ChangeTarget, Measure, Targets
from features.feature import Window
from features.slices import KnownTables, Spine, gather
from features.sums import exact_sum
from features.terms import NEVER, final_terms, spells

__all__ = ["build_labels", "eligible_rows", "is_closed"]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Instants = npt.NDArray[np.datetime64]

_TERMS = Window(table="subscriptions")
_NO_TIME = np.datetime64("NaT", "us")


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
    ever_ran = terms.ends_age_days.isnull() | (terms.ends_age_days < terms.age_days)
    lapsed_at_most = terms.ends_age_days.isnull() | (terms.ends_age_days < grace_days)
    return terms.count(where=ever_ran & lapsed_at_most & (terms.arr > 0))


def _known_events(rows: ir.Table) -> ir.Value:
    if "recorded_at" not in rows.columns:
        return rows.events.sum()
    return rows.events.sum(where=clock.known_by(rows.known_at, rows.cutoff))


def _gathered(
    known: KnownTables, parts: Iterator[ir.Table], value: Callable[[ir.Table], ir.Value], n_rows: int, *, missing: float = 0.0
) -> Floats:
    """Compute one number for each row of the spine; `missing` where there is nothing to compute it from."""
    numbers = np.full(n_rows, missing)
    for found in gather(known.engine, parts, lambda rows: rows.group_by("row").agg(value=value(rows).cast("float64"))):
        numbers[found["row"].to_numpy()] = found["value"].fill_null(missing).to_numpy()
    return numbers


def _gathered_instants(known: KnownTables, parts: Iterator[ir.Table], value: Callable[[ir.Table], ir.Value], n_rows: int) -> Instants:
    """Compute one instant for each row of the spine, UTC in microseconds; missing where there is none or it never comes."""
    instants = np.full(n_rows, NEVER, dtype=np.int64)
    for found in gather(known.engine, parts, lambda rows: rows.group_by("row").agg(value=value(rows))):
        instants[found["row"].to_numpy()] = found["value"].fill_null(NEVER).to_numpy()
    return np.where(instants == NEVER, _NO_TIME, instants.view("datetime64[us]"))


def build_labels(known: KnownTables, spine: Spine, targets: Targets, *, data_until: datetime) -> pa.Table:
    """Label every row of the spine.

    Returns
    -------
    pa.Table
        account_id, cutoff; churn, contraction, expansion: float64 1 or 0, null where there is no label; arr and arr_end: ARR at the
        cutoff and at the window's end, in the workspace's currency, null without subscriptions or where the window is not closed;
        renewal_at: the next end of a running term as known at the cutoff; left_at: when those that churned stopped paying, null for
        all others and where churn is silence; nonrenewal: float64 1 or 0, null where no renewal was due. Times are UTC, in microseconds.
        Shape `(n_rows, 10)`.
    """
    n_rows = len(spine)
    closed = _closed(spine, targets, data_until)
    after = _Aftermath(known, spine, targets)
    churn = np.where(closed, after.churn, np.nan)
    columns: dict[str, pa.Array | npt.NDArray[np.generic]] = {"account_id": spine.account_id, "cutoff": spine.cutoff, "churn": churn}
    measured = {measure: after.measured(measure) for measure in {targets.contraction.measure, targets.expansion.measure}}
    columns["contraction"] = _change(*measured[targets.contraction.measure], churn, targets.contraction, -1)
    columns["expansion"] = _change(*measured[targets.expansion.measure], churn, targets.expansion, 1)
    subscribed = "subscriptions" in known
    columns["arr"] = after.arr if subscribed else np.full(n_rows, np.nan)
    columns["arr_end"] = np.where(closed, after.arr_end, np.nan) if subscribed else np.full(n_rows, np.nan)
    renewal_at = _renewals(known, n_rows) if subscribed else np.full(n_rows, _NO_TIME)
    left_at = np.where(churn == 1, after.left_at, _NO_TIME)
    columns |= {"renewal_at": renewal_at, "left_at": left_at, "nonrenewal": after.nonrenewal(churn, renewal_at)}
    return pa.table(
        {name: values if isinstance(values, pa.Array) else pa.array(values, from_pandas=True) for name, values in columns.items()}
    )


def is_closed(cutoff: datetime, targets: Targets, *, data_until: datetime) -> bool:
    """Tell whether a cutoff's label window, and the grace period of payments, have closed by the end of the data."""
    grace_days = targets.grace_days if targets.kind == "subscription" else 0
    return clock.closed_by(cutoff, data_until, horizon_days=targets.horizon_days, lead_days=targets.lead_days, grace_days=grace_days)


def _closed(spine: Spine, targets: Targets, data_until: datetime) -> Flags:
    cutoffs, which = np.unique(spine.cutoff.to_numpy(zero_copy_only=False).astype("datetime64[us]"), return_inverse=True)
    return np.array([is_closed(cutoff, targets, data_until=data_until) for cutoff in cutoffs.tolist()], dtype=bool)[which]


def _change(before: Floats, after: Floats, churn: Floats, target: ChangeTarget, sign: int) -> Floats:
    """Return 1 where the measure moved in the direction of `sign` by the threshold and the minimum change, 0 where not or churned."""
    moved = sign * (after - before)
    enough = (moved >= target.threshold * before) & (moved >= target.minimum_change) & (moved > 0)
    label = np.where(np.isnan(before) | np.isnan(after), np.nan, enough.astype(float))
    return np.where(np.isnan(churn), np.nan, np.where(churn == 1, 0.0, label))


@dataclass(frozen=True)
class _Aftermath:
    """What became of the accounts after each row's cutoff, by all that is known today; arrays of shape `(n_rows,)`."""

    known: KnownTables
    spine: Spine
    targets: Targets

    @property
    def n_rows(self) -> int:
        """Number of rows of the spine."""
        return len(self.spine)

    @property
    def days_to_end(self) -> int:
        """Days from a cutoff to the end of its label window."""
        return self.targets.lead_days + self.targets.horizon_days

    def _in_window(self, times: Instants) -> Flags:
        return self._by(times, self.days_to_end) & ~self._by(times, self.targets.lead_days)

    def _by(self, times: Instants, after_days: int) -> Flags:
        """Tell which of the rows' times come at most so many days after the cutoff."""
        cutoffs = self.spine.cutoff.to_numpy(zero_copy_only=False).astype("datetime64[us]")
        return clock.not_after(times, cutoffs + np.timedelta64(after_days, "D"))

    @cached_property
    def churn(self) -> Floats:
        """Return 1 for those who left in the label window, 0 for those who did not, missing for those who left or paid nothing before."""
        if self.targets.kind == "subscription":
            gone_before = self._by(self._spell_ends, self.targets.lead_days)
            return np.where((self.arr > 0) & ~gone_before, self._in_window(self._spell_ends).astype(float), np.nan)
        telemetry = self._telemetry(days=self.targets.horizon_days, lead_days=self.targets.lead_days)
        rows_after = _gathered(self.known, telemetry, lambda rows: rows.count(), self.n_rows)
        return np.where(rows_after == 0, 1.0, 0.0)

    @cached_property
    def arr(self) -> Floats:
        """ARR at the cutoff."""
        return self._running_sum("arr", 0)

    @cached_property
    def arr_end(self) -> Floats:
        """ARR at the end of the label window."""
        return self._running_sum("arr", self.days_to_end)

    def measured(self, measure: Measure) -> tuple[Floats, Floats]:
        """Return the measure at the cutoff and at the window's end; for telemetry, in as many days before and in the window."""
        if measure == "arr":
            return self.arr, np.where(self.arr_end == 0, np.nan, self.arr_end)
        if measure == "seats":
            seats = [self._running_sum("seats", days, missing=np.nan) for days in (0, self.days_to_end)]
            return seats[0], np.where(self.arr_end == 0, np.nan, seats[1])
        value = _distinct_users if measure == "active_users" else _all_events
        horizon = self.targets.horizon_days
        parts = (self._telemetry(days=horizon, lead_days=-horizon), self._telemetry(days=horizon, lead_days=self.targets.lead_days))
        before, after = (_gathered(self.known, part, value, self.n_rows) for part in parts)
        return before, after

    def _telemetry(self, *, days: int, lead_days: int) -> Iterator[ir.Table]:
        return self.known.outcome_slices("telemetry", days=days, lead_days=lead_days)

    @cached_property
    def _terms(self) -> ir.Table:
        return self.known.engine.table(final_terms(self.known), name="final_terms")

    def _running_sum(self, measure: str, after_days: int, *, missing: float = 0.0) -> Floats:
        """Sum the measure over the terms that run so many days after the cutoff."""
        pairs = self._terms.join(self.known.spine, "account")
        running = pairs.filter(clock.active_at(pairs.starts, pairs.ends, clock.shifted(pairs.cutoff, after_days)))
        return _gathered(self.known, iter([running]), lambda rows: exact_sum(rows[measure]), self.n_rows, missing=missing)

    @property
    def left_at(self) -> Instants:
        """When the spell of payment that holds the cutoff ended; missing where churn is not told by payment."""
        return self._spell_ends if self.targets.kind == "subscription" else np.full(self.n_rows, _NO_TIME)

    def nonrenewal(self, churn: Floats, renewal_at: Instants) -> Floats:
        """Return 1 where a renewal due in the window was not made, 0 where it was, missing where none was due or churn is unknown."""
        due = self._in_window(renewal_at) & ~np.isnan(churn) & (self.targets.kind == "subscription")
        lost = (churn == 1) & clock.not_after(self.left_at, renewal_at)
        return np.where(due, lost.astype(float), np.nan)

    @cached_property
    def _spell_ends(self) -> Instants:
        """Return when the spell of payment that holds each row's cutoff ends; missing where none holds it or it has no end."""
        pairs = spells(self._terms, self.targets.grace_days).join(self.known.spine, "account")
        holding = pairs.filter(clock.active_at(pairs.starts, pairs.ends, pairs.cutoff))
        return _gathered_instants(self.known, iter([holding]), lambda rows: rows.ends.max(), self.n_rows)


def _distinct_users(rows: ir.Table) -> ir.Value:
    return rows.user_id.nunique()


def _all_events(rows: ir.Table) -> ir.Value:
    return rows.events.sum()


def _renewals(known: KnownTables, n_rows: int) -> Instants:
    return _gathered_instants(known, known.slices(_TERMS), lambda terms: terms.end_date.min(where=terms.running), n_rows)
