"""Measures what one more day costs: a check and the features of two years of telemetry, and then of two years and a day.

Usage: `uv run python tests/benchmarks/incremental.py` (20 M events, about 15 minutes on 2 idle cores; `--events` for fewer).

Incompressible random events of 2,000 accounts with 50 users each come in one Parquet file a day; of each day's rows one in a hundred
happened up to 60 days before. Cutoffs are monthly and the targets those of subscriptions. Each step is a process of its own; what is
compared is CPU time without imports, because the machine may do other work.

Measured in November 2026 with 10 M events on 2 cores that other work kept busy, in CPU seconds:

| step | rebuild (peak) | one more day | share |
|---|---|---|---|
| check | 27.2 (0.8 GiB) | 1.01 | 3.7% |
| features | 23.1 (1.0 GiB) | 3.19 | 13.8% |
| both | 50.3 | 4.20 | 8.3% |

A day was 3.3 % of a check when a check took 58.4 s and the day 1.92. What a day's check takes now, mostly the compiling of some 65 queries,
does not grow with the book, so its share falls as the book grows.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import duckdb
from workspace_steps import Taken, measure

ACCOUNTS, USERS, DAYS = 2_000, 50, 730
CORES = 2

CONFIG = """
[tables.accounts]
source = "accounts.parquet"
[tables.telemetry]
source = "events/*.parquet"
[tables.subscriptions]
source = "subscriptions.parquet"
"""


def write_book(folder: Path, *, events: int) -> None:
    """Write a workspace with the telemetry of all days but the last."""
    (folder / "events").mkdir(parents=True)
    (folder / "renewcast.toml").write_text(CONFIG, encoding="utf-8")
    account = "'A' || lpad(i::VARCHAR, 6, '0')"
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT {account} AS account_id, TIMESTAMP '2022-06-01' AS created_at FROM range({ACCOUNTS}) accounts(i)) "
            f"TO '{folder}/accounts.parquet'"
        )
        connection.execute(
            f"COPY (SELECT {account} AS account_id, 's' || i AS subscription_id, TIMESTAMP '2022-06-01' + to_days(365 * y) AS start_date, "
            f"TIMESTAMP '2022-06-01' + to_days(365 * (y + 1)) AS end_date, 1000 + hash(i) % 1000 AS arr, {USERS} AS seats "
            f"FROM range({ACCOUNTS}) accounts(i), range(4) years(y)) TO '{folder}/subscriptions.parquet'"
        )
        for day in range(DAYS):
            write_day(connection, folder, day, events // DAYS)


def write_day(connection: duckdb.DuckDBPyConnection, folder: Path, day: int, events: int) -> None:
    """Write the file of one day."""
    recorded = f"TIMESTAMP '2023-01-01' + to_days({day}) + to_seconds((hash(i * 13 + 5) % 86400)::BIGINT)"
    late = "CASE WHEN hash(i * 29 + 3) % 100 = 0 THEN (hash(i * 31 + 7) % 60)::INTEGER ELSE 0 END"
    connection.execute(
        f"""
        COPY (
            SELECT 'A' || lpad((hash(i * 7 + 1) % {ACCOUNTS})::VARCHAR, 6, '0') AS account_id, {recorded} - to_days({late}) AS occurred_at,
                   {recorded} AS recorded_at, 'event_' || (hash(i * 17 + 3) % 10)::VARCHAR AS event,
                   'U' || lpad(((hash(i * 7 + 1) % {ACCOUNTS}) * {USERS} + hash(i * 19 + 11) % {USERS})::VARCHAR, 7, '0') AS user_id,
                   (hash(i * 23 + 1) % 10000) / 100.0::DOUBLE AS quantity
            FROM range({day * events}, {(day + 1) * events}) rows(i) ORDER BY recorded_at
        ) TO '{folder}/events/{day:04}.parquet' (FORMAT parquet)
        """
    )


def measured(folder: Path) -> dict[str, Taken]:
    """Run both steps, each in a process of its own."""
    found = {}
    for name in ("check", "features"):
        found[name] = measure(name, folder, cores=CORES)
        print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000_000)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="renewcast-"))
    try:
        write_book(folder / "book", events=arguments.events)
        rebuilt = measured(folder / "book")
        with duckdb.connect() as connection:
            write_day(connection, folder / "book", DAYS, arguments.events // DAYS)
        more = measured(folder / "book")
    finally:
        shutil.rmtree(folder)
    print(f"{arguments.events:,} events in {DAYS} files\n\n| step | rebuild, CPU s (peak) | one more day | share |\n|---|---|---|---|")
    for name, whole in rebuilt.items():
        print(f"| {name} | {whole.cpu:.1f} ({whole.peak_gib:.1f} GiB) | {more[name].cpu:.2f} | {more[name].cpu / whole.cpu:.1%} |")
    total = [sum(taken.cpu for taken in run.values()) for run in (rebuilt, more)]
    print(f"| both | {total[0]:.1f} | {total[1]:.2f} | {total[1] / total[0]:.1%} |")


if __name__ == "__main__":
    main()
