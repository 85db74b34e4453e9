"""What the service answers, apart from how it is asked: accounts, changes, what-ifs, portfolios, contributions, feedback."""

__all__: list[str] = []
