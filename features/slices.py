"""Slices: the rows of a table that a feature may see, for many accounts and cutoffs at once.

The *spine* lists the (account, cutoff) pairs that are asked for; its rows are numbered, and everything that is computed is keyed by
that number. `KnownTables` loads each contract table once, with accounts as whole numbers and instants as microseconds, and hands out
a table's slice for a `Window`: its rows joined to the spine, cut to what was known at the cutoff and to the window, with every field
that became known later set to missing. A slice has, beside the table's own columns,

row, cutoff
    the spine's row and its cutoff
age_days
    days from the row's own time to the cutoff
<column>_age_days
    the same for every other time column of the contract, such as `end_date_age_days`, negative while it lies ahead
day, weekday, week
    number of the day on which the row happened, its weekday (0 for Monday), and whole weeks before the cutoff
running, ends_age_days
    for tables with terms: whether the term is in force at the cutoff, and the age of its end, planned or known to be earlier
level
    for a window with `each`: the number of the level in `KnownTables.levels`

Two ways of cutting give the same rows. Where few cutoffs are shared by many accounts, one query is compiled and run for each cutoff
in turn (`per cutoff`): the window then skips most of the table. Where accounts have cutoffs of their own, the table is joined to the
whole spine once (`at once`). The number of candidate pairs decides.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features import clock
from features.config import ATTRIBUTE
from features.contracts import CONTRACT, TableContract
from features.feature import LOOKBACKS, Window
from features.numbered import NumberedTelemetry
from features.queries import QueryEngine
from features.sampled import SampledTelemetry

__all__ = ["KnownTables", "Spine", "cut", "gather", "newest_versions", "real_ends", "summed"]

ROWS_WORTH_A_QUERY = 300_000
"""One more query costs about as much as joining this many rows to the spine (measured on 2 cores)."""


@dataclass(frozen=True)
class Spine:
    """The (account, cutoff) pairs for which features are computed, in the order of the matrix' rows.

    Parameters
    ----------
    account_id
        Strings, shape `(n_rows,)`.
    cutoff
        Naive UTC timestamps in microseconds, shape `(n_rows,)`.
    """

    account_id: pa.Array
    cutoff: pa.Array

    def __post_init__(self) -> None:
        if len(self.account_id) != len(self.cutoff):
            raise ValueError(f"a spine has one cutoff for each account; given: {len(self.account_id)} accounts, {len(self.cutoff)} cutoffs")

    def __len__(self) -> int:
        return len(self.account_id)

    @property
    def instants(self) -> np.ndarray:
        """The cutoffs as microseconds since 1970-01-01 UTC, shape `(n_rows,)`."""
        return np.asarray(self.cutoff.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy(zero_copy_only=False))

    @cached_property
    def cutoffs(self) -> np.ndarray:
        """The different cutoffs, ascending, as microseconds since 1970-01-01 UTC; shape `(n_cutoffs,)`."""
        instants = self.instants
        return np.unique(np.concatenate([instants[:1], instants[1:][instants[1:] != instants[:-1]]]))

    def followed_by(self, other: "Spine") -> "Spine":
        """Return the spine with the other's rows behind its own."""
        return Spine(pa.concat_arrays([self.account_id, other.account_id]), pa.concat_arrays([self.cutoff, other.cutoff]))

    def take(self, rows: np.ndarray) -> "Spine":
        """Return the spine of these rows only, renumbered."""
        return Spine(self.account_id.take(pa.array(rows)), self.cutoff.take(pa.array(rows)))


class KnownTables:
    """The contract tables of a workspace, as they were known at each row of a spine.

    Parameters
    ----------
    engine
        Where the tables are and the queries run.
    tables
        Canonical tables by contract name; absent ones are not there.
    spine
        The rows asked for.
    levels
        For a column such as `event`: the levels that have features of their own, numbered in this order.
    views
        Further tables that windows may name: functions that return one or more rows for a spine's `row`, already cut to what was known.
    telemetry
        The telemetry of `tables` with numbers for texts, where there is such: it is then read from there, and nothing of it is copied.
    sampled
        Telemetry of the spine's accounts that only the engine counts, in the place of both.
    """

    def __init__(
        self,
        engine: QueryEngine,
        tables: Mapping[str, ir.Table],
        spine: Spine,
        *,
        levels: Mapping[str, Sequence[str]] | None = None,
        views: Mapping[str, Callable[["KnownTables"], ir.Table]] | None = None,
        telemetry: NumberedTelemetry | None = None,
        sampled: SampledTelemetry | None = None,
    ) -> None:
        self.engine = engine
        self.tables = dict(tables)
        self.levels = {column: tuple(names) for column, names in (levels or {}).items()}
        self.views = dict(views or {})
        self.cutoffs = spine.cutoffs
        self.telemetry = telemetry
        self._numbers = telemetry if sampled is None else sampled
        self._loaded: dict[str, ir.Table] = {}
        self._n_rows: dict[str, int] = {} if self._numbers is None else {"telemetry": self._numbers.rows}
        accounts = pc.unique(spine.account_id)
        self._account_ids = accounts if self._numbers is None else _behind(self._numbers.account_ids, accounts)
        self.n_accounts = len(self._account_ids)
        self._rows_per_account = len(spine) / max(1, len(accounts))
        self.accounts = engine.hold(
            pa.table({"account_id": self._account_ids, "account": pa.array(np.arange(self.n_accounts, dtype=np.int32))}),
            name=self._own_name("spine_accounts"),
        )
        self.spine = engine.hold(
            pa.table(
                {
                    "row": pa.array(np.arange(len(spine), dtype=np.int32)),
                    "account": pa.array(self.numbers_of(spine.account_id)),
                    "cutoff": pa.array(spine.instants),
                }
            ),
            name=self._own_name("spine"),
        )

    def _own_name(self, name: str) -> str:
        """Return a name that no other tables of the engine have while these are there: queries find what they read by its name."""
        return f"{name}_{id(self)}"

    def __contains__(self, table: str) -> bool:
        return table in self.tables

    def numbers_of(self, account_id: pa.Array) -> npt.NDArray[np.int32]:
        """Return the numbers by which the spine's accounts go in loaded tables."""
        return np.asarray(pc.index_in(account_id, value_set=self._account_ids).to_numpy(zero_copy_only=False), dtype=np.int32)

    def by_cutoff(self, spine: Spine) -> Iterator[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Yield each cutoff in microseconds with its rows of the spine that this was made for, and the numbers of their accounts."""
        instants, accounts = spine.instants, self.numbers_of(spine.account_id).astype(np.int64)
        for cutoff in self.cutoffs:
            rows = np.flatnonzero(instants == cutoff)
            yield int(cutoff), rows, accounts[rows]

    def segments(self, account_id: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return the segment of each account, missing where none is known."""
        accounts = self.tables["accounts"]
        if "segment" not in accounts.columns:
            return pa.nulls(len(account_id), pa.string())
        segments = self.engine.to_arrow(accounts.select("account_id", "segment"))
        return segments["segment"].take(pc.index_in(account_id, value_set=segments["account_id"]))

    def in_microseconds(self, name: str) -> ir.Table:
        """Return a table of all accounts with its times as microseconds."""
        source = self.tables[name]
        times = [column for column, type_ in source.schema().items() if type_.is_timestamp()]
        return source.mutate(**{column: self.engine.microseconds(source[column]) for column in times})

    def numbered(self, name: str) -> ir.Table:
        """Return a table of the spine's accounts, numbered in `account`, with users and levels numbered and its times as microseconds."""
        if name == "telemetry" and self._numbers is not None:
            return self._numbers.table(self.engine, self.levels)
        rows = self.in_microseconds(name).join(self.accounts, "account_id").drop("account_id")
        for column in set(self.levels) & set(rows.columns):
            rows = rows.left_join(self._numbered_levels(column), column).drop(f"{column}_right")
        return self._with_numbered_users(rows, self.tables[name]) if "user_id" in rows.columns else rows

    def loaded(self, name: str) -> ir.Table:
        """Return the numbered table, computed once; numbered telemetry stays where it is."""
        if name not in self._loaded:
            rows = self.numbered(name)
            is_there = name == "telemetry" and self._numbers is not None
            self._loaded[name] = rows if is_there else self.engine.table(rows, name=self._own_name(f"loaded_{name}"))
        return self._loaded[name]

    def _with_numbered_users(self, rows: ir.Table, source: ir.Table) -> ir.Table:
        """Replace user ids by numbers, which group several times faster than texts; numbering needs all users in one place."""
        if not self.engine.in_process:
            return rows
        users = source.select("user_id").distinct().filter(lambda users: users.user_id.notnull())
        numbered = self.engine.table(users.mutate(user=ibis.row_number().cast("int32")), name="numbered_users")
        return rows.left_join(numbered, "user_id").drop("user_id", "user_id_right").rename(user_id="user")

    def _numbered_levels(self, column: str) -> ir.Table:
        names = self.levels[column]
        numbers = pa.array(np.arange(len(names), dtype=np.int16))
        return self.engine.hold(pa.table({column: pa.array(names, pa.string()), f"{column}_level": numbers}), name=f"levels_of_{column}")

    def n_parts(self, table: str) -> int:
        """Return in how many parts a slice of the table comes: one, or one a cutoff."""
        return len(self.cutoffs) if self.is_cut_by_cutoff(table) else 1

    def is_cut_by_cutoff(self, table: str) -> bool:
        """Tell whether a slice of the table comes cutoff by cutoff."""
        if table in self.views:
            return False
        if table not in self._n_rows:
            self._n_rows[table] = int(self.engine.to_arrow(self.tables[table].aggregate(n=self.tables[table].count()))["n"][0].as_py())
        return self._n_rows[table] * self._rows_per_account > len(self.cutoffs) * ROWS_WORTH_A_QUERY

    def countable(self, table: str) -> NumberedTelemetry | None:
        """Return what can be read of a table in the order of time, once for all cutoffs; None if it is not numbered or too small."""
        return self.telemetry if table == "telemetry" and self.telemetry is not None and self.is_cut_by_cutoff(table) else None

    def slice_at_once(self, window: Window) -> ir.Table:
        """Return the window's slice in one part; see the module for its columns."""
        if window.table in self.views:
            return self.views[window.table](self)
        return cut(self.loaded(window.table), self.spine, window)

    def slices(self, window: Window) -> Iterator[ir.Table]:
        """Yield the window's slice, in one part or in one part a cutoff; see the module for its columns.

        A part must be computed before the next one is asked for: each belongs to the cutoff that the engine stands at.
        """
        if not self.is_cut_by_cutoff(window.table):
            yield self.slice_at_once(window)
            return
        rows = self.loaded(window.table)
        occurred = CONTRACT[window.table].occurred
        if occurred:
            rows = rows.filter(clock.in_window(rows[occurred], self.engine.cutoff, days=window.days, lag_days=window.lag_days))
        part = cut(rows, self.spine.filter(self.spine.cutoff == self.engine.cutoff), window)
        for cutoff in self.cutoffs:
            self.engine.at(int(cutoff))
            yield part

    def outcome_slices(self, table: str, *, days: int, lead_days: int) -> Iterator[ir.Table]:
        """Yield the rows of `(cutoff + lead, cutoff + lead + days]`, known then or not: what labels are made of, never features.

        Parts come as those of `slices` do; each has the table's columns, row and cutoff.
        """
        rows = self.loaded(table)
        occurred = CONTRACT[table].occurred
        if not self.is_cut_by_cutoff(table):
            pairs = rows.join(self.spine, "account")
            yield pairs.filter(clock.in_label_window(pairs[occurred], pairs.cutoff, horizon_days=days, lead_days=lead_days))
            return
        rows = rows.filter(clock.in_label_window(rows[occurred], self.engine.cutoff, horizon_days=days, lead_days=lead_days))
        part = rows.join(self.spine.filter(self.spine.cutoff == self.engine.cutoff), "account")
        for cutoff in self.cutoffs:
            self.engine.at(int(cutoff))
            yield part


def _behind(first: pa.Array, more: pa.Array) -> pa.Array:
    """Return both, without what is in the first already."""
    return pa.concat_arrays([first, more.filter(pc.invert(pc.is_in(more, value_set=first)))])


def gather(engine: QueryEngine, parts: Iterator[ir.Table], query: Callable[[ir.Table], ir.Table]) -> Iterator[pa.Table]:
    """Run a query on each part of a slice; parts that differ in nothing but the engine's cutoff share one compiled query."""
    compiled_for: ir.Table | None = None
    sql = ""
    for part in parts:
        if part is not compiled_for:
            sql, compiled_for = engine.compile(query(part)), part
        yield engine.fetch(sql)


def summed(part: ir.Table, window: Window) -> ir.Table:
    """Sum a slice's rows up by the window's `by` columns, so that each user, day or week is one row; rows without a user are no user's.

    Beside `events`, a summed row has the age in days of its newest and of its oldest event, its `events_<w>d` of the
    last w days and the number `rows_before_<w>d` of its rows in the w days before those, for each lookback w; and, for
    `by=("day",)`, the days since the account's previous active day in the window.
    """
    if not window.by:
        return part
    named = part.filter(*[part[column].notnull() for column in window.by])
    sums = {"events": named.events.sum(), "newest_age_days": named.age_days.min(), "oldest_age_days": named.age_days.max()}
    for days in LOOKBACKS:
        sums[f"events_{days}d"] = named.events.sum(where=named.age_days < days)
        sums[f"rows_before_{days}d"] = named.count(where=(named.age_days >= days) & (named.age_days < 2 * days))
    rows = named.group_by(["row", *window.by]).agg(**sums)
    if window.by != ("day",):
        return rows
    earlier = ibis.window(group_by="row", order_by="day")
    return rows.mutate(gap_days=rows.day - rows.day.lag().over(earlier))


def cut(rows: ir.Table, spine: ir.Table, window: Window) -> ir.Table:
    """Join a table's rows to the spine and keep what the window holds and what was known; see the module for the columns."""
    contract = CONTRACT[window.table]
    joined = rows.join(spine, "account")
    if contract.occurred:
        joined = joined.filter(clock.in_window(joined[contract.occurred], joined.cutoff, days=window.days, lag_days=window.lag_days))
    if contract.withdrawn in rows.columns:
        joined = joined.filter(clock.not_withdrawn(joined[contract.withdrawn], joined.cutoff))
    if "recorded_at" in rows.columns:
        joined = _latest_known(joined, contract)
    known = joined.mutate(**_masked(joined, contract))
    return known.mutate(**_measures(known, contract, window))


def _latest_known(rows: ir.Table, contract: TableContract) -> ir.Table:
    known = rows.filter(clock.known_by(rows.known_at, rows.cutoff))
    if not contract.unique:
        return known
    return newest_versions(known, contract, of=("row", "account"))


def newest_versions(rows: ir.Table, contract: TableContract, *, of: Sequence[str]) -> ir.Table:
    """Keep the version of each row that was recorded last; keys count within the columns `of`, as accounts may number theirs alike."""
    newest_first = ibis.window(group_by=[*of, *contract.unique], order_by=[rows.known_at.desc(), rows.recorded_at.desc(nulls_first=False)])
    return rows.filter(ibis.row_number().over(newest_first) == 0)


def real_ends(rows: ir.Table, contract: TableContract) -> ir.IntegerValue:
    """Return the instants at which terms end: the planned ones, or earlier ones where they ended before; missing for open ends."""
    names = [name for name in (contract.term and contract.term[1], contract.ended) if name in rows.columns]
    if len(names) > 1:  # of one value Spark takes no least one
        return ibis.least(*[rows[name] for name in names])
    return rows[names[0]] if names else ibis.null("int64")


def _masked(rows: ir.Table, contract: TableContract) -> dict[str, ir.Value]:
    """Return the fields that became known later than their row, hidden until then; those that nobody dated stay hidden."""
    late = {name: column.known_from for name, column in contract.columns.items() if column.known_from and name in rows.columns}
    late |= {name: name for name in _attribute_dates(rows)}
    never = ibis.null("int64")
    dated = {name: rows[known_from] if known_from in rows.columns else never for name, known_from in late.items()}
    return {name: clock.unless_unknown(rows[name], known_from, rows.cutoff) for name, known_from in dated.items()}


def _attribute_dates(rows: ir.Table) -> list[str]:
    """Return the account attributes that are dates: a number is a float64, a date an instant."""
    return [name for name in rows.columns if name.startswith(ATTRIBUTE) and rows[name].type().is_int64()]


def _measures(rows: ir.Table, contract: TableContract, window: Window) -> dict[str, ir.Value]:
    measures: dict[str, ir.Value] = {}
    if contract.occurred:
        time = rows[contract.occurred]
        measures |= {
            "age_days": clock.age_days(time, rows.cutoff),
            "week": clock.week_number(time, rows.cutoff),
            "day": clock.day_number(time),
            "weekday": clock.weekday(time),
        }
    for name, column in contract.columns.items():
        if column.type == "time" and name in rows.columns and name not in (contract.occurred, "recorded_at"):
            measures[f"{name}_age_days"] = clock.age_days(rows[name], rows.cutoff)
    measures |= {f"{name}_age_days": clock.age_days(rows[name], rows.cutoff) for name in _attribute_dates(rows)}
    if contract.term:
        ends = real_ends(rows, contract)
        running = clock.active_at(rows[contract.term[0]], ends, rows.cutoff)
        measures |= {"running": running, "ends_age_days": clock.age_days(ends, rows.cutoff)}
    if window.each:
        measures["level"] = rows[f"{window.each}_level"]
    return measures
