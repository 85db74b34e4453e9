"""The features of a book as they come from the snapshots, against pandas."""

from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from features.engine import Engine
from features.errors import NotEnoughDataError, PackageError, WorkspaceError
from serving.scores.book_files import write_book
from serving.scores.score_files import StoredColumns
from tests.feature_files import write_features
from tests.serving_book import feature

FEATURES = (
    feature("seats", "commercial", "seats", "seats {moved}"),
    feature("tier", "partner", "level", "the tier {moved}", kind="category"),
)
LAST = datetime(2025, 7, 1)
AGES = (0, 7, 27, 28, 60, 90, 92, 150, 182, 400)


@pytest.fixture
def engine():
    with Engine() as opened:
        yield opened


def snapshots(folder, pairs, seed):
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame({"account_id": [name for name, _ in pairs], "cutoff": [LAST - timedelta(days=age) for _, age in pairs]})
    rows["seats"] = np.where(rng.random(len(rows)) < 0.2, np.nan, rng.integers(0, 9, len(rows)))
    rows["tier"] = rng.choice(np.array(["gold", "silver", None], dtype=object), len(rows))
    write_features(folder, rows.sample(frac=1, random_state=seed))
    return folder / "features.parquet", rows


@settings(max_examples=15, deadline=None)
@example(pairs={("a", 0), ("a", 90), ("a", 92)}, seed=0)
@given(
    pairs=st.sets(st.tuples(st.sampled_from(["a", "B", "é", "z-1", "z"]), st.sampled_from(AGES)), min_size=1),
    seed=st.integers(0, 99),
)
def test_each_account_has_its_values_and_those_nearest_to_a_quarter_before(tmp_path_factory, pairs, seed):
    folder = tmp_path_factory.mktemp("book")
    path, rows = snapshots(folder, sorted(pairs), seed)
    with Engine() as engine:
        book = write_book(engine, path, FEATURES, cutoff=None, folder=folder)
    assert book.cutoff == rows["cutoff"].max()
    present = rows[rows["cutoff"] == book.cutoff].set_index("account_id").sort_index()
    assert book.account_ids.tolist() == present.index.tolist()
    for row, account_id in enumerate(present.index):
        age = (book.cutoff - rows["cutoff"]) / timedelta(days=1)
        past = rows[(rows["account_id"] == account_id) & (age >= 28) & (age < 182)].sort_values("cutoff")  # of two as near, the earlier
        earlier = past.loc[[(age[past.index] - 91).abs().sort_values(kind="stable").index[0]]] if len(past) else None
        expected_at = earlier["cutoff"].iloc[0].to_datetime64() if earlier is not None else np.datetime64("NaT")
        np.testing.assert_array_equal(book.earlier_at[row], expected_at.astype("datetime64[us]"))
        for name in ("seats", "tier"):
            same(book.values[name][row], present[name].iloc[row])
            same(book.earlier[name][row], earlier[name].iloc[0] if earlier is not None else None)


def same(found, expected):
    assert (found is None or found != found) == pd.isna(expected)
    assert pd.isna(expected) or found == expected


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_rows_of_a_file_are_those_of_its_columns(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    if not (folder / "values.parquet").exists():
        path, _ = snapshots(folder, [(f"{number:05d}", 0) for number in range(5000)], 1)
        with Engine() as engine:
            write_book(engine, path, FEATURES, cutoff=LAST, folder=folder)
    stored = StoredColumns(folder / "values.parquet")
    start = data.draw(st.integers(0, 4999))
    stop = data.draw(st.integers(start + 1, 5000))
    rows = stored.rows(start, stop)
    assert list(rows) == list(stored) == ["seats", "tier"]
    np.testing.assert_array_equal(rows["seats"], stored["seats"][start:stop])
    assert rows["tier"].tolist() == stored["tier"][start:stop].tolist()
    assert "arr" not in stored


def test_what_is_not_there_is_said(tmp_path, engine):
    with pytest.raises(WorkspaceError, match="renewcast features"):
        write_book(engine, tmp_path / "features.parquet", FEATURES, cutoff=None, folder=tmp_path)
    path, rows = snapshots(tmp_path, [("a", 0), ("a", 28)], 1)
    with pytest.raises(NotEnoughDataError, match=r"no such cutoff.*\n.*2020.*\n.*2025-06-03, 2025-07-01"):
        write_book(engine, path, FEATURES, cutoff=datetime(2020, 1, 1), folder=tmp_path)
    with pytest.raises(PackageError, match="health"):
        write_book(engine, path, (*FEATURES, feature("health", "usage", "points", "x {moved}")), cutoff=None, folder=tmp_path)
    path = tmp_path / "empty.parquet"
    rows.iloc[:0].to_parquet(path, index=False)
    with pytest.raises(NotEnoughDataError, match="no account to score"):
        write_book(engine, path, FEATURES, cutoff=None, folder=tmp_path)
