"""The split of a move adds up for any models, calibrators and values, and each part is what its definition says."""

import math
from dataclasses import replace
from datetime import datetime
from functools import cache

import lightgbm as lgb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.catalogue import Catalogue
from features.errors import PackageError
from serving.health import HealthDefinition, exact_health, health_of
from serving.scores.changes import Standing, apportion, health_move, score_move
from tests.serving_book import CATALOGUE, feature, feature_rows, packages
from training.calibration import BetaCalibrator, IsotonicCalibrator, PlattCalibrator
from training.dataset import encode_features, learn_categories
from training.model import model_names
from training.package import describe
from training.segments import SegmentLevels

DEFINITION = HealthDefinition(version=1, reference_odds=0.1, published="2024-01-01T00:00:00", accounts=100)
ADDED = feature("meetings_91d", "engagement", "meetings", "meetings {moved} in 91 days")
WIDER = Catalogue((*(one for one in CATALOGUE if one.name != "tenure_days"), ADDED))


@cache
def wider_package():
    """Return a model that lacks a feature of the other and reads one more."""
    rng = np.random.default_rng(11)
    frame = feature_rows(rng, 2000, decline=1.0).assign(meetings_91d=rng.poisson(2.0, 2000).astype(float))
    categories = learn_categories(frame, WIDER)
    matrix = encode_features(frame, features=WIDER.names, categories=categories)
    outcome = rng.random(2000) < 1 / (1 + np.exp(2 + 0.5 * frame["meetings_91d"] - frame["open_tickets"]))
    data = lgb.Dataset(matrix, outcome.astype(float), feature_name=model_names(WIDER.names), categorical_feature=[13])
    parameters = {"objective": "binary", "num_leaves": 6, "verbosity": -1, "num_threads": 1, "seed": 2, "deterministic": True}
    model = lgb.train(parameters, data, num_boost_round=40).model_to_string()
    return replace(
        packages()["churn"], model=model, catalogue=WIDER, categories=categories, reference=describe(frame, WIDER), code_version="0.2.0"
    )


def standing(package, values, definition=DEFINITION, *, cutoff=datetime(2025, 7, 1), score_set="20250702T000000000000-00000000"):
    read = {name: values.get(name) for name in package.features}
    raw = float(
        package.score_matrix(package.encode_rows([read]), None if package.levels is None else np.array([read["partner_tier"]])).raw[0]
    )
    log_odds = float(package.calibrator_at(read.get).log_odds(np.array([raw]))[0])
    probability = 1 / (1 + math.exp(-log_odds))
    return Standing(
        account_id="a",
        score_set=score_set,
        cutoff=cutoff,
        scored_at=cutoff,
        health=int(health_of(np.array([probability]), definition)[0]),
        definition=definition,
        values=read,
        log_odds={"churn": log_odds},
        probability={"churn": probability},
        models={"churn": package.hash},
    )


numbers = st.one_of(st.none(), st.floats(-5, 500), st.integers(0, 200).map(float))
rows = st.fixed_dictionaries(
    {one.name: numbers for one in (*CATALOGUE, ADDED) if one.kind == "number"}
    | {"partner_tier": st.sampled_from([None, "gold", "silver", "blue", "never seen"])}
)
slopes = st.floats(0.05, 3)
levels = st.floats(-4, 2)
isotonic = st.lists(st.tuples(st.floats(0.01, 2), st.floats(0.01, 2)), min_size=2, max_size=6).map(
    lambda steps: IsotonicCalibrator(
        raw=tuple(float(x) for x in np.cumsum([step[0] for step in steps]) - 6),
        at=tuple(float(x) for x in np.cumsum([step[1] for step in steps]) - 5),
        slope=0.3,
    )
)
calibrators = st.one_of(
    st.builds(PlattCalibrator, slope=slopes, intercept=levels),
    st.builds(BetaCalibrator, low=slopes, high=slopes, intercept=levels),
    isotonic,
)
shifts = st.one_of(
    st.none(),
    st.builds(
        SegmentLevels,
        feature=st.just("partner_tier"),
        shifts=st.dictionaries(st.sampled_from(["gold", "silver"]), st.floats(-1, 1)),
        other=st.floats(-0.5, 0.5),
    ),
)


some_model = st.tuples(st.booleans(), calibrators, shifts)


def made(model):
    wider, calibrator, levels = model
    return replace(wider_package() if wider else packages()["churn"], calibrator=calibrator, levels=levels)


@settings(max_examples=40, deadline=None)
@given(older=some_model, newer=some_model, x0=rows, x1=rows, odds=st.floats(0.01, 1))
def test_the_parts_add_up_to_the_move(older, newer, x0, x1, odds):
    older, newer = made(older), made(newer)
    before, after = standing(older, x0), standing(newer, x1, replace(DEFINITION, version=2, reference_odds=odds))
    move = score_move(newer, before=before, after=after)
    features = math.fsum(driver.part for driver in move.drivers())
    assert features + move.model == pytest.approx(after.log_odds["churn"] - before.log_odds["churn"], abs=1e-9)
    assert all(driver.part == pytest.approx(math.fsum(member.part for member in driver.members), abs=1e-12) for driver in move.drivers())
    health = health_move(move, before=before, after=after)
    shown = [min(max(exact_health(one.log_odds["churn"], one.definition), 0), 100) for one in (before, after)]
    assert health.exact == pytest.approx(shown[1] - shown[0], abs=1e-9)
    parts = [health.features, health.model, health.definition, health.cut]
    assert sum(apportion(parts, health.after - health.before)) == health.after - health.before


@settings(max_examples=25, deadline=None)
@given(package=some_model, x0=rows, x1=rows)
def test_the_same_model_moves_nothing_by_itself(package, x0, x1):
    package = made(package)
    move = score_move(package, before=standing(package, x0), after=standing(package, x1))
    assert move.same_model
    assert move.model == 0.0
    still = score_move(package, before=standing(package, x1), after=standing(package, x1))
    assert [driver.part for driver in still.drivers()] == [0.0] * len(still.drivers())


@settings(max_examples=25, deadline=None)
@given(older=some_model, newer=some_model, x=rows)
def test_without_a_change_of_values_all_of_the_move_is_the_models(older, newer, x):
    older, newer = made(older), made(newer)
    before, after = standing(older, x), standing(newer, x)
    move = score_move(newer, before=before, after=after)
    assert math.fsum(abs(driver.part) for driver in move.drivers()) <= 1e-9
    assert move.model == pytest.approx(after.log_odds["churn"] - before.log_odds["churn"], abs=1e-9)
    assert set(move.new_features) == set(newer.features) - set(older.features)


def test_the_models_part_is_the_newer_model_on_the_older_values():
    older, newer = packages()["churn"], wider_package()
    rng = np.random.default_rng(5)
    for row in feature_rows(rng, 12, decline=1.0).assign(meetings_91d=3.0).to_dict("records"):
        moved = row | {"open_tickets": 6.0, "last_nps": None}
        move = score_move(newer, before=standing(older, row), after=standing(newer, moved))
        crossed = standing(newer, row).log_odds["churn"]  # what the older set does not hold is taken as it is now
        assert move.model == pytest.approx(crossed - standing(older, row).log_odds["churn"], abs=1e-9)
        assert move.new_features == ("meetings_91d",)
        assert move.drivers()[0].main.feature.name in {"open_tickets", "last_nps"}


def test_on_a_line_a_driver_is_the_difference_of_its_parts():
    package = replace(packages()["churn"], calibrator=PlattCalibrator(slope=2.0, intercept=-1.0))
    x0, x1 = feature_rows(np.random.default_rng(9), 2, decline=1.0).to_dict("records")
    move = score_move(package, before=standing(package, x0), after=standing(package, x1))
    older, newer = package.explain_rows(pd.DataFrame([x0, x1]))
    known = {member.feature.name: member.part for driver in move.drivers() for member in driver.members}
    for position, name in enumerate(package.features):
        assert known[name] == pytest.approx(2.0 * (newer[position] - older[position]), abs=1e-9)


def test_scores_that_are_not_the_packages_are_refused():
    package = packages()["churn"]
    x0, x1 = feature_rows(np.random.default_rng(9), 2, decline=1.0).to_dict("records")
    after = standing(package, x1)
    with pytest.raises(PackageError, match="do not lead from one to the other"):
        score_move(package, before=standing(package, x0), after=replace(after, log_odds={"churn": after.log_odds["churn"] + 0.01}))


def test_a_move_to_another_segment_is_the_segments():
    levels = SegmentLevels(feature="partner_tier", shifts={"gold": -0.7, "silver": 0.4}, other=0.0)
    still = replace(packages()["churn"], calibrator=PlattCalibrator(slope=1.0, intercept=0.0))
    x0 = feature_rows(np.random.default_rng(9), 1, decline=1.0).to_dict("records")[0] | {"partner_tier": "gold"}
    x1 = x0 | {"partner_tier": "silver"}
    plain = score_move(still, before=standing(still, x0), after=standing(still, x1))
    package = replace(still, levels=levels)
    move = score_move(package, before=standing(package, x0), after=standing(package, x1))

    def part(found):
        return next(m.part for driver in found.drivers() for m in driver.members if m.feature.name == "partner_tier")

    assert part(move) - part(plain) == pytest.approx(1.1, abs=1e-9)


def test_a_new_definition_is_a_part_of_its_own_and_so_is_the_cut():
    package = packages()["churn"]
    x = feature_rows(np.random.default_rng(9), 1, decline=1.0).to_dict("records")[0]
    doubled = replace(DEFINITION, version=2, reference_odds=0.2)
    before, after = standing(package, x), standing(package, x, doubled)
    health = health_move(score_move(package, before=before, after=after), before=before, after=after)
    assert health.definition == pytest.approx(10)
    assert (health.features, health.model) == (0, 0)
    easy = replace(DEFINITION, reference_odds=1e9)
    before, after = standing(package, x, easy), standing(package, x | {"open_tickets": 9.0, "seat_use_28d": 0.1}, easy)
    health = health_move(score_move(package, before=before, after=after), before=before, after=after)
    assert (health.before, health.after) == (100, 100)
    assert health.features < -1
    assert health.cut == pytest.approx(-health.features)


@given(parts=st.lists(st.floats(-60, 60), min_size=1, max_size=9), over=st.floats(-0.99, 0.99))
def test_rounded_parts_add_up_and_stay_near(parts, over):
    total = round(math.fsum(parts) + over * 0.5)
    rounded = apportion(parts, total)
    assert sum(rounded) == total
    assert all(abs(part - whole) < 2 for part, whole in zip(parts, rounded, strict=True))
