import json

import pytest

from features.errors import WorkspaceError
from features.ledger import Ledger, fingerprint_files, remove_unfinished, replace_file, replace_folder


def test_a_folder_is_replaced_whole(tmp_path):
    target = tmp_path / "snapshots"
    for content in ("first", "second"):
        with replace_folder(target) as folder:
            (folder / "a.txt").write_text(content)
        assert (target / "a.txt").read_text() == content
    assert [path.name for path in tmp_path.iterdir()] == ["snapshots"]


def test_a_failed_writer_leaves_the_old_folder_and_no_debris(tmp_path):
    target = tmp_path / "snapshots"
    with replace_folder(target) as folder:
        (folder / "a.txt").write_text("good")
    with pytest.raises(RuntimeError), replace_folder(target) as folder:
        (folder / "a.txt").write_text("half")
        raise RuntimeError
    assert (target / "a.txt").read_text() == "good"
    assert [path.name for path in tmp_path.iterdir()] == ["snapshots"]


def test_a_failed_writer_leaves_the_old_file(tmp_path):
    target = tmp_path / "CURRENT"
    target.write_text("old")
    with pytest.raises(RuntimeError), replace_file(target) as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["CURRENT"]


def test_what_a_killed_run_left_behind_is_removed_by_the_next(tmp_path):
    (tmp_path / ".unfinished-scores-dead").mkdir()
    with replace_folder(tmp_path / "scores"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["scores"]


def test_a_folder_that_was_moved_aside_by_a_killed_run_is_put_back(tmp_path):
    (tmp_path / ".unfinished-tables-1a2b3c4d").mkdir()
    aside = tmp_path / ".unfinished-tables-1a2b3c4d-old"
    aside.mkdir()
    (aside / "a.txt").write_text("good")
    remove_unfinished(tmp_path)
    assert (tmp_path / "tables" / "a.txt").read_text() == "good"
    assert [path.name for path in tmp_path.iterdir()] == ["tables"]


def test_a_step_is_current_only_with_the_fingerprint_it_finished_with(tmp_path):
    ledger = Ledger(tmp_path / "steps.json")
    assert ledger.recorded("check", "a") is None
    ledger.record("check", "a", {"rows": 3})
    ledger.record("features", "b", {"rows": 4})
    assert ledger.recorded("check", "a") == {"rows": 3}
    assert ledger.recorded("check", "z") is None
    assert ledger.fingerprint_of("features") == "b"


def test_a_damaged_ledger_means_that_nothing_is_done(tmp_path):
    path = tmp_path / "steps.json"
    Ledger(path).record("check", "a", {})
    path.write_text(path.read_text()[:10])
    assert Ledger(path).recorded("check", "a") is None
    Ledger(path).record("check", "b", {})
    assert json.loads(path.read_text())["check"]["fingerprint"] == "b"


def test_files_have_a_new_fingerprint_when_one_of_them_changes(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("a")
    before = fingerprint_files({"a": file})
    file.write_text("ab")
    assert fingerprint_files({"a": file}) != before


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(WorkspaceError, match="cannot be written to"), replace_file(blocker / "below" / "x"):
        pass
