import json
from pathlib import Path

import pytest

from features.errors import ConfigError, explain
from serving.commands.console import Screen
from serving.commands.steps import StepResult


def result(**changes):
    facts = {"step": "train", "unchanged": False, "seconds": 12.4, "summary": {"run": "r1"}, "line": "one\ntwo", "place": Path("there")}
    return StepResult(**(facts | changes))


def test_a_step_is_told_in_its_lines_with_the_place_and_the_time_last(capsys):
    Screen(json=False).done(result())
    shown = capsys.readouterr()
    assert shown.err == "train     one\n          two; there (12 s)\n"
    assert shown.out == ""


def test_an_unchanged_step_says_so(capsys):
    Screen(json=False).done(result(unchanged=True, line="[x]"))
    assert capsys.readouterr().err == "train     [x]; there (unchanged, not done again)\n"


@pytest.mark.parametrize("as_json", [False, True])
def test_an_error_is_told_to_people_and_to_machines(capsys, as_json):
    Screen(json=as_json).failed(ConfigError(explain("it is [wrong]", given="a" * 300, todo="Do this.")))
    shown = capsys.readouterr()
    assert shown.err == f"Error it is [wrong]\n  given:   {'a' * 300}\n  next:    Do this.\n"
    found = json.loads(shown.out) if as_json else None
    assert found == (
        {"status": "failed", "error": "ConfigError", "message": shown.err.removeprefix("Error ").rstrip()} if as_json else None
    )


def test_a_summary_is_one_line_for_machines_only(capsys):
    Screen(json=False).result({"a": 1})
    assert capsys.readouterr().out == ""
    Screen(json=True).result({"a": [1, Path("b")]})
    assert capsys.readouterr().out == '{"a": [1, "b"]}\n'


def test_progress_writes_nothing_where_nobody_watches(capsys):
    with Screen(json=True).progress("check") as on_progress:
        on_progress("telemetry", 1, 3)
    assert capsys.readouterr() == ("", "")


def test_progress_is_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with Screen(json=True).progress("check") as on_progress:
        on_progress("telemetry", 1, 3)
    shown = capsys.readouterr()
    assert "check: telemetry" in shown.err
    assert "1/3" in shown.err
    assert shown.out == ""
