import json
from dataclasses import replace
from pathlib import Path

import pytest

from features.errors import RenewcastError, WorkspaceError
from features.progress import silent
from features.workspace import load_workspace
from serving.commands import steps
from serving.commands.steps import STEPS, run_step, run_steps

CONFIG = """
[tables.accounts]
source = "accounts.csv"
[tables.telemetry]
source = "telemetry.csv"
"""

SUMMARIES = {
    "check": {"tables": {"accounts": {"rows_in": 3, "rows_out": 2, "quarantined": 1}}, "missing_tables": ["tickets"]},
    "features": {"features": 2, "accounts": 2, "cutoffs": 3, "rows": 1234, "labelled": 5},
    "train": {"run": "r1", "targets": {"churn": {"verdict": "churn: AUC 0.8; champion."}}, "champions": ["churn"]},
    "score": {"version": "v1", "accounts": 2, "cutoff": "2024-01-01 00:00:00", "bands": {"red": 1, "green": 1}},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for table in ("accounts", "telemetry"):
        (tmp_path / f"{table}.csv").write_text("account_id\na\n")
    (tmp_path / "renewcast.toml").write_text(CONFIG)
    return tmp_path


def stand_in(name: str, ran: list[str]):
    """Return a step with its own reads, places and line, which writes its places without any work."""

    def run(workspace, _on_progress):
        ran.append(name)
        for place in STEPS[name].places(workspace, SUMMARIES[name]):
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists():
                place.write_text("x") if place.suffix or place.name == "CURRENT" else place.mkdir()
        for champion in SUMMARIES[name].get("champions", ()):
            (workspace.training / "champion" / champion / "package.json").write_text("1")
        return SUMMARIES[name]

    return replace(STEPS[name], run=run)


def go(folder: Path) -> list[str]:
    """Run all steps and return those that were done."""
    ran: list[str] = []
    for name in STEPS:
        result = run_step(stand_in(name, ran), load_workspace(folder, {}), on_progress=silent, clock=lambda: 0.0)
        assert result.unchanged == (name not in ran)
        assert result.to_json()["status"] == ("done" if name in ran else "unchanged")
    return ran


def add(text: str):
    return lambda folder: (folder / "renewcast.toml").write_text(CONFIG + text)


def remove(path: str):
    return lambda folder: (folder / ".renewcast" / path).rename(folder / "gone")


def write(path: str):
    return lambda folder: (folder / path).write_text("account_id\nb\n...")


ALL = ["check", "features", "train", "score"]


@pytest.mark.parametrize(
    ("change", "done"),
    [
        (lambda _folder: None, []),
        (write("telemetry.csv"), ALL),
        (add('[tables.telemetry.columns]\nevent = "kind"\n'), ALL),
        (add("[targets]\nhorizon_days = 30\n"), ["features", "train", "score"]),
        (add('[cutoffs]\nevery = "week"\n'), ["features", "train", "score"]),
        (add("[features]\ntop_events = 3\n"), ["features", "train", "score"]),
        (add("[training]\nseed = 1\n"), ["train", "score"]),
        (add("[serving]\nport = 4000\n"), []),
        (add("# a comment\n"), []),
        (remove("tables/accounts.parquet"), ["check"]),
        (remove("check.json"), ["check"]),
        (remove("snapshots/labels.parquet"), ["features"]),
        (remove("snapshots"), ["features"]),
        (remove("training/CURRENT"), ["train", "score"]),
        (remove("training/r1"), ["train", "score"]),
        (remove("training/champion/churn"), ["train", "score"]),
        (remove("scores/v1"), ["score"]),
        (remove("scores/CURRENT"), ["score"]),
        (write(".renewcast/training/champion/churn/package.json"), ["score"]),
        (remove("steps.json"), ALL),
        (write(".renewcast/steps.json"), ALL),
    ],
)
def test_only_what_changed_is_done_again(folder, change, done):
    assert go(folder) == ALL
    change(folder)
    assert go(folder) == done
    assert go(folder) == []


def test_a_change_of_the_code_is_a_change(folder, monkeypatch):
    assert go(folder) == ALL
    package = folder / "code" / "training"
    package.mkdir(parents=True)
    (package / "model.py").write_text("x = 1")
    monkeypatch.setattr(steps, "_ROOT", package.parent)
    go(folder)
    (package / "model.py").write_text("x = 2")
    assert go(folder) == ["train", "score"]


def test_a_step_that_fails_is_not_noted(folder):
    def fail(_workspace, _on_progress):
        raise WorkspaceError("no")

    with pytest.raises(WorkspaceError):
        run_step(replace(STEPS["check"], run=fail), load_workspace(folder, {}), on_progress=silent, clock=lambda: 0.0)
    assert go(folder) == ALL


@pytest.mark.parametrize(("name", "needed"), [("features", "check"), ("train", "features"), ("score", "train")])
def test_a_step_out_of_order_says_what_to_run_first(folder, name, needed):
    with pytest.raises(RenewcastError, match=rf"`renewcast {name}` needs(.|\n)*Run `renewcast {needed}` first, or `renewcast up`"):
        run_step(stand_in(name, []), load_workspace(folder, {}), on_progress=silent, clock=lambda: 0.0)


def test_a_workspace_may_be_moved(folder, tmp_path_factory):
    go(folder)
    moved = folder.rename(tmp_path_factory.mktemp("moved") / "workspace")
    ran: list[str] = []
    run_step(stand_in("check", ran), load_workspace(moved, {}), on_progress=silent, clock=lambda: 0.0)
    result = run_step(stand_in("features", ran), load_workspace(moved, {}), on_progress=silent, clock=lambda: 0.0)
    assert result.place == moved / ".renewcast" / "snapshots"
    assert str(folder) not in (moved / ".renewcast" / "steps.json").read_text()


def test_what_a_killed_run_left_is_cleared(folder):
    go(folder)
    state = folder / ".renewcast"
    left = [state / ".unfinished-check-1", state / "scores" / ".unfinished-v0-1", state / "training" / ".unfinished-r0-1"]
    for place in left:
        place.mkdir()
        (place / "half.parquet").write_text("half")
    go(folder)
    assert not any(place.exists() for place in left)


def test_another_writer_is_waited_for(folder):
    with load_workspace(folder, {}).lock("renewcast train"), pytest.raises(WorkspaceError, match="renewcast train, process"):
        go(folder)


def test_lines_say_what_was_done_and_where(folder):
    def line(name):
        result = run_step(stand_in(name, []), load_workspace(folder, {}), on_progress=silent, clock=lambda: 0.0)
        return result.line, result.place.relative_to(folder / ".renewcast").as_posix()

    assert line("check") == ("1 tables, 3 rows in, 1 quarantined; no tickets, so none of their features", "quarantine")
    assert line("features") == ("2 features of 2 accounts at 3 cutoffs, 1,234 rows, 5 with a label", "snapshots")
    assert line("train") == ("churn: AUC 0.8; champion", "training/r1")
    assert line("score") == ("2 accounts scored as of 2024-01-01: 1 red, 1 green", "scores/v1")


def test_a_summary_is_json(folder):
    result = run_step(stand_in("check", []), load_workspace(folder, {}), on_progress=silent, clock=lambda: 0.0)
    assert json.loads(json.dumps(result.to_json()))["tables"]["accounts"]["quarantined"] == 1


def test_the_job_is_done_from_python_up_to_a_step(folder, monkeypatch):
    ran: list[str] = []
    monkeypatch.setattr(steps, "STEPS", {name: stand_in(name, ran) for name in STEPS})
    assert [(result.step, result.unchanged) for result in run_steps(load_workspace(folder), until="features")] == [
        ("check", False),
        ("features", False),
    ]
    assert [result.unchanged for result in run_steps(load_workspace(folder))] == [True, True, False, False]
    with pytest.raises(WorkspaceError, match=r"no step of this name(.|\n)*did you mean 'train'"):
        run_steps(load_workspace(folder), until="trian")
