"""The operational store: keys, journal, contributions, feedback, in SQLite or PostgreSQL."""

__all__: list[str] = []
