from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

from features.errors import ConfigError, NotEnoughDataError, PackageError, WorkspaceError
from features.workspace import load_workspace
from tests.past_book import tell_training, write_book
from training.backtest import BACKTEST
from training.copies import copy_provisional
from training.records import read_records


@pytest.fixture
def make_book(tmp_path, make_snapshots):
    def make(name, **options):
        return write_book(tmp_path / name, make_snapshots, **options)

    return make


@pytest.fixture
def workspace(make_book, synthetic_package):
    made = make_book("book")
    tell_training(made, synthetic_package)
    return made


def change_labels(workspace, change):
    file = workspace.snapshots / "labels.parquet"
    change(pd.read_parquet(file)).to_parquet(file, index=False)


def test_past_scores_are_the_backtests_and_todays_the_champions(workspace, synthetic_package):
    history = read_records(workspace).history
    assert (len(history.cutoffs), len(history.account_id), history.overlap) == (18, 80, 2)
    churn = history.log_odds[:, 0]
    assert np.flatnonzero(history.scored).tolist() == [12, 13, 14, 15, 17]
    assert np.flatnonzero(history.test).tolist() == [14, 15]
    np.testing.assert_allclose(churn[history.period == 13], logit(0.12))
    features = pd.read_parquet(workspace.snapshots / "features.parquet")
    today = features[features["cutoff"] == features["cutoff"].max()].sort_values("account_id")
    np.testing.assert_allclose(churn[history.period == 17], logit(synthetic_package.score_rows(today).probability))


def test_rows_are_those_that_pay_in_order_of_cutoff_and_account(workspace):
    change_labels(
        workspace,
        lambda labels: labels.assign(arr=labels["arr"].where(labels["account_id"] != "a0007", 0.0)).sample(frac=1.0, random_state=0),
    )
    records = read_records(workspace)
    history = records.history
    assert "a0007" not in history.account_id
    assert (np.diff(history.period * 1000 + history.account) > 0).all()
    labels = pd.read_parquet(workspace.snapshots / "labels.parquet").set_index(["account_id", "cutoff"])["arr"]
    row = 400
    assert history.arr[row] == labels[history.account_id[history.account[row]], pd.Timestamp(history.cutoffs[history.period[row]])]
    assert any(note.startswith("1 accounts are left out: their terms ended in the last 0 days") for note in records.notes)


def test_the_size_of_a_change_may_depend_on_what_is_commercial_only(workspace):
    assert read_records(workspace).history.matrix.shape[1] == 3  # days_to_renewal, arr, discount


def test_groups_are_those_of_the_cutoff_and_absent_ones_are_no_kind(workspace):
    history = read_records(workspace).history
    assert set(history.groups) == {"partner", "segment"}
    partners = history.groups["partner"]
    assert partners.names[-1] is None
    groups = pd.read_parquet(workspace.snapshots / "groups.parquet").set_index(["account_id", "cutoff"])["partner_id"]
    for row in range(0, 1400, 50):
        named = groups[history.account_id[history.account[row]], pd.Timestamp(history.cutoffs[history.period[row]])]
        assert partners.names[partners.code[row]] == (None if pd.isna(named) else named)
    file = workspace.snapshots / "groups.parquet"
    pd.read_parquet(file).assign(partner_id=None).to_parquet(file)
    assert set(read_records(workspace).history.groups) == {"segment"}


def test_a_part_without_a_model_has_the_base_rate_of_the_year_before_and_it_is_said(workspace):
    records = read_records(workspace)
    history = records.history
    assert history.assumed == ("contraction", "expansion")
    labels = pd.read_parquet(workspace.snapshots / "labels.parquet")
    closed = labels["cutoff"].isin(history.cutoffs[4:16])  # a year up to the last one whose window of 60 days closed by the last cutoff
    share = (labels.loc[closed, "expansion"].sum() + 0.5) / (labels.loc[closed, "expansion"].notna().sum() + 1)
    np.testing.assert_allclose(history.log_odds[history.period == 17, 2], logit(share))
    assert f"No model of expansion is in use: every account is given its share in the last closed year, {share:.2%}." in records.notes
    earlier = history.log_odds[history.period == 3, 2]
    assert np.isfinite(earlier).all()
    assert earlier[0] != history.log_odds[-1, 2]
    assert np.isnan(history.log_odds[history.period < 2, 2]).all()  # nothing had closed yet


def test_without_any_model_in_use_it_is_base_rates_alone(make_book, synthetic_package):
    workspace = make_book("bare")
    tell_training(workspace, synthetic_package, parts=())
    records = read_records(workspace)
    assert records.history.assumed == ("churn", "contraction", "expansion")
    assert records.packages == {}
    assert np.flatnonzero(records.history.test).tolist() == list(range(16))


def test_a_provisional_model_is_used_and_named(workspace, synthetic_package):
    copy_provisional(workspace, replace(synthetic_package, horizon_days=60), reason="it beats recency by less than chance allows")
    records = read_records(workspace)
    assert "churn" in records.packages
    assert any(note.startswith("The model of churn is provisional: it beats recency") for note in records.notes)


def test_who_is_between_two_terms_is_kept_with_the_mean_score(workspace, synthetic_package):
    tell_training(workspace, synthetic_package, parts=("churn", "expansion"), run="second")
    change_labels(
        workspace,
        lambda labels: labels.assign(
            arr_end=labels["arr_end"].where(labels.index != 12, 0.0), churn=labels["churn"].where(labels.index != 12, 0.0)
        ),
    )
    file = workspace.training / "second" / BACKTEST / "expansion.parquet"
    scores = pd.read_parquet(file)
    scores[scores.index != scores.index[0]].to_parquet(file)
    history = read_records(workspace).history
    missing = history.log_odds[(history.period == 12) & (history.account == 0)]
    assert missing[0, [0, 2]] == pytest.approx(logit(0.12))


def test_rows_without_an_end_are_not_forecast_from(workspace):
    change_labels(workspace, lambda labels: labels.assign(churn=labels["churn"].where(labels["account_id"] != "a0003")))
    history = read_records(workspace).history
    lost = history.account == 3
    assert np.isnan(history.log_odds[lost & (history.period == 13)]).all()
    assert np.isfinite(history.log_odds[lost & (history.period == 17)]).all()


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ('[targets]\nkind = "usage"\nhorizon_days = 60', ConfigError, "churn is silence in this book"),
        (
            '[targets]\nkind = "subscription"\nhorizon_days = 60\n[cutoffs]\nevery = "renewal"',
            ConfigError,
            "each account has cutoffs of its own",
        ),
        ('[targets]\nkind = "subscription"\nhorizon_days = 90\ngrace_days = 0', PackageError, "the model of churn looks ahead otherwise"),
    ],
)
def test_what_cannot_be_forecast_is_said(workspace, config, error, message):
    tables = "\n".join(f'[tables.{name}]\nsource = "{name}.csv"' for name in ("accounts", "telemetry", "subscriptions"))
    (workspace.folder / "renewcast.toml").write_text(f'[workspace]\nname = "x"\n{tables}\n{config}', encoding="utf-8")
    with pytest.raises(error, match=message):
        read_records(load_workspace(workspace.folder, {}))


def test_a_book_without_subscriptions_has_nothing_to_forecast(workspace):
    tables = "\n".join(f'[tables.{name}]\nsource = "{name}.csv"' for name in ("accounts", "telemetry"))
    (workspace.folder / "renewcast.toml").write_text(f'[workspace]\nname = "x"\n{tables}\n[targets]\nkind = "usage"', encoding="utf-8")
    with pytest.raises(NotEnoughDataError, match="no ARR to forecast"):
        read_records(load_workspace(workspace.folder, {}))


def test_nothing_closed_nothing_trained_and_nothing_computed_are_said(make_book, workspace):
    with pytest.raises(WorkspaceError, match="no model has been trained yet"):
        read_records(make_book("untrained", accounts=20))
    change_labels(workspace, lambda labels: labels.assign(churn=np.nan))
    with pytest.raises(NotEnoughDataError, match="no label window has closed yet"):
        read_records(workspace)
    for name in ("features", "groups", "labels"):
        (workspace.snapshots / f"{name}.parquet").rename(workspace.snapshots / f"{name}.gone")
    with pytest.raises(WorkspaceError, match="the snapshots have not been made yet"):
        read_records(workspace)


def test_tables_of_different_runs_are_not_mixed(workspace):
    file = workspace.snapshots / "groups.parquet"
    pd.read_parquet(file).iloc[:-5].to_parquet(file)
    with pytest.raises(WorkspaceError, match="do not belong together"):
        read_records(workspace)
