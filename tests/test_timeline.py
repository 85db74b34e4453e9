"""The past is carried along whole: what was said stays as it was said, and what is replayed is marked."""

from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.scores import timeline
from serving.scores.batch import score_workspace
from serving.scores.scoring import load_score_set
from serving.scores.standings import Archive
from serving.scores.timeline import HISTORY, MOST_POINTS, RECENT, RECENT_POINTS, read_points, read_recent, write_history
from tests.changes_book import CUTOFFS, EARLIER, MIDDLE, make_scored_thrice, older_churn
from tests.serving_book import CUTOFF

FIRST = datetime(2024, 7, 1)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return make_scored_thrice(tmp_path_factory.mktemp("timeline"))


@pytest.fixture(scope="module")
def folders(workspace):
    return [workspace.scores / version for version in Archive(workspace.scores).versions()]


def test_what_was_said_stays_as_it_was_said(workspace, folders):
    archive = Archive(workspace.scores)
    points = read_points(folders[-1], "acc-0010")
    assert [(point.cutoff, point.origin) for point in points] == [(FIRST, "replayed"), *((cutoff, "said") for cutoff in CUTOFFS)]
    for point, version in zip(points[1:], archive.versions(), strict=True):
        said = archive.standing(version, "acc-0010")
        assert (point.score_set, point.scored_at) == (version, said.scored_at)
        assert (point.health, point.package) == (said.health, said.models["churn"])
        assert {target: known for target, known in point.probability.items() if known is not None} == said.probability
    arr = pq.read_table(folders[-1] / "accounts.parquet").to_pandas().set_index("account_id").loc["acc-0010", "arr"]
    assert points[-1].arr == arr


def test_the_time_before_the_first_scoring_is_replayed_by_its_models(workspace, folders):
    rows = pq.read_table(workspace.snapshots / "features.parquet").to_pandas()
    rows = rows[rows["cutoff"] == FIRST]
    probability = older_churn().score_rows(rows).probability
    for account_id, expected in list(zip(rows["account_id"], probability, strict=True))[::23]:
        points = read_points(folders[0], account_id)
        if account_id == "acc-0000":  # it was not in the book that was scored first
            assert points == []
            continue
        assert (points[0].origin, points[0].score_set, points[0].scored_at) == ("replayed", None, None)
        assert points[0].probability["churn"] == pytest.approx(expected, rel=1e-6)
        assert points[0].package == older_churn().hash
        assert read_points(folders[-1], account_id)[0] == points[0]  # the replay is done once
    assert not any(point.origin == "replayed" for point in read_points(folders[-1], "acc-0000"))


def test_who_left_stays_in_the_past_but_not_among_the_newest(folders):
    assert [point.cutoff for point in read_points(folders[-1], "acc-0239")] == [FIRST, EARLIER, MIDDLE]
    assert read_points(folders[-1], "acc-0000")[-1].cutoff == CUTOFF
    recent = read_recent(folders[-1])
    assert "acc-0239" not in recent
    assert recent["acc-0010"] == [(point.cutoff, point.health) for point in read_points(folders[-1], "acc-0010")]
    assert read_points(folders[-1], "nobody") == []


def test_the_same_said_again_adds_nothing_and_scores_of_another_time_are_not_carried(tmp_path):
    workspace = make_scored_thrice(tmp_path)
    archive = Archive(workspace.scores)
    whole = read_points(archive.folder(archive.versions()[-1]), "acc-0010")
    score_workspace(workspace, cutoff=FIRST)  # kept beside, not served
    score_workspace(workspace)
    assert read_points(archive.folder(archive.versions()[-1]), "acc-0010") == whole


def test_a_score_set_without_a_history_has_none_and_the_next_looks_back_anew(tmp_path):
    workspace = make_scored_thrice(tmp_path)
    archive = Archive(workspace.scores)
    for version in archive.versions():
        (archive.folder(version) / HISTORY).unlink()
        (archive.folder(version) / RECENT).unlink()
    assert read_points(archive.folder(archive.versions()[-1]), "acc-0010") == []
    assert read_recent(archive.folder(archive.versions()[-1])) == {}
    score_workspace(workspace)
    found = read_points(archive.folder(archive.versions()[-1]), "acc-0010")
    assert [point.origin for point in found] == ["replayed"] * 3 + ["said"]


def test_the_first_history_is_the_same_whatever_its_blocks(workspace, tmp_path, monkeypatch):
    score_set, found = load_score_set(workspace.scores), []
    for accounts in (512, 7):
        monkeypatch.setattr(timeline, "_ACCOUNTS_IN_BLOCK", accounts)
        folder = tmp_path / str(accounts)
        folder.mkdir()
        write_history(score_set, folder, archive=Archive(tmp_path / "none"), snapshots=workspace.snapshots)
        found.append(pq.read_table(folder / HISTORY))
    assert found[0].equals(found[1])
    assert pq.ParquetFile(folder / HISTORY).num_row_groups == -(-len(score_set) // 7)
    assert found[0]["account_id"].to_pylist() == sorted(found[0]["account_id"].to_pylist())


ids = st.integers(0, 40).map("acc-{:02}".format)


def table(rows):
    """Return points `(account, month, night, probability in tenths)` in the form of the files."""
    columns = {name: [] for name in timeline._SCHEMA.names}
    for account_id, month, night, tenths in rows:
        cutoff = datetime(2025, 1, 1) + timedelta(days=30 * month)
        values = {"account_id": account_id, "cutoff": cutoff, "scored_at": cutoff + timedelta(days=night), "score_set": f"{month}-{night}"}
        values |= {"health": tenths, "health_version": 1, "churn": tenths / 10, "contraction": None, "expansion": None, "arr": 1.0}
        for name, value in (values | {"package": "p"}).items():
            columns[name].append(value)
    return pa.table(columns, schema=timeline._SCHEMA)


def slow_history(nights):
    """Return what all nights together say, point by point."""
    kept = {}
    for _, said in sorted(nights.items()):
        for account_id, month, night, tenths in sorted(said):
            own = kept.setdefault(account_id, [])
            if not own or own[-1][0] != month or own[-1][2] != tenths:
                own.append((month, night, tenths))
    return kept


@settings(max_examples=25, deadline=None)
@given(
    accounts=st.lists(st.lists(ids, unique=True, min_size=1, max_size=41), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
    block=st.integers(1, 9),
)
def test_night_by_night_it_is_what_a_slow_twin_keeps(accounts, seed, block, tmp_path_factory):
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("nights")
    months = np.sort(rng.integers(0, 3, len(accounts)))
    nights, path = {}, None
    for number, present in enumerate(accounts):
        said = [(account_id, int(months[number]), number, int(rng.integers(0, 3))) for account_id in sorted(present)]
        nights[number] = said
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(timeline, "_ACCOUNTS_IN_BLOCK", block)
            blocks = list(timeline._merged(path, table(said)) if path else timeline._split(timeline._compact(table(said))))
        path = folder / f"{number}.parquet"
        with pq.ParquetWriter(path, timeline._SCHEMA) as writer:
            for each in blocks:
                writer.write_table(each, row_group_size=max(len(each), 1))
    held = [set(each["account_id"].to_pylist()) for each in blocks]
    assert sum(map(len, held)) == len(set().union(*held))  # no account is in two blocks
    assert max(map(len, held)) <= 2 * block
    rows = pq.read_table(path).to_pylist()
    found = {}
    for row in rows:
        found.setdefault(row["account_id"], []).append(tuple(map(int, (*row["score_set"].split("-"), row["health"]))))
    assert found == slow_history(nights)
    assert [row["account_id"] for row in rows] == sorted(row["account_id"] for row in rows)


def test_only_the_newest_points_are_carried_along():
    said = [("a", 0, night, night % 10) for night in range(MOST_POINTS + 50)] + [("b", 0, 0, 1)]
    kept = timeline._compact(table(said)).to_pylist()
    assert len(kept) == MOST_POINTS + 1
    assert kept[0]["score_set"] == "0-50"
    months = timeline._newest(table([("a", month, 0, month) for month in range(20)])).to_pylist()
    assert months[0]["health"] == list(range(20 - RECENT_POINTS, 20))
