"""The standard job as a good polars program: categories for texts, sorted by time, a slice for each window, one pivot at the end."""

from datetime import timedelta

import polars as pl
from standard_job import ACCOUNTS, SHARED, WINDOWS, account_name, own_cutoffs

STATISTICS = [
    pl.len().alias("count"),
    pl.col("quantity").sum().alias("sum"),
    pl.col("quantity").mean().alias("mean"),
    pl.col("user_id").n_unique().alias("users"),
]


def run(path: str, cutoffs: str) -> dict[str, float]:
    texts = pl.col("account_id", "event", "user_id")
    events = pl.read_parquet(path).with_columns(texts.cast(pl.Categorical)).sort("occurred_at")
    long = pl.concat(_shared(events) if cutoffs == "shared" else _own(events))
    matrix = long.pivot(on=["window", "event"], index=["account_id", "cutoff"], values=["count", "sum", "mean", "users"])
    return {f"{name}_{days}": _sum(matrix, name, days) for name in ("count", "sum", "mean", "users") for days in WINDOWS}


def _shared(events: pl.DataFrame) -> list[pl.DataFrame]:
    found = []
    times = events["occurred_at"]
    for cutoff in SHARED:
        until = times.search_sorted(cutoff, side="right")
        for days in WINDOWS:
            window = events[times.search_sorted(cutoff - timedelta(days=days), side="right") : until]
            found.append(window.group_by("account_id", "event").agg(STATISTICS).with_columns(cutoff=pl.lit(cutoff), window=pl.lit(days)))
    return found


def _own(events: pl.DataFrame) -> list[pl.DataFrame]:
    spine = pl.DataFrame(
        [(account_name(account), cutoff) for account in range(ACCOUNTS) for cutoff in own_cutoffs(account)],
        schema={"account_id": pl.String, "cutoff": pl.Datetime("us")},
        orient="row",
    ).with_columns(pl.col("account_id").cast(pl.Categorical))
    pairs = events.join(spine, on="account_id").filter(
        (pl.col("occurred_at") <= pl.col("cutoff")) & (pl.col("occurred_at") > pl.col("cutoff") - pl.duration(days=max(WINDOWS)))
    )
    return [
        pairs.filter(pl.col("occurred_at") > pl.col("cutoff") - pl.duration(days=days))
        .group_by("account_id", "cutoff", "event")
        .agg(STATISTICS)
        .with_columns(window=pl.lit(days))
        .select("account_id", "event", "count", "sum", "mean", "users", "cutoff", "window")
        for days in WINDOWS
    ]


def _sum(matrix: pl.DataFrame, name: str, days: int) -> float:
    columns = [column for column in matrix.columns if column.startswith(f"{name}_{{{days},")]
    return float(matrix.select(pl.sum_horizontal(pl.col(columns).sum())).item())


def warm_up() -> None:
    """Nothing is left to load."""
