"""Serving: scores with reasons, behind an endpoint and on pages, to each side what it may see."""

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:
    from serving.scoring import AccountScore, ScoreSet, load_score_set

__all__ = ["AccountScore", "ScoreSet", "load_score_set"]


def __getattr__(name: str) -> _typing.Any:
    """Load score sets when they are asked for: they bring LightGBM, and the command must answer at once."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_importlib.import_module("serving.scoring"), name)


def __dir__() -> list[str]:
    return __all__
