"""The pages for people."""

__all__: list[str] = []
