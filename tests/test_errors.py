import ast
import inspect
import re
from pathlib import Path

import pytest

from features import errors
from features.errors import RenewcastError, explain, nearest

ROOT = Path(__file__).parent.parent
CLASSES = {name: value for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}


def test_the_tree_that_is_drawn_is_the_tree_that_is():
    drawn = re.findall(r"^(?:\|-- )?(\w+Error)\b", errors.__doc__, re.MULTILINE)
    assert drawn[0] == "RenewcastError"
    assert sorted(drawn) == sorted(CLASSES)
    assert {value.__bases__[0] for name, value in CLASSES.items() if name != "RenewcastError"} == {RenewcastError}


def test_every_error_is_raised_somewhere():
    calls = (
        node.func.id
        for package in ("features", "training", "serving")
        for file in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    )
    assert set(CLASSES) - {"RenewcastError"} <= set(calls)


@pytest.mark.parametrize("given", [None, ""])
def test_parts_that_are_not_there_leave_no_line(given):
    assert explain("wrong", given=given) == "wrong"


def test_zero_is_something_that_was_given():
    assert explain("wrong", given=0) == "wrong\n  given:   0"


def test_lines_of_a_part_stand_below_each_other():
    first, second = explain("wrong", given="a\nb").splitlines()[1:]
    assert first.index("a") == second.index("b")


def test_nothing_is_near_to_nothing():
    assert nearest("", ["churn"]) == ""
    assert nearest("churm", []) == ""
