"""Times of rows that cannot be right: rows that are older than their account, and rows that were recorded before they happened."""

from collections.abc import Mapping

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from features import clock
from features.contracts import CONTRACT
from features.findings import Audit, Finding, Severity
from features.piece_times import LATE_DAYS, PieceTimes
from features.queries import QueryEngine

__all__ = ["BEFORE_ACCOUNT", "RECORDING", "beginnings", "find_early_rows", "find_odd_recording"]

BEFORE_ACCOUNT = "rows before their account"
RECORDING = "times of recording"

_EXAMPLES = 3
_ODD, _TOO_MANY, _TOO_MANY_UNPAID = 0.01, 0.2, 0.5
"""Shares of a table's rows before their account: those that are odd, and those that are too many. Where it is not known when accounts
were created, the first term stands for it; people do use a product before they pay for it, though not mostly."""
_EARLY, _LATE = 0.01, 0.5
"""Shares of a table's rows that were recorded before they happened, and `LATE_DAYS` after."""


def find_early_rows(engine: QueryEngine, tables: Mapping[str, ir.Table], *, times: PieceTimes | None = None) -> Audit:
    """Count rows that are older than their account, or than its first term where nobody knows when the account was created.

    Parameters
    ----------
    times
        What was counted of the pieces of telemetry, where there are such: it is then not read again.
    """
    born = beginnings(tables)
    happening = [name for name in tables if CONTRACT[name].occurred and "account_id" in CONTRACT[name].columns]
    counts = {"telemetry": times.early(born)} if times else {}
    findings = [finding for name in happening for finding in _early_rows(engine, name, tables[name], born, counts.get(name))]
    return Audit(tuple(findings), {BEFORE_ACCOUNT: f"whether rows of {', '.join(happening)} are older than their account"})


def beginnings(tables: Mapping[str, ir.Table]) -> ir.Table:
    """Return when accounts began: account_id, born (its creation, else the start of its first term) and created (whether that is known)."""
    accounts = tables["accounts"]
    created = accounts.created_at if "created_at" in accounts.columns else ibis.null("timestamp")
    known = accounts.select("account_id", created_at=created)
    if "subscriptions" not in tables:
        return known.select("account_id", born=known.created_at, created=known.created_at.notnull())
    first = tables["subscriptions"].group_by("account_id").agg(begun=ibis._.start_date.min())
    joined = known.left_join(first, "account_id")
    return joined.select("account_id", born=joined.created_at.coalesce(joined.begun), created=joined.created_at.notnull())


def _early_rows(engine: QueryEngine, name: str, table: ir.Table, born: ir.Table, counts: ir.Table | None) -> list[Finding]:
    occurred = str(CONTRACT[name].occurred)
    rows = table.select("account_id", happened=table[occurred]).join(born.filter(born.born.notnull()), "account_id")
    is_early = ~clock.known_by(rows.born, rows.happened)
    findings = []
    for part in _counted(engine, rows.group_by("created").agg(n=rows.count(), early=is_early.sum()) if counts is None else counts):
        share, created = part["early"] / part["n"], bool(part["created"])
        if share >= _ODD:
            first = rows.filter(is_early & (rows.created == created)).order_by("happened", "account_id").limit(_EXAMPLES)
            severity: Severity = "leak" if share >= (_TOO_MANY if created else _TOO_MANY_UNPAID) else "look at"
            findings.append(_early_finding(f"{name}.{occurred}", part, engine.to_arrow(first), severity))
    return findings


def _early_finding(subject: str, part: Mapping[str, int], first: pa.Table, severity: Severity) -> Finding:
    began, table = "was created" if part["created"] else "had its first term", subject.split(".")[0]
    share = part["early"] / part["n"]
    aside = (
        f'Write before_created_at = "quarantine" in [tables.{table}] to set them aside' if part["created"] else "Map created_at of accounts"
    )
    return Finding(
        probe=BEFORE_ACCOUNT,
        severity=severity,
        subject=subject,
        message=(
            f"{part['early']:,} of {part['n']:,} rows ({share:.0%}) happened before their account {began}. Either their times or their "
            "accounts are wrong, so that features say something else than what was known then."
        ),
        todo=f"{aside}; or if another column is the time of the row, or of the account's beginning, map that one.",
        evidence={"rows": part["n"], "early": part["early"], "share": share},
        examples=tuple(
            f"account {row['account_id']}: a row of {row['happened']:%Y-%m-%d}, though it {began} on {row['born']:%Y-%m-%d}"
            for row in first.to_pylist()
        ),
    )


def find_odd_recording(engine: QueryEngine, tables: Mapping[str, ir.Table], *, times: PieceTimes | None = None) -> Audit:
    """Compare when rows were recorded with when they happened, in tables whose rows cannot be booked ahead; `times` as above."""
    recorded = [
        name
        for name, table in tables.items()
        if "recorded_at" in table.columns and not CONTRACT[name].columns[str(CONTRACT[name].occurred)].future
    ]
    if not recorded:
        return Audit()
    counts = {name: times.recorded() if times and name == "telemetry" else _recorded(engine, name, tables[name]) for name in recorded}
    findings = [finding for name in recorded for finding in _oddly_recorded(engine, name, counts[name])]
    return Audit(tuple(findings), {RECORDING: f"whether recorded_at of {', '.join(recorded)} fits to when the rows happened"})


def _recorded(engine: QueryEngine, name: str, table: ir.Table) -> ir.Table:
    """Return how many rows have a time of recording, and how many of them were recorded too early and too late."""
    happened, recorded = (engine.microseconds(table[column]) for column in (str(CONTRACT[name].occurred), "recorded_at"))
    early, late = ~clock.known_by(happened, recorded), ~clock.known_by(recorded, clock.shifted(happened, LATE_DAYS))
    return table.aggregate(n=recorded.count(), early=early.sum(), late=late.sum())


def _oddly_recorded(engine: QueryEngine, name: str, counts: ir.Table) -> list[Finding]:
    (found,) = _counted(engine, counts)
    odd = []
    if found["early"] >= max(_EARLY * found["n"], 1):
        odd.append(("early", "before they happened", "Look at the clocks and time zones of the two columns."))
    if found["late"] >= max(_LATE * found["n"], 1):
        odd.append(("late", f"more than {LATE_DAYS} days after they happened", _BACKFILLED))
    return [
        Finding(
            probe=RECORDING,
            severity="look at",
            subject=f"{name}.recorded_at",
            message=f"{found[key]:,} of {found['n']:,} rows ({found[key] / found['n']:.0%}) were recorded {when}.",
            todo=todo,
            evidence={"rows": found["n"], key: found[key]},
        )
        for key, when, todo in odd
    ]


_BACKFILLED = (
    "Past cutoffs do not see what was recorded later. If an import has set recorded_at, leave it unmapped, as long as rows are never "
    "changed after they happened."
)


def _counted(engine: QueryEngine, counts: ir.Table) -> list[dict[str, int]]:
    """Return rows of counts, which the engine gives in numbers too large for JSON."""
    return [{name: int(count or 0) for name, count in row.items()} for row in engine.to_arrow(counts).to_pylist()]
