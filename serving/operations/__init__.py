"""Staying up, and being seen from outside: limits, health, metrics, logs, traces."""

__all__: list[str] = []
