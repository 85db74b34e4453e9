"""What moved each account most: the same that its own page says, and nothing that the caller may not see."""

from dataclasses import replace

import pyarrow as pa
import pytest

from serving.answers.change_answers import changes_answer
from serving.permissions.caller import VENDOR, Caller
from serving.permissions.policy import default_policy
from serving.permissions.supplies import SUPPLIED, Supplies, Supply
from serving.scores.batch import score_workspace
from serving.scores.causes import CAUSES, causes_of, write_causes
from serving.scores.courses import courses_of
from serving.scores.scoring import load_score_set
from serving.scores.sharing import View
from serving.scores.standings import Archive
from tests.changes_book import MIDDLE, make_scored_thrice
from tests.serving_book import CUTOFF, make_workspace

POLICY = default_policy()
NEWER = "A newer model, on the same data"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return make_scored_thrice(tmp_path_factory.mktemp("causes") / "book")


@pytest.fixture(scope="module")
def score_set(workspace):
    return load_score_set(workspace.scores)


@pytest.fixture(scope="module")
def archive(workspace):
    return Archive(workspace.scores)


def view_of(caller):
    return View(caller, None, POLICY, CUTOFF)


def test_the_first_cause_is_the_largest_move_in_the_direction_of_health(score_set, archive):
    causes = causes_of(archive, score_set)
    assert causes.since == MIDDLE
    told = 0
    for row in range(1, 60):
        answer = changes_answer(archive, score_set, row, view_of(VENDOR))
        moved = next(move for move in answer.moves if move.target == "churn")
        pushes = [(driver.log_odds, driver.sentence) for driver in moved.drivers] + [(moved.model.log_odds, NEWER)]
        way = 1 if moved.log_odds > 0 else -1
        largest, sentence = max((way * size, words) for size, words in pushes)
        if largest > way * moved.other_factors.log_odds:  # else what is merged there may hold the largest
            assert causes.of(row, view_of(VENDOR), score_set) == sentence
            told += 1
    assert told > 40


def test_a_partner_is_told_the_first_that_it_may_see(score_set, archive):
    causes = causes_of(archive, score_set)
    hidden = {feature.meaning for feature in score_set.features.values() if feature.sensitivity == "vendor"}
    rows = [row for row in range(len(score_set)) if score_set.accounts["partner_id"][row] == "p1"]
    told = [causes.of(row, view_of(Caller("p1")), score_set) for row in rows]
    assert sum(sentence is not None for sentence in told) > len(rows) / 2
    assert not [sentence for sentence in told if sentence and any(words.split()[0] in sentence.casefold() for words in hidden)]


def test_what_another_partner_supplied_is_passed_over(score_set, archive):
    causes = causes_of(archive, score_set)
    view = view_of(Caller("p1"))
    row = next(row for row in range(len(score_set)) if (causes.of(row, view, score_set) or "").startswith("Trainings"))
    told = replace(score_set, supplies=Supplies([Supply(row, SUPPLIED, "p2")], score_set.features.values()))
    assert not (causes.of(row, view, told) or "").startswith("Trainings")
    assert causes.of(row, view_of(VENDOR), told)


def test_a_new_account_has_none(score_set, archive):
    known = [row for row in range(len(score_set)) if len(courses_of(archive, score_set).of(row)) == 1]
    assert all(causes_of(archive, score_set).of(row, view_of(VENDOR), score_set) is None for row in known)


def test_before_the_second_scoring_the_snapshots_tell(tmp_path):
    workspace = make_workspace(tmp_path / "book")
    score_workspace(workspace)
    score_set, archive = load_score_set(workspace.scores), Archive(workspace.scores)
    causes, courses = causes_of(archive, score_set), courses_of(archive, score_set)
    assert causes.since == MIDDLE
    told = [causes.of(row, view_of(VENDOR), score_set) for row in range(len(score_set))]
    assert NEWER not in told
    assert all(words for row, words in enumerate(told) if len(courses.of(row)) > 1 and courses.of(row)[-1][1] != courses.of(row)[-2][1])


def test_in_windows_they_are_those_of_the_whole_book(score_set, archive, tmp_path, monkeypatch):
    monkeypatch.setattr("serving.scores.windows._ROWS", 50)
    write_causes(score_set, tmp_path, policy=POLICY, archive=archive, snapshots=tmp_path)
    found = pa.ipc.open_file(tmp_path / CAUSES).read_all()
    assert found.column("vendors").num_chunks > 4
    assert found.equals(causes_of(archive, score_set).lines)


def test_score_sets_from_before_have_none(score_set, tmp_path):
    (tmp_path / score_set.manifest.version).mkdir()
    assert not (tmp_path / score_set.manifest.version / CAUSES).exists()
    assert causes_of(Archive(tmp_path), replace(score_set, memory={})) is None
