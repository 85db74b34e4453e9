"""Rhythm: how steadily the product is used, how often people come back, and how long the breaks are."""

from features.day_tallies import DayTally, WeekTally
from features.feature import Direction, Feature, Window
from features.habits import Habit
from features.spans import span
from features.tally import Tally

__all__ = ["rhythm_features"]

_EVER = Window(table="telemetry")
_YEAR_BY_DAY = Window(table="telemetry", days=364, by=("day",))
_YEAR_BY_WEEK = Window(table="telemetry", days=364, by=("week",))
_USER_DAYS = Window(table="telemetry", days=91, by=("user_id", "day"))

_RISING: Direction = {"churn": 1}


def rhythm_features() -> list[Feature]:
    """Return the features of rhythm, in the order of the catalogue."""
    return [*(_stickiness(days) for days in (28, 91)), *(_weekly_swing(days) for days in (28, 91, 182, 364)), *_gaps()]


def _stickiness(days: int) -> Feature:
    return Feature(
        name=f"stickiness_{days}d",
        family="usage",
        unit="share",
        meaning=f"average daily users as a share of all users {span(days)} (DAU/MAU): how much the product is a habit",
        sentence=f"how often a user comes back {{moved}} {span(days)}",
        source=_USER_DAYS,
        expression=Habit(days),
        needs=frozenset({"user_id"}),
        actionable=True,
    )


def _weekly_swing(days: int) -> Feature:
    return Feature(
        name=f"weekly_swing_{days}d",
        family="usage",
        unit="ratio",
        meaning=f"how much activity swings from week to week {span(days)}: standard deviation over mean, weeks without any included",
        sentence=f"the swing from week to week {{moved}} {span(days)}",
        source=_YEAR_BY_WEEK,
        expression=WeekTally("swing", weeks=days // 7),
    )


def _gaps() -> list[Feature]:
    return [
        Feature(
            name="days_since_last_event",
            family="usage",
            unit="days",
            meaning="days since anybody used the product",
            sentence="nobody has used the product for {value}",
            source=_EVER,
            expression=Tally("newest"),
            direction=_RISING,
            actionable=True,
        ),
        Feature(
            name="gap_longest_364d",
            family="usage",
            unit="days",
            meaning="the longest break between two days of use in the last 364 days",
            sentence="the longest break in use {moved} in the last 364 days",
            source=_YEAR_BY_DAY,
            expression=DayTally("longest"),
            direction=_RISING,
        ),
        Feature(
            name="gap_mean_364d",
            family="usage",
            unit="days",
            meaning="the average break between two days of use in the last 364 days",
            sentence="the usual break between two days of use {moved}",
            source=_YEAR_BY_DAY,
            expression=DayTally("mean"),
            direction=_RISING,
        ),
        Feature(
            name="gap_deviation_364d",
            family="usage",
            unit="days",
            meaning="how much the breaks between two days of use differ in the last 364 days, as a standard deviation",
            sentence="the breaks between days of use have become less even: {moved}",
            source=_YEAR_BY_DAY,
            expression=DayTally("deviation"),
        ),
        Feature(
            name="silence_against_usual",
            family="usage",
            unit="ratio",
            meaning="the present break in use as a multiple of the account's usual one",
            sentence="the present break in use is {value} of the usual one",
            inputs=("days_since_last_event", "gap_mean_364d"),
            expression=lambda row: row.days_since_last_event / (row.gap_mean_364d + 1),
            direction=_RISING,
            actionable=True,
        ),
    ]
