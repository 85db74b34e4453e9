"""Outcome features: the success plan that was agreed with the customer, and what of it is verified."""

import ibis.expr.types as ir

from features.feature import Feature, Window
from features.sums import exact_sum

__all__ = ["outcome_features"]

_EVER = Window(table="outcomes")
_VERIFIABLE = frozenset({"verified_at"})


def _verified(rows: ir.Table) -> ir.BooleanValue:
    return rows.verified_at.notnull()


def _overdue(rows: ir.Table) -> ir.BooleanValue:
    return rows.verified_at.isnull() & (rows.due_at_age_days > 0)


def outcome_features() -> list[Feature]:
    """Return the outcome features."""
    return [*_counts(), *_pace(), *_proof()]


def _counts() -> list[Feature]:
    return [
        Feature(
            name="outcomes_agreed",
            family="outcomes",
            unit="outcomes",
            meaning="outcomes agreed with the customer so far",
            sentence="agreed outcomes {moved}",
            source=_EVER,
            expression=lambda rows: rows.count(),
            empty=0.0,
            actionable=True,
        ),
        Feature(
            name="outcomes_verified",
            family="outcomes",
            unit="outcomes",
            meaning="agreed outcomes that were verified from data",
            sentence="verified outcomes {moved}",
            source=_EVER,
            expression=lambda rows: rows.count(where=_verified(rows)),
            needs=_VERIFIABLE,
            empty=0.0,
            actionable=True,
        ),
    ]


def _pace() -> list[Feature]:
    """Return how far the plan is, and how late."""
    return [
        Feature(
            name="outcomes_overdue",
            family="outcomes",
            unit="outcomes",
            meaning="agreed outcomes whose date has passed without proof",
            sentence="overdue outcomes {moved}",
            source=_EVER,
            expression=lambda rows: rows.count(where=_overdue(rows)),
            needs=_VERIFIABLE,
            empty=0.0,
            direction={"churn": 1},
            actionable=True,
        ),
        Feature(
            name="outcomes_progress",
            family="outcomes",
            unit="share",
            meaning="share of the agreed outcomes that are verified",
            sentence="progress in the success plan {moved}",
            source=_EVER,
            expression=lambda rows: rows.count(where=_verified(rows)) / rows.count(),
            needs=_VERIFIABLE,
            direction={"churn": -1},
            actionable=True,
        ),
        Feature(
            name="outcome_longest_overdue_days",
            family="outcomes",
            unit="days",
            meaning="how long the most overdue outcome has been due",
            sentence="the most overdue outcome has been due for {value}",
            source=_EVER,
            expression=lambda rows: rows.due_at_age_days.max(where=_overdue(rows)).fill_null(0.0),
            needs=_VERIFIABLE,
            empty=0.0,
            actionable=True,
        ),
    ]


def _proof() -> list[Feature]:
    """Return when something was last proven, and what the proven outcomes are worth."""
    return [
        Feature(
            name="days_since_outcome_verified",
            family="outcomes",
            unit="days",
            meaning="days since an outcome was last verified",
            sentence="the last outcome was verified {value} ago",
            source=_EVER,
            expression=lambda rows: rows.verified_at_age_days.min(),
            needs=_VERIFIABLE,
            actionable=True,
        ),
        Feature(
            name="outcomes_value_verified",
            family="outcomes",
            unit="amount",
            meaning="what the verified outcomes are worth to the customer",
            sentence="the worth of verified outcomes {moved}",
            source=_EVER,
            expression=lambda rows: exact_sum(rows["value"]).fill_null(0.0),
            needs=_VERIFIABLE | {"value"},
            empty=0.0,
        ),
    ]
