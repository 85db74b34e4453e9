"""What is replayed is the snapshots scored today, of the accounts that are there today, before the first scoring."""

from datetime import datetime

import numpy as np
import pyarrow.parquet as pq
import pytest

from serving.scores import replay
from serving.scores.batch import score_workspace
from serving.scores.replay import replay_scores
from serving.scores.scoring import load_score_set
from tests.serving_book import CUTOFF, EARLIER, make_workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    workspace = make_workspace(tmp_path_factory.mktemp("replay"))
    score_workspace(workspace)
    return workspace


def test_each_row_is_its_snapshot_scored(workspace, monkeypatch):
    score_set = load_score_set(workspace.scores)
    whole = replay_scores(score_set, workspace.snapshots, before=CUTOFF)
    monkeypatch.setattr(replay, "_ROWS_AT_ONCE", 37)
    replayed = replay_scores(score_set, workspace.snapshots, before=CUTOFF)
    frame = pq.read_table(workspace.snapshots / "features.parquet").to_pandas()
    frame = frame[frame["cutoff"] != CUTOFF].reset_index(drop=True)
    assert [score_set.accounts["account_id"][row] for row in replayed.row] == frame["account_id"].tolist()
    assert (replayed.cutoff == frame["cutoff"].to_numpy()).all()
    for target, package in score_set.packages.items():
        np.testing.assert_allclose(replayed.probability[target], package.score_rows(frame).probability, rtol=1e-6)
        np.testing.assert_array_equal(replayed.probability[target], whole.probability[target])


def test_the_arr_is_that_of_the_cutoff_where_the_labels_have_one(workspace):
    score_set = load_score_set(workspace.scores)
    labels = pq.read_table(workspace.snapshots / "labels.parquet").to_pandas()
    known = labels.assign(cutoff=np.datetime64(EARLIER, "us"), arr=np.arange(len(labels), dtype=float)).iloc[::2]
    pq.write_table(pq.read_table(workspace.snapshots / "labels.parquet").schema.empty_table(), workspace.snapshots / "labels.parquet")
    assert np.isnan(replay_scores(score_set, workspace.snapshots, before=CUTOFF).arr).all()
    known.astype({"cutoff": "datetime64[us]"}).to_parquet(workspace.snapshots / "labels.parquet")
    replayed = replay_scores(score_set, workspace.snapshots, before=CUTOFF)
    at = replayed.cutoff == np.datetime64(EARLIER, "us")
    expected = dict(zip(known["account_id"], known["arr"], strict=True))
    ids = score_set.accounts["account_id"][replayed.row[at]]
    np.testing.assert_array_equal(replayed.arr[at], [expected.get(account_id, np.nan) for account_id in ids])
    assert np.isnan(replayed.arr[~at]).all()


def test_before_the_first_snapshot_there_is_nothing(workspace):
    replayed = replay_scores(load_score_set(workspace.scores), workspace.snapshots, before=datetime(2020, 1, 1))
    assert len(replayed.row) == len(replayed.arr) == len(replayed.probability["churn"]) == 0
