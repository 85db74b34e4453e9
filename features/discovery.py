"""Guesses a workspace from a folder of files: which table each file is, and which of its columns is which.

A guess is made from names (see `features.synonyms`) and from what the values look like, and is never silent: the proposal says what
was guessed and what could not be, and the config that it writes is meant to be read by a human.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from features.contracts import CONTRACT, ColumnType
from features.engine import Engine, quoted_name
from features.profiles import ColumnProfile, SourceProfile, profile_folder
from features.proposal import GuessedColumn, GuessedSource, Proposal, write_proposal
from features.synonyms import ACCOUNT_IDS, COLUMN_WORDS, LATER_KNOWN, MONTHLY_ARR, TABLE_WORDS

__all__ = ["Proposal", "propose_workspace"]

_KINDS: dict[ColumnType, tuple[str, ...]] = {
    "id": ("text", "number"),
    "text": ("text", "number"),
    "time": ("time",),
    "number": ("number",),
    "flag": ("flag", "number"),
}
_LEVELS = 50
"""A text with more levels than that is no category."""


def propose_workspace(folder: Path) -> Proposal:
    """Guess a workspace for the files of a folder; nothing is written.

    Raises
    ------
    SourceError
        If there is no such folder.
    """
    with TemporaryDirectory() as staging, Engine() as engine:
        profiles, unreadable = profile_folder(engine, folder, Path(staging))
    guesses = _Guesses(profiles)
    guesses.assign()
    return write_proposal(folder, guesses.chosen, left=guesses.left(), unreadable=unreadable, doubts=guesses.doubts)


@dataclass
class _Guesses:
    """What has been guessed so far."""

    profiles: Sequence[SourceProfile]
    chosen: dict[str, list[GuessedSource]] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)
    lookups: set[str] = field(default_factory=set)

    def assign(self) -> None:
        """Give every file the table that it fits best."""
        found = [guess for profile in self.profiles for table in CONTRACT if (guess := self._guess(profile, table)) is not None]
        taken: set[str] = set()
        for guess in sorted(found, key=lambda guess: (-guess.points, guess.location)):
            rivals = self.chosen.get(guess.table, [])
            if guess.location in taken or (rivals and guess.table != "engagement"):
                continue
            self.chosen.setdefault(guess.table, []).append(guess)
            taken.add(guess.location)
        if "accounts" not in self.chosen:
            self._derive_accounts()

    def left(self) -> list[str]:
        """Return the files that nothing is taken from."""
        used = {guess.location for guesses in self.chosen.values() for guess in guesses} | self.lookups
        return [profile.location for profile in self.profiles if profile.location not in used]

    def _guess(self, profile: SourceProfile, table: str) -> GuessedSource | None:
        columns: dict[str, GuessedColumn] = {}
        free = list(profile.columns)
        for name, synonyms in COLUMN_WORDS[table].items():
            column = _find(free, synonyms, CONTRACT[table].columns[name].type)
            if column is not None:
                columns[name] = GuessedColumn(column=column.name, evidence=_evidence(column))
                free.remove(column)
        query, lookups = self._completed(profile, table, columns, free)
        required = [name for name, column in CONTRACT[table].columns.items() if column.required]
        missing = [name for name in required if name not in columns]
        named = bool(profile.words & set(TABLE_WORDS[table]))
        if missing or not (named or _is_telling(table, columns, profile)):
            if named and missing and "account_id" in columns:
                self.doubts.append(f"{profile.location} may be {table}, but nothing in it looks like {', '.join(missing)}")
            return None
        attributes = _attributes(free) if table == "accounts" else {}
        unclear = {column.name for column in profile.columns if column.ambiguous}
        return GuessedSource(
            table=table,
            location=profile.location,
            points=len(columns) + (10 if named else 0) + (2 if len(profile.columns) else 0),
            columns=columns,
            attributes=attributes,
            refused=tuple(column.name for column in free if table == "accounts" and _is_later_known(column.name)),
            query=query,
            lookups=lookups,
            ambiguous=tuple(name for name, guess in columns.items() if guess.column in unclear),
            currencies=profile.column(str(columns["currency"].column)).examples if "currency" in columns else (),
        )

    def _completed(
        self, profile: SourceProfile, table: str, columns: dict[str, GuessedColumn], free: list[ColumnProfile]
    ) -> tuple[str | None, dict[str, str]]:
        """Derive what a table lacks from its other columns, or from another file."""
        if table == "subscriptions":
            _complete_subscription(columns, free)
        if table == "engagement" and "channel" not in columns:
            survey = bool(profile.words & {"nps", "surveys", "survey", "csat"})
            columns["channel"] = GuessedColumn(constant="survey" if survey else sorted(profile.words, key=len)[-1])
            if survey and profile.words & {"nps"} and "kind" not in columns:
                columns["kind"] = GuessedColumn(constant="nps")
        if table != "telemetry":
            return None, {}
        day = columns.get("occurred_at")
        if day and day.column and "events" in columns and profile.column(day.column).whole_days:
            why = f"a row sums up day {day.column}, which is known when it has ended"
            columns["occurred_at"] = GuessedColumn(sql=f"{_written(day.column)} + INTERVAL 1 DAY", evidence=why)
        return self._joined(profile, columns)

    def _joined(self, profile: SourceProfile, columns: dict[str, GuessedColumn]) -> tuple[str | None, dict[str, str]]:
        """Find the account of telemetry through its subscription, and the names of events that are only numbers."""
        query, lookups = "SELECT source.*", {}
        joins = ""
        if "account_id" not in columns and (bridge := self._bridge(profile)) is not None:
            other, key, account = bridge
            lookups["owners"] = other.location
            query += f", owners.{_written(account)} AS account_id"
            joins += f" LEFT JOIN owners ON owners.{_written(key)} = source.{_written(key)}"
            columns["account_id"] = GuessedColumn(column="account_id", evidence=f"through {key} in {other.location}")
        event = columns.get("event")
        if event and event.column and profile.column(event.column).kind == "number" and (names := self._names_of(profile, event.column)):
            other, key, name = names
            lookups["kinds"] = other.location
            query += f", kinds.{_written(name)} AS event_name"
            joins += f" LEFT JOIN kinds ON kinds.{_written(key)} = source.{_written(event.column)}"
            columns["event"] = GuessedColumn(column="event_name", evidence=f"names from {other.location}")
        self.lookups |= set(lookups.values())
        return (f"{query} FROM source{joins}", lookups) if lookups else (None, {})

    def _bridge(self, profile: SourceProfile) -> tuple[SourceProfile, str, str] | None:
        keys = [column.name for column in profile.columns if column.name.lower().endswith("_id")]
        for other in self.profiles:
            account = _find(other.columns, ACCOUNT_IDS, "id")
            shared = [key for key in keys if any(column.name == key and column.distinct == 1.0 for column in other.columns)]
            if other is not profile and account is not None and shared and account.name not in shared:
                return other, shared[0], account.name
        return None

    def _names_of(self, profile: SourceProfile, column: str) -> tuple[SourceProfile, str, str] | None:
        for other in self.profiles:
            if other is profile or len(other.columns) != 2 or "event" not in other.location.lower():
                continue
            key, name = sorted(other.columns, key=lambda part: part.kind != "number")
            if key.kind == "number" and name.kind == "text" and key.distinct == name.distinct == 1.0:
                return other, key.name, name.name
        return None

    def _derive_accounts(self) -> None:
        """Make the accounts from those that appear in another table."""
        for table in ("subscriptions", "telemetry"):
            for guess in self.chosen.get(table, []):
                account, time = (
                    guess.columns["account_id"].column,
                    guess.columns["start_date" if table == "subscriptions" else "occurred_at"],
                )
                if account is None or guess.query is not None:
                    continue
                since = f"min({_written(time.column)})" if time.column else f"min({time.sql})"
                query = f"SELECT {_written(account)} AS account_id, {since} AS created_at FROM source GROUP BY ALL"
                self.chosen["accounts"] = [GuessedSource(table="accounts", location=guess.location, points=0, columns={}, query=query)]
                self.doubts.append(f"no file lists the accounts: they are taken from {guess.location}, each since it first appears there")
                return
        self.doubts.append("no file lists the accounts, and none could be found elsewhere")


def _written(name: str) -> str:
    """Write a column's name for SQL, quoted only where it must be."""
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) and name.lower() not in _RESERVED else quoted_name(name)


_RESERVED = ("month", "order", "group", "end", "start", "table", "select", "from", "to", "user", "column", "desc", "limit", "when", "case")


def _find(columns: Sequence[ColumnProfile], synonyms: Sequence[str], kind: ColumnType) -> ColumnProfile | None:
    for synonym in synonyms:
        for column in columns:
            if column.name.lower() == synonym and column.kind in _KINDS[kind]:
                return column
    return None


def _evidence(column: ColumnProfile) -> str:
    examples = ", ".join(example[:30].replace("\n", " ") for example in column.examples)
    share = "" if column.filled > 0.995 else f", {column.filled:.0%} filled"
    return f"{examples}{share}"


def _is_telling(table: str, columns: dict[str, GuessedColumn], profile: SourceProfile) -> bool:
    """Tell whether the columns alone say which table it is."""
    if table == "accounts":
        account = columns.get("account_id")
        return bool(account and account.column and profile.column(account.column).distinct == 1.0 and {"name", "industry"} & set(columns))
    telling = {"telemetry": {"event", "occurred_at"}, "subscriptions": {"arr", "end_date"}, "tickets": {"ticket_id", "opened_at"}}
    return table in telling and all(name in columns and columns[name].constant is None for name in telling[table])


def _complete_subscription(columns: dict[str, GuessedColumn], free: list[ColumnProfile]) -> None:
    if "arr" not in columns and (monthly := _find(free, MONTHLY_ARR, "number")) is not None:
        columns["arr"] = GuessedColumn(sql=f"12 * {_written(monthly.name)}", evidence=f"twelve times {monthly.name}: {_evidence(monthly)}")
        free.remove(monthly)
    if "end_date" not in columns and columns.get("start_date", GuessedColumn()).column == "month":
        columns["end_date"] = GuessedColumn(sql='"month" + INTERVAL 1 MONTH', evidence="each row is a month")
    if "subscription_id" not in columns and "account_id" in columns:
        parts = [columns[name].column for name in ("account_id", "product") if name in columns]
        joined = " || '-' || ".join(_written(str(part)) for part in parts)
        columns["subscription_id"] = GuessedColumn(
            sql=joined, evidence="no column names the subscription; rows of one account and product share one"
        )


def _attributes(free: Sequence[ColumnProfile]) -> dict[str, str]:
    """Choose account attributes: categories with few levels, numbers; no ids, no free text, nothing that is known only later."""
    chosen = {}
    for column in free:
        if _is_later_known(column.name) or column.name.lower().endswith("_id") or column.levels < 2:
            continue
        if column.kind in ("text", "flag") and column.levels <= _LEVELS:
            chosen[column.name] = "category"
        elif column.kind == "number":
            chosen[column.name] = "number"
    return chosen


def _is_later_known(name: str) -> bool:
    return any(part in name.lower() for part in LATER_KNOWN)
