"""The standard job with featuretools and cutoff times.

featuretools does not run on today's pandas, so this side has an environment of its own, with the newest versions that it supports. It
does a part of the job: all accounts at the first `--part` cutoffs, or the first `--part` accounts at cutoffs of their own.
"""

import featuretools as ft
import pandas as pd
from standard_job import ACCOUNTS, KINDS, SHARED, WINDOWS, account_name, own_cutoffs


def run(path: str, cutoffs: str, part: int) -> dict[str, float]:
    events = pd.read_parquet(path).reset_index(names="row")
    entities = ft.EntitySet("book")
    entities.add_dataframe(
        dataframe_name="accounts", dataframe=pd.DataFrame({"account_id": events["account_id"].unique()}), index="account_id"
    )
    entities.add_dataframe(
        dataframe_name="events",
        dataframe=events,
        index="row",
        time_index="occurred_at",
        logical_types={"event": "Categorical", "user_id": "Categorical", "account_id": "Categorical"},
    )
    entities.add_relationship("accounts", "account_id", "events", "account_id")
    entities.add_interesting_values(dataframe_name="events", values={"event": list(KINDS)})
    if cutoffs == "shared":
        pairs = [(account_name(account), cutoff) for cutoff in SHARED[:part] for account in range(ACCOUNTS)]
    else:
        pairs = [(account_name(account), cutoff) for account in range(part) for cutoff in own_cutoffs(account)]
    times = pd.DataFrame(pairs, columns=["account_id", "time"])
    found = {}
    for days in WINDOWS:
        matrix, _ = ft.dfs(
            entityset=entities,
            target_dataframe_name="accounts",
            cutoff_time=times,
            training_window=ft.Timedelta(days, "d"),
            agg_primitives=["count", "sum", "mean", "num_unique"],
            where_primitives=["count", "sum", "mean", "num_unique"],
            trans_primitives=[],
            max_depth=1,
            include_cutoff_time=True,
        )
        where = [column for column in matrix.columns if "WHERE" in column]
        found[f"columns_{days}"] = float(len(where))
        found[f"count_{days}"] = float(matrix[[column for column in where if column.startswith("COUNT")]].sum().sum())
    return found


def warm_up() -> None:
    """Nothing is left to load."""
