"""The one module that compares times.

Everything is UTC. A *cutoff* is an instant, and what a feature may use at a cutoff is what was **known** by then:
`known_at <= cutoff`, where `known_at` is `recorded_at` if the table has it, else the time at which the row happened.
A window of `d` days is open on the left and closed on the right, `(cutoff - d, cutoff]`; a label window is
`(cutoff + lead, cutoff + lead + horizon]`. Days follow the same rule: a day is `(midnight, next midnight]`, so that an
event at exactly midnight belongs to the day that just ended, and windows that end at midnight hold whole days.

In queries an instant is a whole number of microseconds since 1970-01-01 UTC: integers compare and subtract exactly, and in the same
way on every engine, where timestamps do not. The predicates take Ibis columns of such numbers; the tests hold them against a twin
that works on datetimes. Outside queries an instant is a naive `datetime` in UTC.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import numpy.typing as npt

__all__ = [
    "MICROSECONDS_PER_DAY",
    "active_at",
    "age_days",
    "ages_of",
    "came_after",
    "closed_by",
    "day_number",
    "day_number_of",
    "day_of",
    "ended",
    "has_come",
    "in_label_window",
    "in_window",
    "is_midnight",
    "known_by",
    "label_window_end",
    "last_by",
    "microseconds",
    "midnight",
    "midnight_from",
    "month_starts",
    "newly_seen",
    "not_after",
    "not_withdrawn",
    "parse_instant",
    "reaches_into",
    "shifted",
    "sorted_window",
    "steps_of_days",
    "stretches_of_days",
    "unless_unknown",
    "was_known",
    "week_number",
    "weekday",
]

MICROSECONDS_PER_DAY = 86_400_000_000
_EPOCH = datetime(1970, 1, 1)


def microseconds(instant: datetime) -> int:
    """Return the naive UTC datetime as microseconds since 1970-01-01.

    Examples
    --------
    >>> microseconds(datetime(1970, 1, 2)) == MICROSECONDS_PER_DAY
    True
    """
    return (instant - _EPOCH) // timedelta(microseconds=1)


def known_by(known_at: "ir.IntegerValue", cutoff: "ir.IntegerValue") -> "ir.BooleanValue":
    """Tell which rows were known at the cutoff, the cutoff itself included."""
    return known_at <= cutoff


def not_withdrawn(withdrawn_at: "ir.IntegerValue", cutoff: "ir.IntegerValue") -> "ir.BooleanValue":
    """Tell which rows had not been taken back by the cutoff, the cutoff itself included; a missing time never comes."""
    return withdrawn_at.isnull() | (withdrawn_at > cutoff)


def unless_unknown(value: "ir.Value", known_from: "ir.IntegerValue", cutoff: "ir.IntegerValue") -> "ir.Value":
    """Hide a value that became known only after the cutoff, such as the closing time of a ticket that is still open."""
    return known_by(known_from, cutoff).ifelse(value, None)


def in_window(time: "ir.IntegerValue", cutoff: "ir.IntegerValue", *, days: int | None, lag_days: int = 0) -> "ir.BooleanValue":
    """Tell which times lie in `(cutoff - lag - days, cutoff - lag]`; with `days=None` in `(-inf, cutoff - lag]`."""
    upper = time <= shifted(cutoff, -lag_days)
    return upper if days is None else upper & (time > shifted(cutoff, -lag_days - days))


def sorted_window(times: "npt.NDArray[np.int64]", cutoff: int, *, days: int | None, lag_days: int = 0) -> slice:
    """Return where `(cutoff - lag - days, cutoff - lag]` lies in sorted times."""
    newest = shifted(cutoff, -lag_days)
    first = 0 if days is None else int(np.searchsorted(times, shifted(newest, -days), side="right"))
    return slice(first, int(np.searchsorted(times, newest, side="right")))


def reaches_into(first: int, last: int, *, since: int | None, until: int) -> bool:
    """Tell whether a time from the first to the last can lie in `(since, until]`; with `since=None` in `(-inf, until]`.

    Examples
    --------
    >>> reaches_into(10, 20, since=20, until=30), reaches_into(10, 20, since=19, until=30), reaches_into(10, 20, since=None, until=9)
    (False, True, False)
    """
    return first <= until and (since is None or last > since)


def was_known(known_at: int, cutoff: int) -> bool:
    """Tell whether what became known at an instant was known at the cutoff, the cutoff itself included."""
    return known_at <= cutoff


def newly_seen(
    times: "npt.NDArray[np.int64]", known_at: "npt.NDArray[np.int64]", cutoff: int, *, before: int | None, lag_days: int
) -> "npt.NDArray[np.bool_]":
    """Tell which rows had happened `lag_days` ago and were known at the cutoff, and not so at the cutoff before; shape `(n,)`."""
    seen = np.maximum(shifted(times, lag_days), known_at)
    return np.asarray(seen <= cutoff) if before is None else np.asarray((seen <= cutoff) & (seen > before))


def came_after(times: "npt.NDArray[np.int64]", instants: "int | npt.NDArray[np.int64]") -> "npt.NDArray[np.bool_]":
    """Tell which times came after an instant, the instant itself excluded; shape `(n,)`."""
    return np.asarray(times > instants)


def is_midnight(instants: "npt.NDArray[np.int64]") -> bool:
    """Tell whether all instants in microseconds are midnights."""
    return not np.any(instants % MICROSECONDS_PER_DAY)


def in_label_window(time: "ir.IntegerValue", cutoff: "ir.IntegerValue", *, horizon_days: int, lead_days: int) -> "ir.BooleanValue":
    """Tell which times lie in the label window `(cutoff + lead, cutoff + lead + horizon]`."""
    return in_window(time, cutoff, days=horizon_days, lag_days=-lead_days - horizon_days)


def active_at(start: "ir.IntegerValue", end: "ir.IntegerValue", instant: "ir.IntegerValue") -> "ir.BooleanValue":
    """Tell which terms `[start, end)` run at the instant; a missing end is an open one.

    A term that ends at the instant has ended, and one that starts at it runs, so a renewal leaves neither gap nor overlap.
    """
    return (start <= instant) & (end.isnull() | (end > instant))


def ended(end: datetime | None, instant: int) -> bool:
    """Tell whether a term `[start, end)` has ended by an instant in microseconds; one without an end never does."""
    return end is not None and microseconds(end) <= instant


def has_come(time: datetime, instant: datetime) -> bool:
    """Tell whether a time had come by the instant, itself included.

    Examples
    --------
    >>> has_come(datetime(2025, 1, 1), datetime(2025, 1, 1)), has_come(datetime(2025, 1, 2), datetime(2025, 1, 1))
    (True, False)
    """
    return time <= instant


def last_by(times: Sequence[int], instant: int, first: int, stop: int) -> int:
    """Return the position of the last of the sorted `times[first:stop]` that had come by the instant; `first - 1` if none had.

    Examples
    --------
    >>> last_by([10, 20, 30], 20, 0, 3), last_by([10, 20, 30], 9, 0, 3)
    (1, -1)
    """
    return bisect_right(times, instant, first, stop) - 1


def shifted(time: "ir.IntegerValue", days: int) -> "ir.IntegerValue":
    """Move an instant by whole days, back for negative ones."""
    return time + days * MICROSECONDS_PER_DAY if days else time


def age_days(time: "ir.IntegerValue", cutoff: "ir.IntegerValue") -> "ir.FloatingValue":
    """Return the days from the time to the cutoff, with fractions; negative for times after it."""
    return (cutoff - time).cast("float64") / float(MICROSECONDS_PER_DAY)


def ages_of(times: "npt.NDArray[np.int64]", cutoff: int) -> "npt.NDArray[np.float64]":
    """Return what `age_days` does, for an array."""
    return np.asarray((cutoff - times).astype(np.float64) / float(MICROSECONDS_PER_DAY))


def day_number_of(times: "npt.NDArray[np.int64]") -> "npt.NDArray[np.int64]":
    """Return what `day_number` does, for an array."""
    return np.asarray((times - 1) // MICROSECONDS_PER_DAY)


def stretches_of_days(times: "npt.NDArray[np.int64]") -> "npt.NDArray[np.int64]":
    """Return where the days begin in sorted times, from the first to the last that there is, and where the last one ends.

    Examples
    --------
    >>> stretches_of_days(np.array([1, MICROSECONDS_PER_DAY, 3 * MICROSECONDS_PER_DAY])).tolist()
    [0, 2, 2, 3]
    """
    if not len(times):
        return np.zeros(1, dtype=np.int64)
    first, last = day_of(int(times[0])), day_of(int(times[-1]))
    return np.searchsorted(times, np.arange(first, last + 2) * MICROSECONDS_PER_DAY, side="right")


def day_number(time: "ir.IntegerValue") -> "ir.IntegerValue":
    """Return the number of the day `(midnight, next midnight]` that holds the time; 0 is 1970-01-01."""
    return (time - 1).floordiv(MICROSECONDS_PER_DAY).cast("int32")


def day_of(instant: int) -> int:
    """Return the number of the day `(midnight, next midnight]` that holds an instant in microseconds; 0 is 1970-01-01.

    Examples
    --------
    >>> day_of(MICROSECONDS_PER_DAY), day_of(MICROSECONDS_PER_DAY + 1)
    (0, 1)
    """
    return (instant - 1) // MICROSECONDS_PER_DAY


def weekday(time: "ir.IntegerValue") -> "ir.IntegerValue":
    """Return the weekday of the day that holds the time: 0 for Monday to 6 for Sunday."""
    thursday = 3  # 1970-01-01
    return (day_number(time) % 7 + 7 + thursday) % 7  # the remainder of a negative number is negative


def week_number(time: "ir.IntegerValue", cutoff: "ir.IntegerValue") -> "ir.IntegerValue":
    """Return the whole weeks between the time and the cutoff: 0 for `(cutoff - 7 days, cutoff]`."""
    return (cutoff - time).floordiv(7 * MICROSECONDS_PER_DAY).cast("int32")


def label_window_end(cutoff: datetime, *, horizon_days: int, lead_days: int, grace_days: int = 0) -> datetime:
    """Return the instant at which everything about the cutoff's label is known."""
    return cutoff + timedelta(days=lead_days + horizon_days + grace_days)


def closed_by(cutoff: datetime, data_until: datetime, *, horizon_days: int, lead_days: int, grace_days: int = 0) -> bool:
    """Tell whether the cutoff's label window has closed by the end of the data; if not, the cutoff is censored."""
    return label_window_end(cutoff, horizon_days=horizon_days, lead_days=lead_days, grace_days=grace_days) <= data_until


def not_after(times: "npt.NDArray[np.datetime64]", instant: "datetime | npt.NDArray[np.datetime64]") -> "npt.NDArray[np.bool_]":
    """Tell which times had come by the instant, itself included; a missing time never comes."""
    limit = np.asarray(instant, dtype="datetime64[us]")
    return np.asarray(times.astype("datetime64[us]") <= limit)


def midnight(instant: datetime) -> datetime:
    """Return the last midnight at or before the instant."""
    return instant.replace(hour=0, minute=0, second=0, microsecond=0)


def midnight_from(instant: datetime) -> datetime:
    """Return the first midnight at or after the instant.

    Examples
    --------
    >>> midnight_from(datetime(2024, 2, 28, 12)), midnight_from(datetime(2024, 2, 28))
    (datetime.datetime(2024, 2, 29, 0, 0), datetime.datetime(2024, 2, 28, 0, 0))
    """
    return midnight(instant + timedelta(days=1) - timedelta(microseconds=1))


def month_starts(first: datetime, last: datetime) -> Iterator[datetime]:
    """Yield the first midnight of each month in `[first, last]`.

    Examples
    --------
    >>> [f"{t:%Y-%m-%d}" for t in month_starts(datetime(2024, 11, 2), datetime(2025, 1, 1))]
    ['2024-12-01', '2025-01-01']
    """
    year, month = first.year, first.month
    while (start := datetime(year, month, 1)) <= last:
        if start >= first:
            yield start
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)


def steps_of_days(first: datetime, last: datetime, days: int) -> Iterator[datetime]:
    """Yield `first`, `first + days`, ... up to `last`."""
    while first <= last:
        yield first
        first += timedelta(days=days)


def parse_instant(text: str) -> datetime:
    """Parse an ISO 8601 date or date-time as a naive datetime in UTC.

    Examples
    --------
    >>> parse_instant("2024-05-01T02:00:00+02:00")
    datetime.datetime(2024, 5, 1, 0, 0)
    """
    instant = datetime.fromisoformat(text)
    return instant.astimezone(UTC).replace(tzinfo=None) if instant.tzinfo else instant
