"""The door for notebooks: tables and snapshots as data frames."""

import pytest

from features import load_workspace, read_snapshot, read_table
from features.errors import WorkspaceError


def test_tables_and_snapshots_are_read_as_they_are(finished_book):
    workspace = load_workspace(finished_book)
    accounts = read_table(workspace, "accounts")
    assert len(accounts) == accounts["account_id"].nunique() == 150
    parts = {part: read_snapshot(workspace, part) for part in ("features", "labels", "groups")}
    keys = [frame[["account_id", "cutoff"]] for frame in parts.values()]
    assert keys[0].equals(keys[1])
    assert keys[0].equals(keys[2])
    assert {"churn", "contraction", "expansion"} <= set(parts["labels"].columns)
    assert read_snapshot(workspace, "movements")["arr"].gt(0).all()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("acounts", r"no table of this name(.|\n)*did you mean 'accounts'"),
        ("tickets", r"the table tickets is not there(.|\n)*Add \[tables.tickets\] to the config"),
        ("telemetry", r"the table telemetry is not there(.|\n)*renewcast check"),
    ],
)
def test_a_table_that_is_not_there(tmp_path, table, message):
    (tmp_path / "renewcast.toml").write_text('[tables.accounts]\nsource = "a.csv"\n[tables.telemetry]\nsource = "t.csv"\n')
    with pytest.raises(WorkspaceError, match=message):
        read_table(load_workspace(tmp_path), table)


def test_snapshots_that_are_not_there(tmp_path):
    (tmp_path / "renewcast.toml").write_text('[tables.accounts]\nsource = "a.csv"\n[tables.telemetry]\nsource = "t.csv"\n')
    with pytest.raises(WorkspaceError, match=r"the labels of this workspace are not there(.|\n)*renewcast features"):
        read_snapshot(load_workspace(str(tmp_path)), "labels")
