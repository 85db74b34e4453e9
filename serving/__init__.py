"""Serving: scores with reasons, behind an endpoint and on pages, to each side what it may see."""

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:
    from serving.answers import explain_account
    from serving.reasons import Driver, Explanation
    from serving.scoring import AccountScore, ScoreSet, load_score_set
    from serving.steps import StepResult, run_steps

__all__ = ["AccountScore", "Driver", "Explanation", "ScoreSet", "StepResult", "explain_account", "load_score_set", "run_steps"]

_LOADED_WHEN_USED = {
    "AccountScore": "serving.scoring",
    "Driver": "serving.reasons",
    "Explanation": "serving.reasons",
    "ScoreSet": "serving.scoring",
    "StepResult": "serving.steps",
    "explain_account": "serving.answers",
    "load_score_set": "serving.scoring",
    "run_steps": "serving.steps",
}
"""What brings LightGBM or the web framework: the command must answer at once."""


def __getattr__(name: str) -> _typing.Any:
    if name not in _LOADED_WHEN_USED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_importlib.import_module(_LOADED_WHEN_USED[name]), name)


def __dir__() -> list[str]:
    return __all__
