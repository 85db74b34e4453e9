import json
import os
from dataclasses import replace
from datetime import datetime

import numpy as np
import pandas as pd
import pytest

from features.retention import measure_monthly, read_movements
from serving.answers import retention_answers
from serving.answers.retention_answers import kept_retention, retention_answer
from serving.app import create_app
from serving.permissions.caller import VENDOR, Caller
from serving.permissions.policy import default_policy
from serving.scores.batch import score_workspace
from serving.scores.scoring import load_score_set
from serving.scores.sharing import View
from tests.served import wait_until
from tests.serving_book import TestClient, make_workspace
from training.coverage import Coverage
from training.forecast import Interval, Outlook
from training.forecasting import Forecast

MONTHS = [datetime(2024, month, 1) for month in range(1, 13)] + [datetime(2025, month, 1) for month in range(1, 8)]


def movements(rng):
    """Return 60 customers who pay, grow, shrink and leave; every tenth changes hands from p1 to p2 half way."""
    rows = []
    for number in range(60):
        partner = ("p1", "p1", "p2", None)[number % 4]
        ends = rng.integers(4, 40)
        arr = float(rng.integers(10, 200)) * 100
        for position, month in enumerate(MONTHS[: min(ends, len(MONTHS))]):
            arr *= float(rng.choice([1.0, 1.0, 1.0, 1.1, 0.9]))
            now = "p2" if number % 10 == 0 and position >= 9 else partner
            rows.append((f"acc-{number:04d}", month, arr, ("Enterprise", "Mid-market")[number % 2], now, None))
    columns = ["account_id", "month", "arr", "segment", "partner_id", "partner_type"]
    return pd.DataFrame(rows, columns=columns).astype({"month": "datetime64[us]"})


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    workspace = make_workspace(tmp_path_factory.mktemp("book"))
    score_workspace(workspace)
    movements(np.random.default_rng(5)).to_parquet(workspace.snapshots / "movements.parquet", index=False)
    folder = workspace.state / "forecasts" / "2025-07-01"
    folder.mkdir(parents=True)
    (folder / "forecast.json").write_text(json.dumps(forecast()))
    return workspace


def forecast():
    spread = Interval(mean=1.0, median=1.0, low80=0.9, high80=1.1, low95=0.8, high95=1.2)
    measures = dict.fromkeys(("ndr", "grr", "churned", "contracted", "expanded"), spread)
    groups = [("book", None, 60), ("partner", "p1", 30), ("partner", "p2", 9), ("partner", None, 21), ("segment", "Enterprise", 30)]
    made = Forecast(
        cutoff=datetime(2025, 7, 1),
        made_at="2025-07-02T08:00:00+00:00",
        currency="USD",
        horizon_days=90,
        lead_days=0,
        grace_days=30,
        outlooks=tuple(Outlook(kind=kind, group=group, days=90, accounts=size, arr=1e5, **measures) for kind, group, size in groups),
        coverage=(Coverage(kind="book", days=90, forecasts=4, ndr80=0.75, ndr95=1.0, grr80=0.75, grr95=1.0),),
        past=(),
        shocks={},
        notes=("No model of contraction is in use.",),
        training="run",
        packages={},
        draws=200,
        seed=0,
    )
    return made.to_json()


def view(caller):
    return View(caller, None, default_policy())


def ask(workspace, caller, **options):
    return retention_answer(workspace, view(caller), **{"months": 3, "by": None, "last": 24} | options)


def test_the_vendor_reads_what_the_library_measures(workspace):
    rows = pd.read_parquet(workspace.snapshots / "movements.parquet")
    (series,) = ask(workspace, VENDOR).actual
    expected = measure_monthly(rows, months=3)
    assert [(one.ndr, one.grr, one.accounts) for one in series.windows] == [(one.ndr, one.grr, one.accounts) for one in expected]
    assert len(ask(workspace, VENDOR, last=2).actual[0].windows) == 2


@pytest.mark.parametrize(("by", "groups"), [("partner", ["p1", "p2", None]), ("segment", ["Enterprise", "Mid-market"])])
def test_groups_stand_beside_the_book_and_add_up_to_it(workspace, by, groups):
    book, *rest = ask(workspace, VENDOR, by=by).actual
    assert [series.group for series in rest] == groups
    for position, window in enumerate(book.windows):
        assert sum(series.windows[position].arr_end for series in rest) == pytest.approx(window.arr_end)


def test_a_partner_is_told_about_the_customers_that_it_managed_throughout(workspace):
    """The slow twin: customers of the start, of which no row in the window is another partner's."""
    rows = pd.read_parquet(workspace.snapshots / "movements.parquet")
    (series,) = ask(workspace, Caller("p1"), months=6).actual
    assert series.group == "p1"
    for window in series.windows:
        start, end = (at.replace(tzinfo=None) for at in (window.start, window.end))
        inside = rows[(rows["month"] >= start) & (rows["month"] <= end)]
        owners = inside.groupby("account_id")["partner_id"].agg(lambda found: set(found))
        cohort = inside[(inside["month"] == start)].set_index("account_id")["arr"]
        cohort = cohort[[account for account in cohort.index if owners[account] == {"p1"}]]
        last = inside[inside["month"] == end].set_index("account_id")["arr"].reindex(cohort.index).fillna(0.0)
        assert window.accounts == len(cohort) >= 10
        assert window.ndr == pytest.approx(last.sum() / cohort.sum())
        assert window.grr == pytest.approx(np.minimum(last, cohort).sum() / cohort.sum())


def test_the_rows_of_a_partner_tell_what_those_of_the_book_would(workspace, monkeypatch):
    found = {(who, months): ask(workspace, Caller(who), months=months) for who in ("p1", "p2", "p3") for months in (1, 6, 12)}
    monkeypatch.setattr(retention_answers, "_movements", lambda workspace, _view: read_movements(workspace))
    assert found == {(who, months): ask(workspace, Caller(who), months=months) for who, months in found}


def kept(workspace, score_set, caller, **options):
    return kept_retention(workspace, score_set, view(caller), **{"months": 3, "by": None, "last": 24} | options)


def test_an_answer_is_kept_as_long_as_it_holds(workspace, monkeypatch):
    score_set = load_score_set(workspace.scores)
    first = kept(workspace, score_set, VENDOR)
    assert kept(workspace, score_set, VENDOR) is first
    assert kept(workspace, score_set, Caller("p1")) != first
    policy = default_policy()
    strict = View(VENDOR, None, replace(policy, numbers=replace(policy.numbers, peers_needed=11)))
    assert kept_retention(workspace, score_set, strict, months=3, by=None, last=24) is not first
    assert kept(workspace, score_set, VENDOR, by="segment") is not kept(workspace, score_set, VENDOR, by="segment"), "it is long"
    movements = workspace.snapshots / "movements.parquet"
    os.utime(movements, ns=(0, movements.stat().st_mtime_ns + 1))
    again = kept(workspace, score_set, VENDOR)
    assert again == first and again is not first
    monkeypatch.setattr(retention_answers, "_KEPT_AT_MOST", 2)
    for last in range(1, 5):
        kept(workspace, score_set, VENDOR, last=last)
    assert len(score_set.memory["retention"]) == 2


def test_a_service_has_ready_what_its_pages_show(workspace, monkeypatch):
    asked = []

    def answer(*_, months, by, last):
        asked.append((months, by, last))
        return retention_answer(*_, months=months, by=by, last=last)

    monkeypatch.setattr(retention_answers, "retention_answer", answer)
    with TestClient(create_app(workspace)) as client:
        wait_until(lambda: len(asked) == 2)
        token = client.app.state.desk.identity.sign_in_token(VENDOR)
        client.get("/sign-in", params={"token": token}, headers={"Accept": "text/html"})
        assert [client.get(path).status_code for path in ("/retention", "/partners/retention")] == [200, 200]
    assert asked == [(12, None, 25), (12, "partner", 1)]


def test_what_a_customer_pays_after_it_changed_hands_changes_nothing_for_the_former_partner(workspace, tmp_path):
    before = ask(workspace, Caller("p1"), months=6).actual
    path = workspace.snapshots / "movements.parquet"
    kept = path.read_bytes()
    rows = pd.read_parquet(path)
    foreign = rows["partner_id"] != "p1"
    try:
        rows.assign(arr=rows["arr"].where(~foreign, rows["arr"] * 7)).to_parquet(path, index=False)
        assert ask(workspace, Caller("p1"), months=6).actual == before
    finally:
        path.write_bytes(kept)


def test_few_customers_are_left_out_and_it_is_said(workspace):
    answer = ask(workspace, Caller("p3"))
    assert answer.actual == [] and answer.forecast is None
    assert "Windows with fewer than 10 customers at the start are left out." in answer.notes


def test_a_partner_reads_its_own_forecast_only_and_only_with_enough_customers(workspace):
    own = ask(workspace, Caller("p1")).forecast
    assert [(one.group, one.accounts) for one in own.outlooks] == [("p1", 30)]
    assert own.notes is None
    assert ask(workspace, Caller("p2")).forecast is None
    vendor = ask(workspace, VENDOR, by="partner").forecast
    assert [one.group for one in vendor.outlooks] == [None, "p1", "p2", None]
    assert vendor.notes == ["No model of contraction is in use."]


def test_without_movements_or_forecast_the_notes_say_so(tmp_path):
    workspace = make_workspace(tmp_path)
    answer = ask(workspace, VENDOR)
    assert answer.actual == [] and answer.forecast is None
    assert answer.notes[0] == "What customers paid by month has not been computed yet."
    assert "“renewcast forecast”" in answer.notes[1]
    asked = ask(workspace, Caller("p1")).notes
    assert "Ask your vendor" in asked[1] and "renewcast" not in " ".join(asked).casefold()
    assert "too short" in ask_after_one_month(workspace).notes[0]
    (workspace.state / "forecasts" / "2025-07-01").mkdir(parents=True)
    (workspace.state / "forecasts" / "2025-07-01" / "forecast.json").write_text("{}")
    assert ask(workspace, VENDOR).notes[-1] == "The last forecast cannot be read; it has to be made again."


def ask_after_one_month(workspace):
    rows = movements(np.random.default_rng(5))
    rows[rows["month"] == MONTHS[0]].to_parquet(workspace.snapshots / "movements.parquet", index=False)
    return ask(workspace, VENDOR, months=12)


def test_over_http_groups_are_the_vendor_s(workspace):
    with TestClient(create_app(workspace)) as client:
        identity = client.app.state.desk.identity
        keys = {caller: {"Authorization": f"Bearer {identity.issue_key(caller, label='test')}"} for caller in (VENDOR, Caller("p1"))}
        vendor = client.get("/v1/retention", params={"months": 3, "by": "segment"}, headers=keys[VENDOR]).json()
        assert [series["group"] for series in vendor["actual"]] == [None, "Enterprise", "Mid-market"]
        assert client.get("/v1/retention", params={"months": 3}, headers=keys[Caller("p1")]).json()["actual"][0]["group"] == "p1"
        assert client.get("/v1/retention", params={"by": "segment"}, headers=keys[Caller("p1")]).status_code == 403
