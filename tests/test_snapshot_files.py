from datetime import datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.snapshot_files import months_of, snapshot_columns, snapshot_files, write_matrix

CUTOFFS = st.lists(st.datetimes(datetime(2023, 11, 1), datetime(2024, 2, 28)), min_size=1, max_size=20).map(sorted)


def matrix(cutoffs):
    columns = {"account_id": [f"a{row}" for row in range(len(cutoffs))], "cutoff": pa.array(cutoffs, pa.timestamp("us"))}
    return pa.table(columns | {"users": np.arange(len(cutoffs)) / 7})


def blocks(table, rows):
    return (table.slice(start, rows) for start in range(0, len(table), rows))


@settings(deadline=None, max_examples=50)
@given(cutoffs=CUTOFFS, rows=st.integers(1, 8))
def test_rows_come_back_in_their_order_whatever_the_blocks_each_month_from_its_own_file(tmp_path_factory, cutoffs, rows):
    path, table = tmp_path_factory.mktemp("snapshots") / "features.parquet", matrix(cutoffs)
    write_matrix(path, table.schema, blocks(table, rows))
    months = sorted({f"{cutoff:%Y-%m}" for cutoff in cutoffs})
    assert [file.stem for file in snapshot_files(path)] == months == [month for month, _ in months_of(table["cutoff"].to_numpy())]
    for file in snapshot_files(path):
        assert {f"{cutoff:%Y-%m}" for cutoff in pq.read_table(file)["cutoff"].to_pylist()} == {file.stem}
    assert pq.read_table(snapshot_files(path)).equals(table)
    assert pq.read_table(path).equals(table)
    assert pd.read_parquet(path).equals(table.to_pandas())


def test_a_file_that_is_removed_is_missed_and_one_that_came_from_elsewhere_is_not_read(tmp_path):
    path, table = tmp_path / "features.parquet", matrix([datetime(2024, 1, 1), datetime(2024, 2, 1)])
    write_matrix(path, table.schema, [table])
    assert snapshot_columns(path) == table.column_names
    pq.write_table(table, path / "2024-03.parquet")
    assert pq.read_table(snapshot_files(path)).equals(table)
    (path / "2024-01.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="2024-01"):
        pq.read_table(snapshot_files(path))
    with pytest.raises(FileNotFoundError, match="2024-01"):
        snapshot_columns(path)


def test_a_month_that_comes_twice_does_not_overwrite_itself(tmp_path):
    table = matrix([datetime(2024, 1, 1), datetime(2024, 2, 1), datetime(2024, 1, 2)])
    with pytest.raises(FileExistsError, match="2024-01"):
        write_matrix(tmp_path / "features.parquet", table.schema, [table])


def test_a_table_that_is_one_file_or_not_there_is_its_own_only_file(tmp_path):
    assert snapshot_files(tmp_path / "labels.parquet") == [tmp_path / "labels.parquet"]
    pq.write_table(matrix([datetime(2024, 1, 1)]), tmp_path / "labels.parquet")
    assert snapshot_files(tmp_path / "labels.parquet") == [tmp_path / "labels.parquet"]
    assert snapshot_columns(tmp_path / "labels.parquet") == ["account_id", "cutoff", "users"]
