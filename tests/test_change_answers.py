"""Which scores are compared, and what is said where there are none."""

from datetime import datetime

import pytest

from serving.answers.change_answers import NoMomentError, changes_answer
from serving.permissions.caller import VENDOR
from serving.permissions.policy import default_policy
from serving.scores.batch import score_workspace
from serving.scores.scoring import load_score_set
from serving.scores.sharing import View
from serving.scores.standings import Archive
from tests.changes_book import CUTOFFS, EARLIER, MIDDLE, make_scored_thrice
from tests.serving_book import CUTOFF

VIEW = View(VENDOR, None, default_policy())


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    return make_scored_thrice(tmp_path_factory.mktemp("changes")).scores


@pytest.fixture(scope="module")
def ask(scores):
    archive, score_set = Archive(scores), load_score_set(scores)

    def ask(account_id="acc-0010", **when):
        return changes_answer(archive, score_set, score_set.index[account_id], VIEW, **when)

    return ask


def cutoffs(answer):
    return tuple(standing and standing.cutoff.replace(tzinfo=None) for standing in (answer.before, answer.after))


def test_the_scores_by_then_are_compared(ask, scores):
    first, second, last = Archive(scores).versions()
    assert cutoffs(ask()) == (MIDDLE, CUTOFF)
    assert cutoffs(ask(since=EARLIER)) == (EARLIER, CUTOFF)
    assert cutoffs(ask(since=datetime(2025, 6, 30), until=datetime(2030, 1, 1))) == (MIDDLE, CUTOFF)
    assert cutoffs(ask(until=MIDDLE)) == (EARLIER, MIDDLE)
    assert cutoffs(ask(since=first, until=second)) == (EARLIER, MIDDLE)
    assert cutoffs(ask(since=last, until=last)) == (CUTOFF, CUTOFF)


def test_what_was_said_is_what_is_compared(ask, scores):
    versions = Archive(scores).versions()
    answer = ask(since=versions[0], until=versions[1])
    said = [Archive(scores).standing(version, "acc-0010") for version in versions[:2]]
    assert [answer.before.health, answer.after.health] == [one.health for one in said]
    assert answer.after.probabilities == said[1].probability
    assert [move.model.changed for move in answer.moves] == [False, False]
    changed = ask(since=versions[1])
    assert {move.target: move.model.changed for move in changed.moves} == {"churn": True, "expansion": False}
    assert changed.notes == ["The models changed in between; what they did by themselves is given apart."]


def test_between_the_same_scores_nothing_moved(ask, scores):
    version = Archive(scores).versions()[-1]
    answer = ask(since=version, until=version)
    assert answer.health.exact == 0
    assert answer.health.sentence == f"Health stayed at {answer.after.health}."
    assert [move.log_odds for move in answer.moves] == [0, 0]


def test_an_account_that_was_not_there_has_nothing_to_be_compared_with(ask):
    answer = ask("acc-0000", since=EARLIER)
    assert (answer.before, answer.health, answer.moves) == (None, None, None)
    assert answer.notes == ["The account was not in the book before, so there is nothing to compare with."]
    with pytest.raises(NoMomentError, match="not in the book"):
        ask("acc-0000", until=EARLIER)


@pytest.mark.parametrize(
    ("when", "parameter"),
    [
        ({"since": datetime(2020, 1, 1)}, "from"),
        ({"until": datetime(2020, 1, 1)}, "to"),
        ({"since": "20200101T000000000000-00000000"}, "from"),
        ({"since": CUTOFF, "until": MIDDLE}, "from"),
    ],
)
def test_times_without_scores_are_refused_with_the_range_that_there_is(ask, when, parameter):
    with pytest.raises(NoMomentError) as caught:
        ask(**when)
    assert caught.value.parameter == parameter
    assert "1 Apr 2025" in str(caught.value) or "24 Jun 2025" in str(caught.value)


def test_scores_that_were_made_afterwards_are_compared_and_marked(tmp_path):
    workspace = make_scored_thrice(tmp_path / "book")
    score_set = load_score_set(workspace.scores)
    score_workspace(workspace, cutoff=datetime(2024, 7, 1))
    answer = changes_answer(Archive(workspace.scores), score_set, score_set.index["acc-0010"], VIEW, since=datetime(2024, 12, 31))
    assert cutoffs(answer) == (datetime(2024, 7, 1), CUTOFF)
    assert {move.model.changed for move in answer.moves} == {False}
    assert answer.notes == ["The older scores were made afterwards, from what was known then; nobody was told them at that time."]


def test_where_no_older_scores_are_kept_the_quarter_before_is_scored_by_the_present_models(scores, tmp_path):
    version = Archive(scores).versions()[-1]
    (tmp_path / version).symlink_to(scores / version)
    score_set = load_score_set(scores)
    answer = changes_answer(Archive(tmp_path), score_set, score_set.index["acc-0010"], VIEW)
    assert cutoffs(answer) == (EARLIER, CUTOFF)
    assert answer.before.score_set is None
    assert {move.model.changed for move in answer.moves} == {False}
    assert {move.model.log_odds for move in answer.moves} == {0}
    assert "are scored by the present models" in answer.notes[0]
    nothing = changes_answer(Archive(tmp_path), score_set, score_set.index["acc-0000"], VIEW)
    assert (nothing.before, nothing.moves) == (None, None)
    assert CUTOFFS[0] == EARLIER
