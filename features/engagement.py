"""Engagement features: what vendor and partners have to do with the customer."""

import ibis.expr.types as ir

from features.feature import Expression, Feature, Window
from features.sums import exact_mean

__all__ = ["engagement_features"]

WINDOWS = (28, 91, 182)
CHANNELS = ("email", "meeting", "qbr", "training", "community", "content")
SURVEYS = ("nps", "csat")

_EVER = Window(table="engagement")
_OFFSET = 2 * 10**18
"""Added to an age in microseconds or to a value, it gives a number of 19 digits, whatever the age or the value."""


def engagement_features() -> list[Feature]:
    """Return the engagement features."""
    return [
        *(feature for days in WINDOWS for feature in _contacts(days)),
        *(feature for channel in CHANNELS for feature in _channel(channel)),
        *(feature for survey in SURVEYS for feature in _survey(survey)),
        *_silence(),
    ]


def _within(rows: ir.Table, days: int) -> ir.BooleanValue:
    return rows.age_days < days


def _is(text: ir.StringValue, word: str) -> ir.BooleanValue:
    """Tell which texts say the word, in small or capital letters."""
    return text.lower() == word


def _from_vendor(rows: ir.Table) -> ir.BooleanValue:
    return _is(rows["source"], "vendor")


def _contacts(days: int) -> list[Feature]:
    span = f"in the last {days} days"
    return [
        Feature(
            name=f"contacts_{days}d",
            family="engagement",
            unit="contacts",
            meaning=f"contacts of any kind with the customer {span}, surveys left out",
            sentence=f"contacts with the customer {{moved}} {span}",
            source=_EVER,
            expression=lambda rows: rows.count(where=_within(rows, days) & ~_is(rows.channel, "survey")),
            empty=0.0,
            actionable=True,
        ),
        Feature(
            name=f"contacts_vendor_{days}d",
            family="engagement",
            unit="contacts",
            meaning=f"contacts that the vendor had with the customer {span}",
            sentence=f"the vendor's contacts with the customer {{moved}} {span}",
            source=_EVER,
            expression=lambda rows: rows.count(where=_within(rows, days) & ~_is(rows.channel, "survey") & _from_vendor(rows)),
            needs=frozenset({"source"}),
            empty=0.0,
            sensitivity="vendor",
            actionable=True,
        ),
        Feature(
            name=f"contacts_partner_{days}d",
            family="engagement",
            unit="contacts",
            meaning=f"contacts that partners had with the customer {span}",
            sentence=f"partners' contacts with the customer {{moved}} {span}",
            source=_EVER,
            expression=lambda rows: rows.count(where=_within(rows, days) & ~_is(rows.channel, "survey") & ~_from_vendor(rows)),
            needs=frozenset({"source"}),
            empty=0.0,
            sensitivity="partner",
            actionable=True,
        ),
        Feature(
            name=f"people_met_{days}d",
            family="engagement",
            unit="people",
            meaning=f"different people at the customer with whom anybody was in contact {span}",
            sentence=f"people at the customer in contact with us {{moved}} {span}",
            source=_EVER,
            expression=lambda rows: rows.contact_id.nunique(where=_within(rows, days)),
            needs=frozenset({"contact_id"}),
            empty=0.0,
            actionable=True,
        ),
    ]


def _count_of(channel: str, days: int) -> Expression:
    return lambda rows: rows.count(where=_within(rows, days) & _is(rows.channel, channel))


def _channel(channel: str) -> list[Feature]:
    word = {"qbr": "business reviews", "content": "pieces of content read", "community": "community posts"}.get(channel, f"{channel}s")
    return [
        Feature(
            name=f"{channel}_contacts_{days}d",
            family="engagement",
            unit=word,
            meaning=f"{word} in the last {days} days",
            sentence=f"{word} {{moved}} in the last {days} days",
            source=_EVER,
            expression=_count_of(channel, days),
            empty=0.0,
            actionable=True,
        )
        for days in (91, 364)
    ] + [
        Feature(
            name=f"days_since_{channel}",
            family="engagement",
            unit="days",
            meaning=f"days since the last of the {word}",
            sentence=f"the last of the {word} was {{value}} ago",
            source=_EVER,
            expression=lambda rows: rows.age_days.min(where=_is(rows.channel, channel)),
            actionable=True,
        )
    ]


def _survey(kind: str) -> list[Feature]:
    of_kind = f"{kind.upper()}"

    def answers(rows: ir.Table) -> ir.BooleanValue:
        return _is(rows.channel, "survey") & _is(rows.kind, kind) & rows["value"].notnull()

    def newest(rows: ir.Table) -> ir.Value:
        order = answers(rows).ifelse(_newest_then_lowest(rows), None)  # the others need no text
        return rows["value"].argmin(order, where=answers(rows))

    needs = frozenset({"kind", "value"})
    return [
        Feature(
            name=f"{kind}_last",
            family="engagement",
            unit="points",
            meaning=f"the customer's last {of_kind} answer, the lowest if several came at once",
            sentence=f"the last {of_kind} answer {{moved}}",
            source=_EVER,
            expression=newest,
            needs=needs,
            direction={"churn": -1},
            actionable=True,
        ),
        Feature(
            name=f"{kind}_against_average",
            family="engagement",
            unit="points",
            meaning=f"the last {of_kind} answer less the average of all answers so far",
            sentence=f"the last {of_kind} answer is {{value}} from the customer's own average",
            source=_EVER,
            expression=lambda rows: newest(rows) - exact_mean(rows["value"], where=answers(rows)),
            needs=needs,
            actionable=True,
        ),
        Feature(
            name=f"days_since_{kind}",
            family="engagement",
            unit="days",
            meaning=f"days since the last {of_kind} answer",
            sentence=f"the last {of_kind} answer is {{value}} old",
            source=_EVER,
            expression=lambda rows: rows.age_days.min(where=answers(rows)),
            needs=needs,
            actionable=True,
        ),
    ]


def _newest_then_lowest(rows: ir.Table) -> ir.StringValue:
    """Return texts that sort as the pairs of age and value do: the newest row first, of those of one instant the lowest value.

    Warehouses order neither structs nor objects. So age, the whole number below the value and what it lies above that are written out
    one after the other, each with as many digits in every row. Values of up to 1e15, which are all that the check lets through, are told
    apart if they differ by 2^-52: all doubles of 1 and more are.
    """
    below = rows["value"].floor()
    above = ((rows["value"] - below.cast("float64")) * 2.0**52).floor()
    age, whole, rest = ((_OFFSET + part).cast("string") for part in (rows.cutoff - rows.occurred_at, below, above))
    return age + whole + rest


def _silence() -> list[Feature]:
    return [
        Feature(
            name="days_since_contact",
            family="engagement",
            unit="days",
            meaning="days since anybody was in contact with the customer",
            sentence="nobody has been in contact with the customer for {value}",
            source=_EVER,
            expression=lambda rows: rows.age_days.min(where=~_is(rows.channel, "survey")),
            actionable=True,
        ),
        Feature(
            name="trainings_ever",
            family="engagement",
            unit="trainings",
            meaning="trainings that the customer has had so far",
            sentence="the customer has had {value} so far",
            source=_EVER,
            expression=lambda rows: rows.count(where=_is(rows.channel, "training")),
            empty=0.0,
            actionable=True,
        ),
    ]
