"""Features of single kinds of event, and of declared ratios between kinds."""

from collections.abc import Collection, Mapping, Sequence

from features.feature import Feature, Window
from features.spans import span
from features.tally import Tally

__all__ = ["event_features", "ratio_features"]

_YEAR_BY_KIND = Window(table="telemetry", days=364, by=("event",))


def event_features(events: Sequence[str], carrying: Collection[str]) -> list[Feature]:
    """Return the features of single kinds of event.

    Parameters
    ----------
    events
        The kinds that have features of their own.
    carrying
        Those of them whose events carry a quantity.
    """
    return [feature for event in events for feature in _event(event, carries=event in carrying)]


def _event(event: str, *, carries: bool) -> list[Feature]:
    slug = _slug(event)
    counts = [
        Feature(
            name=f"event_{slug}_{days}d",
            family="usage",
            unit="events",
            meaning=f"events of the kind '{event}' {span(days)}",
            sentence=f"'{event}' {{moved}} times {span(days)}",
            source=Window(table="telemetry", days=days, each="event"),
            level=event,
            expression=Tally("sum", "events"),
            empty=0.0,
            actionable=True,
        )
        for days in (28, 91)
    ]
    amounts = [
        Feature(
            name=f"amount_{slug}_{days}d",
            family="usage",
            unit="amount",
            meaning=f"the amount that events of the kind '{event}' carry {span(days)}",
            sentence=f"the amount of '{event}' {{moved}} {span(days)}",
            source=Window(table="telemetry", days=days, each="event"),
            level=event,
            expression=Tally("sum", "quantity"),
            needs=frozenset({"quantity"}),
            empty=0.0,
        )
        for days in (28, 91)
    ]
    return counts + (amounts if carries else [])


def ratio_features(ratios: Mapping[str, tuple[Sequence[str], Sequence[str]]]) -> list[Feature]:
    """Return the declared ratios of kinds of event, such as deals lost over deals lost and won.

    Parameters
    ----------
    ratios
        From a name to the kinds above and the kinds below the line.
    """
    return [_ratio(name, tuple(above), tuple(below), days) for name, (above, below) in ratios.items() for days in (28, 91, 182)]


def _ratio(name: str, above: tuple[str, ...], below: tuple[str, ...], days: int) -> Feature:
    words = f"{' and '.join(above)} over {' and '.join(below)}"
    return Feature(
        name=f"{_slug(name)}_{days}d",
        family="usage",
        unit="ratio",
        meaning=f"{words} {span(days)}, in events",
        sentence=f"{name.replace('_', ' ')} {{moved}} {span(days)}",
        source=_YEAR_BY_KIND,
        expression=lambda kinds: (
            kinds[f"events_{days}d"].sum(where=kinds.event.isin(above)).fill_null(0.0)
            / kinds[f"events_{days}d"].sum(where=kinds.event.isin(below)).nullif(0)
        ),
        actionable=True,
    )


def _slug(text: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in text.lower()).strip("_")
