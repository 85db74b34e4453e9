"""Large books to measure with: telemetry of many single events, with the accounts and subscriptions that belong to it.

A book is a workspace whose telemetry lies in one Parquet file a month, sorted by the time of recording as a feed delivers it. The file
of the last day is kept aside in `later/`, so that it can be delivered after everything else was computed. All is written by DuckDB as a
stream, month by month, and depends on nothing but the sizes: the same sizes give the same rows.
"""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import duckdb

__all__ = ["EVENTS_AN_ACCOUNT", "deliver", "raw_files", "write_fightchurn", "write_simulated"]

EVENTS_AN_ACCOUNT = 2_000
"""Events of a simulated account on average, so that larger books have more accounts and not busier ones."""

FIRST, DAYS = date(2023, 1, 1), 731
DAY = 86_400_000_000
"""Microseconds."""

_SIMULATED = """
[tables.accounts]
source = "accounts.parquet"
[tables.telemetry]
source = "telemetry/*.parquet"
[tables.subscriptions]
source = "subscriptions.parquet"
"""
_EXPANDED = """
[tables.telemetry]
source = "{telemetry}/*.parquet"

"""
_KINDS = "['login', 'view', 'edit', 'search', 'share', 'comment', 'export', 'upload', 'invite', 'report', 'connect', 'configure']"
_CARRYING = "('export', 'upload', 'report')"


def write_simulated(folder: Path, *, accounts: int, events: int) -> None:
    """Write a book of two years.

    Activity is skewed: the busiest hundredth of the accounts has a tenth of the events, and within an account few users do most. Half of
    the accounts are customers throughout; the others come or leave at some time. One event in a hundred is recorded up to 60 days late.
    """
    folder.mkdir(parents=True)
    (folder / "renewcast.toml").write_text(_SIMULATED, encoding="utf-8")
    with _writer(folder) as connection:
        connection.execute(f"CREATE TABLE lives AS {_lives(accounts)}")
        connection.execute(
            "COPY (SELECT account_id, start AS created_at, 'segment ' || hash(a * 16 + 1) % 3 AS segment FROM lives) "
            f"TO '{folder}/accounts.parquet'"
        )
        connection.execute(
            f"""
            COPY (
                SELECT account_id, account_id || '-1' AS subscription_id, start + to_years(y::INT) AS start_date,
                       start + to_years(y::INT + 1) AS end_date, seats * 600 * (1 + 0.03 * y) AS arr, seats
                FROM lives, range(4) years(y) WHERE start + to_years(y::INT) < until
            ) TO '{folder}/subscriptions.parquet'
            """
        )
        for start, end, place in _places(folder, FIRST, FIRST + timedelta(days=DAYS)):
            _copy(connection, _simulated_events(accounts, events, start, end), place)


def _lives(accounts: int) -> str:
    """Return when accounts come and leave, those with odd numbers some time within the two years or not, and how many seats they have."""
    comes = f"CASE WHEN a % 4 = 1 THEN (hash(a * 16 + 2) % {DAYS - 100})::INT ELSE -(hash(a * 16 + 2) % 300)::INT END"
    leaves = "CASE WHEN a % 4 = 3 THEN 1 + (hash(a * 16 + 3) % 2)::INT ELSE 9 END"
    return (
        f"SELECT a, 'a' || lpad(a::VARCHAR, 7, '0') AS account_id, (DATE '{FIRST}' + {comes})::TIMESTAMP AS start, "
        f"start + to_years({leaves}) AS until, 2 + (20 * sqrt({accounts} / (a + 1)))::INT AS seats FROM range({accounts}) accounts(a)"
    )


def _simulated_events(accounts: int, events: int, start: date, end: date) -> str:
    """Return the events that were recorded from one day to before another: each has a slot of time of its own, so they come sorted."""
    slot = DAYS * DAY // events
    first, last = (-(-(day - FIRST).days * DAY // slot) for day in (start, end))
    moment = f"i * {slot} + (hash(i * 16 + 1) % {slot})::BIGINT"
    before_end = (end - FIRST).days * DAY - 1  # the last slot reaches into the next day
    late = "CASE WHEN hash(i * 16 + 7) % 100 = 0 THEN (hash(i * 16 + 8) % 5_184_000)::INT ELSE 0 END"
    return f"""
        WITH numbered AS (
            SELECT i, TIMESTAMP '{FIRST}' + to_microseconds(least({moment}, {before_end})) AS recorded_at,
                   floor({accounts} * power({_uniform(2)}, 2))::INT AS drawn
            FROM range({first}, {min(last, events)}) events(i)
        ), lived AS (
            SELECT i, recorded_at, CASE WHEN recorded_at >= start AND recorded_at < until THEN a ELSE a - a % 2 END AS a
            FROM numbered JOIN lives ON a = drawn
        )
        SELECT 'a' || lpad(a::VARCHAR, 7, '0') AS account_id, recorded_at - to_seconds({late}) AS occurred_at, recorded_at,
               {_KINDS}[1 + floor(12 * power({_uniform(3)}, 2))::INT] AS event,
               'u' || (a * 10_000 + floor(20 * sqrt({accounts} / (a + 1)) * power({_uniform(4)}, 2))::INT) AS user_id,
               CASE WHEN event IN {_CARRYING} THEN round(exp(4 * {_uniform(5)}), 2) END AS quantity
        FROM lived ORDER BY i
    """


def _uniform(number: int) -> str:
    """Return an expression for the event's draw of a number from 0 to 1."""
    return f"((hash(i * 16 + {number}) >> 11) / 9007199254740992)"


def write_fightchurn(folder: Path, *, source: Path, config: Path) -> None:
    """Write the book `fightchurn_crm5` with each of its events as a row of its own.

    The set counts events by account, kind and day. Each of the n events of a count gets the middle of an nth of the day, moved by
    less than a minute that account, kind and number decide; its users take turns, and its amount is shared out evenly.

    Parameters
    ----------
    source
        The folder of the set.
    config
        The book's `renewcast.toml`, of which all but telemetry, the place of the set and the end of the data is taken.
    """
    folder.mkdir(parents=True)
    before, _, rest = config.read_text(encoding="utf-8").partition("[tables.telemetry]")
    _, subscriptions, after = rest.partition("[tables.subscriptions]")
    kept = [line for line in before.splitlines() if not line.startswith(("data =", "data_until ="))]
    kept.insert(kept.index("[workspace]") + 1, f'data = "{source.absolute()}"')
    text = "\n".join(kept) + _EXPANDED.format(telemetry=folder.absolute() / "telemetry") + subscriptions + after
    (folder / "renewcast.toml").write_text(text, encoding="utf-8")
    with _writer(folder) as connection:
        connection.execute(
            f"CREATE VIEW counts AS FROM '{source}/usage_daily.parquet' JOIN '{source}/event_types.csv' ON type = event_type_id"
        )
        found = connection.sql("SELECT min(d), max(d) FROM counts").fetchall()[0]
        for start, end, place in _places(folder, found[0], found[1] + timedelta(days=1)):
            _copy(connection, _expanded_events(start, end), place)


def _expanded_events(start: date, end: date) -> str:
    """Return the single events of the days from one to before another, sorted by time."""
    moved = "(hash(account_id::BIGINT * 100_000 + type * 2_000::BIGINT + number) % 37_000)::BIGINT"
    return f"""
        WITH single AS (SELECT *, unnest(range(n)) AS number FROM counts WHERE d >= DATE '{start}' AND d < DATE '{end}')
        SELECT account_id::VARCHAR AS account_id,
               d::TIMESTAMP + to_milliseconds((86_400_000 * (number + 0.5) / n)::BIGINT + {moved}) AS occurred_at,
               event_type_name AS event,
               account_id || '-' || (number + dayofyear(d)) % greatest(users, 1) AS user_id, value / n AS quantity
        FROM single ORDER BY occurred_at
    """


def raw_files(folder: Path) -> str:
    """Return the pattern of a book's files of telemetry."""
    return str(folder / "telemetry" / "*.parquet")


def deliver(folder: Path) -> None:
    """Put the file of the last day to the others."""
    for file in (folder / "later").iterdir():
        file.rename(folder / "telemetry" / file.name)


def _places(folder: Path, first: date, end: date) -> Iterator[tuple[date, date, Path]]:
    """Return the first day of each file, the day after its last one, and where it lies: a file a month, the last day in one of its own."""
    for name in ("telemetry", "later"):
        (folder / name).mkdir()
    last_day, start = end - timedelta(days=1), first
    while start < last_day:
        until = min((start.replace(day=1) + timedelta(days=32)).replace(day=1), last_day)
        yield start, until, folder / "telemetry" / f"{start:%Y-%m}.parquet"
        start = until
    yield last_day, end, folder / "later" / f"{last_day}.parquet"


def _writer(folder: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"memory_limit": "2GB", "temp_directory": str(folder / "spill")})
    connection.execute("SET enable_progress_bar = false")
    return connection


def _copy(connection: duckdb.DuckDBPyConnection, query: str, place: Path) -> None:
    connection.execute(f"COPY ({query}) TO '{place}' (FORMAT parquet, COMPRESSION zstd)")
