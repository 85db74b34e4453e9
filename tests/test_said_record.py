"""What was really said, and what had become of it: from score sets that were served, and labels that came later."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serving.answers.said_record import name_misses, read_said, said_answer
from serving.app import create_app
from serving.health import band_of
from serving.permissions.caller import VENDOR, Caller
from serving.permissions.policy import default_policy
from serving.scores.scoring import load_score_set
from serving.scores.sharing import View
from serving.scores.standings import Archive
from serving.scores.timeline import read_points
from tests.calls import as_caller
from tests.changes_book import MIDDLE, make_scored_thrice
from tests.serving_book import CUTOFF, EARLIER, TestClient
from tests.test_pages import Elements, signed_in, text_of

GONE = "acc-0239"
"""It was scored at the first two cutoffs, and is no longer there."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Return a book that was scored as of three cutoffs; of the first two it is known who left."""
    workspace = make_scored_thrice(tmp_path_factory.mktemp("said") / "book")
    account_ids = load_score_set(workspace.scores).accounts["account_id"].tolist()
    rng = np.random.default_rng(4)
    parts = []
    for cutoff, known in ((EARLIER, True), (MIDDLE, True), (CUTOFF, False)):
        ids = [*account_ids, GONE] if known else account_ids
        left = (rng.random(len(ids)) < 0.3).astype(float)
        left[-1] = 1.0
        churn = pa.array(left) if known else pa.nulls(len(ids), pa.float64())
        parts.append(pa.table({"account_id": ids, "cutoff": pa.array([cutoff] * len(ids), pa.timestamp("us")), "churn": churn}))
    pq.write_table(pa.concat_tables(parts), workspace.snapshots / "labels.parquet")
    return workspace


@pytest.fixture
def score_set(workspace):
    return load_score_set(workspace.scores)


def said_of(workspace, score_set):
    return read_said(Archive(workspace.scores), workspace, score_set)


def view_of(caller, policy=None):
    return View(caller, None, policy or default_policy(), CUTOFF)


def test_it_counts_what_was_said_and_what_happened(workspace, score_set):
    said = said_of(workspace, score_set)
    assert [cohort.cutoff for cohort in said.cohorts] == [MIDDLE, EARLIER]
    labels = {(row["account_id"], row["cutoff"]): row["churn"] for row in pq.read_table(workspace.snapshots / "labels.parquet").to_pylist()}
    folder = workspace.scores / score_set.manifest.version
    for cohort in said.cohorts:
        counted = {band.band: [0, 0] for band in cohort.bands}
        for account_id, _ in [key for key in labels if key[1] == cohort.cutoff]:
            for point in read_points(folder, account_id):
                if point.cutoff == cohort.cutoff and point.origin == "said":
                    counted[band_of(point.health)][0] += 1
                    counted[band_of(point.health)][1] += int(labels[account_id, cohort.cutoff])
        assert {band.band: [band.accounts, band.left] for band in cohort.bands} == counted
        assert sum(accounts for accounts, _ in counted.values()) >= 239


def test_nothing_that_was_only_replayed_or_is_not_due_counts(workspace, score_set):
    assert CUTOFF not in {cohort.cutoff for cohort in said_of(workspace, score_set).cohorts}
    labels = pq.read_table(workspace.snapshots / "labels.parquet")
    open_labels = labels.set_column(2, "churn", pa.nulls(len(labels), pa.float64()))
    pq.write_table(open_labels, workspace.snapshots / "labels.parquet")
    said = said_of(workspace, replace(score_set, memory={}))
    pq.write_table(labels, workspace.snapshots / "labels.parquet")
    assert said.cohorts == ()
    assert (said.first_due - EARLIER).days == 90


def test_misses_have_names_and_those_that_are_gone_keep_theirs(workspace, score_set):
    said = said_of(workspace, score_set)
    named = name_misses(said.misses, workspace, score_set, view_of(VENDOR))
    assert len(named) == len(said.misses) > 0
    for one in named:
        assert one.there == (one.miss.account_id in score_set.index)
        assert one.name != one.miss.account_id
    told = name_misses([replace(said.misses[0], account_id=GONE)], workspace, score_set, view_of(VENDOR))
    assert (told[0].name, told[0].there) == ("Tundra Robotics", False)


def test_a_partner_is_told_no_misses_and_where_a_policy_shares_them_only_its_own(workspace, score_set):
    misses = said_of(workspace, score_set).misses
    assert name_misses(misses, workspace, score_set, view_of(Caller("p1"))) == []
    policy = default_policy()
    opened = {name: dict.fromkeys(policy.fields[name], "shared") for name in ("TrackRecord", "Miss")}
    loose = replace(policy, fields={**policy.fields, **opened}, _open_fields={})
    told = name_misses(misses, workspace, score_set, view_of(Caller("p1"), loose))
    managed = [miss for miss in misses if score_set.accounts["partner_id"][score_set.index.get(miss.account_id, 0)] == "p1"]
    assert [one.miss.account_id for one in told] == [miss.account_id for miss in managed]
    assert all(one.there for one in told)


def test_the_api_says_what_was_said_to_a_partner_in_shares(workspace):
    with TestClient(create_app(workspace)) as client:
        vendor, partner = (client.get("/v1/track-record", headers=as_caller(client.app, who)).json() for who in (VENDOR, Caller("p1")))
    first = vendor["said"]["cohorts"][0]
    assert [cohort["cutoff"] for cohort in vendor["said"]["cohorts"]] == [f"{when.isoformat()}Z" for when in (MIDDLE, EARLIER)]
    assert sum(band["accounts"] for band in first["bands"]) > 200
    assert vendor["said"]["misses"] and vendor["said"]["first_due"] is None
    assert partner["said"]["misses"] is None
    shares = [band["share"] for band in partner["said"]["cohorts"][0]["bands"]]
    assert shares == [band["share"] for band in first["bands"]]
    assert {band["accounts"] for cohort in partner["said"]["cohorts"] for band in cohort["bands"]} == {None}


def test_no_answer_names_a_miss_of_somebody_else_s_even_where_a_policy_shares_misses(workspace, score_set):
    policy = default_policy()
    opened = {name: dict.fromkeys(policy.fields[name], "shared") for name in ("TrackRecord", "Said", "Miss")}
    loose = view_of(Caller("p1"), replace(policy, fields={**policy.fields, **opened}, _open_fields={}))
    told = said_answer(said_of(workspace, score_set), score_set, loose).misses
    assert told
    assert {score_set.accounts["partner_id"][score_set.index[miss.account_id]] for miss in told} == {"p1"}


def test_the_page_says_what_was_said_and_links_the_misses(workspace, score_set):
    with TestClient(create_app(workspace)) as client:
        page = signed_in(client.app, VENDOR).get("/track-record")
        partners = signed_in(client.app, Caller("p1")).get("/track-record")
    Elements(page.text)
    assert "On 24 Jun 2025 we said; by 22 Sep 2025 this had happened" in text_of(page)
    assert "really given" in page.text
    linked = [one for one in said_of(workspace, score_set).misses if one.account_id in score_set.index]
    assert all(f'<a href="/accounts/{miss.account_id}">' in page.text for miss in linked)
    assert "/accounts/" not in partners.text
    assert "really given" in partners.text
