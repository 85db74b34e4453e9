"""Scores explained many at once are what the slow twin tells of each: the same choice, the same numbers to the last digit."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import PackageError
from serving.answers import account_answers as answers
from serving.answers import schema
from serving.scores.account_json import render_rows
from serving.scores.batch import score_workspace
from serving.scores.explained import closed_fields
from serving.scores.scoring import load_score_set
from tests import slow_answers
from tests.serving_book import CATALOGUE, make_workspace
from tests.slow_answers import OPEN, VIEWS, without_merged_factor


@pytest.fixture(scope="module")
def score_set(tmp_path_factory):
    workspace = make_workspace(tmp_path_factory.mktemp("book"))
    score_workspace(workspace)
    return load_score_set(workspace.scores)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_parts_are_told_as_the_twin_tells_them(score_set, data):
    """Ties, zeros, dominant and tiny parts: the choice, the merging and the withholding are the twin's."""
    view = data.draw(st.sampled_from(VIEWS))
    part = st.sampled_from([0.0, 0.0, 0.1, -0.1, 0.5, -0.5, 2.0]) | st.floats(-2, 2)
    drawn = data.draw(st.lists(part, min_size=len(CATALOGUE), max_size=len(CATALOGUE)))
    parts = score_set.parts["churn"].copy()
    parts[7, :-1] = drawn
    accounts = {**score_set.accounts, "churn_raw": parts.sum(axis=1)}
    accounts["churn_probability"] = score_set.packages["churn"].calibrator.probability(accounts["churn_raw"])
    changed = replace(score_set, accounts=accounts, parts={**score_set.parts, "churn": parts}, fragments=None, memory={})
    fast = schema.Account.model_validate_json(answers.account_bytes(changed, 7, view))
    assert without_merged_factor(fast)[0] == without_merged_factor(slow_answers.account(changed, 7, view))[0]


def features_of(score_set, row):
    return {name: slow_answers.plain(score_set.values[name][row]) for name in score_set.features}


def test_rows_of_features_are_scored_as_a_frame_of_them_is(score_set):
    view = VIEWS[0]
    rows = [(f"row {row}", features_of(score_set, row)) for row in (3, 50, 100)]
    rows[1][1]["partner_tier"] = "platinum"
    rows[2][1]["last_nps"] = None
    together = render_rows(score_set, rows, view)
    assert together == [text for row in rows for text in render_rows(score_set, [row], view)]
    for (name, features), text in zip(rows, together, strict=True):
        read = schema.Prediction.model_validate_json(text)
        assert read.id == name
        assert read.model_dump_json().encode() == text
        for score in read.scores:
            slow = slow_answers.score(score_set, slow_answers.explain_features(score_set, features, score.target, view), view)
            assert score.model_dump(exclude={"other_factors": {"odds_factor"}}) == slow.model_dump(
                exclude={"other_factors": {"odds_factor"}}
            )
    assert schema.Prediction.model_validate_json(together[1]).notes == [
        "partner_tier: the model has not seen 'platinum' and treats it as not known"
    ]


def test_an_account_sent_as_a_row_scores_as_it_does_in_the_book(score_set):
    read = schema.Prediction.model_validate_json(render_rows(score_set, [("mine", features_of(score_set, 9))], VIEWS[0])[0])
    account = score_set.account(9)
    assert read.health == account.health
    assert {score.target: score.probability for score in read.scores} == dict(account.probability)


def test_a_row_that_lacks_a_feature_or_holds_text_is_refused(score_set):
    package = score_set.packages["churn"]
    features = features_of(score_set, 9)
    with pytest.raises(PackageError, match="seats"):
        package.encode_rows([{name: value for name, value in features.items() if name != "seats"}])
    with pytest.raises(PackageError, match="'many' is text"):
        package.encode_rows([features | {"seats": "many"}])


def test_rows_are_encoded_as_a_frame_of_them_is(score_set):
    package = score_set.packages["churn"]
    rows = [features_of(score_set, row) for row in range(40)] + [features_of(score_set, 0) | {"partner_tier": "platinum", "seats": None}]
    frame = pd.DataFrame(rows, columns=list(package.features), dtype=object)
    np.testing.assert_array_equal(package.encode_rows(rows), package.encode(frame))


def test_fields_that_the_policy_closes_are_known_by_name():
    assert closed_fields(VIEWS[0], "Driver", ("sentence", "sensitivity", "peers")) == ()
    assert closed_fields(VIEWS[1], "Driver", ("sentence", "sensitivity", "peers")) == ("sensitivity",)
    assert OPEN is VIEWS[2].policy
    assert closed_fields(VIEWS[2], "Driver", ("sentence", "sensitivity", "peers")) == ("sensitivity", "peers")
    with pytest.raises(KeyError):
        closed_fields(VIEWS[1], "Driver", ("margin",))
