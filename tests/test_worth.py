from dataclasses import replace
from datetime import datetime, timedelta

import lightgbm as lgb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.catalogue import Catalogue
from features.engagement import engagement_features
from serving.health import health_of
from serving.scores.batch import score_workspace
from serving.scores.scoring import load_score_set
from serving.scores.worth import FILE, MovedFeature, read_worth, write_worth
from tests.serving_book import CUTOFF, make_workspace, packages, stamps, write
from training.dataset import encode_features

NAMES = ("trainings_ever", "contacts_partner_182d", "days_since_training")
CATALOGUE = Catalogue(tuple(feature for feature in engagement_features() if feature.name in NAMES))
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def model():
    """A model for which each training halves the odds of churn, more or less."""
    rng = np.random.default_rng(1)
    n = 2_000
    frame = pd.DataFrame({name: rng.poisson(2, n).astype(float) for name in CATALOGUE.names})
    matrix = encode_features(frame, features=CATALOGUE.names, categories={})
    odds = np.exp(-0.7 * frame["trainings_ever"])
    data = lgb.Dataset(matrix, (rng.random(n) < odds / (1 + odds)).astype(float), feature_name=list(CATALOGUE.names))
    parameters = {"objective": "binary", "num_leaves": 8, "verbosity": -1, "num_threads": 1, "seed": 1, "deterministic": True}
    trained = lgb.train(parameters, data, num_boost_round=60).model_to_string()
    return replace(packages()["churn"], model=trained, catalogue=CATALOGUE, categories={}, reference={}, cutoff=CUTOFF - 30 * DAY)


ROWS = [  # account, days before the cutoff, known so long after, who supplied it, taken back so long before the cutoff
    ("acc-0010", 40, 0, "p1", None),
    ("acc-0010", 50, 0, "p1", None),
    ("acc-0010", 60, 0, "vendor", None),
    ("acc-0011", 10, 0, "p2", None),
    ("acc-0011", 20, 0, "p1", None),
    ("acc-0012", 10, 20, "p1", None),
    ("acc-0013", 10, 0, "crm", None),
    ("acc-0014", 10, 0, "p1", 3),
    ("gone", 10, 0, "p1", None),
]


@pytest.fixture
def book(tmp_path, model):
    """A workspace with engagement, and a score set as its features would make it."""
    workspace = make_workspace(tmp_path)
    score_workspace(workspace)
    account, age, late, source, withdrawn = zip(*ROWS, strict=True)
    occurred = [CUTOFF - days * DAY for days in age]
    known = [time + days * DAY for time, days in zip(occurred, late, strict=True)]
    columns = {"account_id": account, "occurred_at": stamps(occurred), "channel": ["training"] * len(ROWS), "source": source}
    taken_back = [None if days is None else CUTOFF - days * DAY for days in withdrawn]
    write(
        workspace.tables / "engagement.parquet",
        columns | {"recorded_at": stamps(known), "withdrawn_at": stamps(taken_back), "known_at": stamps(known)},
    )
    return workspace, scored(load_score_set(workspace.scores), model)


def scored(score_set, model):
    n = len(score_set)
    values = {name: np.zeros(n) for name in CATALOGUE.names} | {"days_since_training": np.full(n, np.nan)}
    for account, trainings, partners, age in (("acc-0010", 3, 2, 40), ("acc-0011", 2, 2, 10), ("acc-0013", 1, 1, 10)):
        row = score_set.index[account]
        values["trainings_ever"][row], values["contacts_partner_182d"][row], values["days_since_training"][row] = trainings, partners, age
    found = model.score_rows(pd.DataFrame(values))
    accounts = score_set.accounts | {"churn_raw": found.raw, "churn_probability": found.probability}
    accounts["health"] = health_of(found.probability, score_set.manifest.health)
    return replace(score_set, accounts=accounts, values=values, packages={"churn": model})


def worth_of(book):
    workspace, score_set = book
    folder = workspace.scores / score_set.manifest.version
    write_worth(workspace, score_set, folder)
    return {(one.account_id, one.partner_id): one for one in read_worth(folder)}


def test_each_partner_s_share_in_each_account_is_left_out_by_itself(book):
    found = worth_of(book)
    assert list(found) == [("acc-0010", "p1"), ("acc-0011", "p1"), ("acc-0011", "p2")]
    assert {key: one.rows for key, one in found.items()} == {("acc-0010", "p1"): 2, ("acc-0011", "p1"): 1, ("acc-0011", "p2"): 1}
    assert found["acc-0010", "p1"].features == (
        MovedFeature(feature="contacts_partner_182d", value=2, without=0),
        MovedFeature(feature="days_since_training", value=40, without=60),
        MovedFeature(feature="trainings_ever", value=3, without=1),
    )
    moved = {one.feature: one.without for one in found["acc-0011", "p1"].features}
    assert moved == {"contacts_partner_182d": 1, "trainings_ever": 1}


def test_scores_without_the_data_are_those_of_the_model_on_what_is_left(book, model):
    _, score_set = book
    one = worth_of(book)["acc-0010", "p1"]
    rest = pd.DataFrame({"trainings_ever": [1.0], "contacts_partner_182d": [0.0], "days_since_training": [60.0]})
    without = model.score_rows(rest).probability
    row = score_set.index["acc-0010"]
    (churn,) = one.targets
    assert (churn.probability, churn.without) == (score_set.accounts["churn_probability"][row], without[0])
    assert churn.probability < churn.without
    assert (one.health, one.health_without) == (score_set.accounts["health"][row], health_of(without, score_set.manifest.health)[0])
    assert one.health > one.health_without


def test_a_model_has_learnt_from_what_was_known_when_it_was_trained(book):
    assert {key: one.targets[0].learnt for key, one in worth_of(book).items()} == {
        ("acc-0010", "p1"): True,
        ("acc-0011", "p1"): False,
        ("acc-0011", "p2"): False,
    }


def test_where_nobody_supplied_anything_nothing_is_written(book):
    workspace, score_set = book
    table = pq.read_table(workspace.tables / "engagement.parquet")
    pq.write_table(table.set_column(3, "source", pa.array(["vendor"] * len(table))), workspace.tables / "engagement.parquet")
    assert worth_of(book) == {}
    (workspace.tables / "engagement.parquet").unlink()
    assert worth_of(book) == {}
    assert not (workspace.scores / score_set.manifest.version / FILE).exists()


def test_data_that_came_after_the_cutoff_are_worth_nothing_yet(book):
    workspace, score_set = book
    early = replace(score_set, manifest=replace(score_set.manifest, cutoff=datetime(2025, 5, 15)))
    assert list(worth_of((workspace, early))) == [("acc-0010", "p1")]
