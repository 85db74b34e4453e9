"""The standard job by Renewcast's snapshot engine."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from standard_job import ACCOUNTS, KINDS, SHARED, WINDOWS, account_name, own_cutoffs

from features.catalogue import Catalogue
from features.engine import Engine
from features.feature import Feature, Window
from features.slices import KnownTables, Spine
from features.snapshots import build_matrix
from features.tally import Tally

STATISTICS = {
    "count": Tally("count"),
    "sum": Tally("sum", "quantity"),
    "mean": Tally("mean", "quantity"),
    "users": Tally("distinct", "user_id"),
}


def feature(kind: str, statistic: str, days: int) -> Feature:
    return Feature(
        name=f"{kind}_{statistic}_{days}d",
        family="usage",
        unit="",
        meaning="",
        sentence="",
        source=Window(table="telemetry", days=days, each="event"),
        level=kind,
        expression=STATISTICS[statistic],
        empty=None if statistic == "mean" else 0.0,
    )


CATALOGUE = Catalogue(tuple(feature(kind, statistic, days) for days in WINDOWS for statistic in STATISTICS for kind in KINDS))


def spine(cutoffs: str) -> Spine:
    names = [account_name(account) for account in range(ACCOUNTS)]
    if cutoffs == "shared":
        instants: list[datetime] = [cutoff for cutoff in SHARED for _ in names]
        return Spine(pa.array(names * len(SHARED)), pa.array(np.array(instants, dtype="datetime64[us]")))
    own = [own_cutoffs(account) for account in range(ACCOUNTS)]
    return Spine(pa.array(np.repeat(names, 12).tolist()), pa.array(np.array(own, dtype="datetime64[us]").ravel()))


def run(path: str, cutoffs: str) -> dict[str, float]:
    rows = spine(cutoffs)
    with Engine() as engine:
        known = KnownTables(engine, {"telemetry": engine.read_parquet(Path(path))}, rows, levels={"event": KINDS})
        matrix = build_matrix(known, rows, CATALOGUE)
    return {f"{statistic}_{days}": _sum(matrix, statistic, days) for statistic in STATISTICS for days in WINDOWS}


def _sum(matrix: pa.Table, statistic: str, days: int) -> float:
    return float(sum(np.nansum(matrix[f"{kind}_{statistic}_{days}d"].to_numpy()) for kind in KINDS))


def warm_up() -> None:
    """Load what a long-running process has loaded."""
    with Engine() as engine:
        engine.rows("SELECT 1")
