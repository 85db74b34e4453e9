"""The features of a made-up book in the files in which `renewcast features` leaves them."""

import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa

from features.snapshot_files import write_matrix

__all__ = ["write_features"]


def write_features(snapshots: Path, rows: pd.DataFrame) -> None:
    """Write features in the order of their cutoffs to the snapshots, in the place of those that may be there."""
    path = snapshots / "features.parquet"
    shutil.rmtree(path, ignore_errors=True)
    ordered = rows.astype({"cutoff": "datetime64[us]"}).sort_values("cutoff", kind="stable")
    table = pa.Table.from_pandas(ordered, preserve_index=False).replace_schema_metadata()
    write_matrix(path, table.schema, [table])
