"""A simulated world's settings, its calendar, and what comes back: the tables and the truth beside them.

`features.simulate` makes a world and tells how the process works; the `world_*` modules are its parts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.contracts import CONTRACT, ColumnType
from features.errors import ConfigError, explain

__all__ = [
    "HORIZON_DAYS",
    "Calendar",
    "Codes",
    "Flags",
    "Floats",
    "Ints",
    "Rows",
    "Truth",
    "World",
    "WorldSettings",
    "coded",
    "contract_table",
]

HORIZON_DAYS = 90

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Ints: TypeAlias = npt.NDArray[np.signedinteger[Any]]
Flags: TypeAlias = npt.NDArray[np.bool_]
Rows: TypeAlias = dict[str, npt.NDArray[Any]]

_ARROW_TYPES: Mapping[ColumnType, pa.DataType] = {
    "id": pa.string(),
    "text": pa.string(),
    "time": pa.timestamp("us"),
    "number": pa.float64(),
    "flag": pa.bool_(),
}


@dataclass(frozen=True, kw_only=True)
class WorldSettings:
    """What kind of world is made.

    Parameters
    ----------
    accounts
        How many accounts there are in all; about a quarter of them become customers during the period.
    months
        Length of the period in which the tables are kept.
    partners
        How many partners there are; together they manage about 60 % of the accounts.
    seed
        The same seed and settings give the same world, byte for byte.
    start
        First midnight of the period, UTC.
    signal
        How much behaviour and contract dates tell about what happens: 1 as in life, 0 for a world in which every account leaves,
        grows and shrinks at a constant rate whatever it does.

    Raises
    ------
    ConfigError
        If a setting is out of its range.
    """

    accounts: int = 2000
    months: int = 24
    partners: int = 24
    seed: int = 0
    start: datetime = datetime(2024, 1, 1)
    signal: float = 1.0

    def __post_init__(self) -> None:
        ranges = {"accounts": (1, 1_000_000), "months": (1, 120), "partners": (1, 1_000), "seed": (0, 2**63), "signal": (0, 1)}
        for name, (low, high) in ranges.items():
            given = getattr(self, name)
            if not low <= given <= high:
                raise ConfigError(explain(f"a world cannot be made with this number of {name}", given=given, allowed=f"{low} to {high}"))
        if self.start != self.start.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None):
            raise ConfigError(explain("a world starts at a midnight, UTC, without a time zone", given=self.start))

    def random(self, part: str) -> np.random.Generator:
        """Return the generator of one part of the world; parts do not disturb each other."""
        return np.random.default_rng([self.seed, *part.encode()])


@dataclass(frozen=True)
class Truth:
    """What nobody in the world knows, for tests to compare with.

    Parameters
    ----------
    hazards
        One row for each paying account at each first of a month: `account_id`, `cutoff`, `true_hazard` and `observable_hazard`, the
        probabilities of churn in the 90 days after the cutoff given all that is true, and all that the tables could reveal, then;
        and the parts of the log hazard, in the units of `features.world_hazard`: `health`, `champion`, `support`, `price`, `value`,
        `partner`, `training`, `plays`, `segment`, `unobserved`.
    churns
        One row an account: `account_id`, `churned_at` (null while it stays), `cause`, `at_renewal`.
    partners
        `partner_id`, `skill` (0 is average, 1 a standard deviation; more is better), `ease` of the accounts that it attracts.
    plays
        `play`, `log_hazard_effect` right after it was performed, `fading_per_week`.
    """

    hazards: pa.Table
    churns: pa.Table
    partners: pa.Table
    plays: pa.Table


@dataclass(frozen=True)
class World:
    """The tables, under the names and columns of `features.contracts.CONTRACT`, the truth, and the settings that made them."""

    settings: WorldSettings
    tables: Mapping[str, pa.Table]
    truth: Truth


@dataclass(frozen=True)
class Calendar:
    """The period in days from its start: day 0 is the first midnight, and `days` the midnight at which everything ends.

    Examples
    --------
    >>> calendar = Calendar.of(WorldSettings(months=3))
    >>> calendar.days, calendar.weeks, calendar.month_starts().tolist()
    (91, 13, [0, 31, 60, 91])
    """

    start: np.datetime64
    days: int

    @classmethod
    def of(cls, settings: WorldSettings) -> "Calendar":
        """Return the calendar of a world."""
        start = np.datetime64(settings.start, "D")
        calendar = cls(start, 0)
        return cls(start, int(calendar.plus_months(np.zeros(1, np.int64), np.array([settings.months]))[0]))

    @property
    def weeks(self) -> int:
        """Return the number of weeks, the last one possibly cut short."""
        return -(-self.days // 7)

    def plus_months(self, day: Ints, months: Ints) -> Ints:
        """Move days by calendar months; days of the month after the 28th become the 28th."""
        date = self.start + day.astype("timedelta64[D]")
        month = date.astype("datetime64[M]")
        of_month = np.minimum((date - month).astype(np.int64), 27)
        moved = (month + months.astype("timedelta64[M]")).astype("datetime64[D]") + of_month.astype("timedelta64[D]")
        shifted: Ints = (moved - self.start).astype(np.int64)
        return shifted

    def month_starts(self) -> Ints:
        """Return the firsts of the months in the period, its end included if it is one."""
        dates = self.start + np.arange(self.days + 1).astype("timedelta64[D]")
        firsts: Ints = np.flatnonzero(dates == dates.astype("datetime64[M]").astype("datetime64[D]"))
        return firsts

    def day_of_year(self, day: Ints) -> Ints:
        """Return the days since the first of January."""
        date = self.start + day.astype("timedelta64[D]")
        since: Ints = (date - date.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64)
        return since

    def weekday(self, day: Ints) -> Ints:
        """Return 0 for Monday to 6 for Sunday."""
        since_monday: Ints = ((self.start + day.astype("timedelta64[D]")).astype(np.int64) + 3) % 7
        return since_monday

    def instants(self, day: npt.ArrayLike) -> pa.Array:
        """Return days with fractions as timestamps, not a number as null."""
        days = np.asarray(day, dtype=np.float64)
        missing = np.isnan(days)
        seconds = np.rint(np.where(missing, 0.0, days) * 86_400).astype(np.int64)
        stamps = self.start.astype("datetime64[us]").astype(np.int64) + seconds * 1_000_000
        return pa.array(stamps, mask=missing).cast(pa.timestamp("us"))


@dataclass(frozen=True)
class Codes:
    """A text column as numbers into a list of words; -1 is null."""

    codes: Ints
    words: Sequence[str]


def coded(codes: Ints, words: Sequence[str]) -> pa.Array:
    """Return the words that the codes stand for.

    Examples
    --------
    >>> coded(np.array([1, -1, 0]), ["a", "b"]).to_pylist()
    ['b', None, 'a']
    """
    indices = pa.array(codes.astype(np.int32), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(list(words), pa.string())).cast(pa.string())


def contract_table(table: str, columns: Mapping[str, Any]) -> pa.Table:
    """Return an Arrow table with the contract's types; a column that the contract does not have is our own mistake."""
    contract = CONTRACT[table].columns
    arrays = {}
    for name, values in columns.items():
        given = coded(values.codes, values.words) if isinstance(values, Codes) else values
        arrays[name] = _typed(given, _ARROW_TYPES[contract[name].type])
    return pa.table(arrays)


def _typed(values: Any, arrow_type: pa.DataType) -> pa.Array:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values.cast(arrow_type)
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        return pa.array(values.astype(np.float64), mask=np.isnan(values))
    return pa.array(values, arrow_type)
