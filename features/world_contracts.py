"""The contracts of a simulated world: terms that renew, grow, shrink and end, as the vendor's systems book them.

- A term is one row of `subscriptions`. The next one has the same subscription and starts where it ended.
- Seats bought within a term are a subscription of their own, which ends with the main one and is merged into it at the renewal.
- The planned end of a term is never overwritten. Who leaves in mid-term has the day in `ended_at`, on the terms of its added seats too.
- Who decides against a renewal before its date gives notice: `cancelled_at` is before `end_date`. Who simply does not renew does not.
- A renewal is booked up to a few days after the decision, which is at the earliest 30 days before the new term and mostly on its first day.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.world import Calendar, Codes, Flags, Floats, Ints, Rows, contract_table
from features.world_population import PLANS, Population

__all__ = ["EURO_RATE", "SHOCK_SHARE", "ContractBook"]

EURO_RATE: Final = 1.10
SHOCK_SHARE: Final = 0.35


class ContractBook:
    """The running contract of each account, and every row that was booked.

    Arrays have shape `(n_accounts,)`. `start`, `end`, `months`, `seats` and `price` (USD a seat and year) describe the term agreed last,
    which may not have started; `decides` is the day on which its renewal is decided; `gone` the day from which nothing is paid.
    """

    def __init__(self, calendar: Calendar, population: Population, random: np.random.Generator, *, signal: float) -> None:
        self._calendar, self._population, self._random, self._signal = calendar, population, random, signal
        n = len(population)
        self.shock_day = int(calendar.days * random.uniform(0.4, 0.55))
        self.start, self.end, self.decides = (np.zeros(n, np.int64) for _ in range(3))
        self.months = population.months.copy()
        self.seats = population.seats.copy()
        self.price: Floats = np.zeros(n)
        self.gone = np.full(n, np.inf)
        self.uplift = np.zeros(n)
        self.quoted_on = np.full(n, np.inf)
        self._row = np.zeros(n, np.int64)
        self._rows: list[Rows] = []
        self._count = 0
        self._add_ons = 0
        self._notices: list[tuple[Ints, Ints]] = []
        self._decisions: list[tuple[Ints, Flags, Floats]] = []
        self._exits: list[tuple[Ints, Ints]] = []
        self._open_history()

    def list_index(self, day: Ints | Floats) -> Floats:
        """Return the vendor's list price relative to the start of the period: 3 % a year, and 10 % at once on the shock's day."""
        days = np.asarray(day, dtype=np.float64)
        index: Floats = 1.03 ** (days / 365) * np.where(days >= self.shock_day, 1.10, 1.0)
        return index

    def _open_history(self) -> None:
        """Book the terms from each account's creation to the one that runs at the start of the period."""
        account, start = np.arange(len(self._population)), self._population.created
        while account.size:
            before = np.minimum(start, 0) / 365
            listed = self._population.list_price[account] * (1 - self._population.discount[account])
            self.seats[account] = np.maximum(1, np.rint(self._population.seats[account] * np.exp(0.05 * before)))
            self.price[account] = listed * 1.03**before
            self._open(account, start, start + self._random.uniform(0, 3, account.size))
            account = np.flatnonzero(self.end <= 0)
            start = self.end[account]
            self._decisions.append((self._row[account], np.zeros(account.size, bool), start + 0.0))

    def _open(self, account: Ints, start: Ints, recorded: Floats) -> None:
        self.start[account] = start
        self.end[account] = self._calendar.plus_months(start, self.months[account])
        lead = np.where(self._random.random(account.size) < 0.3 * self._signal, self._random.integers(5, 31, account.size), 0)
        lead = np.where(self.months[account] > 1, lead, 0)
        self.decides[account] = np.maximum(self.end[account] - lead, np.maximum(start, 0))
        self._row[account] = self._count + np.arange(account.size)
        self._book(
            account=account,
            number=np.zeros(account.size, np.int64),
            start=start,
            end=self.end[account],
            months=self.months[account],
            decides=self.decides[account],
            seats=self.seats[account],
            price=self.price[account],
            recorded=recorded,
        )
        quoted = self.end[account] - self._random.integers(55, 86, account.size)
        self.quoted_on[account] = np.where(self.months[account] >= 6, quoted, np.inf)

    def _book(self, **row: npt.NDArray[Any]) -> None:
        self._rows.append(row)
        self._count += row["account"].size

    def quote(self, day: int) -> Ints:
        """Quote the price of the next term to those whose turn is in the week of `day`; return who they are.

        The usual rise is 1 to 4.8 %. If list prices jumped since the term was agreed, most are asked for 4 to 14 % more. Who pays monthly
        or quarterly is told at the jump.
        """
        told_now = (self.months < 6) & (day <= self.shock_day < day + 7)
        due = (self.quoted_on >= (day if day else -np.inf)) & (self.quoted_on < day + 7)
        quoted = np.flatnonzero((told_now | due) & (self.gone > day) & (self.start <= day))
        jumped = (self.start[quoted] < self.shock_day) & (self.shock_day < day + 7)
        extra = jumped * (self._random.random(quoted.size) < SHOCK_SHARE * self._signal) * self._random.uniform(0.04, 0.14, quoted.size)
        self.uplift[quoted] = np.clip(self._random.normal(0.036, 0.008, quoted.size), 0.01, 0.048) + extra
        self.quoted_on[quoted] = np.where(told_now[quoted], day + self._random.integers(0, 7, quoted.size), self.quoted_on[quoted])
        return quoted

    def deciding(self, day: int, *, until: int) -> Ints:
        """Return who decides about the next term in `[day, until)`."""
        return np.flatnonzero((self.gone == np.inf) & (self.decides >= day) & (self.decides < until))

    def lapse(self, account: Ints) -> None:
        """End the contracts of those who decided not to renew, at the end of the term."""
        self.gone[account] = self.end[account]
        early = self.decides[account] < self.end[account]
        self._notices.append((self._row[account[early]], self.decides[account[early]]))
        self._decisions.append((self._row[account], np.ones(account.size, bool), np.full(account.size, np.inf)))

    def renew(self, account: Ints, seats: Ints) -> None:
        """Open the next term with a number of seats, at the price that was quoted."""
        late = np.minimum(self._random.exponential(4.0, account.size), 25.0) * (self._random.random(account.size) < 0.5)
        recorded = self.decides[account] + 0.4 + late
        self._decisions.append((self._row[account], np.zeros(account.size, bool), recorded))
        self.seats[account] = seats
        self.price[account] *= 1 + self.uplift[account]
        self.uplift[account] = 0.0
        switches = (self.months[account] < 12) & (self._random.random(account.size) < 0.02)
        self.months[account] = np.where(switches, 12, self.months[account])
        self._open(account, self.end[account], recorded)

    def add_seats(self, account: Ints, day: Ints, seats: Ints) -> None:
        """Sell seats within the term."""
        self._book(
            account=account,
            number=self._add_ons + 1 + np.arange(account.size),
            start=day,
            end=self.end[account],
            months=self.months[account],
            decides=self.decides[account],
            seats=seats,
            price=self.price[account],
            recorded=day + self._random.exponential(1.0, account.size),
        )
        self._add_ons += account.size
        self.seats[account] += seats

    def leave(self, account: Ints, day: Ints) -> None:
        """End contracts within the term."""
        self.gone[account] = day
        self._exits.append((account, day))

    def terms(self) -> Rows:
        """Return every main term as booked first, with `leaves` and `booked`, the decision at its end (infinite if not booked)."""
        rows = self._columns()
        leaves, booked = np.zeros(self._count), np.full(self._count, np.inf)
        for row, left, recorded in self._decisions:
            leaves[row], booked[row] = left, recorded
        main = rows["number"] == 0
        rows |= {"leaves": leaves, "booked": booked}
        return {name: values[main] for name, values in rows.items()}

    def _columns(self) -> Rows:
        return {name: np.concatenate([row[name] for row in self._rows]) for name in self._rows[0]}

    def table(self) -> pa.Table:
        """Return the subscriptions as booked by the end of the period."""
        rows = self._columns()
        cancelled = np.full(self._count, np.nan)
        for row, day in self._notices:
            cancelled[row] = day
        rows["cancelled"] = np.where(cancelled <= self._calendar.days, cancelled, np.nan)
        rows["ended"] = self._ends(rows)
        known = rows["recorded"] <= self._calendar.days
        rows = {name: values[known] for name, values in rows.items()}
        order = np.lexsort((rows["recorded"], rows["start"], rows["number"], rows["account"]))
        return self._as_table({name: values[order] for name, values in rows.items()})

    def _ends(self, rows: Rows) -> Floats:
        """Return the real end of each term that was cut short, else not a number."""
        left_on = np.full(len(self._population), np.inf)
        for account, day in self._exits:
            left_on[account] = day
        day = left_on[rows["account"]]
        return np.where((rows["start"] < day) & (day < rows["end"]), day, np.nan)

    def _as_table(self, rows: Rows) -> pa.Table:
        population, account = self._population, rows["account"].astype(np.int64)
        in_euro = population.in_euro[account]
        rate = np.where(in_euro, 1 / EURO_RATE, 1.0)
        listed = population.list_price[account] * self.list_index(rows["start"])
        number = rows["number"].astype(np.int64)
        names = [f"s{a + 1:05d}" + (f"-{k}" if k else "") for a, k in zip(account.tolist(), number.tolist(), strict=True)]
        columns = {
            "account_id": Codes(account, population.ids),
            "subscription_id": names,
            "start_date": self._calendar.instants(rows["start"]),
            "end_date": self._calendar.instants(rows["end"]),
            "arr": np.round(rows["seats"] * rows["price"] * rate, 2),
            "product": Codes(np.digitize(population.seats, [6, 20, 60])[account], PLANS),
            "seats": rows["seats"] + 0.0,
            "currency": Codes(in_euro.astype(np.int64), ("USD", "EUR")),
            "list_arr": np.round(rows["seats"] * np.maximum(listed, rows["price"]) * rate, 2),
            "auto_renew": population.auto_renew[account],
            "cancelled_at": self._calendar.instants(rows["cancelled"]),
            "ended_at": self._calendar.instants(rows["ended"]),
            "recorded_at": self._calendar.instants(rows["recorded"]),
        }
        return contract_table("subscriptions", columns)
