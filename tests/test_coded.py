"""Coded telemetry: the rows of a checked piece with numbers for texts; `test_numbered` holds them against what the piece has."""

from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.coded import Coded, Uncoded
from features.forms import MonthRows
from features.vocabulary import Vocabulary


def piece(tmp_path, events, **how):
    n_rows = 6
    columns = {
        "account_id": ["a", "b"] * 3,
        "occurred_at": pa.array([datetime(2025, 1, 1 + day) for day in range(n_rows)], pa.timestamp("us")),
        "event": ["open"] * n_rows,
        "user_id": ["u", None, "v", "w", "u", "w"],
    }
    table = pa.table(columns | ({} if events is None else {"events": pa.array(events, pa.float64())}))
    pq.write_table(table, tmp_path / "piece.parquet", row_group_size=3, **how)
    return tmp_path / "piece.parquet"


@pytest.mark.parametrize(
    ("events", "how", "are_single"),
    [
        ([1.0] * 6, {}, True),
        ([1.0] * 6, {"write_statistics": False}, False),
        ([1.0] * 5 + [2.0], {}, False),
        ([0.5, *[1.0] * 5], {}, False),
        ([1.0] * 5 + [None], {}, False),
        ([None] * 6, {}, False),
        (None, {}, False),
    ],
    ids=["ones", "ones that nobody says to be ones", "a two", "a half", "ones and a gap", "nothing", "no such column"],
)
def test_a_piece_tells_whether_its_rows_are_single_events(tmp_path, events, how, are_single):
    uncoded = Uncoded.read(piece(tmp_path, events, **how))
    assert uncoded.are_single is are_single
    coded = Coded.of(uncoded, Vocabulary())
    assert ("events" in uncoded.rows.column_names) is (events is not None and not are_single)
    assert ("events" in coded.columns) is (events is not None)
    if events is not None:
        found = np.concatenate([block["events"] for block in coded.blocks])
        np.testing.assert_array_equal(found, np.array(events, dtype=np.float64))


def test_rows_of_some_accounts_are_those_of_all_that_are_theirs(tmp_path):
    file, names = piece(tmp_path, [1.0] * 6), Vocabulary()
    everyone = MonthRows.joined(Coded.of(Uncoded.read(file), names).with_users(names))
    chosen = Uncoded.read_accounts(file, np.array([False, True]), names)
    some = MonthRows.joined(Coded.of(chosen, names).with_users(names))
    assert chosen.are_single
    is_theirs = everyone.columns["account"] == 1
    assert is_theirs.tolist() == [False, True] * 3
    for name, values in everyone.columns.items():
        np.testing.assert_array_equal(some.columns[name], values[is_theirs])


def test_users_are_looked_up_last(tmp_path):
    names = Vocabulary()
    coded = Coded.of(Uncoded.read(piece(tmp_path, [1.0] * 6)), names)
    assert all("user_id" not in block for block in coded.blocks)
    assert MonthRows.joined(coded.with_users(names)).columns["user_id"].tolist() == [0, -1, 1, 2, 0, 2]
