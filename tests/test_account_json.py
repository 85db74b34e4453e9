"""What is written at once for many accounts is what the models of the schema give for each, byte for byte."""

import json
import math

import pytest

from serving.answers import account_answers as answers
from serving.answers import schema
from serving.scores.account_json import account_json, prediction_json, render
from serving.scores.batch import score_workspace
from serving.scores.scoring import load_score_set
from tests import slow_answers
from tests.serving_book import make_workspace
from tests.slow_answers import OPEN, VIEWS, without_merged_factor


@pytest.fixture(scope="module")
def score_set(tmp_path_factory):
    workspace = make_workspace(tmp_path_factory.mktemp("book"))
    score_workspace(workspace)
    return load_score_set(workspace.scores)


@pytest.mark.parametrize("view", VIEWS)
def test_an_account_is_what_the_models_give(score_set, view):
    rows = range(0, len(score_set), 5)
    as_of = answers.as_of_json(score_set, view, "Account")
    for row, pieces in zip(rows, render(score_set, rows, view), strict=True):
        text = account_json(pieces, as_of)
        read = schema.Account.model_validate_json(text)
        assert read.model_dump_json().encode() == text
        fast, fast_factors = without_merged_factor(read)
        slow, slow_factors = without_merged_factor(slow_answers.account(score_set, row, view))
        assert fast == slow
        assert [factor is None for factor in fast_factors] == [factor is None for factor in slow_factors]
        assert all(one is None or math.isclose(one, other, rel_tol=1e-12) for one, other in zip(fast_factors, slow_factors, strict=True))
        assert schema.AccountSummary.model_validate_json(pieces.summary).model_dump_json().encode() == pieces.summary


@pytest.mark.parametrize("view", VIEWS)
def test_a_prediction_is_what_the_models_give(score_set, view):
    rows = range(0, len(score_set), 24)
    for row, pieces in zip(rows, render(score_set, rows, view), strict=True):
        text = prediction_json(pieces)
        read = schema.Prediction.model_validate_json(text)
        assert read.model_dump_json().encode() == text
        assert without_merged_factor(read)[0] == without_merged_factor(slow_answers.prediction(score_set, row, view))[0]


@pytest.mark.parametrize("view", VIEWS[:2])
def test_one_account_is_written_as_it_is_among_many(score_set, view):
    many = render(score_set, range(len(score_set)), view)
    assert all(render(score_set, [row], view)[0] == many[row] for row in range(0, len(score_set), 11))


def test_many_predictions_are_one_answer_in_the_order_asked_for(score_set):
    rows = [*range(len(score_set) - 1, -1, -1), *range(len(score_set))]
    text = b"".join(answers.predictions_stream(score_set, rows, ["gone"], VIEWS[0]))
    read = schema.Predictions.model_validate_json(text)
    assert [result.id for result in read.results] == [score_set.accounts["account_id"][row] for row in rows]
    assert read.not_found == ["gone"]
    assert read.model_dump_json().encode() == text
    assert schema.Predictions.model_validate_json(b"".join(answers.predictions_stream(score_set, [], [], VIEWS[0]))).results == []


@pytest.mark.parametrize("view", VIEWS)
def test_what_the_policy_closes_is_null(score_set, view):
    account = json.loads(answers.account_bytes(score_set, 7, view))
    drivers = [driver for score in account["scores"] for driver in score["drivers"]]
    closed = not view.caller.is_vendor
    assert all((driver["sensitivity"] is None) == closed for driver in drivers)
    assert all((score["other_factors"]["features"] is None) == closed for score in account["scores"])
    if closed and view.policy is OPEN:
        assert all(driver["peers"] is None for driver in drivers)
