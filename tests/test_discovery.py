import os
import tomllib
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.discovery import propose_workspace
from features.errors import SourceError
from features.intake import check_workspace
from features.workspace import load_workspace

NOW = datetime(2026, 11, 1)


def accept(proposal, folder: Path):
    """Take a proposal as it is and load it."""
    folder.mkdir(exist_ok=True)
    (folder / "renewcast.toml").write_text(proposal.text, encoding="utf-8")
    return load_workspace(folder, {})


def mapped(proposal) -> dict:
    """Return what a proposal says about each table."""
    return tomllib.loads(proposal.text)["tables"]


@pytest.fixture
def book(tmp_path):
    """A folder of files as a vendor might export them."""
    folder = tmp_path / "book"
    (folder / "events" / "day=2024-01-01").mkdir(parents=True)
    (folder / "customers.csv").write_text(
        "client_id,company_name,signup_date,sector,churn_flag,channel\n1,Ann,2023-01-01,Retail,0,web\n2,Bob,2023-02-01,IT,1,app\n"
    )
    (folder / "contracts.csv").write_text(
        "contract_id,customer_id,start_date,end_date,mrr,seats\nc1,1,2023-01-01,2024-01-01,10.5,3\nc2,2,2023-02-01,2024-02-01,20,4\n"
    )
    (folder / "cases.jsonl").write_text('{"case_id": "t1", "customer_id": 1, "created_at": "2023-05-01T10:00:00Z", "priority": "high"}\n')
    events = {"customer_id": [1, 2], "timestamp": [datetime(2024, 1, 1, 5), datetime(2024, 1, 1, 6)], "action": ["login", "open"]}
    pq.write_table(pa.table(events), folder / "events" / "day=2024-01-01" / "part.parquet")
    (folder / "notes.csv").write_text("line,text\n1,hello\n2,there\n")
    (folder / "broken.parquet").write_bytes(b"no parquet")
    return folder


def test_tables_and_columns_are_guessed_from_names_and_values(book):
    tables = mapped(propose_workspace(book))
    assert set(tables) == {"accounts", "telemetry", "subscriptions", "tickets"}
    assert tables["accounts"]["source"] == "customers.csv"
    assert tables["accounts"]["columns"] == {
        "account_id": "client_id",
        "created_at": "signup_date",
        "name": "company_name",
        "industry": "sector",
    }
    assert tables["accounts"]["attributes"] == {"channel": "category"}
    assert tables["telemetry"]["source"] == "events"
    assert tables["telemetry"]["columns"] == {"account_id": "customer_id", "occurred_at": "timestamp", "event": "action"}
    assert tables["subscriptions"]["columns"]["subscription_id"] == "contract_id"
    assert tables["subscriptions"]["columns"]["arr"] == {"sql": "12 * mrr"}
    assert tables["tickets"]["columns"]["severity"] == "priority"


def test_what_could_not_be_guessed_is_said(book):
    proposal = propose_workspace(book)
    assert "customers.csv: churn_flag is not used, because it may be known only later" in proposal.unknown
    assert "notes.csv: not used" in proposal.unknown
    assert any(line.startswith("broken.parquet cannot be read") for line in proposal.unknown)
    assert any(line.startswith("subscriptions: contracts.csv") for line in proposal.guessed)
    assert "churn_flag" not in proposal.text
    assert "# not found:" in proposal.text


def test_the_guessed_workspace_loads_and_checks(book, tmp_path):
    workspace = accept(propose_workspace(book), tmp_path / "ws")
    assert workspace.config.targets.kind == "subscription"
    summary = check_workspace(workspace, now=NOW)
    assert {table.table: (table.rows_in, table.quarantined) for table in summary.tables} == {
        "accounts": (2, 0),
        "telemetry": (2, 0),
        "subscriptions": (2, 0),
        "tickets": (1, 0),
    }
    subscriptions = pq.read_table(workspace.tables / "subscriptions.parquet")
    assert sorted(subscriptions["arr"].to_pylist()) == [126.0, 240.0]


def test_accounts_that_no_file_lists_are_taken_from_what_they_did(tmp_path):
    (tmp_path / "usage.csv").write_text("org_id,event_time,event_name\n1,2024-01-02,a\n1,2024-01-01,b\n")
    proposal = propose_workspace(tmp_path)
    assert "min(event_time) AS created_at" in mapped(proposal)["accounts"]["query"]
    assert any("no file lists the accounts" in line for line in proposal.unknown)
    accept(proposal, tmp_path / "ws")


def test_dates_that_can_be_read_in_two_ways_are_asked_about(tmp_path):
    (tmp_path / "usage.csv").write_text("org_id,event_time,event_name\n1,01/02/2024,a\n1,03/02/2024,b\n")
    assert "telemetry.occurred_at: is the day or the month first? Give it a time_format" in propose_workspace(tmp_path).unknown


def test_names_that_sql_or_toml_would_misread_are_quoted(tmp_path):
    (tmp_path / "customers.csv").write_text('account_id,name,the "best" size\n1,A,3\n2,B,4\n')
    (tmp_path / "usage.csv").write_text("account_id,day,feature,count\n1,2024-01-01,a,3\n")
    (tmp_path / "billing.csv").write_text("account_id,month,subtotal,currency\n1,2024-01-01,5,EUR\n")
    proposal = propose_workspace(tmp_path)
    tables = mapped(proposal)
    assert tables["accounts"]["attributes"] == {'the "best" size': "number"}
    assert tables["subscriptions"]["columns"]["end_date"] == {"sql": '"month" + INTERVAL 1 MONTH'}
    assert tables["telemetry"]["columns"]["occurred_at"] == {"sql": "day + INTERVAL 1 DAY"}
    assert "what one EUR is worth in USD: complete [currencies]" in proposal.unknown
    accept(proposal, tmp_path / "ws")


def test_a_folder_that_does_not_exist_or_is_empty(tmp_path):
    with pytest.raises(SourceError, match="does not exist"):
        propose_workspace(tmp_path / "nowhere")
    assert "telemetry: needed, but no file looks like it" in propose_workspace(tmp_path).unknown


DATA = Path(os.environ.get("RENEWCAST_DATA", Path(__file__).parent.parent / ".." / "shared" / "data")).absolute()


@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("openstack_orgs", {"accounts": "events.parquet", "telemetry": "events.parquet"}),
        ("fightchurn_crm5", {"accounts": "accounts.csv", "telemetry": "usage_daily.parquet", "subscriptions": "subscriptions.csv"}),
        (
            "ravenstack",
            {
                "accounts": "ravenstack_accounts.csv",
                "telemetry": "ravenstack_feature_usage.csv",
                "subscriptions": "ravenstack_subscriptions.csv",
                "tickets": "ravenstack_support_tickets.csv",
            },
        ),
    ],
)
def test_real_folders_are_guessed_as_a_human_would(name, tables, tmp_path):
    if not (DATA / name).is_dir():
        pytest.skip(f"needs the tables of {name} in {DATA}; set RENEWCAST_DATA to the folder that holds them")
    proposal = propose_workspace(DATA / name)
    assert {table: said["source"] for table, said in mapped(proposal).items()} == tables
    assert accept(proposal, tmp_path).config.tables


def test_a_folder_with_subfolders_and_several_sources_of_a_table(tmp_path):
    if not (DATA / "cloud_provider").is_dir():
        pytest.skip(f"needs the tables of cloud_provider in {DATA}; set RENEWCAST_DATA to the folder that holds them")
    proposal = propose_workspace(DATA / "cloud_provider")
    tables = mapped(proposal)
    assert tables["telemetry"]["source"] == "landing/usage_events_stream"
    assert [source["source"] for source in tables["engagement"]["sources"]] == ["landing/nps_surveys.csv", "landing/marketing_touches.csv"]
    assert "lifecycle_stage" not in tables["accounts"]["attributes"]
    accept(proposal, tmp_path)


def test_a_folder_without_telemetry_says_what_is_missing():
    if not (DATA / "powerco_sme").is_dir():
        pytest.skip(f"needs the tables of powerco_sme in {DATA}; set RENEWCAST_DATA to the folder that holds them")
    proposal = propose_workspace(DATA / "powerco_sme")
    assert mapped(proposal)["accounts"]["columns"] == {"account_id": "id"}
    assert "telemetry: needed, but no file looks like it" in proposal.unknown
    assert "churn" not in mapped(proposal)["accounts"]["attributes"]
