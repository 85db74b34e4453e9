"""The standard job as a good pandas program: categories for texts, sorted by time, a slice for each window, one unstack at the end."""

from datetime import timedelta

import numpy as np
import pandas as pd
from standard_job import ACCOUNTS, SHARED, WINDOWS, account_name, own_cutoffs

NAMES = ("count", "sum", "mean", "users")


def run(path: str, cutoffs: str) -> dict[str, float]:
    events = pd.read_parquet(path)
    for column in ("account_id", "event", "user_id"):
        events[column] = events[column].astype("category")
    events = events.sort_values("occurred_at", ignore_index=True)
    long = pd.concat(_shared(events) if cutoffs == "shared" else _own(events))
    matrix = long.set_index(["account_id", "cutoff", "window", "event"])[list(NAMES)].unstack(["window", "event"])
    return {f"{name}_{days}": float(np.nansum(matrix[name][days].to_numpy())) for name in NAMES for days in WINDOWS}


def _statistics(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    groups = rows.groupby(keys, observed=True, sort=False)
    found = groups["quantity"].agg(["count", "sum", "mean"])
    # distinct users: drop repeated ones, then count, which is several times faster than nunique
    found["users"] = rows[[*keys, "user_id"]].drop_duplicates().groupby(keys, observed=True, sort=False).size()
    return found.reset_index()


def _shared(events: pd.DataFrame) -> list[pd.DataFrame]:
    times = events["occurred_at"].to_numpy()
    found = []
    for cutoff in SHARED:
        until = np.searchsorted(times, np.datetime64(cutoff), side="right")
        for days in WINDOWS:
            since = np.searchsorted(times, np.datetime64(cutoff - timedelta(days=days)), side="right")
            found.append(_statistics(events.iloc[since:until], ["account_id", "event"]).assign(cutoff=cutoff, window=days))
    return found


def _own(events: pd.DataFrame) -> list[pd.DataFrame]:
    spine = pd.DataFrame(
        [(account_name(account), cutoff) for account in range(ACCOUNTS) for cutoff in own_cutoffs(account)],
        columns=["account_id", "cutoff"],
    )
    spine["account_id"] = spine["account_id"].astype(events["account_id"].dtype)
    pairs = events.merge(spine, on="account_id")
    age = pairs["cutoff"] - pairs["occurred_at"]
    pairs = pairs[(age >= pd.Timedelta(0)) & (age < pd.Timedelta(days=max(WINDOWS)))]
    age = pairs["cutoff"] - pairs["occurred_at"]
    keys = ["account_id", "cutoff", "event"]
    return [_statistics(pairs[age < pd.Timedelta(days=days)], keys).assign(window=days) for days in WINDOWS]


def warm_up() -> None:
    """Nothing is left to load."""
