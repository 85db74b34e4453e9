import json

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from features.workspace import load_workspace
from serving.commands import cli_retention
from tests.past_book import tell_training, write_book
from training import reconciliation
from training.forecasting import read_forecast, read_forecast_accounts

CONFIG = """
[workspace]
name = "Small"
currency = "EUR"
[tables.accounts]
source = "accounts.csv"
[tables.telemetry]
source = "telemetry.csv"
"""
SUBSCRIPTIONS = """
[tables.subscriptions]
source = "subscriptions.csv"
"""
MONTHS = pd.date_range("2023-01-01", periods=14, freq="MS")
PAID = {  # segment, partner, ARR in each of the 14 months
    "a": ("small", "p1", [1000.0] * 14),
    "b": ("small", "p2", [500.0] * 12 + [750.0] * 2),
    "c": ("large", "p2", [400.0] * 8),
    "d": ("large", None, [100.0] * 6 + [60.0] * 7),
    "e": ("large", None, [0.0] * 10 + [9000.0] * 4),
}


@pytest.fixture
def workspace(tmp_path):
    """Make a workspace with movements: fourteen months, the last of them within the grace period before the end of the data."""
    (tmp_path / "renewcast.toml").write_text(CONFIG + SUBSCRIPTIONS, encoding="utf-8")
    opened = load_workspace(tmp_path, {})
    opened.snapshots.mkdir(parents=True)
    opened.tables.mkdir()
    rows = [(name, month, arr, *groups) for name, (*groups, paid) in PAID.items() for month, arr in zip(MONTHS, paid, strict=False) if arr]
    columns = ["account_id", "month", "arr", "segment", "partner_id"]
    pd.DataFrame(rows, columns=columns).assign(partner_type=None).to_parquet(opened.snapshots / "movements.parquet")
    pd.DataFrame({"partner_id": ["p1"], "name": ["[First] Partner"]}).to_parquet(opened.tables / "partners.parquet")
    return tmp_path


def run(*arguments, command="ndr"):
    whole = typer.Typer()
    whole.add_typer(cli_retention.app)
    return CliRunner().invoke(whole, [command, *map(str, arguments)], catch_exceptions=False, env={"COLUMNS": "200"})


def test_the_last_year_whose_late_renewals_are_in(workspace):
    ran = run("--workspace", workspace, "--json")
    found = json.loads(ran.stdout)
    assert (found["months"], found["currency"], found["groups"]) == (12, "EUR", [])
    assert [(one["end"][:10], one["provisional"]) for one in found["series"]] == [("2024-01-01", False), ("2024-02-01", True)]
    assert found["book"]["ndr"] == pytest.approx((1000 + 750 + 60) / 2000)
    assert found["book"]["grr"] == pytest.approx((1000 + 500 + 60) / 2000)
    assert (found["book"]["accounts"], found["book"]["lost_accounts"], found["book"]["new"]) == (4, 1, 9000)
    assert "Net Dollar Retention 90.5 %, gross 78.0 %: 4 accounts paid 2,000 EUR a year on 2023-01-01" in ran.stderr
    assert "the same accounts paid 1,810 on 2024-01-01" in ran.stderr
    assert "2024-02-01 *" in ran.stderr
    assert "* Provisional: renewals that are booked late may still come in." in ran.stderr


def test_what_people_see_adds_up(workspace):
    shown = run("--workspace", workspace)
    assert shown.stdout == ""
    row = next(line.split() for line in shown.stderr.splitlines() if line.startswith("2024-01-01"))
    assert row == ["2024-01-01", "4", "25.0", "2,000", "20.0", "2.0", "12.5", "90.5", "78.0"]


def test_by_partner_the_largest_first_and_those_without_last(workspace):
    ran = run("--workspace", workspace, "--by", "partner", "--json")
    groups = {group["group"]: group for group in json.loads(ran.stdout)["groups"]}
    assert groups["p1"]["ndr"] == 1
    assert groups["p2"]["ndr"] == pytest.approx(750 / 900)
    assert (groups[None]["ndr"], groups[None]["new"]) == (0.6, 9000)
    after = ran.stderr.split("partner ")[1]
    assert after.index("p1") < after.index("p2") < after.index("none")
    assert "[First]" in after
    assert "no ranking" in after


def test_by_segment(workspace):
    ran = run("--workspace", workspace, "--by", "segment", "--months", 1, "--json")
    assert {group["group"] for group in json.loads(ran.stdout)["groups"]} == {"small", "large"}
    assert len(json.loads(ran.stdout)["series"]) == 13


def test_a_group_that_only_has_new_accounts_has_no_rates(workspace):
    path = load_workspace(workspace, {}).snapshots / "movements.parquet"
    movements = pd.read_parquet(path)
    movements.loc[movements["account_id"] == "e", "segment"] = "huge"
    movements.to_parquet(path)
    ran = run("--workspace", workspace, "--by", "segment")
    row = next(line.split() for line in ran.stderr.splitlines() if line.startswith("huge"))
    assert row == ["huge", "0", *["-"] * 7]


def test_nobody_has_a_partner(workspace):
    path = load_workspace(workspace, {}).snapshots / "movements.parquet"
    pd.read_parquet(path).assign(partner_id=None).to_parquet(path)
    ran = run("--workspace", workspace, "--by", "partner", "--json")
    assert ran.exit_code == 1
    assert "no account of this book has a partner" in json.loads(ran.stdout)["message"]
    assert "[tables.assignments]" in json.loads(ran.stdout)["message"]


def test_history_shorter_than_the_window(workspace):
    ran = run("--workspace", workspace, "--months", 14, "--json")
    assert ran.exit_code == 1
    assert "1 to 13 months" in json.loads(ran.stdout)["message"]


def test_a_window_of_no_months(workspace):
    ran = run("--workspace", workspace, "--months", 0)
    assert ran.exit_code == 2


def test_a_book_without_contracts(tmp_path):
    (tmp_path / "renewcast.toml").write_text(CONFIG + '[targets]\nkind = "usage"\n', encoding="utf-8")
    ran = run("--workspace", tmp_path, "--json")
    assert ran.exit_code == 1
    assert "no subscriptions, so it has no ARR" in json.loads(ran.stdout)["message"]


def test_movements_that_were_not_computed(workspace):
    (load_workspace(workspace, {}).snapshots / "movements.parquet").unlink()
    ran = run("--workspace", workspace)
    assert ran.exit_code == 1
    assert "Run `renewcast features`." in ran.stderr


@pytest.fixture
def trained(tmp_path, make_snapshots, synthetic_package):
    """A workspace as a training leaves it, with a name for one of its partners."""
    made = write_book(tmp_path, make_snapshots, accounts=60)
    tell_training(made, synthetic_package)
    made.tables.mkdir()
    pd.DataFrame({"partner_id": ["p01"], "name": ["[First] Partner"]}).to_parquet(made.tables / "partners.parquet")
    return made


def test_a_forecast_is_shown_and_kept(trained):
    ran = run("--workspace", trained.folder, "--draws", 200, "--json", command="forecast")
    assert ran.exit_code == 0
    kept = read_forecast(trained)
    assert json.loads(ran.stdout) == json.loads(json.dumps(kept.to_json()))
    book = kept.book(60)
    said = ran.stderr
    assert f"Net Dollar Retention {100 * book.ndr.mean:.1f} % ({100 * book.ndr.low80:.1f} to {100 * book.ndr.high80:.1f})" in said
    assert f"60 accounts that pay {book.arr:,.0f} USD on 2023-06-01" in said
    assert "No model of expansion is in use" in said
    assert "forecasts of the past, 60 days ahead, of the book" in said


@pytest.mark.parametrize("by", ["partner", "segment"])
def test_a_forecast_by_group_names_them_and_flags_the_small(trained, by):
    said = run("--workspace", trained.folder, "--draws", 200, "--by", by, command="forecast").stderr
    if by == "partner":
        assert "p01 [First] Partner *" in said
        assert "no partner" in said
        assert "Fewer than ten accounts" in said
    else:
        assert "enterprise" in said


def test_a_book_without_such_groups_says_so(trained):
    file = trained.snapshots / "groups.parquet"
    pd.read_parquet(file).assign(segment=None).to_parquet(file)
    ran = run("--workspace", trained.folder, "--draws", 200, "--by", "segment", command="forecast")
    assert ran.exit_code == 1
    assert "no account of this book has a segment" in ran.stderr


def test_what_came_is_held_against_the_forecast(trained, monkeypatch):
    ran = run("--workspace", trained.folder, command="reconcile")
    assert ran.exit_code == 1
    run("--workspace", trained.folder, "--draws", 200, command="forecast")
    kept = read_forecast(trained)
    told = pd.DataFrame({"account_id": ["a0001"], "month": [pd.Timestamp(kept.cutoff)], "arr": [1.0]})
    told.to_parquet(trained.snapshots / "movements.parquet")
    early = run("--workspace", trained.folder, command="reconcile")
    assert (early.exit_code, "Come back with tables until 2023-07-31" in early.stderr) == (1, True)
    told.assign(month=pd.Timestamp("2023-08-15")).to_parquet(trained.snapshots / "movements.parquet")
    paid = read_forecast_accounts(trained, kept.cutoff).set_index("account_id")["arr"] * 0.5
    monkeypatch.setattr(reconciliation, "read_paid", lambda _, instants: pd.DataFrame(dict.fromkeys(instants, paid)))
    ran = run("--workspace", trained.folder, "--json", command="reconcile")
    (found,) = json.loads(ran.stdout)
    assert found["groups"][0]["ndr"] == pytest.approx(0.5)
    assert "Net Dollar Retention from 2023-06-01 to 2023-07-31: 50.0 %" in ran.stderr
    assert "it is outside 95 %" in ran.stderr
    assert found["differences"][0]["account_id"] in ran.stderr
    assert run("--workspace", trained.folder, "--cutoff", "2020-01-01", command="reconcile").exit_code == 1
