"""The standard job of feature engineering on telemetry, for every side of the comparison to do.

2,000 accounts, 10 kinds of event, incompressible random events of one year; 12 monthly cutoffs that all accounts share, or 24,000 cutoffs
of which each account has 12 of its own; for each kind the count, the sum and the mean of a quantity, and the distinct users, over 7, 28
and 91 days: 120 columns. It starts at a Parquet file and ends with the finished matrix in memory.
"""

from datetime import datetime, timedelta

import duckdb

ACCOUNTS = 2_000
KINDS = tuple(f"event_{number}" for number in range(10))
WINDOWS = (7, 28, 91)
SHARED = (*(datetime(2024, month, 1) for month in range(2, 13)), datetime(2025, 1, 1))


def own_cutoffs(account: int) -> list[datetime]:
    """Return the twelve cutoffs of one account; no two accounts share one."""
    return [datetime(2024, 1, 15) + timedelta(minutes=(number * ACCOUNTS + account) * 7919 % (350 * 1440)) for number in range(12)]


def account_name(account: int) -> str:
    return f"A{account:06d}"


def write_events(path: str, events: int) -> None:
    """Write the events, in the order of time as telemetry arrives."""
    with duckdb.connect() as connection:
        connection.execute(
            f"""
            COPY (
                SELECT 'A' || lpad((hash(i * 7 + 1) % {ACCOUNTS})::VARCHAR, 6, '0') AS account_id,
                       TIMESTAMP '2024-01-01' + INTERVAL (hash(i * 13 + 5) % (366 * 86400)) SECOND AS occurred_at,
                       'event_' || (hash(i * 17 + 3) % 10)::VARCHAR AS event,
                       'U' || lpad(((hash(i * 7 + 1) % {ACCOUNTS}) * 50 + hash(i * 19 + 11) % 50)::VARCHAR, 7, '0') AS user_id,
                       (hash(i * 23 + 1) % 10000) / 100.0::DOUBLE AS quantity
                FROM range({events}) rows(i) ORDER BY occurred_at
            ) TO '{path}' (FORMAT parquet)
            """
        )
