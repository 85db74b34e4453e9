import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import typer

from features.ledger import fingerprint_files
from features.workspace import load_workspace
from serving.commands import cli, steps
from serving.commands.steps import STEPS
from tests.ports import free_port
from tests.small_book import run, summary_of, write_book

ROOT = Path(__file__).parent.parent

TARGETS = {"churn": "trained", "contraction": "skipped", "expansion": "trained"}


def state_of(workspace: Path) -> str:
    files = {str(file): file for file in (workspace / ".renewcast").rglob("*") if file.is_file() and file.name != "lock"}
    return fingerprint_files(files)


def test_the_main_job_is_not_done_again(finished_book):
    before = state_of(finished_book)
    ran = run("up", "--workspace", finished_book, "--no-serve", "--json")
    found = summary_of(ran)
    assert ran.exit_code == 0
    assert found["status"] == "done"
    assert [(step["step"], step["status"]) for step in found["steps"]] == [(name, "unchanged") for name in STEPS]
    assert ran.stderr.count("(unchanged, not done again)") == len(STEPS)
    assert state_of(finished_book) == before


FACTS = {
    "check": {"tables", "missing_tables"},
    "features": {"rows", "accounts", "cutoffs", "features", "scoring_cutoff", "accounts_to_score", "labelled"},
    "train": {"run", "targets", "champions"},
    "score": {"version", "cutoff", "accounts", "bands", "arr", "arr_at_risk", "packages"},
}


@pytest.mark.parametrize("name", STEPS)
def test_each_step_has_a_summary_for_machines(finished_book, name):
    found = summary_of(run(name, "--workspace", finished_book, "--json"))
    assert (found["step"], found["status"]) == (name, "unchanged")
    assert found.keys() >= {"seconds", "line", "place"} | FACTS[name]
    assert Path(found["place"]).exists()


def test_scores_of_an_earlier_cutoff_are_kept_beside_the_present_ones(book):
    scores = book / ".renewcast" / "scores"
    present = (scores / "CURRENT").read_text()
    cutoffs = sorted(set(pq.read_table(book / ".renewcast" / "snapshots" / "features.parquet")["cutoff"].to_pylist()))
    ran = run("score", "--workspace", book, "--cutoff", f"{cutoffs[-3]:%Y-%m-%d}", "--json")
    found = summary_of(ran)
    assert found["cutoff"] == str(cutoffs[-3])
    assert (scores / found["version"] / "manifest.json").exists()
    assert (scores / "CURRENT").read_text() == present != found["version"]
    assert "kept beside the present scores" in ran.stderr
    wrong = run("score", "--workspace", book, "--cutoff", "1999-01-01", "--json")
    assert (wrong.exit_code, summary_of(wrong)["error"]) == (1, "NotEnoughDataError")


def test_a_deleted_result_is_made_again_and_nothing_else(book):
    month = sorted((book / ".renewcast" / "snapshots" / "features.parquet").glob("*.parquet"))[3]
    month.unlink()
    found = summary_of(run("up", "--workspace", book, "--no-serve", "--json"))
    assert [step["status"] for step in found["steps"]] == ["unchanged", "done", "unchanged", "unchanged"]
    assert month.exists()


def test_the_report_shows_measures_beside_baselines(finished_book):
    ran = run("report", "--workspace", finished_book, "--json")
    targets = summary_of(ran)["targets"]
    assert {target: part["status"] for target, part in targets.items()} == TARGETS
    churn = targets["churn"]
    assert 0.5 < churn["metrics"]["auc"]["low"] < churn["metrics"]["auc"]["value"] < churn["metrics"]["auc"]["high"] < 1
    assert churn["baselines"]["recency"]["auc"]["value"] == pytest.approx(0.7, abs=0.2)
    assert churn["best_baseline"] in churn["baselines"]
    assert f"{churn['metrics']['auc']['value']:.3f}" in ran.stderr
    assert "gain of the model" in ran.stderr
    assert "logistic regression" in ran.stderr
    assert "at least 8 of each kind" in targets["contraction"]["reason"]
    assert run("report", "--workspace", finished_book).stdout == ""


def test_the_reference_lists_every_feature(finished_book):
    features = json.loads((finished_book / ".renewcast" / "snapshots" / "catalogue.json").read_text())["features"]
    page = run("reference", "--workspace", finished_book)
    assert page.stdout.startswith("# Features\n")
    assert all(f"| `{feature['name']}` |" in page.stdout for feature in features)


def test_a_key_is_issued_once_and_revoked_once(book):
    issued = summary_of(run("keys", "issue", "--as", "vendor", "--label", "crm", "--workspace", book, "--json"))
    key_id = issued["key"].split("_")[1]
    assert (issued["caller"], issued["label"]) == ("vendor", "crm")
    revoke = ("keys", "revoke", key_id, "--workspace", book, "--json")
    assert summary_of(run(*revoke)) == {"revoked": key_id}
    again = run(*revoke)
    assert again.exit_code == 1
    assert "no key with this id" in summary_of(again)["message"]


def test_a_key_is_for_a_caller(book):
    ran = run("keys", "issue", "--as", "everybody", "--label", "x", "--workspace", book)
    assert ran.exit_code == 1
    assert "vendor, or partner:<partner_id>" in ran.stderr


def test_a_key_for_a_partner_without_accounts_is_pointed_out(book):
    ran = run("keys", "issue", "--as", "partner:p1", "--label", "x", "--workspace", book, "--json")
    assert summary_of(ran)["caller"] == "partner:p1"
    assert "no scored account is assigned to partner:p1" in ran.stderr


def test_fresh_links_are_for_the_address_that_is_served(book):
    found = summary_of(run("links", "--port", 4711, "--workspace", book, "--json"))
    assert found["vendor_link"].startswith("http://127.0.0.1:4711/sign-in?token=")
    assert found["partner_link"] is None  # the book has no partners


def answer(address: str, **options: object) -> dict[str, object]:
    with urllib.request.urlopen(urllib.request.Request(address, **options), timeout=60) as response:
        found: dict[str, object] = json.load(response)
        return found


def test_scores_are_served_until_ctrl_c(book):
    port = free_port()
    command = [
        sys.executable,
        "-c",
        "from serving.commands.cli import app; app()",
        "serve",
        "--workspace",
        str(book),
        "--port",
        str(port),
        "--json",
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as service:
        try:
            found = json.loads(service.stdout.readline())
            assert (found["status"], found["address"], found["steps"]) == ("serving", f"http://127.0.0.1:{port}", [])
            key = summary_of(run("keys", "issue", "--as", "vendor", "--label", "x", "--workspace", book, "--json"))["key"]
            wait_for(f"{found['address']}/livez")
            opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            assert "<title>The book" in opener.open(found["vendor_link"]).read().decode()
            headers = {"Authorization": f"Bearer {key}"}
            account = answer(f"{found['address']}/v1/accounts?limit=1", headers=headers)["accounts"][0]["account_id"]
            asked = json.dumps({"accounts": [account, "nobody"]}).encode()
            headers["Content-Type"] = "application/json"
            predicted = answer(f"{found['address']}/v1/predict", data=asked, headers=headers, method="POST")
            assert ([row["id"] for row in predicted["results"]], predicted["not_found"]) == ([account], ["nobody"])
            busy = run("serve", "--workspace", book, "--port", port, "--json")
            assert busy.exit_code == 1
            assert f"`renewcast serve --port {port + 1}`" in summary_of(busy)["message"]
        finally:
            service.send_signal(signal.SIGINT)
            out, err = service.communicate(timeout=120)
    assert out == "", "one line of JSON and no more"
    assert "Traceback" not in err


def wait_for(address: str) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(address, timeout=5)
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"{address} does not answer")


def test_a_config_is_guessed_and_goes_through(tmp_path):
    tables, workspace = write_book(tmp_path / "tables"), tmp_path / "workspace"
    (tables / "renewcast.toml").unlink()
    found = summary_of(run("init", tables, "--workspace", workspace, "--json"))
    assert (found["status"], found["config"]) == ("done", str(workspace / "renewcast.toml"))
    assert {line.split(":")[0] for line in found["guessed"]} == {"accounts", "telemetry", "subscriptions"}
    assert {path.name for path in tables.iterdir()} == {"accounts.csv", "telemetry.csv", "subscriptions.csv"}
    checked = summary_of(run("check", "--workspace", workspace, "--json"))
    assert {name: table["quarantined"] for name, table in checked["tables"].items()} == dict.fromkeys(checked["tables"], 0)


def test_a_config_is_not_overwritten_unasked(tmp_path):
    tables = write_book(tmp_path / "tables")
    mine = (tables / "renewcast.toml").read_text()
    refused = run("init", tables)
    assert refused.exit_code == 1
    assert "pass --replace" in refused.stderr
    assert (tables / "renewcast.toml").read_text() == mine
    assert run("init", tables, "--replace").exit_code == 0
    assert (tables / "renewcast.toml").read_text() != mine


def test_the_workspace_is_this_folder_or_a_simulated_book(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opened: list[Path] = []

    def note(_screen, name, workspace):
        opened.append(workspace.folder)
        return steps.StepResult(name, unchanged=True, seconds=0.0, summary={}, line="", place=Path())

    monkeypatch.setattr(cli, "_run", note)
    assert "simulate  a book of 60 accounts" in run("up", "--no-serve", "--accounts", 60).stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [".demo"]
    assert "simulate" not in run("up", "--no-serve").stderr
    (tmp_path / "renewcast.toml").write_text((tmp_path / ".demo" / "renewcast.toml").read_text())
    run("up", "--no-serve")
    assert list(dict.fromkeys(opened)) == [Path(".demo"), Path()]


def test_every_command_can_be_read_by_machines_and_takes_a_workspace():
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    inner = {name: getattr(command, "commands", {"": command}) for name, command in commands.items()}
    leaves = {f"{name} {below}".strip(): leaf for name, found in inner.items() for below, leaf in found.items()}
    options = {name: {option for part in leaf.params for option in part.opts} for name, leaf in leaves.items()}
    assert {name for name, found in options.items() if not {"--workspace", "--json"} <= found} == {"reference", "openapi", "journal export"}


def test_ctrl_c_keeps_what_is_finished(book, monkeypatch):
    def interrupt(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run_step", interrupt)
    ran = run("up", "--workspace", book, "--no-serve", "--json")
    assert ran.exit_code == 130
    assert summary_of(ran) == {"status": "interrupted"}
    assert "the next run goes on from there" in ran.stderr


def test_the_command_answers_at_once():
    code = """
import sys, serving.commands.cli
print(sorted({"pandas", "sklearn", "lightgbm", "scipy", "pyarrow", "duckdb", "ibis", "mlflow", "bentoml", "sqlalchemy"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_two_runs_at_once(book):
    with load_workspace(book, {}).lock("renewcast train"):
        ran = run("up", "--workspace", book, "--no-serve", "--json")
    assert ran.exit_code == 1
    message = summary_of(ran)["message"]
    assert "another process is writing to this workspace" in message
    assert f"renewcast train, process {os.getpid()}" in message
    assert run("report", "--workspace", book).exit_code == 0, "reading needs no lock"


@pytest.mark.parametrize(("name", "before"), [("features", "check"), ("train", "features"), ("score", "train")])
def test_steps_out_of_order(tmp_path, name, before):
    ran = run(name, "--workspace", write_book(tmp_path), "--json")
    assert ran.exit_code == 1
    assert f"Run `renewcast {before}` first" in summary_of(ran)["message"]


# Runs a command and kills itself, as `kill -9` would, when it is about to put the n-th result of a name in place.
KILLED = """
import os, signal, sys
from pathlib import Path
name, count, *arguments = sys.argv[1:]
left, put_in_place = int(count), Path.replace

def replace(self, target):
    global left
    left -= Path(target).name.startswith(name)
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return put_in_place(self, target)

Path.replace = replace
from serving.commands.cli import app
app(arguments)
"""


def killed(name: str, count: int, *arguments: object) -> None:
    command = [sys.executable, "-c", KILLED, name, str(count), *map(str, arguments)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == -signal.SIGKILL, ran.stderr


def goes_on(workspace: Path) -> list[str]:
    """Run the main job and return what it did; nothing half-written may be left."""
    ran = run("up", "--workspace", workspace, "--no-serve", "--json")
    assert ran.exit_code == 0, ran.stderr
    assert list(workspace.rglob(".unfinished-*")) == []
    return [step["step"] for step in summary_of(ran)["steps"] if step["status"] == "done"]


def spoil(workspace: Path, name: str, text: str) -> None:
    """Change a setting, so that the steps that hang on it must be done again."""
    config = (workspace / "renewcast.toml").read_text()
    assert name in config
    (workspace / "renewcast.toml").write_text(config.replace(name, text))


def contents(folder):
    """Return the bytes of every file below a folder, by its place."""
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_killed_while_checking(book):
    spoil(book, 'name = "Small book"', 'name = "Small book"\nquarantine_limit = 0.06')
    tables = contents(book / ".renewcast" / "tables")
    killed(".unfinished-tables", 1, "check", "--workspace", book)  # the old tables would be moved aside
    assert contents(book / ".renewcast" / "tables") == tables
    assert "check" in goes_on(book)


def test_killed_while_computing_features(book):
    spoil(book, "top_events = 2", "top_events = 1")
    killed("snapshots", 1, "features", "--workspace", book)  # the old ones are aside, the new ones not in place
    assert not (book / ".renewcast" / "snapshots").exists()
    assert goes_on(book) == ["features", "train", "score"]


def test_killed_while_training(book):
    spoil(book, "minimum_positives = 8", "minimum_positives = 8\nseed = 3")
    before = summary_of(run("report", "--workspace", book, "--json"))
    killed("CURRENT", 1, "train", "--workspace", book)
    assert summary_of(run("report", "--workspace", book, "--json")) == before
    assert goes_on(book) == ["train", "score"]
    assert summary_of(run("report", "--workspace", book, "--json"))["run"] != before["run"]


def test_killed_while_scoring(book):
    scores = book / ".renewcast" / "scores"
    old = (scores / "CURRENT").read_text()
    spoil(book, '"Small book"', '"Other name"')
    killed("CURRENT", 1, "score", "--workspace", book)
    assert (scores / "CURRENT").read_text() == old
    assert goes_on(book) == ["score"]
    assert (scores / "CURRENT").read_text() != old


def test_killed_before_a_step_is_noted(book):
    spoil(book, '"Small book"', '"Other name"')
    killed("steps.json", 1, "score", "--workspace", book)
    assert goes_on(book) == ["score"]
