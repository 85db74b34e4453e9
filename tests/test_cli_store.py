import csv
import io
import json
from asyncio import run as wait
from dataclasses import replace

import pytest

from features.workspace import load_workspace
from serving.callers.identity import Principal
from serving.callers.journal import Journal
from serving.permissions.caller import VENDOR
from serving.records.store import open_store
from serving.records.tables import NEWEST
from tests.serving_book import CONFIG
from tests.small_book import run, summary_of

READER = Principal(VENDOR, "key:1", frozenset(), "analyst", "crm")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "renewcast.toml").write_text(CONFIG)
    return tmp_path


def read(folder, *accounts, principal=READER):
    workspace = load_workspace(folder, {})
    store = open_store(workspace.database)
    journal = Journal(store, workspace.state / "journal")
    wait(journal.read(accounts, principal=principal, action="read account", score_set="v1"))
    journal._segments.close()  # the process ends before it has shipped them
    store.dispose()


def exported(folder, *words):
    ran = run("journal", "export", "--workspace", folder, *words)
    assert ran.exit_code == 0, ran.stderr
    return ran.stdout


def test_the_journal_is_written_with_what_a_service_left_behind(folder):
    assert exported(folder) == ""
    read(folder, "a", "b")
    lines = [json.loads(line) for line in exported(folder).splitlines()]
    assert [(line["account_id"], line["caller"], line["role"], line["outcome"]) for line in lines] == [
        ("a", "vendor", "analyst", "read"),
        ("b", "vendor", "analyst", "read"),
    ]
    assert all(line["at"].endswith("Z") for line in lines)


def test_times_and_accounts_choose_lines(folder):
    read(folder, "a", "b")
    assert len(exported(folder, "--account", "b").splitlines()) == 1
    assert exported(folder, "--until", "2020-01-01") == ""
    assert len(exported(folder, "--since", "2020-01-01", "--until", "2100-01-01T00:00:00Z").splitlines()) == 2
    first = json.loads(exported(folder).splitlines()[0])["at"]
    assert len(exported(folder, "--since", first).splitlines()) == 2
    assert exported(folder, "--until", first) == ""


def test_a_spreadsheet_runs_nothing_of_it(folder, tmp_path):
    read(folder, "=1+1", 'a,b\n"c"', principal=replace(READER, subject="@crm"))
    file = tmp_path / "journal.csv"
    exported(folder, "--as", "csv", "--output", file)
    rows = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))
    assert [row["account_id"] for row in rows] == ["'=1+1", 'a,b\n"c"']
    assert {row["subject"] for row in rows} == {"'@crm"}
    assert list(rows[0])[:3] == ["line", "at", "caller"]


@pytest.mark.parametrize(
    ("words", "said"),
    [(("--as", "xml"), "jsonl, csv"), (("--since", "yesterday"), "2026-01-31"), (("--output", "/nowhere/x"), "cannot be written")],
)
def test_what_cannot_be_written_is_said(folder, words, said):
    ran = run("journal", "export", "--workspace", folder, *words)
    assert ran.exit_code == 1
    assert said in ran.stderr


def test_a_file_is_upgraded_by_the_way(folder):
    assert summary_of(run("store", "upgrade", "--workspace", folder, "--json")) == {"version": NEWEST, "before": None}
    assert summary_of(run("store", "upgrade", "--workspace", folder, "--json"))["before"] == NEWEST


def test_a_postgresql_database_is_upgraded_as_its_owner(folder, postgres_server, postgres, empty_postgres_store, monkeypatch):
    (folder / "renewcast.toml").write_text(CONFIG + '[serving]\ndatabase = "${RENEWCAST_DATABASE}"\n')
    monkeypatch.setenv("RENEWCAST_DATABASE", postgres.replace("reader@", "renewcast@"))
    upgrade = ("store", "upgrade", "--workspace", folder, "--json")
    assert "--owner-env NAME" in run(*upgrade).stderr
    assert "OWNER is not set" in run(*upgrade, "--owner-env", "OWNER").stderr
    assert "store upgrade" in run("keys", "list", "--workspace", folder).stderr
    monkeypatch.setenv("OWNER", postgres)
    assert summary_of(run(*upgrade, "--owner-env", "OWNER")) == {"version": NEWEST, "before": None}
    assert summary_of(run("keys", "issue", "--as", "vendor", "--label", "crm", "--workspace", folder, "--json"))["key"].startswith("rk_")
    assert [json.loads(line)["action"] for line in exported(folder).splitlines()] == ["issue key"]
    monkeypatch.delenv("RENEWCAST_DATABASE")
    assert "set the variable that it names" in run("keys", "list", "--workspace", folder).stderr
