"""Scores and their reasons: computed, explained, compared, written as score sets."""

__all__: list[str] = []
