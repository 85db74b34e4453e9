"""The `renewcast` command."""

__all__: list[str] = []
