import json
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import NotEnoughDataError, WorkspaceError
from tests.past_book import tell_training, write_book
from training import reconciliation
from training.forecast import Interval, Outlook
from training.forecasting import forecast_workspace, read_forecast_accounts
from training.reconciliation import reconcile_accounts, reconcile_workspace


def interval(mean):
    return Interval(mean=mean, median=mean, low80=mean - 0.1, high80=mean + 0.1, low95=mean - 0.2, high95=mean + 0.2)


def expected_of(rng, n):
    """What was expected of `n` accounts, and the outlooks that this adds up to."""
    arr = rng.lognormal(5, 1, n)
    shares = rng.dirichlet([1, 1, 2], n)
    accounts = pd.DataFrame({"account_id": [f"a{i}" for i in range(n)], "arr": arr, "partner": rng.choice(np.array(["p", "q", None]), n)})
    for part, share in zip(("churned", "contracted", "expanded"), shares.T, strict=True):
        accounts[f"{part}_90"] = arr * share
    masks = {("book", None): np.ones(n, dtype=bool)}
    masks |= {
        ("partner", name): (accounts["partner"] == name).to_numpy() if name else accounts["partner"].isna().to_numpy()
        for name in ("p", "q", None)
    }
    return accounts, [outlook(accounts, kind, group, mask) for (kind, group), mask in masks.items() if mask.any()]


def outlook(accounts, kind, group, mask):
    rows = accounts[mask]
    arr = rows["arr"].sum()
    churned, contracted, expanded = (rows[f"{part}_90"].sum() for part in ("churned", "contracted", "expanded"))
    return Outlook(
        kind=kind,
        group=group,
        days=90,
        accounts=len(rows),
        arr=arr,
        ndr=interval(1 + (expanded - contracted - churned) / arr),
        grr=interval(1 - (contracted + churned) / arr),
        churned=interval(churned),
        contracted=interval(contracted),
        expanded=interval(expanded),
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_the_error_splits_exactly_into_its_parts_and_accounts(seed, n):
    rng = np.random.default_rng(seed)
    accounts, outlooks = expected_of(rng, n)
    arr_end = accounts["arr"].to_numpy() * rng.choice([0.0, 0.5, 1.0, 1.7], n)
    groups, differences = reconcile_accounts(accounts, outlooks, arr_end)
    for group in groups:
        error = group.ndr - group.outlook.ndr.mean
        assert group.by_churn + group.by_contraction + group.by_expansion == pytest.approx(error, abs=1e-9)
        assert group.ndr == pytest.approx(1 + (group.expanded - group.contracted - group.churned) / group.outlook.arr)
        assert group.grr <= min(1, group.ndr) + 1e-12
    book, *partners = groups
    assert book.ndr == pytest.approx(arr_end.sum() / accounts["arr"].sum())
    for name in ("churned", "contracted", "expanded"):
        assert sum(getattr(group, name) for group in partners) == pytest.approx(getattr(book, name))
    if n <= 10:
        total = sum(account.difference for account in differences)
        assert total == pytest.approx((book.ndr - book.outlook.ndr.mean) * book.outlook.arr, abs=1e-6)
    sizes = [abs(account.difference) for account in differences]
    assert sizes == sorted(sizes, reverse=True)
    assert len(differences) == min(n, 10)


def test_whether_the_intervals_held():
    accounts, (book, *_) = expected_of(np.random.default_rng(0), 20)
    arr = accounts["arr"].to_numpy()
    for off, held in ((0.05, (True, True)), (-0.15, (False, True)), (0.3, (False, False))):
        (group,), _ = reconcile_accounts(accounts, [book], arr * (book.ndr.mean + off))
        assert (group.within80, group.within95) == held


def test_the_account_that_made_the_difference_comes_first():
    accounts, outlooks = expected_of(np.random.default_rng(0), 30)
    expected = accounts["arr"] - accounts["churned_90"] - accounts["contracted_90"] + accounts["expanded_90"]
    arr_end = expected.to_numpy(copy=True)
    arr_end[7] += 5000
    _, differences = reconcile_accounts(accounts, outlooks, arr_end)
    assert (differences[0].account_id, differences[0].difference) == ("a7", pytest.approx(5000))
    assert differences[1].difference == pytest.approx(0, abs=1e-6)


@pytest.fixture
def workspace(tmp_path, make_snapshots, synthetic_package):
    """A workspace that was forecast at the end of its data."""
    made = write_book(tmp_path, make_snapshots, accounts=60)
    tell_training(made, synthetic_package)
    forecast = forecast_workspace(made, draws=200)
    told(made, forecast.cutoff)
    return made, forecast


def told(workspace, until):
    """Let the tables reach until then."""
    pd.DataFrame({"account_id": ["a0001"], "month": [pd.Timestamp(until)], "arr": [1.0]}).to_parquet(
        workspace.snapshots / "movements.parquet"
    )


def paying(monkeypatch, workspace, forecast, ratio):
    accounts = read_forecast_accounts(workspace, forecast.cutoff).set_index("account_id")["arr"]
    asked = []

    def paid(_, instants):
        asked.extend(instants)
        return pd.DataFrame(dict.fromkeys(instants, accounts * ratio)).drop("a0000")

    monkeypatch.setattr(reconciliation, "read_paid", paid)
    return asked, accounts


def test_nothing_is_held_against_what_has_not_come(workspace):
    made, forecast = workspace
    ends = forecast.cutoff + timedelta(days=60)
    with pytest.raises(NotEnoughDataError, match=f"(?s)has come to its end yet.*Come back with tables until {ends:%Y-%m-%d}: 60 days"):
        reconcile_workspace(made)
    told(made, ends - timedelta(days=1))
    with pytest.raises(NotEnoughDataError):
        reconcile_workspace(made)


def test_a_horizon_that_has_come_is_held_against_what_was_paid_on_its_last_day(workspace, monkeypatch):
    made, forecast = workspace
    told(made, forecast.cutoff + timedelta(days=60))
    asked, accounts = paying(monkeypatch, made, forecast, 0.9)
    (found,) = reconcile_workspace(made)
    assert asked == [forecast.cutoff + timedelta(days=60)]
    assert (found.cutoff, found.days, found.until) == (forecast.cutoff, 60, asked[0])
    kept = accounts.drop("a0000").sum()
    assert found.book.ndr == pytest.approx(0.9 * kept / accounts.sum())
    assert found.book.churned == pytest.approx(accounts["a0000"])
    assert [group.outlook for group in found.groups] == [one for one in forecast.outlooks if one.days == 60]
    assert json.dumps(found.to_json(), allow_nan=False)


def test_once_the_year_is_over_both_are(workspace, monkeypatch):
    made, forecast = workspace
    told(made, forecast.cutoff + timedelta(days=400))
    paying(monkeypatch, made, forecast, 1.0)
    assert [one.days for one in reconcile_workspace(made)] == [60, 360]


def test_the_last_forecast_that_has_come_due_is_taken_and_an_earlier_one_can_be_named(workspace, monkeypatch):
    made, forecast = workspace
    earlier = forecast.cutoff - timedelta(days=60)
    shifted = replace(forecast, cutoff=earlier)
    folder = made.state / "forecasts"
    (folder / f"{earlier:%Y-%m-%d}").mkdir()
    (folder / f"{earlier:%Y-%m-%d}" / "forecast.json").write_text(json.dumps(shifted.to_json()), encoding="utf-8")
    read_forecast_accounts(made, forecast.cutoff).to_parquet(folder / f"{earlier:%Y-%m-%d}" / "accounts.parquet")
    paying(monkeypatch, made, forecast, 1.0)
    assert reconcile_workspace(made)[0].cutoff == earlier
    told(made, forecast.cutoff + timedelta(days=60))
    assert reconcile_workspace(made)[0].cutoff == forecast.cutoff
    assert reconcile_workspace(made, cutoff=earlier)[0].cutoff == earlier


def test_without_a_forecast_there_is_nothing_to_hold(tmp_path, make_snapshots):
    made = write_book(tmp_path, make_snapshots, accounts=20)
    told(made, datetime(2024, 1, 1))
    with pytest.raises(WorkspaceError, match="nothing has been forecast yet"):
        reconcile_workspace(made)
