"""Serving: scores with reasons, behind an endpoint and on pages, to each side what it may see."""

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:
    from serving.answers.account_answers import explain_account
    from serving.commands.steps import StepResult, run_steps
    from serving.scores.reasons import Driver, Explanation
    from serving.scores.scoring import AccountScore, ScoreSet, load_score_set

__all__ = ["AccountScore", "Driver", "Explanation", "ScoreSet", "StepResult", "explain_account", "load_score_set", "run_steps"]

_LOADED_WHEN_USED = {
    "AccountScore": "serving.scores.scoring",
    "Driver": "serving.scores.reasons",
    "Explanation": "serving.scores.reasons",
    "ScoreSet": "serving.scores.scoring",
    "StepResult": "serving.commands.steps",
    "explain_account": "serving.answers.account_answers",
    "load_score_set": "serving.scores.scoring",
    "run_steps": "serving.commands.steps",
}
"""What brings LightGBM or the web framework: the command must answer at once."""


def __getattr__(name: str) -> _typing.Any:
    if name not in _LOADED_WHEN_USED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_importlib.import_module(_LOADED_WHEN_USED[name]), name)


def __dir__() -> list[str]:
    return __all__
