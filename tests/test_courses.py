import numpy as np
import pytest

from serving.health import band_of
from serving.scores.batch import score_workspace
from serving.scores.courses import courses_of
from serving.scores.scoring import load_score_set
from serving.scores.standings import Archive
from serving.scores.timeline import RECENT, read_recent
from tests.serving_book import make_workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    workspace = make_workspace(tmp_path_factory.mktemp("book"))
    score_workspace(workspace)
    return workspace


@pytest.fixture
def score_set(workspace):
    return load_score_set(workspace.scores)


@pytest.fixture
def archive(workspace):
    return Archive(workspace.scores)


def test_every_account_has_the_points_that_its_file_says(score_set, archive):
    courses = courses_of(archive, score_set)
    written = read_recent(archive.folder(score_set.manifest.version))
    assert {account_id: list(courses.of(row)) for account_id, row in score_set.index.items()} == written
    assert {courses.of(row)[-1][1] for row in range(len(score_set))} == set(score_set.accounts["health"].tolist())


def test_movement_counts_what_a_person_would_count(score_set, archive):
    courses = courses_of(archive, score_set)
    rows = np.arange(3, 90)
    pairs = [tuple(health for _, health in courses.of(row)[-2:]) for row in rows if len(courses.of(row)) > 1]
    moved = courses.movement(rows)
    assert moved.turned_red == sum(band_of(now) == "red" != band_of(before) for before, now in pairs)
    assert moved.left_red == sum(band_of(before) == "red" != band_of(now) for before, now in pairs)
    assert (moved.worse, moved.better) == (sum(now < before for before, now in pairs), sum(now > before for before, now in pairs))
    assert courses.movement(np.array([], dtype=np.intp)) is None


def test_a_score_set_from_before_has_none(score_set, archive, monkeypatch):
    monkeypatch.setattr("serving.scores.courses.RECENT", f"no-{RECENT}")
    assert courses_of(archive, score_set) is None


def test_it_is_read_once(score_set, archive):
    assert courses_of(archive, score_set) is courses_of(archive, score_set)
