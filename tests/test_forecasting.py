import json
from dataclasses import replace
from datetime import datetime

import numpy as np
import pandas as pd
import pytest

import training
from features.errors import WorkspaceError
from tests.past_book import tell_training, write_book
from training.forecasting import forecast_workspace, list_forecasts, read_forecast, read_forecast_accounts


@pytest.fixture(scope="module")
def shared(tmp_path_factory, make_snapshots, synthetic_package):
    """A workspace that was trained and forecast. Read only."""
    workspace = write_book(tmp_path_factory.mktemp("forecast"), make_snapshots, accounts=120)
    tell_training(workspace, synthetic_package)
    return workspace, forecast_workspace(workspace, draws=300)


def test_the_forecast_is_that_of_todays_customers(shared):
    workspace, forecast = shared
    labels = pd.read_parquet(workspace.snapshots / "labels.parquet")
    today = labels[labels["cutoff"] == labels["cutoff"].max()]
    assert forecast.cutoff == today["cutoff"].iloc[0].to_pydatetime()
    assert (forecast.days, forecast.currency, forecast.horizon_days) == ((60, 360), "USD", 60)
    assert forecast.book(60).accounts == len(today)
    assert forecast.book(60).arr == pytest.approx(today["arr"].sum())
    assert set(forecast.packages) == {"churn"}
    assert 0 < forecast.book(60).ndr.low95 < forecast.book(60).ndr.mean


def test_a_time_that_was_not_forecast_is_refused(shared):
    _, forecast = shared
    with pytest.raises(ValueError, match="this forecast looks 60 and 360 days ahead, not 90"):
        forecast.book(90)


def test_groups_are_there_by_arr(shared):
    _, forecast = shared
    partners = forecast.by("partner", 360)
    assert [one.arr for one in partners] == sorted((one.arr for one in partners), reverse=True)
    assert None in {one.group for one in partners}
    assert {one.group for one in forecast.by("segment", 60)} == {"small", "midmarket", "enterprise"}


def test_what_is_kept_is_read_again(shared):
    workspace, forecast = shared
    assert list_forecasts(workspace) == (forecast.cutoff,)
    assert read_forecast(workspace) == forecast
    assert read_forecast(workspace, forecast.cutoff) == forecast
    assert json.dumps(forecast.to_json(), allow_nan=False)


def test_what_was_expected_of_accounts_adds_up_to_the_book(shared):
    workspace, forecast = shared
    accounts = read_forecast_accounts(workspace, forecast.cutoff)
    assert accounts["arr"].sum() == pytest.approx(forecast.book(60).arr)
    for days in forecast.days:
        for part in ("churned", "contracted", "expanded"):
            assert accounts[f"{part}_{days}"].sum() == pytest.approx(getattr(forecast.book(days), part).mean)
    assert set(accounts["segment"]) == {"small", "midmarket", "enterprise"}


def test_forecasts_of_the_past_come_with_it(shared):
    _, forecast = shared
    frame = forecast.past_frame()
    assert frame["cutoff"].nunique() == 2
    assert {"kind", "group", "days", "ndr_low80", "grr_high95", "ndr", "grr"} <= set(frame.columns)
    assert {one.kind for one in forecast.coverage} == {"book", "partner", "segment"}
    book = frame[(frame["kind"] == "book") & (frame["days"] == 60)]
    assert np.isfinite(book[["ndr", "grr", "ndr_mean"]].to_numpy()).all()


def test_the_frame_has_a_row_for_each_outlook(shared):
    _, forecast = shared
    frame = forecast.frame()
    assert len(frame) == len(forecast.outlooks)
    assert (frame["ndr_low95"] <= frame["ndr_low80"]).all()


def test_assumptions_are_said(shared):
    _, forecast = shared
    said = " ".join(forecast.notes)
    assert "No model of contraction is in use" in said
    assert "Past scores tell how chances evolve over" in said
    assert set(forecast.shocks) == {"churn", "contraction", "expansion"}
    assert set(forecast.shocks["churn"].groups) == {"partner", "segment"}


def test_the_same_seed_gives_the_same_forecast(shared):
    workspace, forecast = shared
    again = forecast_workspace(workspace, draws=300, seed=workspace.config.training.seed)
    assert replace(again, made_at=forecast.made_at) == forecast


def test_nothing_kept_and_what_cannot_be_read_are_said(make_snapshots, shared, tmp_path):
    empty = write_book(tmp_path, make_snapshots, accounts=20)
    with pytest.raises(WorkspaceError, match="nothing has been forecast yet"):
        read_forecast(empty)
    with pytest.raises(WorkspaceError, match="the forecast has no accounts"):
        read_forecast_accounts(empty, datetime(2024, 1, 1))
    workspace, forecast = shared
    with pytest.raises(WorkspaceError, match=f"(?s)there is no such forecast.*{forecast.cutoff:%Y-%m-%d}"):
        read_forecast(workspace, datetime(1999, 1, 1))
    file = empty.state / "forecasts" / "2024-01-01" / "forecast.json"
    file.parent.mkdir(parents=True)
    for text in ("{", json.dumps(forecast.to_json() | {"format": 99}), json.dumps({"format": 1})):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(WorkspaceError, match="the forecast cannot be read"):
            read_forecast(empty)


def test_progress_is_told(shared):
    workspace, _ = shared
    told = []
    forecast_workspace(workspace, draws=50, on_progress=lambda what, done, total: told.append((what, done, total)))
    assert {"reading the past", "weighing past periods", "forecasting from past cutoffs", "drawing futures"} == {what for what, *_ in told}
    assert all(0 <= done <= total for _, done, total in told)


def test_a_failure_leaves_the_last_forecast(shared, monkeypatch):
    workspace, forecast = shared
    monkeypatch.setattr("pandas.DataFrame.to_parquet", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        forecast_workspace(workspace, draws=50)
    assert read_forecast(workspace).cutoff == forecast.cutoff
    assert sorted(path.name for path in (workspace.state / "forecasts").iterdir() if not path.name.startswith(".")) == [
        f"{forecast.cutoff:%Y-%m-%d}"
    ]


def test_it_is_part_of_the_package():
    assert training.forecast_workspace is forecast_workspace
