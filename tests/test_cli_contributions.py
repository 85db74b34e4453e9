import csv
import json
from datetime import datetime, timedelta

import pandas as pd
import pyarrow.parquet as pq
import pytest

from serving.answers.feedback import Feedback, Note, Remarks
from serving.callers.identity import Principal
from serving.permissions.caller import Caller
from serving.records.store import open_store
from tests.serving_book import make_workspace
from tests.small_book import run, summary_of

NOW = datetime(2025, 7, 1, 12)


@pytest.fixture
def workspace(tmp_path):
    return make_workspace(tmp_path / "book")


@pytest.fixture
def given(tmp_path):
    file = tmp_path / "june.csv"
    file.write_text("account_id,occurred_at,channel\nacc-0004,2025-06-01,training\nacc-0007,2025-06-01,training\n")
    return file


def test_a_partner_s_file_is_checked_and_kept(workspace, given):
    found = run("contribute", given, "--as", "partner:p1", "--workspace", workspace.folder, "--json")
    assert found.exit_code == 0
    summary = summary_of(found)
    assert {name: summary[name] for name in ("given", "accepted", "quarantined", "duplicates")} == {
        "given": 2,
        "accepted": 1,
        "quarantined": 1,
        "duplicates": 0,
    }
    assert "row 2: account_id: unknown account" in found.stderr
    (row,) = pq.read_table(workspace.contributions / f"{summary['contribution_id']}.parquet").to_pylist()
    assert (row["account_id"], row["source"]) == ("acc-0004", "p1")
    assert summary_of(run("contribute", given, "--as", "partner:p1", "--workspace", workspace.folder, "--json")) == summary


@pytest.mark.parametrize(
    ("name", "who", "said"),
    [
        ("june.csv", "vendor", "only partners contribute"),
        ("june.csv", "p1", "partner:"),
        ("june.xlsx", "partner:p1", "format"),
        ("july.csv", "partner:p1", "july.csv"),
    ],
)
def test_what_cannot_be_contributed_is_refused_with_what_to_do(workspace, given, name, who, said):
    found = run("contribute", given.with_name(name), "--as", who, "--workspace", workspace.folder)
    assert found.exit_code == 1
    assert said in found.stderr


@pytest.fixture
def said(workspace):
    store = open_store(workspace.database)
    remarks, who = Remarks(store), Principal(Caller("p1"), "session", frozenset(), "csm", "ada")
    words = '=HYPERLINK("x")'
    remarks.add(who, "a1", Feedback(target="churn", agrees=False, reason="other", words=words, score_set="s", probability=0.25), at=NOW)
    remarks.add(who, "a2", Feedback(target="churn", agrees=True, score_set="s", probability=0.5), at=NOW + timedelta(days=1))
    remarks.add(who, "a1", Note(text="Calm", occurred_at=NOW), at=NOW)
    store.dispose()


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_what_people_said_is_written_for_data_scientists(workspace, said, tmp_path, suffix):
    file = tmp_path / f"feedback.{suffix}"
    assert summary_of(run("feedback", "export", file, "--workspace", workspace.folder, "--json"))["rows"] == 2
    if suffix == "csv":
        with file.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert rows[0]["words"] == """'=HYPERLINK("x")"""
    elif suffix == "jsonl":
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        assert rows[0]["words"] == '=HYPERLINK("x")'
        assert rows[0]["recorded_at"].startswith("2025-07-01T12:00:00")
    else:
        rows = pd.read_parquet(file).to_dict("records")
        assert rows[0]["recorded_at"] == pd.Timestamp(NOW)
    assert {row["account_id"]: float(row["probability"]) for row in rows} == {"a1": 0.25, "a2": 0.5}
    assert {row["subject"] for row in rows} == {"ada"}


def test_each_kind_is_written_by_itself_and_an_empty_one_too(workspace, said, tmp_path):
    for kind, rows in (("notes", 1), ("plays", 0)):
        file = tmp_path / f"{kind}.parquet"
        run("feedback", "export", file, "--kind", kind, "--workspace", workspace.folder)
        assert len(pd.read_parquet(file)) == rows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x.xlsx",), "does not tell its format"),
        (("x.csv", "--kind", "note"), "did you mean 'notes'?"),
        (("no/folder/x.csv",), "cannot be written"),
    ],
)
def test_an_export_that_cannot_be_is_refused_with_what_to_do(workspace, tmp_path, arguments, message):
    name, *more = arguments
    found = run("feedback", "export", tmp_path / name, *more, "--workspace", workspace.folder)
    assert found.exit_code == 1
    assert message in found.stderr
