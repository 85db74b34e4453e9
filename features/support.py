"""Support features: the customer's tickets."""

import ibis.expr.types as ir

from features.feature import Feature, Window
from features.sums import exact_mean

__all__ = ["SEVERE", "support_features"]

WINDOWS = (28, 91, 182)
SEVERE = ("critical", "urgent", "high", "blocker", "p1", "sev1", "1")

_EVER = Window(table="tickets")


def support_features() -> list[Feature]:
    """Return the support features."""
    return [*_now(), *(feature for days in WINDOWS for feature in [*_recent(days), *_answers(days)])]


def _within(rows: ir.Table, days: int) -> ir.BooleanValue:
    return rows.age_days < days


def _open(rows: ir.Table) -> ir.BooleanValue:
    return rows.closed_at.isnull()


def _severe(rows: ir.Table) -> ir.BooleanValue:
    return rows.severity.lower().isin(SEVERE)


def _now() -> list[Feature]:
    closes = frozenset({"closed_at"})
    return [
        Feature(
            name="tickets_open",
            family="support",
            unit="tickets",
            meaning="tickets that are open at the moment",
            sentence="open tickets {moved}",
            source=_EVER,
            expression=lambda rows: rows.count(where=_open(rows)),
            needs=closes,
            empty=0.0,
            actionable=True,
        ),
        Feature(
            name="tickets_severe_open",
            family="support",
            unit="tickets",
            meaning="open tickets of high severity",
            sentence="severe open tickets {moved}",
            source=_EVER,
            expression=lambda rows: rows.count(where=_open(rows) & _severe(rows)),
            needs=closes | {"severity"},
            empty=0.0,
            direction={"churn": 1},
            actionable=True,
        ),
        Feature(
            name="ticket_oldest_open_days",
            family="support",
            unit="days",
            meaning="age of the oldest open ticket",
            sentence="the oldest open ticket has waited for {value}",
            source=_EVER,
            expression=lambda rows: rows.age_days.max(where=_open(rows)).fill_null(0.0),
            needs=closes,
            empty=0.0,
            actionable=True,
        ),
        Feature(
            name="days_since_ticket",
            family="support",
            unit="days",
            meaning="days since the last ticket was opened",
            sentence="the last ticket was opened {value} ago",
            source=_EVER,
            expression=lambda rows: rows.age_days.min(),
        ),
    ]


def _recent(days: int) -> list[Feature]:
    span = f"in the last {days} days"
    return [
        Feature(
            name=f"tickets_{days}d",
            family="support",
            unit="tickets",
            meaning=f"tickets opened {span}",
            sentence=f"new tickets {{moved}} {span}",
            source=_EVER,
            expression=lambda rows: rows.count(where=_within(rows, days)),
            empty=0.0,
            actionable=True,
        ),
        Feature(
            name=f"tickets_severe_{days}d",
            family="support",
            unit="tickets",
            meaning=f"tickets of high severity opened {span}",
            sentence=f"severe new tickets {{moved}} {span}",
            source=_EVER,
            expression=lambda rows: rows.count(where=_within(rows, days) & _severe(rows)),
            needs=frozenset({"severity"}),
            empty=0.0,
            direction={"churn": 1},
            actionable=True,
        ),
    ]


def _answers(days: int) -> list[Feature]:
    span = f"in the last {days} days"
    return [
        Feature(
            name=f"ticket_days_to_close_{days}d",
            family="support",
            unit="days",
            meaning=f"average time to close of the tickets opened {span} and closed by now",
            sentence=f"the time to close a ticket {{moved}} {span}",
            source=_EVER,
            expression=lambda rows: exact_mean(rows.age_days - rows.closed_at_age_days, where=_within(rows, days)),
            needs=frozenset({"closed_at"}),
            actionable=True,
        ),
        Feature(
            name=f"ticket_csat_{days}d",
            family="support",
            unit="points",
            meaning=f"average rating of the answers to tickets opened {span}",
            sentence=f"the rating of support {{moved}} {span}",
            source=_EVER,
            expression=lambda rows: exact_mean(rows.csat, where=_within(rows, days)),
            needs=frozenset({"csat", "closed_at"}),
            direction={"churn": -1},
            actionable=True,
        ),
        Feature(
            name=f"tickets_reopened_share_{days}d",
            family="support",
            unit="share",
            meaning=f"share of the tickets opened {span} that had to be reopened",
            sentence=f"the share of tickets that had to be reopened {{moved}} {span}",
            source=_EVER,
            expression=lambda rows: (
                rows.count(where=_within(rows, days) & rows.reopened_at.notnull()) / rows.count(where=_within(rows, days)).nullif(0)
            ),
            needs=frozenset({"reopened_at"}),
            direction={"churn": 1},
            actionable=True,
        ),
    ]
