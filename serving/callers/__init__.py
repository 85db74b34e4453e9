"""Who calls, and what was asked: keys, tokens, sessions, and the journal."""

__all__: list[str] = []
