"""Spans: the days before the cutoff that a feature looks at, in words and as a condition."""

import ibis.expr.types as ir

__all__ = ["span", "within"]


def span(days: int) -> str:
    """Return the words for a window that ends at the cutoff."""
    return f"in the last {days} days"


def within(rows: ir.Table, days: int) -> ir.BooleanValue:
    """Tell which rows lie in the last days; a summed-up row does if its newest event does."""
    return (rows.newest_age_days if "newest_age_days" in rows.columns else rows.age_days) < days
