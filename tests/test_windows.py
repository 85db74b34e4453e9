"""A book in windows gives the same score set as the book in one."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import PackageError
from serving.permissions.caller import VENDOR
from serving.permissions.policy import default_policy
from serving.scores.account_json import pieces_of, render
from serving.scores.batch import score_workspace
from serving.scores.causes import CAUSES
from serving.scores.feature_courses import FEATURE_COURSES
from serving.scores.scoring import load_score_set
from serving.scores.sharing import View
from serving.scores.windows import StoredParts, bounds, windows
from tests.serving_book import make_workspace
from training.row_tables import RowTables

FILES = (
    *("accounts", "values", "earlier", "peers", "assignments", "supplied_by", "leads", "parts-churn", "parts-expansion"),
    "feature_courses",
)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Return the folder of a score set that was made in one window, and of one that was made in four."""
    workspace = make_workspace(tmp_path_factory.mktemp("windows"))
    whole = score_workspace(workspace).folder
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("serving.scores.windows._ROWS", 60)
        patched.setattr("serving.scores.score_files._ROWS_TOGETHER", 16)
        patched.setattr("serving.scores.book_files._ROWS", 2048)
        in_four = score_workspace(workspace).folder
    return workspace, whole, in_four


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_those_of_one_window(scored, name):
    _, whole, in_four = scored
    assert pq.read_table(in_four / f"{name}.parquet").equals(pq.read_table(whole / f"{name}.parquet"))


def test_the_causes_are_those_of_one_window(scored):
    _, whole, in_four = scored
    one, other = (pa.ipc.open_file(folder / CAUSES).read_all() for folder in (whole, in_four))
    assert other.column("vendors").num_chunks == 4
    assert other.equals(one) and other.schema.metadata == one.schema.metadata


def test_the_kept_pieces_are_those_of_each_account(scored):
    workspace, _, _ = scored
    score_set = load_score_set(workspace.scores)
    rows = list(range(len(score_set)))
    view = View(VENDOR, None, default_policy(), score_set.manifest.scored_at)
    assert pieces_of(score_set, rows, view) == render(score_set, rows, view)


def test_a_window_holds_its_accounts_and_no_others(scored, monkeypatch):
    workspace, _, folder = scored
    score_set = load_score_set(workspace.scores)
    monkeypatch.setattr("serving.scores.windows._ROWS", 70)
    stored = StoredParts(folder, score_set.packages)
    at, seen = score_set.manifest.scored_at, 0
    for start, window in windows(score_set):
        own = slice(start, start + len(window))
        assert start == seen
        seen += len(window)
        assert (window.accounts["account_id"] == score_set.accounts["account_id"][own]).all()
        assert (window.assignments.partners(at) == score_set.assignments.partners(at)[own]).all()
        for target, parts in window.parts.items():
            assert (parts == score_set.parts[target][own]).all()
            assert (stored.rows(start, seen)[target] == parts).all()
            assert (stored[target] == score_set.parts[target]).all()
        assert [window.supplies.of(row) for row in range(len(window))] == [score_set.supplies.of(row) for row in range(start, seen)]
    assert seen == len(score_set)


@given(st.integers(0, 10**7))
def test_windows_follow_each_other_and_are_of_nearly_one_size(accounts):
    found = bounds(accounts)
    assert [start for start, _ in found[1:]] == [stop for _, stop in found[:-1]]
    assert sum(stop - start for start, stop in found) == accounts
    sizes = {stop - start for start, stop in found}
    assert not sizes or (max(sizes) <= 65_536 and max(sizes) - min(sizes) <= 1)


def test_wrong_parts_stop_the_scoring_and_the_old_scores_stay(tmp_path, monkeypatch):
    workspace = make_workspace(tmp_path)
    version = score_workspace(workspace).version
    totals = RowTables.totals

    def wrong(self, values):
        found = totals(self, values)
        found[[0, 1]] = found[[1, 0]]
        return found

    monkeypatch.setattr(RowTables, "totals", wrong)
    with pytest.raises(PackageError, match="the explanation of a score is not LightGBM's"):
        score_workspace(workspace)
    assert load_score_set(workspace.scores).manifest.version == version
    assert [path.name for path in workspace.scores.iterdir() if path.is_dir()] == [version]


def test_a_model_with_deep_trees_is_walked_and_that_is_said(scored, tmp_path, monkeypatch):
    _, whole, _ = scored
    workspace, seen = make_workspace(tmp_path), []
    monkeypatch.setattr("training.leaf_tables.DEEPEST", 0)
    folder = score_workspace(workspace, on_progress=lambda what, *_: seen.append(what)).folder
    assert "explanations (churn, expansion: deep trees, slow)" in seen
    for target in ("churn", "expansion"):
        walked, looked_up = (pq.read_table(place / f"parts-{target}.parquet").to_pandas() for place in (folder, whole))
        np.testing.assert_allclose(walked, looked_up, rtol=0, atol=1e-12)


def test_of_a_large_book_no_answers_are_put_together_in_advance_and_all_the_rest_is(tmp_path, monkeypatch):
    workspace = make_workspace(tmp_path)
    monkeypatch.setattr("serving.scores.batch._LARGE", 100)
    score_workspace(workspace)
    score_set = load_score_set(workspace.scores)
    assert score_set.fragments is None
    assert {CAUSES, FEATURE_COURSES} <= {path.name for path in (workspace.scores / score_set.manifest.version).iterdir()}
    view = View(VENDOR, None, default_policy(), score_set.manifest.scored_at)
    assert pieces_of(score_set, [3], view) == render(score_set, [3], view)
    assert np.abs(score_set.parts["churn"].sum(axis=1) - score_set.accounts["churn_raw"]).max() < 1e-9
