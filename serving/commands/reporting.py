"""A training's report as the command shows it: how good each model is, against what, where it is weak, and why it is used or not."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

__all__ = ["MEASURES", "show_target"]

MEASURES: Mapping[str, str] = {
    "auc": "AUC",
    "average_precision": "average precision",
    "lift_top_5": "lift in the top 5 %",
    "lift_top_10": "lift in the top 10 %",
    "lift_top_20": "lift in the top 20 %",
    "recall_top_5": "share of the positives in the top 5 %",
    "recall_top_10": "share of the positives in the top 10 %",
    "recall_top_20": "share of the positives in the top 20 %",
    "brier": "Brier score",
    "brier_skill": "Brier skill",
    "ece": "calibration error (ECE)",
    "ece_expected": "calibration error expected by chance",
    "arr_caught_top_5": "share of the ARR of the positives in the top 5 % by ARR at stake",
    "arr_caught_top_10": "share of the ARR of the positives in the top 10 % by ARR at stake",
    "arr_caught_top_20": "share of the ARR of the positives in the top 20 % by ARR at stake",
    "empc": "expected maximum profit per account, one value for all (EMPC)",
    "empc_targeted": "share of the accounts contacted for it",
    "empb": "expected maximum profit per account, each at its ARR (EMPB)",
    "empb_targeted": "share of the accounts contacted for that",
}
"""What the measures of a report are called."""

_COLOURS = {"leak": "red", "look at": "yellow"}


def show_target(part: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield what is shown of one target's part of a report, with Rich's markup."""
    yield f"[bold]{escape(part['verdict'])}[/bold]"
    if part["status"] != "trained":
        yield escape("\n".join(part["reason"].splitlines()[1:]))
        return
    yield f"[bold]{part['role']}[/bold]: {escape(part['decision'])}"
    yield _metrics(part)
    yield _baselines(part)
    for spot in part["weak_spots"]:
        yield escape(f"weak: {_weak(spot)}")
    for finding in part["audit"]["findings"]:
        yield f"[{_COLOURS[finding['severity']]}]{finding['severity']}[/]: {escape(finding['subject'])}: {escape(finding['message'])}"
        yield from (escape(f"    {example}") for example in finding["examples"])
        yield escape(f"    next: {finding['todo']}")
    for note in part["notes"]:
        yield escape(f"note: {note}")
    yield ""


def _metrics(part: Mapping[str, Any]) -> Table:
    table = _table("measure", "value", "95 % interval")
    for name, found in part["metrics"].items():
        table.add_row(MEASURES.get(name, name), _number(found["value"]), _interval(found))
    if part["renewal"]:
        table.add_row("AUC of who lets a renewal pass", _number(part["renewal"]["auc"]["value"]), _interval(part["renewal"]["auc"]))
    blocks, period = len(part["folds"]), f"{part['test_from'][:10]} to {part['test_to'][:10]}"
    table.caption = f"judged on {part['test_rows']:,} rows, {part['test_positives']:,} of them positive, {period}, retrained {blocks} times"
    table.caption_justify = "left"
    return table


def _baselines(part: Mapping[str, Any]) -> Table:
    table = _table("baseline", "AUC", "gain of the model", "95 % interval")
    for name, found in sorted(part["baselines"].items(), key=lambda item: -item[1]["auc"]["value"]):
        table.add_row(name, _number(found["auc"]["value"]), f"{found['gain']['value']:+.3f}", _interval(found["gain"], sign="+"))
    return table


def _weak(spot: Mapping[str, Any]) -> str:
    where = f"{spot['slice']} {spot['level']}"
    if spot["measure"] == "auc":
        return f"{where}: AUC {_number(spot['found']['value'])} ({_interval(spot['found'])}) against {_number(spot['against'])} of all rows"
    return f"{where}: calibration error {_number(spot['found']['value'])}, by chance at most {_number(spot['against'])}"


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, padding=(0, 2))


def _interval(found: Mapping[str, Any], *, sign: str = "") -> str:
    return f"{_number(found['low'], sign=sign)} to {_number(found['high'], sign=sign)}"


def _number(value: float | None, *, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.3f}"
