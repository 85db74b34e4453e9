import json
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from serving.answers.schema_track import CalibrationBin
from serving.answers.track_record import record_of
from serving.app import create_app
from serving.health import BANDS, band_of, health_of
from serving.permissions.caller import VENDOR, Caller
from serving.web.charts_record import calibration_plot
from tests.serving_book import CUTOFF, TestClient

RUN = "20250601T000000-abcd"
N = 600


def held_out(rng):
    """Rows of two cutoffs that come true exactly as often as they say, but for chance."""
    chance = rng.beta(1, 12, 2 * N)
    cutoffs = np.repeat([CUTOFF - timedelta(days=120), CUTOFF - timedelta(days=91)], N)
    return pd.DataFrame(
        {
            "account_id": [f"acc-{row % N:04d}" for row in range(2 * N)],
            "cutoff": pd.Series(cutoffs).astype("datetime64[us]"),
            "stage": "test",
            "target": (rng.random(2 * N) < chance).astype(float),
            "probability": chance,
            "arr": np.where(rng.random(2 * N) < 0.1, np.nan, 1000.0),
        }
    )


@pytest.fixture(scope="module")
def rows():
    return held_out(np.random.default_rng(5))


@pytest.fixture
def recorded(workspace, score_set, rows):
    """The workspace with what a training leaves."""
    folder = workspace.training / RUN
    (folder / "backtest").mkdir(parents=True, exist_ok=True)
    rows.to_parquet(folder / "backtest" / "churn.parquet")
    curve = [{"rows": 120, "positives": 6, "probability": 0.05, "frequency": 0.04, "low": 0.01, "high": 0.1}]
    package = score_set.manifest.models["churn"].package_hash
    report = {"targets": {"churn": {"status": "trained", "package_hash": package, "calibration_curve": curve}}}
    (folder / "report.json").write_text(json.dumps(report))
    (workspace.training / "CURRENT").write_text(RUN)
    yield workspace
    (workspace.training / "CURRENT").unlink()


def client_of(app, caller):
    return TestClient(app, headers={"authorization": f"Bearer {app.state.desk.identity.issue_key(caller, label='test')}"})


def test_bands_count_what_a_person_would_count(rows, score_set):
    cohorts, _ = record_of(rows, score_set=score_set)
    assert [cohort.cutoff for cohort in cohorts] == [CUTOFF - timedelta(days=91), CUTOFF - timedelta(days=120)]
    for cohort in cohorts:
        assert cohort.until == cohort.cutoff + timedelta(days=90)
        seen = dict.fromkeys(BANDS, (0, 0))
        for row in rows[rows["cutoff"] == cohort.cutoff].itertuples():
            band = band_of(int(health_of(np.array([row.probability]), score_set.manifest.health)[0]))
            seen[band] = seen[band][0] + 1, seen[band][1] + int(row.target)
        assert {band.band: (band.accounts, band.left) for band in cohort.bands} == seen


def test_misses_are_of_the_newest_cohort_and_the_furthest_off_first(rows, score_set):
    _, misses = record_of(rows, score_set=score_set)
    newest = rows[rows["cutoff"] == rows["cutoff"].max()].set_index("account_id")
    gone = [miss for miss in misses if miss.left]
    stayed = [miss for miss in misses if not miss.left]
    assert stayed
    assert all(newest.loc[miss.account_id, "target"] == miss.left for miss in misses)
    assert [miss.probability for miss in gone] == sorted(miss.probability for miss in gone)
    assert [miss.probability for miss in stayed] == sorted((miss.probability for miss in stayed), reverse=True)
    assert all(miss.health > 60 for miss in gone) and all(miss.health < 40 for miss in stayed)


def test_the_vendor_gets_counts_and_a_partner_shares(recorded):
    app = create_app(recorded)
    with TestClient(app):
        vendor = client_of(app, VENDOR).get("/v1/track-record").json()
        partner = client_of(app, Caller("p1")).get("/v1/track-record").json()
    assert vendor["in_use"] is True
    assert vendor["run"] == RUN
    assert sum(band["accounts"] for band in vendor["cohorts"][0]["bands"]) == N
    assert vendor["misses"]
    assert partner["misses"] is None
    for cohort in partner["cohorts"]:
        assert all(band["accounts"] is None and band["left"] is None for band in cohort["bands"])
    shares = [band["share"] for band in partner["cohorts"][0]["bands"]]
    assert shares == [band["share"] for band in vendor["cohorts"][0]["bands"]]
    assert partner["calibration"][0]["rows"] is None
    assert "acc-" not in str(partner)


def test_no_training_no_record(workspace):
    app = create_app(workspace)
    with TestClient(app):
        answer = client_of(app, VENDOR).get("/v1/track-record").json()
    assert answer["cohorts"] == []
    assert "renewcast train" in answer["note"]


def test_a_calibrated_group_stands_on_the_diagonal_whatever_the_scale():
    bins = [bin_of(0.01, 0.01), bin_of(0.3, 0.3)]
    plot = calibration_plot(bins)
    for mark in plot.marks:
        across = (mark.x - plot.left) / (plot.right - plot.left)
        up = (plot.bottom - mark.y) / (plot.bottom - plot.top)
        assert across == pytest.approx(up, abs=0.01)
        assert mark.high <= mark.y <= mark.low
    assert calibration_plot([]) is None


def bin_of(probability, frequency):
    return CalibrationBin(rows=100, probability=probability, frequency=frequency, low=frequency / 2, high=min(1.0, frequency * 2))
