import csv
import json
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.catalogue import Catalogue
from features.contributed import (
    contribution_file,
    given_rows,
    tables_with_contributions,
    withdraw_contribution,
    write_contribution,
)
from features.engagement import engagement_features
from features.engine import Engine
from features.intake import check_workspace, intake_fingerprint
from features.plan import open_tables
from features.slices import KnownTables, Spine
from features.snapshots import build_matrix
from features.workspace import load_workspace

NOW = datetime(2025, 1, 1)
RECEIVED = datetime(2024, 6, 10, 9, 30)
WITHDRAWN = datetime(2024, 8, 20)
ENGAGEMENT = "account_id,occurred_at,channel\nA,2024-01-05,training\nA,2024-02-05,meeting\nB,2024-02-05,meeting\n"


@pytest.fixture
def workspace(tmp_path):
    (tmp_path / "accounts.csv").write_text("account_id\nA\nB\n")
    (tmp_path / "events.csv").write_text("account_id,occurred_at,event\nA,2024-01-01,login\nB,2024-11-01,login\n")
    (tmp_path / "contacts.csv").write_text(ENGAGEMENT)
    tables = {"accounts": "accounts", "telemetry": "events", "engagement": "contacts"}
    (tmp_path / "renewcast.toml").write_text("".join(f'[tables.{name}]\nsource = "{file}.csv"\n' for name, file in tables.items()))
    return load_workspace(tmp_path, {})


def contribute(workspace, rows, *, name="c1", partner_id="p1", at=RECEIVED):
    columns = ("account_id", "occurred_at", "channel")
    table = pa.table({column: [row[position] for row in rows] for position, column in enumerate(columns)})
    table = table.append_column("row", [list(range(1, len(rows) + 1))]).append_column("row_hash", [[f"{name}-{row}" for row in rows]])
    write_contribution(workspace, name, table, partner_id=partner_id, received_at=at)


def kept(workspace, *names):
    rows = pq.read_table(workspace.tables / "engagement.parquet").to_pylist()
    return [tuple(row[name] for name in names) for row in rows]


TRAINING = ("A", datetime(2024, 5, 1), "training")


def test_a_workspace_without_contributions_is_what_it_was(workspace):
    assert tables_with_contributions(workspace) is workspace.config.tables
    before = intake_fingerprint(workspace)
    contribute(workspace, [TRAINING])
    after = intake_fingerprint(workspace)
    assert before != after
    withdraw_contribution(workspace, "c1", at=WITHDRAWN)
    assert intake_fingerprint(workspace) not in (before, after)


def test_contributed_rows_are_read_beside_the_workspace_s_own_which_are_the_vendor_s(workspace):
    contribute(workspace, [TRAINING])
    check_workspace(workspace, now=NOW)
    assert kept(workspace, "account_id", "channel", "source", "known_at") == [
        ("A", "training", "vendor", datetime(2024, 1, 5)),
        ("A", "meeting", "vendor", datetime(2024, 2, 5)),
        ("B", "meeting", "vendor", datetime(2024, 2, 5)),
        ("A", "training", "p1", RECEIVED),
    ]


def test_an_engagement_table_can_come_from_contributions_alone(workspace):
    text = (workspace.folder / "renewcast.toml").read_text()
    (workspace.folder / "renewcast.toml").write_text(text[: text.index("[tables.engagement]")])
    alone = load_workspace(workspace.folder, {})
    assert "engagement" in check_workspace(alone, now=NOW).missing_tables
    contribute(alone, [TRAINING])
    contribute(alone, [("B", datetime(2024, 5, 1), "Health_Note")], name="c2")
    summary = check_workspace(alone, now=NOW)
    assert "engagement" not in summary.missing_tables
    assert list(tables_with_contributions(alone)) == ["accounts", "telemetry", "engagement"]
    assert kept(alone, "account_id", "source") == [("A", "p1")]
    contribution_file(alone, "c1").unlink()
    check_workspace(alone, now=NOW)
    assert kept(alone, "account_id", "source") == []


def test_counts_and_quarantine_name_the_contribution_and_no_partner_can_stop_the_vendor_s_run(workspace):
    contribute(workspace, [("gone", datetime(2024, 5, 1), "training")] * 50 + [TRAINING], name="c7")
    contribute(workspace, [("B", datetime(2024, 5, 2), "training")], name="c8", partner_id="p2")
    table = check_workspace(workspace, now=NOW).table("engagement")
    assert {name: (rows.rows_in, rows.quarantined) for name, rows in table.contributed.items()} == {"c7": (51, 50), "c8": (1, 0)}
    assert (table.rows_in, table.quarantined, table.share_quarantined) == (55, 50, 0.0)
    assert json.loads(workspace.check_report.read_text())["tables"][2]["contributed"]["c7"] == {"rows_in": 51, "quarantined": 50}
    with (workspace.quarantine / "engagement.csv").open(newline="") as lines:
        found = list(csv.DictReader(lines))
    assert {(line["file"], line["reasons"]) for line in found} >= {(str(contribution_file(workspace, "c7")), "account_id: unknown account")}


def test_a_contribution_is_seen_from_its_receipt_to_its_withdrawal_and_not_before(workspace):
    contribute(workspace, [TRAINING, ("A", datetime(2024, 5, 2), "meeting")])
    withdraw_contribution(workspace, "c1", at=WITHDRAWN)
    check_workspace(workspace, now=NOW)
    day = timedelta(days=1)
    cutoffs = [datetime(2024, 6, 1), RECEIVED - timedelta(microseconds=1), RECEIVED, WITHDRAWN - day, WITHDRAWN, WITHDRAWN + day]
    catalogue = Catalogue(
        tuple(feature for feature in engagement_features() if feature.name in ("trainings_ever", "contacts_partner_182d"))
    )
    spine = Spine(pa.array(["A"] * len(cutoffs)), pa.array(cutoffs, pa.timestamp("us")))
    with Engine() as engine:
        known = KnownTables(engine, open_tables(engine, workspace.tables), spine)
        matrix = build_matrix(known, spine, catalogue)
    assert matrix["trainings_ever"].to_pylist() == [1, 1, 2, 2, 1, 1]
    assert matrix["contacts_partner_182d"].to_pylist() == [0, 0, 2, 2, 0, 0]


def test_rows_that_were_given_are_remembered_by_their_hashes(workspace):
    contribute(workspace, [TRAINING])
    contribute(workspace, [("B", datetime(2024, 5, 2), "training")], name="c2")
    assert len(given_rows(workspace, ["c1", "c2", "nothing-kept"])) == 2
    assert given_rows(workspace, []) == set()
