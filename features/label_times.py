"""Times that tell the outcome: ends of terms that were overwritten when the customer left, and dates that are written when it leaves.

Both look at what a snapshot cannot show: the engine trusts that the planned end of a term was known when the term began, and hides a
date of an account until the day itself. A system that writes over its rows breaks the first, an export of today's state the second.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import hypergeom

from features import clock
from features.config import ATTRIBUTE
from features.findings import Finding, Severity

__all__ = ["OPEN_ENDS", "OUTCOME_DATES", "OVERWRITTEN_ENDS", "find_open_ends", "find_outcome_dates", "find_overwritten_ends"]

OVERWRITTEN_ENDS = "overwritten ends"
OPEN_ENDS = "ends of those who left"
OUTCOME_DATES = "dates of the outcome"

Times = npt.NDArray[np.datetime64]
Flags = npt.NDArray[np.bool_]

_DAY = np.timedelta64(1, "D")
_EXAMPLES = 3
_USUAL_SHARE = 0.01
"""A length of term is usual if so many of the terms have it."""
_CHANCE = 1e-6
"""With a smaller probability of the same by chance, chance is ruled out whatever else was tried."""


@dataclass(frozen=True)
class _Counts:
    """How many accounts' terms (or dates) of one kind go with leaving, and how many of all others do."""

    hits: int
    of: int
    other_hits: int
    of_others: int

    @property
    def share(self) -> float:
        return self.hits / max(self.of, 1)

    @property
    def other_share(self) -> float:
        return self.other_hits / max(self.of_others, 1)

    @property
    def chance(self) -> float:
        """The probability of so many hits by chance: Fisher's exact test, one-sided."""
        return float(hypergeom.sf(self.hits - 1, self.of + self.of_others, self.hits + self.other_hits, self.of))

    def evidence(self) -> dict[str, float]:
        return {"hits": self.hits, "of": self.of, "other_hits": self.other_hits, "of_others": self.of_others, "chance": self.chance}


def find_overwritten_ends(terms: pa.Table, labels: pa.Table, *, days_ahead: int, versioned: bool) -> tuple[Finding, ...]:
    """Find planned ends that were overwritten with the day of leaving: terms of unusual length that nearly always end with it.

    Terms have usual lengths, such as one or twelve months. Those of other lengths are mostly add-ons that end with the main contract:
    a term that ends with one of usual length, or while another one of its account runs on, is not asked.

    Parameters
    ----------
    terms
        account_id, start_date and end_date as first recorded, one row a term.
    labels
        account_id, cutoff, churn, left_at.
    days_ahead
        Days from a cutoff to the end of its label window.
    versioned
        Whether `recorded_at` says when each version of a term became known; an overwritten end is then a later version of its own.
    """
    ended = _ended_terms(terms, labels, days_ahead=days_ahead)
    if not len(ended.left):
        return ()
    usual = _usual(ended.months, ended.days)
    unusual = ~usual & ~ended.with_one_of(usual)
    counts = ended.counts(unusual, usual)
    lengths = len(np.unique(ended.days[unusual & ended.left]))
    many = counts.hits >= 5 and counts.share >= 0.8 and counts.chance < _CHANCE and lengths >= 3
    some = counts.hits >= 3 and counts.share >= 0.5 and counts.chance < 1e-4
    if not some or usual.mean() < 0.5:
        return ()
    return (
        Finding(
            probe=OVERWRITTEN_ENDS,
            severity=_severity(many, versioned=versioned),
            subject="subscriptions.end_date",
            message=(
                f"{counts.hits} of {counts.of} terms of unusual length end with the customer leaving, but only "
                f"{counts.other_share:.1%} of the {counts.of_others:,} terms of usual length ({ended.named(usual)}). "
                "It looks as if the planned end was overwritten with the day of leaving; the days to renewal then tell who will leave."
            ),
            todo=_RESTORE,
            evidence=counts.evidence() | {"lengths": lengths},
            examples=ended.examples(unusual & ended.left),
        ),
    )


def find_open_ends(terms: pa.Table, labels: pa.Table, *, days_ahead: int, versioned: bool) -> tuple[Finding, ...]:
    """Find ends that are filled in only when the customer leaves, and open for all others; parameters as of `find_overwritten_ends`."""
    without_end = terms["end_date"].null_count
    if without_end < 0.2 * len(terms):
        return ()
    ended = _ended_terms(terms, labels, days_ahead=days_ahead)
    counts = ended.counts(np.ones_like(ended.left), np.zeros_like(ended.left))
    if counts.of < 20 or counts.share < 0.9:
        return ()
    return (
        Finding(
            probe=OPEN_ENDS,
            severity=_severity(True, versioned=versioned),
            subject="subscriptions.end_date",
            message=(
                f"{without_end:,} of {len(terms):,} terms have no end, and {counts.hits} of the {counts.of} that have ended did so with "
                "the customer leaving. The end was filled in when it left, so that having one tells who will leave."
            ),
            todo=_RESTORE,
            evidence={"hits": counts.hits, "of": counts.of, "without_end": without_end, "terms": len(terms)},
            examples=ended.examples(ended.left),
        ),
    )


_RESTORE = (
    "Map end_date to the planned end, such as the start and the billing period (open where none was agreed), and the day on which it "
    "really ended as ended_at: it is hidden until then."
)


def _severity(certain: bool, *, versioned: bool) -> Severity:
    return "leak" if certain and not versioned else "look at"


@dataclass(frozen=True, eq=False)
class _Ended:
    """Terms whose ends lie in the time for which there are labels, each array `(n,)`.

    Parameters
    ----------
    months
        Length in whole months, up to three days more or less; 0 for other lengths.
    left
        Whether the customer left on that day.
    """

    account_id: npt.NDArray[np.object_]
    start: Times
    end: Times
    days: npt.NDArray[np.int64]
    months: npt.NDArray[np.int64]
    left: Flags

    def counts(self, of: Flags, others: Flags) -> _Counts:
        """Count leaving among some terms and among others; an account's terms that end on one day count once."""
        return _Counts(*(len(self._ends(rows)) for rows in (of & self.left, of, others & self.left, others)))

    def with_one_of(self, rows: Flags) -> Flags:
        """Tell which terms end on the day on which one of these does, of the same account."""
        ends = self._ends(rows)
        return np.array([end in ends for end in zip(self.account_id, self.end.tolist(), strict=True)], dtype=bool)

    def _ends(self, rows: Flags) -> set[tuple[str, object]]:
        return set(zip(self.account_id[rows], self.end[rows].tolist(), strict=True))

    def named(self, rows: Flags) -> str:
        months = np.unique(self.months[rows & (self.months > 0)])
        return f"{', '.join(map(str, months))} months" if len(months) else "whole weeks or days"

    def examples(self, rows: Flags) -> tuple[str, ...]:
        first = np.flatnonzero(rows)[:_EXAMPLES]
        return tuple(
            f"account {self.account_id[row]}: a term from {self.start[row].astype('M8[D]')} to {self.end[row].astype('M8[D]')} "
            f"({self.days[row]} days), on which the account left"
            for row in first
        )


def _ended_terms(terms: pa.Table, labels: pa.Table, *, days_ahead: int) -> _Ended:
    """Return the terms after which an account either renewed or left, as far as labels tell which."""
    labelled = labels.filter(pc.is_valid(labels["churn"]))
    asked = terms.filter(pa.array(_observed(terms, labelled, days_ahead=days_ahead) & ~_outlasted(terms)))
    start, end = _times(asked["start_date"]), _times(asked["end_date"])
    days = (end - start) // _DAY
    account_id = asked["account_id"].to_numpy(zero_copy_only=False)
    return _Ended(account_id, start, end, days.astype(np.int64), _whole_months(start, end), _left(asked, labelled))


_ROOM = 1_000_000
"""Days that the numbers of one account's days reach over; an open end is the last of them."""


def _observed(terms: pa.Table, labelled: pa.Table, *, days_ahead: int) -> Flags:
    """Tell which terms end within the label window of the last labelled row of their account before that end."""
    names = pc.unique(terms["account_id"])
    looks = np.sort(_account(labelled, names) * _ROOM + _days(labelled["cutoff"]))
    last = _days(terms["end_date"])
    ends = _account(terms, names) * _ROOM + last
    before = np.searchsorted(looks, ends) - 1
    return np.asarray((last >= 0) & (before >= 0) & (ends - looks[before] <= days_ahead)) if len(looks) else np.zeros(len(terms), bool)


def _outlasted(terms: pa.Table) -> Flags:
    """Tell which terms end while another term of their account, begun earlier, runs on for more than a day."""
    account = _account(terms, pc.unique(terms["account_id"])) * _ROOM
    last = _days(terms["end_date"])
    begins, ends = account + _days(terms["start_date"]), account + np.where(last < 0, _ROOM - 1, last)
    order = np.argsort(begins, kind="stable")
    latest = np.maximum.accumulate(ends[order])
    before = np.searchsorted(begins[order], ends - 1) - 1
    return np.asarray((before >= 0) & (latest[before] > ends + 1))


def _account(rows: pa.Table, names: pa.Array) -> npt.NDArray[np.int64]:
    """Return the number of each row's account among the names, from 1 on; 0 for others."""
    return np.asarray(pc.fill_null(pc.index_in(rows["account_id"], value_set=names), -1).to_numpy().astype(np.int64) + 1)


def _days(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return the number of each day, -1 where there is none."""
    times = _times(column)
    return np.where(np.isnat(times), -1, times.astype("M8[D]").astype(np.int64))


def _left(terms: pa.Table, labelled: pa.Table) -> Flags:
    """Tell which terms end on a day on which their account left, give or take one day."""
    leaving = labelled.filter(pc.is_valid(labelled["left_at"]))
    names = pc.unique(leaving["account_id"])
    left = _account(leaving, names) * _ROOM + _days(leaving["left_at"])
    ends = _account(terms, names) * _ROOM + _days(terms["end_date"])
    return np.asarray(np.isin(ends[:, None] + [-1, 0, 1], left).any(axis=1))


def _whole_months(start: Times, end: Times) -> npt.NDArray[np.int64]:
    """Return the length in months where a term ends within three days of so many months after its start, else 0."""
    months = np.rint((end - start) / _DAY / 30.4375).astype(np.int64)
    first = start.astype("M8[M]")
    last_day = (first + months + 1).astype("M8[D]") - _DAY
    planned = np.minimum((first + months).astype("M8[D]") + (start - first.astype("M8[us]")) // _DAY * _DAY, last_day)
    return np.where(np.abs(end.astype("M8[D]") - planned) <= 3 * _DAY, months, 0)


def _usual(months: npt.NDArray[np.int64], days: npt.NDArray[np.int64]) -> Flags:
    """Tell which terms have a length that many have: in months, or else in days."""
    length = np.where(months > 0, months, -days)
    _, which, counts = np.unique(length, return_inverse=True, return_counts=True)
    return np.asarray(counts[which] >= max(_USUAL_SHARE * len(length), 10))


def find_outcome_dates(accounts: pa.Table, labels: pa.Table, *, days_ahead: int) -> tuple[Finding, ...]:
    """Find date attributes that fall into the label windows of those who churn, and hardly ever into those of others.

    Each account counts once: one that churned at the first cutoff at which it is about to, one that never did at the middle one.

    Parameters
    ----------
    accounts
        account_id and the attributes.
    labels
        account_id, cutoff, churn.
    days_ahead
        Days from a cutoff to the end of its label window.
    """
    names = [
        name for name in accounts.column_names if name.startswith(ATTRIBUTE) and pa.types.is_timestamp(accounts.schema.field(name).type)
    ]
    if not names:
        return ()
    rows = _one_each(labels)
    place = pc.index_in(rows["account_id"], value_set=accounts["account_id"].combine_chunks())
    cutoff, churned = _times(rows["cutoff"]), rows["churn"].to_numpy() == 1
    found = []
    for name in names:
        date = _times(accounts[name].take(place))
        inside = clock.not_after(date, cutoff + days_ahead * _DAY) & ~clock.not_after(date, cutoff) & ~np.isnat(date)
        counts = _Counts(int((inside & churned).sum()), int(churned.sum()), int((inside & ~churned).sum()), int((~churned).sum()))
        examples = [
            f"account {rows['account_id'][row].as_py()}: {date[row].astype('M8[D]')}, seen from {cutoff[row].astype('M8[D]')}"
            for row in np.flatnonzero(inside & churned)[:_EXAMPLES].tolist()
        ]
        found += _date_finding(name, counts, tuple(examples), days_ahead=days_ahead)
    return tuple(found)


def _one_each(labels: pa.Table) -> pa.Table:
    """Return one labelled row of each account: the first one with churn, else the middle one."""
    labelled = labels.select(["account_id", "cutoff", "churn"]).filter(pc.is_valid(labels["churn"]))
    labelled = labelled.sort_by([("account_id", "ascending"), ("churn", "descending"), ("cutoff", "ascending")])
    _, first, count = np.unique(labelled["account_id"].to_numpy(), return_index=True, return_counts=True)
    churned = labelled["churn"].to_numpy()[first] == 1
    return labelled.take(pa.array(np.where(churned, first, first + count // 2)))


def _date_finding(name: str, counts: _Counts, examples: tuple[str, ...], *, days_ahead: int) -> list[Finding]:
    if counts.hits < 10 or counts.chance >= _CHANCE or counts.other_share > counts.share / 2:
        return []
    certain = counts.share >= 0.3 and counts.other_share <= counts.share / 5
    attribute = name.removeprefix(ATTRIBUTE)
    return [
        Finding(
            probe=OUTCOME_DATES,
            severity="leak" if certain else "look at",
            subject=f"accounts.{attribute}",
            message=(
                f"The date lies within the next {days_ahead} days for {counts.share:.0%} of the {counts.of} accounts that are about to "
                f"churn, and for {counts.other_share:.1%} of the {counts.of_others:,} others. It is written when a customer leaves, or "
                "overwritten as long as it stays."
            ),
            todo=(
                f"Remove {attribute} from [tables.accounts.attributes], or map it to what it was at the time; what happened on a day "
                "belongs into a table with times."
            ),
            evidence=counts.evidence(),
            examples=examples,
        )
    ]


def _times(column: pa.ChunkedArray) -> Times:
    return np.asarray(column.to_numpy()).astype("M8[us]")
