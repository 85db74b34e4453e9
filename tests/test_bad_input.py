"""What the command says where something is wrong: each answer names the thing and what to do, and machines get it as JSON."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.served import ROOT
from tests.small_book import run, summary_of, write_book


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """A workspace with tables of its own, on which nothing was done yet."""
    return write_book(tmp_path / "book")


def refused(*arguments: object, error: str) -> str:
    """Run a command that must refuse, and return what it says; people and machines are told the same."""
    ran = run(*arguments, "--json")
    found = summary_of(ran)
    assert (ran.exit_code, found["status"], found["error"]) == (1, "failed", error)
    assert ran.stderr.endswith(f"Error {found['message']}\n")
    assert "Traceback" not in ran.stderr
    return str(found["message"])


def lines(file: str, edit: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    """Return a change to the lines of a table."""

    def change(folder: Path) -> None:
        text = (folder / file).read_text().splitlines()
        (folder / file).write_text("\n".join(edit(text)) + "\n")

    return change


def setting(old: str, new: str) -> Callable[[Path], None]:
    """Return a change to the config."""

    def change(folder: Path) -> None:
        config = (folder / "renewcast.toml").read_text()
        assert old in config
        (folder / "renewcast.toml").write_text(config.replace(old, new))

    return change


def without(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def emptied(file: str, keep: int) -> Callable[[Path], None]:
    """Return a change that leaves the first lines of a table only."""
    if keep == 0:
        return lambda folder: (folder / file).write_bytes(b"")
    return lines(file, lambda text: text[:keep])


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        pytest.param(
            without("telemetry.csv"), "SourceError", ["the file does not exist", "telemetry.csv", "Correct the path"], id="a missing file"
        ),
        pytest.param(
            setting('[tables.telemetry]\nsource = "telemetry.csv"\n', ""),
            "ConfigError",
            ["tables.telemetry is missing", "Add [tables.telemetry]"],
            id="a missing table",
        ),
        pytest.param(
            lines("telemetry.csv", lambda text: [text[0].replace("occurred_at", "happened"), *text[1:]]),
            "ContractError",
            ["telemetry", "occurred_at", "happened", "[tables.telemetry.columns]"],
            id="a missing column",
        ),
        pytest.param(
            setting('source = "telemetry.csv"', ""), "ConfigError", ["tables.telemetry", "source", "is missing"], id="a missing key"
        ),
        pytest.param(
            setting("horizon_days = 60", "horizont_days = 60"), "ConfigError", ["targets.horizont_days", "'horizon_days'"], id="a typo"
        ),
        pytest.param(setting("[features]", "[feature]"), "ConfigError", ["feature", "'features'"], id="a typo in a section"),
        pytest.param(
            setting("horizon_days = 60", 'horizon_days = "sixty"'), "ConfigError", ["targets.horizon_days", '"sixty"'], id="a value"
        ),
        pytest.param(setting("horizon_days = 60", "horizon_days 60"), "ConfigError", ["is not TOML", "line"], id="no TOML"),
        pytest.param(emptied("telemetry.csv", 0), "SourceError", ["telemetry.csv", "empty"], id="an empty file"),
        pytest.param(
            emptied("telemetry.csv", 1), "SourceError", ["the table has no rows", "telemetry.csv"], id="a file with a header only"
        ),
        pytest.param(emptied("accounts.csv", 1), "SourceError", ["the table has no rows", "accounts.csv"], id="no accounts"),
        pytest.param(
            lines("subscriptions.csv", lambda text: [text[0], *(row.rpartition(",")[0] + ",gold" for row in text[1:])]),
            "ContractError",
            ["subscriptions", "arr", "gold", "number"],
            id="a wrong type",
        ),
        pytest.param(
            lines("telemetry.csv", lambda text: [row.replace(",2023-", ",2123-") for row in text]),
            "QuarantineError",
            ["telemetry", "occurred_at", "in the future", "quarantine"],
            id="dates in the future",
        ),
        pytest.param(
            lines("telemetry.csv", lambda text: [row.replace("a1", "x1", 1) for row in text]),
            "QuarantineError",
            ["telemetry", "account_id: unknown account", "quarantine_limit", "x1"],
            id="many unknown accounts",
        ),
    ],
)
def test_tables_and_config(tables, change, error, said):
    change(tables)
    message = refused("up", "--no-serve", "--workspace", tables, error=error)
    for words in said:
        assert words in message
    assert "next: " in message or "allowed: " in message


def test_a_few_broken_rows_are_set_aside_and_counted(tables):
    lines("telemetry.csv", lambda text: [*text, "nobody,2023-05-01,u1,open", "a001,2323-05-01,u1,open", "a001,soon,u1,open"])(tables)
    found = summary_of(run("check", "--workspace", tables, "--json"))
    assert found["tables"]["telemetry"]["quarantined"] == 3
    assert found["place"] == str(tables / ".renewcast" / "quarantine")
    listed = (tables / ".renewcast" / "quarantine" / "telemetry.csv").read_text()
    for reason in ("account_id: unknown account", "occurred_at: in the future", "occurred_at: not a time"):
        assert reason in listed


def test_too_few_positives_say_how_many_there_are_and_are_needed(book):
    setting("minimum_positives = 8", "minimum_positives = 100")(book)
    message = refused("up", "--no-serve", "--workspace", book, error="NotEnoughDataError")
    assert "rows to train on are positive" in message
    assert "at least 100 of each kind on both sides" in message
    assert "minimum_positives" in message


def test_a_model_that_is_not_good_enough_to_score_with_is_explained(book):
    (book / ".renewcast" / "training" / "champion" / "churn").rename(book / "elsewhere")
    (book / ".renewcast" / "steps.json").write_text(
        (book / ".renewcast" / "steps.json").read_text().replace('"champions": [\n        "churn"', '"champions": [\n        "churn_"')
    )
    message = refused("score", "--workspace", book, error="NotEnoughDataError")
    assert "there is no model of churn to score with" in message
    assert "`renewcast report` says why" in message


def test_a_folder_that_is_no_workspace(tmp_path):
    message = refused("check", "--workspace", tmp_path / "nowhere", error="WorkspaceError")
    assert "renewcast init FOLDER" in message


def test_no_workspace_at_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refused("report", error="WorkspaceError")
    assert "renewcast up" in message


def test_a_workspace_that_cannot_be_written_to(tables):
    (tables / ".renewcast").write_text("a file where the folder should be")
    message = refused("check", "--workspace", tables, error="WorkspaceError")
    assert "cannot be written to" in message
    assert str(tables) in message
    assert "copy the workspace" in message


def test_a_config_that_cannot_be_written(tables, tmp_path):
    (tmp_path / "file").write_text("")
    message = refused("init", tables, "--workspace", tmp_path / "file" / "below", error="WorkspaceError")
    assert "cannot be written" in message


def test_a_simulated_book_takes_the_place_of_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".demo").write_text("a file where the folder should be")
    message = refused("up", "--no-serve", "--accounts", 60, error="WorkspaceError")
    assert "there is something else where the simulated book would be made" in message
    assert (tmp_path / ".demo").read_text() == "a file where the folder should be"


def test_a_folder_without_tables(tmp_path):
    (tmp_path / "tables").mkdir()
    assert "CSV, Parquet or JSON Lines" in refused("init", tmp_path / "tables", error="SourceError")
    assert list((tmp_path / "tables").iterdir()) == []
    refused("init", tmp_path / "nowhere", error="SourceError")


def test_a_port_in_use_is_said_before_anything_else_is_shown(finished_book):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        message = refused("serve", "--workspace", finished_book, "--port", port, error="ServiceError")
    assert "Address already in use" in message
    assert f"--port {port + 1}" in message


def test_serving_before_scoring_says_what_to_run_and_waits_for_it(tables, monkeypatch):
    served = []
    monkeypatch.setattr("serving.service.serve", lambda workspace, **_: served.append(workspace.folder))
    ran = run("serve", "--workspace", tables, "--port", 45_999)
    assert "no scores yet" in ran.stderr
    assert "Run `renewcast score`" in ran.stderr
    assert len(served) == 1


@pytest.mark.parametrize("command", ["report", "links", "keys issue --as vendor --label x"])
def test_commands_that_need_results_say_which_step_makes_them(tables, command):
    ran = run(*command.split(), "--workspace", tables)
    assert (ran.exit_code == 0) == (command != "report")
    assert ran.exit_code == 0 or "renewcast train" in ran.stderr


@pytest.mark.parametrize("port", [0, 70000])
def test_a_port_that_there_is_not(finished_book, port):
    ran = run("serve", "--workspace", finished_book, "--port", port)
    assert ran.exit_code == 2
    assert "--port" in ran.stderr


@pytest.mark.parametrize("broken", [False, True])
def test_a_process_that_ends_says_its_own_words_and_no_library_s(tables, broken):
    """A query engine whose objects outlive it would report that at the end, below what the command says."""
    if broken:
        emptied("accounts.csv", 1)(tables)
    code = "from serving.commands.cli import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", code, "check", "--workspace", tables],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == broken
    assert ran.stdout == ""
    assert ran.stderr.startswith("Error the table has no rows" if broken else "check ")
    assert "leaked" not in ran.stderr
