import json

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from features.workspace import load_workspace
from serving import cli_retention

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


def run(*arguments):
    whole = typer.Typer()
    whole.add_typer(cli_retention.app)
    return CliRunner().invoke(whole, ["ndr", *map(str, arguments)], catch_exceptions=False)


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
