"""The HTTP API: routes, errors, pages of lists, rates, and the OpenAPI document."""

__all__: list[str] = []
