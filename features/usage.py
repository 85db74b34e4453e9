"""Usage features: what the account's users do in the product.

A slice of telemetry is read once for each way of summing it up (by user, by day, by week, by kind of event), with the longest window
that any feature needs; the features of shorter windows are conditional aggregates of it.
"""

from features.day_tallies import DayTally, WeekTally
from features.feature import LOOKBACKS, Direction, Feature, Window
from features.rhythm import rhythm_features
from features.spans import span, within
from features.tally import Tally
from features.use_tallies import UseTally

__all__ = ["usage_features"]

WINDOWS = LOOKBACKS
LONG_WINDOWS = (28, 91, 182, 364)
TREND_WINDOWS = (28, 91, 182)

_EVER = Window(table="telemetry")
_YEAR = Window(table="telemetry", days=364)
_YEAR_BY_DAY = Window(table="telemetry", days=364, by=("day",))
_YEAR_BY_WEEK = Window(table="telemetry", days=364, by=("week",))
_YEAR_BY_KIND = Window(table="telemetry", days=364, by=("event",))
_YEAR_BY_PRODUCT = Window(table="telemetry", days=364, by=("product",))
_USERS = Window(table="telemetry", by=("user_id",))

_FALLING: Direction = {"churn": -1}


def usage_features() -> list[Feature]:
    """Return the usage features that every telemetry table allows."""
    return [
        *(feature for days in WINDOWS for feature in _volume(days)),
        *(feature for days in LONG_WINDOWS for feature in [*_depth(days), *_coming_and_going(days)]),
        *(feature for days in TREND_WINDOWS for feature in _trends(days)),
        *rhythm_features(),
        *_history(),
        *_seats(),
    ]


def _volume(days: int) -> list[Feature]:
    return [
        Feature(
            name=f"events_{days}d",
            family="usage",
            unit="events",
            meaning=f"what users did in the product {span(days)}, in events",
            sentence=f"activity {{moved}} events {span(days)}",
            source=_YEAR_BY_WEEK,
            expression=WeekTally("events", weeks=days // 7),
            empty=0.0,
            direction=_FALLING,
            actionable=True,
        ),
        Feature(
            name=f"active_days_{days}d",
            family="usage",
            unit="days",
            meaning=f"days on which anybody used the product, {span(days)}",
            sentence=f"days with any activity {{moved}} {span(days)}",
            source=_YEAR_BY_DAY,
            expression=DayTally("active", days=days),
            empty=0.0,
            direction=_FALLING,
            actionable=True,
        ),
        Feature(
            name=f"active_users_{days}d",
            family="usage",
            unit="users",
            meaning=f"people who used the product {span(days)}",
            sentence=f"active users {{moved}} {span(days)}",
            source=_USERS,
            expression=UseTally("active", days),
            needs=frozenset({"user_id"}),
            empty=0.0,
            direction=_FALLING,
            actionable=True,
        ),
        Feature(
            name=f"users_peak_{days}d",
            family="usage",
            unit="users",
            meaning=f"the most users counted on one day {span(days)}",
            sentence=f"the busiest day's users {{moved}} {span(days)}",
            source=_YEAR,
            expression=lambda rows: rows.users.max(where=within(rows, days)).fill_null(0.0),
            needs=frozenset({"users"}),
            empty=0.0,
            actionable=True,
        ),
    ]


def _depth(days: int) -> list[Feature]:
    return [
        Feature(
            name=f"event_types_{days}d",
            family="usage",
            unit="kinds",
            meaning=f"how many kinds of event the account's users did {span(days)}: how broadly the product is used",
            sentence=f"the breadth of use {{moved}} kinds of activity {span(days)}",
            source=_YEAR_BY_KIND,
            expression=UseTally("active", days),
            empty=0.0,
            actionable=True,
        ),
        Feature(
            name=f"products_used_{days}d",
            family="usage",
            unit="products",
            meaning=f"how many products or modules were used {span(days)}",
            sentence=f"products in use {{moved}} {span(days)}",
            source=_YEAR_BY_PRODUCT,
            expression=UseTally("active", days),
            needs=frozenset({"product"}),
            empty=0.0,
            actionable=True,
        ),
        Feature(
            name=f"events_per_user_{days}d",
            family="usage",
            unit="events per user",
            meaning=f"events {span(days)} for each active user: how deeply people use the product",
            sentence=f"activity per user {{moved}} {span(days)}",
            inputs=(f"events_{days}d", f"active_users_{days}d"),
            expression=lambda row: row[f"events_{days}d"] / row[f"active_users_{days}d"].nullif(0),
            actionable=True,
        ),
        Feature(
            name=f"top_user_share_{days}d",
            family="usage",
            unit="share",
            meaning=f"share of the activity {span(days)} that comes from the most active user: how much hangs on one person",
            sentence=f"the most active user's share of all activity {{moved}} {span(days)}",
            source=_USERS,
            expression=UseTally("top", days),
            needs=frozenset({"user_id"}),
            actionable=True,
        ),
    ]


def _coming_and_going(days: int) -> list[Feature]:
    return [
        Feature(
            name=f"users_lost_{days}d",
            family="usage",
            unit="users",
            meaning=f"users who were active in the {days} days before and no longer {span(days)}",
            sentence=f"users who fell silent {{moved}} {span(days)}",
            source=_USERS,
            expression=UseTally("lost", days),
            needs=frozenset({"user_id"}),
            empty=0.0,
            actionable=True,
        ),
        Feature(
            name=f"users_kept_share_{days}d",
            family="usage",
            unit="share",
            meaning=f"share of the users of the {days} days before who were active again {span(days)}",
            sentence=f"the share of users who came back {{moved}} {span(days)}",
            source=_USERS,
            expression=UseTally("kept", days),
            needs=frozenset({"user_id"}),
            actionable=True,
        ),
        Feature(
            name=f"users_new_{days}d",
            family="usage",
            unit="users",
            meaning=f"users whose first activity at this account fell {span(days)}",
            sentence=f"new users {{moved}} {span(days)}",
            source=_USERS,
            expression=UseTally("new", days),
            needs=frozenset({"user_id"}),
            empty=0.0,
            actionable=True,
        ),
    ]


def _trends(days: int) -> list[Feature]:
    before = f"in the {days} days before the last {days}"
    return [
        Feature(
            name=f"events_before_{days}d",
            family="usage",
            unit="events",
            meaning=f"events {before}: what the trend is measured against",
            sentence=f"earlier activity {{moved}} events, {before}",
            source=_YEAR_BY_WEEK,
            expression=WeekTally("events", weeks=days // 7, since=days // 7),
            empty=0.0,
        ),
        Feature(
            name=f"users_before_{days}d",
            family="usage",
            unit="users",
            meaning=f"active users {before}: what the trend is measured against",
            sentence=f"earlier active users {{moved}}, {before}",
            source=_USERS,
            expression=UseTally("before", days),
            needs=frozenset({"user_id"}),
            empty=0.0,
        ),
        Feature(
            name=f"events_trend_{days}d",
            family="usage",
            unit="ratio",
            meaning=f"events {span(days)} as a multiple of those {before}",
            sentence=f"activity is {{value}} of what it was {before}",
            inputs=(f"events_{days}d", f"events_before_{days}d"),
            expression=lambda row: row[f"events_{days}d"] / row[f"events_before_{days}d"].nullif(0),
            actionable=True,
        ),
        Feature(
            name=f"users_trend_{days}d",
            family="usage",
            unit="ratio",
            meaning=f"active users {span(days)} as a multiple of those {before}",
            sentence=f"active users are {{value}} of what they were {before}",
            inputs=(f"active_users_{days}d", f"users_before_{days}d"),
            expression=lambda row: row[f"active_users_{days}d"] / row[f"users_before_{days}d"].nullif(0),
            actionable=True,
        ),
    ]


def _history() -> list[Feature]:
    return [
        Feature(
            name="days_since_first_event",
            family="usage",
            unit="days",
            meaning="days since the account's first use of the product",
            sentence="the account has used the product for {value}",
            source=_EVER,
            expression=Tally("oldest"),
        ),
        Feature(
            name="events_ever",
            family="usage",
            unit="events",
            meaning="events since the account's first",
            sentence="all activity so far comes to {value}",
            source=_EVER,
            expression=Tally("events"),
            empty=0.0,
        ),
        Feature(
            name="users_ever",
            family="usage",
            unit="users",
            meaning="people who ever used the product at this account",
            sentence="people who ever used the product: {value}",
            source=_USERS,
            expression=UseTally("ever"),
            needs=frozenset({"user_id"}),
            empty=0.0,
        ),
        Feature(
            name="users_now_share",
            family="usage",
            unit="share",
            meaning="users of the last 182 days as a share of all who ever used the product",
            sentence="the share of all users so far who are still active {moved}",
            inputs=("active_users_182d", "users_ever"),
            expression=lambda row: row.active_users_182d / row.users_ever.nullif(0),
            actionable=True,
        ),
        *_short_against_long(),
    ]


def _short_against_long() -> list[Feature]:
    return [
        _part_of(name, column, words, short, long)
        for name, column, words in (("events", "events", "events"), ("users", "active_users", "active users"))
        for short, long in ((28, 182), (91, 182), (182, 364))
    ]


def _part_of(name: str, column: str, words: str, short: int, long: int) -> Feature:
    return Feature(
        name=f"{name}_{short}d_of_{long}d",
        family="usage",
        unit="share",
        meaning=f"{words} of the last {short} days as a share of those of the last {long}",
        sentence=f"{words} of the last {short} days are {{value}} of those of the last {long}",
        inputs=(f"{column}_{short}d", f"{column}_{long}d"),
        expression=lambda row: row[f"{column}_{short}d"] / row[f"{column}_{long}d"].nullif(0),
        actionable=True,
    )


def _seats() -> list[Feature]:
    return [
        *(_seat_use(days, "seat_use", "active_users", "active users") for days in (28, 91)),
        *(_seat_use(days, "seat_use_peak", "users_peak", "the busiest day's users") for days in (7, 28, 91, 182)),
    ]


def _seat_use(days: int, name: str, column: str, words: str) -> Feature:
    return Feature(
        name=f"{name}_{days}d",
        family="usage",
        unit="share",
        meaning=f"{words} {span(days)} as a share of the seats paid for",
        sentence=f"{words} as a share of the seats paid for {{moved}} {span(days)}",
        inputs=(f"{column}_{days}d", "seats"),
        expression=lambda row: row[f"{column}_{days}d"] / row.seats.nullif(0),
        actionable=True,
    )
