"""The courses of features: what is kept of them, who sees which, and how they are drawn."""

import re
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from serving.answers import schema
from serving.answers.account_answers import account_answer
from serving.app import create_app
from serving.permissions.caller import VENDOR, Caller
from serving.permissions.policy import default_policy
from serving.permissions.supplies import ABOUT_PARTNERS, SUPPLIED, Supplies, Supply
from serving.scores.batch import score_workspace
from serving.scores.feature_courses import (
    MOST_POINTS,
    FeatureCourse,
    read_feature_courses,
    seen_feature_courses,
    write_feature_courses,
)
from serving.scores.scoring import load_score_set
from serving.scores.sharing import View
from serving.scores.standings import Archive
from serving.web.charts_feature import feature_plot
from tests.feature_files import write_features
from tests.serving_book import CUTOFF, TestClient, make_workspace
from tests.test_pages import Elements, signed_in

PARTNER = Caller("p1")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Return a book with twenty cutoffs, 30 days apart, of which the newest fourteen lie within thirteen months."""
    workspace = make_workspace(tmp_path_factory.mktemp("book"))
    now = pd.read_parquet(workspace.snapshots / "features.parquet").query("cutoff == @CUTOFF")
    older = [now.assign(cutoff=CUTOFF - timedelta(days=30 * step), open_tickets=float(step)) for step in range(1, 20)]
    write_features(workspace.snapshots, pd.concat([now, *older]).sample(frac=1, random_state=1))
    score_workspace(workspace)
    return workspace


@pytest.fixture(scope="module")
def score_set(workspace):
    return load_score_set(workspace.scores)


@pytest.fixture(scope="module")
def archive(workspace):
    return Archive(workspace.scores)


def view_of(caller, policy=None):
    return View(caller, None, policy or default_policy(), CUTOFF)


def test_every_named_driver_has_its_course_and_it_ends_at_the_value(score_set, archive):
    for row in range(4, 40):
        for caller in (VENDOR, Caller(score_set.accounts["partner_id"][row])):
            courses = seen_feature_courses(archive, score_set, row, view_of(caller))
            for score in account_answer(score_set, row, view_of(caller)).scores:
                for driver in score.drivers:
                    if isinstance(driver.value, float):
                        assert courses[driver.features[0]].points[-1] == (CUTOFF, pytest.approx(driver.value, rel=1e-6))


def test_a_course_holds_what_the_snapshots_held_and_no_more_than_it_may(workspace, score_set, archive):
    snapshots = pd.read_parquet(workspace.snapshots / "features.parquet")
    for row in (7, 100, 239):
        account_id = score_set.accounts["account_id"][row]
        own = snapshots[snapshots["account_id"] == account_id].sort_values("cutoff").tail(MOST_POINTS)
        for name, course in read_feature_courses(archive.folder(score_set.manifest.version), row).items():
            values = np.array([np.nan if value is None else value for _, value in course.points])
            np.testing.assert_allclose(values, own[name].to_numpy(dtype=float), rtol=1e-6)
            assert [when for when, _ in course.points] == [when.to_pydatetime() for when in own["cutoff"]]
            assert CUTOFF - course.points[0][0] <= timedelta(days=400)


def test_a_partner_gets_no_course_of_what_it_may_not_see(score_set, archive):
    rows = [row for row in range(len(score_set)) if score_set.accounts["partner_id"][row] == "p1"]
    vendors = {name for row in rows for name in seen_feature_courses(archive, score_set, row, view_of(VENDOR))}
    partners = {name for row in rows for name in seen_feature_courses(archive, score_set, row, view_of(PARTNER))}
    hidden = {feature.name for feature in score_set.features.values() if feature.sensitivity == "vendor"}
    assert vendors & hidden
    assert partners and not partners & hidden


def test_what_another_partner_supplied_has_no_course_and_nor_has_what_is_about_partners(score_set, archive):
    row = next(row for row in range(len(score_set)) if "trainings_182d" in seen_feature_courses(archive, score_set, row, view_of(PARTNER)))
    told = replace(score_set, supplies=Supplies([Supply(row, SUPPLIED, "p2")], score_set.features.values()))
    assert "trainings_182d" not in seen_feature_courses(archive, told, row, view_of(PARTNER))
    assert "trainings_182d" in seen_feature_courses(archive, told, row, view_of(VENDOR))
    catalogue = {**score_set.features}
    about = replace(catalogue["trainings_182d"], source=replace(catalogue["trainings_182d"].source, table=ABOUT_PARTNERS))
    told.__dict__["features"] = catalogue | {"trainings_182d": about}
    told = replace(told, supplies=score_set.supplies)
    told.__dict__["features"] = catalogue | {"trainings_182d": about}
    assert "trainings_182d" not in seen_feature_courses(archive, told, row, view_of(PARTNER))


def test_a_policy_that_shares_no_earlier_values_shares_no_courses(score_set, archive):
    policy = default_policy()
    fields = policy.fields | {"Driver": policy.fields["Driver"] | {"earlier": "vendor"}}
    closed = replace(policy, fields=fields, _open_fields={})
    row = next(row for row in range(len(score_set)) if score_set.accounts["partner_id"][row] == "p1")
    assert seen_feature_courses(archive, score_set, row, view_of(PARTNER))
    assert seen_feature_courses(archive, score_set, row, view_of(PARTNER, closed)) == {}


def test_score_sets_from_before_have_none(tmp_path):
    assert read_feature_courses(tmp_path, 0) == {}


def test_snapshots_of_long_ago_give_none(workspace, score_set, tmp_path):
    rows = pd.read_parquet(workspace.snapshots / "features.parquet").query("cutoff == @CUTOFF")
    write_features(tmp_path, rows.assign(cutoff=CUTOFF - timedelta(days=2000)))
    write_feature_courses(score_set, tmp_path, policy=default_policy(), snapshots=tmp_path)
    assert read_feature_courses(tmp_path, 4) == {}


def test_the_page_draws_them_with_words(workspace):
    with TestClient(create_app(workspace)) as client:
        page = signed_in(client.app, VENDOR).get("/accounts/acc-0100")
    Elements(page.text)
    drawn = re.findall(r'<svg class="course"[^>]*aria-label="([^"]+)"', page.text)
    assert len(drawn) >= 4
    assert all(label.startswith("6 Jul 2024 to 1 Jul 2025: ") for label in drawn)
    assert "Over the last year" in page.text


def course(*values, days=30):
    start = CUTOFF - timedelta(days=days * (len(values) - 1))
    return FeatureCourse(tuple((start + timedelta(days=days * place), value) for place, value in enumerate(values)))


def driver(**changes):
    known = {"value": 12.0, "earlier": 40.0, "peers": 30.0, "unit": "users", "part": None, "odds_factor": None, "sensitivity": None}
    words = {"features": ["x"], "family": "usage", "sentence": "", "effect": "raises", "actionable": True}
    return schema.Driver(**{**known, **words, **changes})


def test_larger_values_stand_higher_and_the_newest_last():
    plot = feature_plot(course(40.0, 44.0, 38.0, 41.0, 12.0), driver())
    points = [tuple(map(float, point.split(","))) for point in plot.lines[0].split()]
    assert points[-1] == (plot.now.x, plot.now.y) == (plot.right, max(y for _, y in points))
    assert [(level.name, level.value) for level in plot.levels] == [("usually", 40.5), ("peers", 30.0)]
    assert plot.levels[0].at < plot.levels[1].at < plot.now.y


def test_labels_keep_clear_of_each_other_and_of_the_edge():
    plot = feature_plot(course(40.0, 44.0, 38.0, 41.0, 60.0), driver(peers=40.4))
    first, second = plot.levels
    assert second.label_at - first.label_at >= 12
    assert first.label_at > 0 and second.label_at < 46


def test_peers_far_away_do_not_flatten_the_course():
    plot = feature_plot(course(1.0, 3.0, 2.0), driver(peers=900.0))
    assert [(level.name, level.beyond) for level in plot.levels] == [("peers", "↑")]
    heights = [float(point.split(",")[1]) for point in plot.lines[0].split()]
    assert max(heights) - min(heights) > 20


def test_a_line_breaks_where_nothing_is_known_and_ends_where_it_is_not():
    plot = feature_plot(course(1.0, None, None, None, 2.0, 3.0, None), driver(peers=None))
    assert len(plot.lines) == 1 and len(plot.alone) == 1
    assert plot.now is None


@pytest.mark.parametrize("values", [(), (3.0,), (None, 3.0), (None, None)])
def test_one_value_is_no_course(values):
    assert feature_plot(course(*values) if values else None, driver()) is None


def test_a_value_that_never_moved_is_a_line_in_the_middle():
    plot = feature_plot(course(0.0, 0.0, 0.0, 0.0, 0.0), driver(peers=0.0))
    assert len({point.split(",")[1] for point in plot.lines[0].split()}) == 1
    assert {level.at for level in plot.levels} == {plot.now.y}


def test_days_that_only_pass_have_no_usual_level():
    ticking = course(*(float(30 * step) for step in range(8)))
    assert feature_plot(ticking, driver(unit="days", peers=None)).levels == ()
    assert [level.name for level in feature_plot(ticking, driver(unit="users", peers=None)).levels] == ["usually"]
    assert feature_plot(course(0.0, 1.0), driver(unit="flag")) is None


def test_dates_are_those_of_the_course():
    plot = feature_plot(course(1.0, 2.0, None), driver())
    assert (plot.first, plot.last) == (CUTOFF - timedelta(days=60), datetime(2025, 7, 1))
