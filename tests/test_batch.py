import dataclasses
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from features.errors import NotEnoughDataError, ServiceError, WorkspaceError
from serving.permissions.policy import default_policy
from serving.scores.batch import score_workspace
from serving.scores.scoring import load_score_set
from tests.serving_book import CUTOFF, EARLIER, make_workspace, packages


def test_parts_and_base_add_up_to_the_raw_score(score_set):
    for target, parts in score_set.parts.items():
        assert np.abs(parts.sum(axis=1) - score_set.accounts[f"{target}_raw"]).max() < 1e-6


def test_the_score_set_read_back_is_the_model_to_the_last_bit(workspace, score_set):
    rows = pq.read_table(workspace.snapshots / "features.parquet").to_pandas()
    latest = rows[rows["cutoff"] == CUTOFF].sort_values("account_id")
    for target, package in packages().items():
        scores = package.score_rows(latest)
        assert (score_set.accounts[f"{target}_raw"] == scores.raw).all()
        assert (score_set.accounts[f"{target}_probability"] == scores.probability).all()
        assert (score_set.parts[target] == package.explain_rows(latest)).all()


def test_arr_at_risk_is_the_probability_of_churn_times_arr(score_set):
    accounts = score_set.accounts
    assert (accounts["arr_at_risk"] == accounts["churn_probability"] * accounts["arr"]).all()


def test_the_partner_is_the_one_assigned_at_the_cutoff(score_set):
    partner = {
        account: score_set.account(score_set.index[account]).partner_id for account in ("acc-0000", "acc-0001", "acc-0002", "acc-0003")
    }
    assert partner == {"acc-0000": None, "acc-0001": "p1", "acc-0002": "p2", "acc-0003": None}
    assert score_set.account(score_set.index["acc-0001"]).partner_name == "Northwind Consulting"


def test_the_earlier_values_are_those_of_about_a_quarter_before(workspace, score_set):
    rows = pq.read_table(workspace.snapshots / "features.parquet").to_pandas()
    past = rows[rows["cutoff"] == EARLIER].set_index("account_id")["active_users_28d"]
    assert score_set.account(score_set.index["acc-0100"]).earlier_at == EARLIER
    assert score_set.earlier["active_users_28d"][score_set.index["acc-0100"]] == past["acc-0100"]
    assert score_set.account(score_set.index["acc-0000"]).earlier_at is None


def test_too_little_data_is_said(score_set):
    assert score_set.account(score_set.index["acc-0000"]).limits == ("new_account",)
    assert score_set.account(score_set.index["acc-0005"]).limits == ("no_telemetry",)
    assert score_set.account(score_set.index["acc-0100"]).limits == ()
    silent = {source.table: source.silent for source in score_set.manifest.sources}
    assert silent == {"assignments": False, "telemetry": False, "tickets": True}


def test_peers_are_medians_of_segments_with_enough_accounts(score_set):
    assert "Public sector" not in score_set.peers, f"it has 4 accounts, {default_policy().numbers.peers_needed} are needed"
    mine = score_set.accounts["segment"] == "Enterprise"
    assert score_set.peers["Enterprise"]["seats"] == np.median(score_set.values["seats"][mine])
    assert "partner_tier" not in score_set.peers["Enterprise"]


def test_health_keeps_its_reference_when_the_book_changes(workspace, score_set):
    definition = score_set.manifest.health
    average = float(score_set.accounts["churn_probability"].mean())
    assert definition.reference_odds == average / (1 - average)
    score_workspace(workspace)
    assert load_score_set(workspace.scores).manifest.health == definition


def test_each_scoring_is_a_version_of_its_own_and_the_old_one_stays(workspace):
    first = score_workspace(workspace)
    second = score_workspace(workspace)
    assert first.version != second.version
    assert (workspace.scores / first.version / "manifest.json").exists()
    assert load_score_set(workspace.scores).manifest.version == second.version


def test_progress_reaches_the_end(workspace):
    seen = []
    score_workspace(workspace, on_progress=lambda what, done, total: seen.append((what, done, total)))
    assert seen[-1] == ("scores", 4, 4)


def test_a_missing_champion_is_said(tmp_path):
    workspace = make_workspace(tmp_path)
    (workspace.training / "champion" / "churn").rename(tmp_path / "elsewhere")
    with pytest.raises(NotEnoughDataError, match=r"no model of churn.*\n.*expansion.*\n.*renewcast train"):
        score_workspace(workspace)


def test_missing_snapshots_are_said(tmp_path):
    workspace = make_workspace(tmp_path)
    for missing in ("features.parquet/2025-04.parquet", "features.parquet"):
        (workspace.snapshots / missing).rename(tmp_path / Path(missing).name)
        with pytest.raises(WorkspaceError, match="renewcast features"):
            score_workspace(workspace)


def test_scores_that_are_not_there_or_damaged_are_said(tmp_path, workspace):
    with pytest.raises(ServiceError, match="renewcast score"):
        load_score_set(tmp_path)
    copy = make_workspace(tmp_path / "copy")
    folder = score_workspace(copy).folder
    (folder / "values.parquet").write_bytes(b"half a file")
    with pytest.raises(ServiceError, match="score set is damaged"):
        load_score_set(copy.scores)


def test_a_changed_package_is_not_believed(tmp_path):
    workspace = make_workspace(tmp_path)
    folder = score_workspace(workspace).folder
    model = folder / "packages" / "churn" / "model.txt"
    model.write_text(model.read_text().replace("leaf_value=", "leaf_value=9", 1))
    with pytest.raises(ServiceError, match=r"damaged: packages/churn/model.txt has SHA-256"):
        load_score_set(workspace.scores)


def test_a_run_that_was_interrupted_leaves_the_old_scores_current(tmp_path, monkeypatch):
    workspace = make_workspace(tmp_path)
    version = score_workspace(workspace).version
    monkeypatch.setattr("serving.scores.score_files.pq.write_table", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        score_workspace(workspace)
    assert load_score_set(workspace.scores).manifest.version == version


def test_times_are_read_back_as_written(score_set):
    assert score_set.manifest.cutoff == CUTOFF
    assert score_set.manifest.models["churn"].trained_until == datetime(2025, 1, 1)
    assert isinstance(score_set.account(7).renewal_at, datetime)


def test_an_earlier_cutoff_is_scored_beside_the_current_scores(tmp_path):
    workspace = make_workspace(tmp_path)
    current = score_workspace(workspace)
    earlier = score_workspace(workspace, cutoff=EARLIER)
    assert earlier.cutoff == EARLIER
    assert (earlier.folder / "manifest.json").exists()
    assert load_score_set(workspace.scores).manifest.version == current.version
    with pytest.raises(NotEnoughDataError, match=r"no such cutoff.*\n.*\n.*2025-07-01"):
        score_workspace(workspace, cutoff=datetime(2025, 6, 1))


def test_the_score_set_knows_who_manages_accounts_and_who_supplied_what(score_set):
    row = score_set.index["acc-0002"]
    assert score_set.assignments.partner_of(row, CUTOFF) == "p2"
    assert score_set.assignments.partner_of(row, datetime(2025, 9, 1)) is None
    assert score_set.partners["p1"].name == "Northwind Consulting"
    assert score_set.peer_counts["Enterprise"]["seats"] == (score_set.accounts["segment"] == "Enterprise").sum()


def test_only_so_many_score_sets_are_kept(tmp_path):
    workspace = make_workspace(tmp_path)
    serving = dataclasses.replace(workspace.config.serving, keep_score_sets=3)
    workspace = dataclasses.replace(workspace, config=dataclasses.replace(workspace.config, serving=serving))
    versions = [score_workspace(workspace).version for _ in range(5)]
    assert sorted(path.name for path in workspace.scores.iterdir()) == [*versions[-3:], "CURRENT"]
    kept = [any((workspace.scores / version).glob("fragments*")) for version in versions[-3:]]
    assert kept == [False, True, True]
    assert load_score_set(workspace.scores).fragments is not None
