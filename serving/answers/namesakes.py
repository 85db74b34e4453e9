"""Fields that say again what a field of the account page says: what the policy hides there is hidden here, too.

The history, the changes, the what-ifs and the feed have lines of their own in the policy; those can hide more, never less.
"""

from collections.abc import Mapping
from typing import Any

from serving.scores.sharing import View

__all__ = ["NAMESAKES", "may_read", "share_alike"]


def _each(names: str, *namesakes: str) -> dict[str, tuple[tuple[str, str], ...]]:
    """Return for each of the names, parted by blanks, the namesakes; one that ends with a dot is a field of the same name."""
    return {name: tuple(_pair(namesake, name) for namesake in namesakes) for name in names.split()}


def _pair(namesake: str, name: str) -> tuple[str, str]:
    record, _, field = namesake.partition(".")
    return record, field or name


NAMESAKES: Mapping[str, Mapping[str, tuple[tuple[str, str], ...]]] = {
    "HistoryPoint": _each("arr expansion_probability", "AccountSummary."),
    "MoveDriver": _each("odds_factor value earlier", "Driver.")
    | _each("log_odds points points_shown", "Driver.part")
    | _each("sensitivity", "Driver."),
    "MoveRest": _each("odds_factor features count", "OtherFactors.") | _each("log_odds points points_shown", "OtherFactors.part"),
    "ModelMove": _each("odds_factor", "OtherFactors.") | _each("log_odds points points_shown", "OtherFactors.part"),
    "MovedFeature": _each("value earlier", "Driver.value"),
    "Adjustable": _each("value", "Driver."),
    "FeedChange": _each("name first_driver", "AccountSummary.") | _each("first_driver_before", "AccountSummary.first_driver"),
}
"""By record and field: the records and fields whose lines in the policy hold as well."""


def share_alike(view: View, record: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that the caller may read, of a record and of what it says again; the others are None.

    Raises
    ------
    KeyError
        If the policy does not name the record or one of the fields.
    """
    shared, namesakes = view.share(record, values), NAMESAKES.get(record, {})
    hidden = {name for name in shared if not all(may_read(view, *namesake) for namesake in namesakes.get(name, ()))}
    return {name: None if name in hidden else value for name, value in shared.items()}


def may_read(view: View, record: str, field: str) -> bool:
    """Tell whether the caller may read a field at all."""
    return view.share(record, {field: True})[field] is True
