import gc
import json
import logging
import os
import shutil
import weakref

import pytest

from serving.answers.live import LiveScores
from serving.answers.problems import ProblemError
from serving.scores.batch import score_workspace
from serving.scores.scoring import current_version
from tests.serving_book import make_workspace
from training.leaf_tables import leaf_tables


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A workspace with two score sets; the later one is current. Read only."""
    workspace = make_workspace(tmp_path_factory.mktemp("live"))
    first = score_workspace(workspace).version
    second = score_workspace(workspace).version
    return workspace.scores, first, second


@pytest.fixture
def scores(scored, tmp_path):
    """A copy in which the first set is current."""
    folder, first, second = scored
    copy = tmp_path / "scores"
    shutil.copytree(folder, copy)
    switch(copy, first)
    return copy, first, second


def switch(folder, version):
    temporary = folder / ".CURRENT"
    temporary.write_text(version)
    temporary.replace(folder / "CURRENT")


def version_of(live):
    return live.current().manifest.version


def test_new_scores_are_taken_beside_the_requests(scores):
    folder, first, second = scores
    live = LiveScores(folder)
    switch(folder, second)
    assert version_of(live) == first, "a request reads no file"
    live.refresh()
    assert (version_of(live), live.loaded, live.fault) == (second, 2, None)


def test_what_the_models_make_once_is_made_before_the_first_request(scores, monkeypatch):
    folder, _, second = scores
    live = LiveScores(folder)
    switch(folder, second)
    monkeypatch.setattr("training.package.leaf_tables", lambda booster, made=leaf_tables: waiting.append(version_of(live)) or made(booster))
    waiting = []
    live.refresh()
    assert len(waiting) == len(live.current().packages)
    assert second not in waiting, "the earlier scores were served meanwhile"
    waiting.clear()
    assert all(package.tables for package in live.current().packages.values())
    assert waiting == []


def files_of(folder):
    return sorted(file for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("damage", ["cut short", "bits", "gone"])
def test_each_file_of_a_new_set_is_needed_whole(scores, damage, caplog):
    folder, first, second = scores
    live = LiveScores(folder)
    names = [file.relative_to(folder / second) for file in files_of(folder / second)]
    if damage == "gone":  # answers that were kept ready may be cleared away: they are made anew
        names = [name for name in names if not name.name.startswith("fragments")]
    assert len(names) > 8
    for name in names:
        file = folder / second / name
        whole = file.read_bytes()
        middle = len(whole) // 2
        if damage == "gone":
            file.unlink()
        else:
            file.write_bytes(whole[:middle] if damage == "cut short" else whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        caplog.clear()
        switch(folder, second)
        live.refresh()
        assert version_of(live) == first, f"{name} was {damage}"
        assert live.fault
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
        file.write_bytes(whole)
        live.refresh()
        assert (version_of(live), live.fault) == (second, None), "taken as soon as it is whole"
        switch(folder, first)
        live.refresh()


def test_what_cannot_be_read_is_tried_again_only_when_it_changes(scores, caplog):
    folder, first, second = scores
    live = LiveScores(folder)
    manifest = folder / second / "manifest.json"
    whole = manifest.read_text()
    manifest.write_text(whole[:100])
    switch(folder, second)
    for _ in range(3):
        live.refresh()
    assert live.refused == len(caplog.records) == 1
    manifest.write_text(whole[:200])
    live.refresh()
    assert live.refused == 2
    assert version_of(live) == first


def test_without_scores_it_is_not_ready_and_recovers_alone(scores):
    folder, first, _ = scores
    aside = folder.parent / "aside"
    folder.rename(aside)
    live = LiveScores(folder)
    with pytest.raises(ProblemError, match="no scores") as caught:
        live.current()
    assert (caught.value.status, caught.value.headers["Retry-After"]) == (503, "30")
    assert live.held is None
    assert "renewcast score" in live.fault
    aside.rename(folder)
    live.refresh()
    assert version_of(live) == first


def test_scores_that_vanish_stay_served(scores):
    folder, first, _ = scores
    live = LiveScores(folder)
    shutil.rmtree(folder)
    live.refresh()
    assert version_of(live) == first
    assert live.fault


def test_the_old_set_is_freed(scores):
    folder, _, second = scores
    live = LiveScores(folder)
    old = weakref.ref(live.current())
    switch(folder, second)
    gc.disable()
    try:
        live.refresh()
        assert old() is None, "something still holds the old scores"
    finally:
        gc.enable()


def test_scores_of_another_clock_are_taken(scores):
    """A set that was written in the past, by a clock that has jumped, is as good as any: only change counts."""
    folder, _first, second = scores
    live = LiveScores(folder)
    switch(folder, second)
    os.utime(folder / "CURRENT", (1, 1))
    live.refresh()
    assert version_of(live) == second
    assert json.loads((folder / second / "manifest.json").read_text())["version"] == current_version(folder)
