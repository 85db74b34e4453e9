"""How a long computation tells its caller how far it is."""

from collections.abc import Callable, Mapping

__all__ = ["Progress", "WeightedProgress", "silent"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many parts are done, and how many there are."""


def silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""


class WeightedProgress:
    """Progress over parts of unequal size, told in hundredths of all of them, so that what is left can be estimated.

    Parameters
    ----------
    sizes
        The size of each part, in the order in which they are done.

    Examples
    --------
    >>> weighted = WeightedProgress(print, {"accounts": 100, "telemetry": 900})
    >>> weighted.tell("telemetry", "reading", share=0.5)
    reading 55 100
    """

    def __init__(self, on_progress: Progress, sizes: Mapping[str, float]) -> None:
        self._on_progress = on_progress
        self._sizes = dict(sizes)

    def tell(self, part: str, what: str, *, share: float = 0.0) -> None:
        """Tell what is being done, and which share of its part is done."""
        names = list(self._sizes)
        before = sum(self._sizes[name] for name in names[: names.index(part)])
        self._on_progress(what, int(100 * (before + share * self._sizes[part]) / sum(self._sizes.values())), 100)
