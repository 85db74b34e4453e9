"""Serving: scores with reasons, behind an endpoint and on pages, to each side what it may see."""

from serving.scoring import AccountScore, ScoreSet, load_score_set

__all__ = ["AccountScore", "ScoreSet", "load_score_set"]
