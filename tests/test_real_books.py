"""The main job, by the command, on books that are not ours to ship; skipped where they are absent.

What is reached is compared with what the data's own protocols reached. Labels are compared with their definitions, written once more in
pandas. What must not leak is shown not to.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import expect
from sklearn.metrics import roc_auc_score

from features.catalogue import read_catalogue
from features.workspace import load_workspace
from serving.app import create_app
from serving.permissions.caller import VENDOR
from tests.browser.conftest import browser as browser  # a browser, and what opens pages in it as somebody
from tests.browser.conftest import visitors as visitors
from tests.opened import DESK, PHONE, faults, served
from training.backtest import read_backtest

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("RENEWCAST_DATA", ROOT / ".." / "shared" / "data")).absolute()
WORKSPACES = ROOT / "tests" / "workspaces"
KEY = ["account_id", "cutoff"]


def needs(name: str) -> Path:
    folder = DATA / name
    if not folder.exists():
        pytest.skip(f"needs the tables of {name} in {DATA}; set RENEWCAST_DATA to the folder that holds them")
    return folder


def command(*arguments: object, data: Path, status: int = 0) -> dict[str, Any]:
    """Run the command and return what it says to machines."""
    ran = subprocess.run(
        [sys.executable, "-c", "from serving.commands.cli import main; main()", *map(str, arguments), "--json"],
        cwd=ROOT,
        env=os.environ | {"RENEWCAST_DATA": str(data)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == status, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def copied(name: str, folder: Path) -> Path:
    folder.mkdir(parents=True)
    shutil.copy(WORKSPACES / name / "renewcast.toml", folder)
    return folder


def whole_job(name: str, folder: Path, data: Path) -> Path:
    needs(name)
    done = command("up", "--workspace", copied(name, folder), "--no-serve", data=data)
    assert [step["status"] for step in done["steps"]] == ["done"] * 4
    assert done["steps"][-1]["accounts"] == done["steps"][1]["accounts_to_score"] > 0
    return folder


@pytest.fixture(scope="session")
def openstack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_job("openstack_orgs", tmp_path_factory.mktemp("openstack") / "book", DATA)


@pytest.fixture(scope="session")
def crm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_job("fightchurn_crm5", tmp_path_factory.mktemp("crm") / "book", DATA)


def auc_of(part: dict[str, Any]) -> float:
    value: float = part["metrics"]["auc"]["value"]
    return value


def snapshots(workspace: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(workspace / ".renewcast" / "snapshots" / f"{name}.parquet").sort_values(KEY, ignore_index=True)


def disagreements(found: pd.DataFrame, expected: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the rows in which two tables of labels differ, rows of one table alone included."""
    pair = found[[*KEY, column]].merge(expected[[*KEY, column]], on=KEY, how="outer", suffixes=("", "_expected"))
    left, right = pair[column].to_numpy(float), pair[f"{column}_expected"].to_numpy(float)
    return pair[~((left == right) | (np.isnan(left) & np.isnan(right)))]


# --- a usage-based book of real events


def test_openstack_reaches_what_can_be_reached(openstack):
    report = command("report", "--workspace", openstack, data=DATA)
    churn = report["targets"]["churn"]
    assert (churn["test_from"], len(churn["folds"])) == ("2016-01-01T00:00:00", 10)
    assert churn["role"] == "champion"
    assert churn["baselines"]["recency"]["gain"]["low"] > 0.02
    assert churn["baselines"]["logistic regression"]["gain"]["low"] > 0
    assert report["targets"]["expansion"]["baselines"]["recency"]["gain"]["low"] > 0.1
    run = openstack / ".renewcast" / "training" / report["run"]
    assert auc_between(run, "churn", "2016-01-01", "2018-01-01") >= 0.84
    assert auc_between(run, "expansion", "2016-01-01", "2018-01-01") >= 0.72


def auc_between(run: Path, target: str, first: str, last: str) -> float:
    """Return the AUC on the test rows of a period that a protocol names."""
    held_out = read_backtest(run, target)
    rows = held_out[(held_out["stage"] == "test") & held_out["cutoff"].between(pd.Timestamp(first), pd.Timestamp(last))]
    assert len(rows) > 2000
    return float(roc_auc_score(rows["target"], rows["probability"]))


def test_openstack_labels_are_those_of_the_protocol(openstack):
    events = pd.read_parquet(DATA / "openstack_orgs" / "events.parquet")
    end, days = events["event_time"].max(), pd.Timedelta(days=180)
    rows = []
    for cutoff in pd.date_range("2011-07-01", end, freq="MS"):
        past = events[(events["event_time"] > cutoff - days) & (events["event_time"] <= cutoff)]
        future = events[(events["event_time"] > cutoff) & (events["event_time"] <= cutoff + days)]
        counts = past.groupby("account_id").size()
        eligible = counts.index[counts >= 3]
        users = past.groupby("account_id")["user_id"].nunique().reindex(eligible)
        later = future.groupby("account_id")["user_id"].nunique().reindex(eligible, fill_value=0)
        closed = cutoff + days <= end
        grown = (later >= 1.25 * users) & (later >= users + 1)
        row = pd.DataFrame({"account_id": eligible, "cutoff": cutoff, "churn": (later == 0).to_numpy(), "expansion": grown.to_numpy()})
        row = row.astype({"churn": float, "expansion": float})
        row.loc[[not closed] * len(row), ["churn", "expansion"]] = np.nan
        rows.append(row)
    expected = pd.concat(rows)
    found = snapshots(openstack, "labels")
    found = found[found["cutoff"].dt.day == 1]  # not the cutoff of today's scores
    assert len(disagreements(found, expected, "churn")) == 0
    assert len(disagreements(found, expected, "expansion")) == 0


def test_another_folder_with_tables_of_the_same_shape(tmp_path):
    events = pd.read_parquet(needs("openstack_orgs") / "events.parquet")
    kept = events[pd.util.hash_array(events["account_id"].to_numpy(object)) % 10 < 6]
    (tmp_path / "data" / "openstack_orgs").mkdir(parents=True)
    kept.to_parquet(tmp_path / "data" / "openstack_orgs" / "events.parquet", index=False)
    other = whole_job("openstack_orgs", tmp_path / "book", tmp_path / "data")
    assert set(snapshots(other, "features")["account_id"]) <= set(kept["account_id"])
    churn = command("report", "--workspace", other, data=tmp_path / "data")["targets"]["churn"]
    assert churn["status"] == "trained"
    assert auc_of(churn) > churn["baselines"]["recency"]["auc"]["value"]


# --- a subscription-based book


def test_crm_reaches_what_can_be_reached(crm):
    targets = command("report", "--workspace", crm, data=DATA)["targets"]
    assert targets["churn"]["test_from"] >= "2023-06-30", "training labels end before, at 2023-04-01"
    assert 0.745 <= auc_of(targets["churn"]) <= 0.80, "much of the churn has no cause: more than that would be a leak"
    assert auc_of(targets["expansion"]) >= 0.93


def crm_terms() -> pd.DataFrame:
    dates = {"parse_dates": ["start_date", "end_date"], "dtype": {"account_id": str}}
    terms = pd.read_csv(DATA / "fightchurn_crm5" / "subscriptions.csv", **dates)
    months = terms["bill_period_months"].map(lambda count: pd.DateOffset(months=count))
    terms["planned"] = [start + period for start, period in zip(terms["start_date"], months, strict=True)]
    return terms


def test_crm_labels_are_those_of_the_protocol(crm):
    terms, horizon, grace = crm_terms(), pd.Timedelta(days=90), pd.Timedelta(days=30)
    terms = terms[terms["units"] == "users"].sort_values(["account_id", "start_date"])
    reached = terms.groupby("account_id")["end_date"].cummax()
    terms["stops_at"] = reached
    following = terms.groupby("account_id")["start_date"].shift(-1)
    stops = terms[following.isna() | (following > reached + grace)]
    until = pd.Timestamp("2024-01-01")
    found = snapshots(crm, "labels")
    found = found[found["churn"].notna()]
    assert (found["cutoff"] + horizon + grace <= until).all()
    paired = found[KEY].merge(stops[["account_id", "stops_at"]], on="account_id", how="left")
    paired["churn"] = ((paired["stops_at"] > paired["cutoff"]) & (paired["stops_at"] <= paired["cutoff"] + horizon)).astype(float)
    expected = paired.groupby(KEY, as_index=False)["churn"].max()
    assert len(found) > 30_000
    assert len(disagreements(found, expected, "churn")) == 0


@pytest.fixture(scope="session")
def overwritten() -> pd.DataFrame:
    """The terms whose end was overwritten with the day of leaving."""
    needs("fightchurn_crm5")
    terms = crm_terms()
    return terms[terms["end_date"] < terms["planned"] - pd.Timedelta(days=3)]


def part_of_crm(folder: Path, accounts: set[str], *, restored: bool) -> Path:
    """Write the tables of some accounts, with the ends as they were before they were overwritten if `restored`."""
    target = folder / "fightchurn_crm5"
    target.mkdir(parents=True)
    source = DATA / "fightchurn_crm5"
    shutil.copy(source / "event_types.csv", target)
    members = pd.read_csv(source / "accounts.csv", dtype=str, keep_default_na=False)
    members[members["account_id"].isin(accounts)].to_csv(target / "accounts.csv", index=False)
    usage = pd.read_parquet(source / "usage_daily.parquet", filters=[("account_id", "in", [int(account) for account in accounts])])
    usage.to_parquet(target / "usage_daily.parquet", index=False)
    terms = crm_terms()
    terms = terms[terms["account_id"].isin(accounts)]
    if restored:
        terms["end_date"] = terms[["end_date", "planned"]].max(axis=1)
    terms.drop(columns="planned").to_csv(target / "subscriptions.csv", index=False, date_format="%Y-%m-%d")
    return folder


def features_of(folder: Path, data: Path, *, naive: bool = False) -> Path:
    workspace = copied("fightchurn_crm5", folder)
    if naive:
        config = (workspace / "renewcast.toml").read_text()
        lines = [line for line in config.splitlines() if not line.startswith(("end_date = ", "ended_at = "))]
        (workspace / "renewcast.toml").write_text("\n".join(lines))
    command("check", "--workspace", workspace, data=data)
    command("features", "--workspace", workspace, data=data)
    return workspace


def differing(one: pd.DataFrame, other: pd.DataFrame) -> set[str]:
    """Return the columns in which two tables with the same rows differ."""
    assert one[KEY].equals(other[KEY])
    return {name for name in one if not one[name].equals(other[name])}


def test_nobody_knows_that_a_customer_will_leave_in_mid_term(tmp_path, overwritten):
    left_at = overwritten.groupby("account_id")["end_date"].min()
    others = sorted(set(crm_terms()["account_id"]) - set(left_at.index), key=int)[:60]
    accounts = set(left_at.index) | set(others)
    as_is, restored = (part_of_crm(tmp_path / name, accounts, restored=name == "restored") for name in ("as_is", "restored"))
    found = snapshots(features_of(tmp_path / "book", as_is), "features")
    never = snapshots(features_of(tmp_path / "never", restored), "features")
    naive = snapshots(features_of(tmp_path / "naive", as_is, naive=True), "features")
    assert 15 <= len(left_at) <= 21
    first = left_at.min()
    assert differing(found[found["cutoff"] < first].reset_index(drop=True), never[never["cutoff"] < first].reset_index(drop=True)) == set()
    before = [frame[frame["cutoff"] < frame["account_id"].map(left_at)].reset_index(drop=True) for frame in (found, never, naive)]
    assert len(before[0]) > 100
    own = [f.name for f in read_catalogue(tmp_path / "book/.renewcast/snapshots/catalogue.json") if f.family not in {"peers", "partner"}]
    assert differing(before[0][[*KEY, *own]], before[1][[*KEY, *own]]) == set()
    assert "days_to_renewal" in differing(before[0][[*KEY, *own]], before[2][[*KEY, *own]]), "the overwritten end would have leaked"
    after = [frame[frame["cutoff"] >= frame["account_id"].map(left_at)] for frame in (found, never)]
    assert len(after[0]) < len(after[1]), "once they have left, it is known"


# --- tables without a signal


def test_nothing_is_found_where_nothing_is(tmp_path):
    needs("ravenstack")
    workspace = copied("ravenstack", tmp_path / "book")
    for step in ("check", "features", "train"):
        command(step, "--workspace", workspace, data=DATA)
    report = command("report", "--workspace", workspace, data=DATA)
    churn = report["targets"]["churn"]
    assert (churn["status"], report["horizon_days"]) == ("trained", 90)
    assert churn["test_positives"] >= 150
    assert auc_of(churn) <= 0.60


# --- the pages of both


PAGES = ("/", "/?view=growth", "/retention", "/track-record", "/partners", "/models")


@pytest.mark.parametrize("book", ["openstack", "crm"])
def test_pages_of_a_real_book_are_whole(request, book, visitors):
    app = create_app(load_workspace(request.getfixturevalue(book), os.environ | {"RENEWCAST_DATA": str(DATA)}))
    with served(app) as address:
        page = visitors(app, address, VENDOR, viewport=DESK, color_scheme="light")
        account = page.locator("table.book tbody th a").first.get_attribute("href")
        addresses = [address + path for path in (*PAGES, account, f"{account}/what-if")]
        answers = {each: page.goto(each).status for each in addresses}
        assert {each: status for each, status in answers.items() if status != 200} == {}
        page.goto(address + account)
        expect(page.get_by_role("heading", name="Why it might leave")).to_be_visible()
        assert faults(page, addresses) == {}
        assert faults(visitors(app, address, VENDOR, viewport=PHONE, color_scheme="dark"), addresses) == {}
