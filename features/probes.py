"""Probes of the tables and of how features are made from them: what `renewcast features` leaves for the audit of a training.

The future is taken away and the features are computed again; rows that cannot have happened are counted; times that tell the outcome
are searched for. The findings go to `probes.json` in the snapshots, because the tables are at hand only here.

But: an attribute of an account has no time, and what an own feature reads from elsewhere than the tables stays the same without the
future. Those are found, if at all, by what they tell of the outcome (`training.audit`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.compute as pc

from features import clock
from features.catalogue import Catalogue
from features.config import ATTRIBUTE
from features.contracts import CONTRACT
from features.engine import Engine
from features.findings import Audit, Finding, Severity, listed
from features.hindsight import HINDSIGHT, Rebuild, find_hindsight
from features.label_times import (
    OPEN_ENDS,
    OUTCOME_DATES,
    OVERWRITTEN_ENDS,
    find_open_ends,
    find_outcome_dates,
    find_overwritten_ends,
)
from features.workspace import Workspace

__all__ = ["PROBES_FILE", "Book", "audit_tables", "probe_tables"]

PROBES_FILE = "probes.json"

BEFORE_ACCOUNT = "rows before their account"
RECORDING = "times of recording"

_EXAMPLES = 3
_ODD_BEFORE, _LEAK_BEFORE_CREATED, _LEAK_BEFORE_FIRST_TERM = 0.01, 0.2, 0.5
"""Shares of a table's rows that are older than their account. People do use a product before they pay for it, though not mostly."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Book:
    """All that a workspace's snapshots were made of.

    Parameters
    ----------
    tables
        The checked tables.
    matrix, labels
        The snapshots, one row for each account and cutoff.
    days_ahead
        Days from a cutoff to the end of its label window.
    data_until
        The end of the data, UTC.
    """

    engine: Engine
    tables: Mapping[str, ir.Table]
    matrix: pa.Table
    labels: pa.Table
    catalogue: Catalogue
    days_ahead: int
    data_until: datetime


def audit_tables(workspace: Workspace) -> Audit:
    """Return what the probes found when the workspace's snapshots were made.

    Snapshots that were not made by `renewcast features` come without: that is then the only finding.
    """
    try:
        stored = (workspace.snapshots / PROBES_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return Audit((_UNPROBED,))
    return Audit.from_json(json.loads(stored))


_UNPROBED = Finding(
    probe=HINDSIGHT,
    severity="look at",
    subject="all tables",
    message="Nobody has probed the tables that these snapshots were made of.",
    todo="Make the snapshots with `renewcast features`.",
)


def probe_tables(book: Book, rebuild: Rebuild) -> Audit:
    """Run all probes of the tables; the caller writes what they found to `PROBES_FILE` in the folder of the snapshots.

    Parameters
    ----------
    rebuild
        Computes the features of a spine from other tables; it is called once, and once more if anything differs. What the engine keeps
        under names, such as loaded tables, is replaced by it.
    """
    found = find_hindsight(book.engine, book.tables, book.matrix, book.catalogue, rebuild)
    for probed in (_probe_ends(book), _probe_dates(book), _probe_beginnings(book), _probe_recording(book)):
        found = found.joined(probed)
    return found


def _counted(engine: Engine, counts: ir.Table) -> list[dict[str, int]]:
    """Return rows of counts, which the engine gives in numbers too large for JSON."""
    return [{name: int(count or 0) for name, count in row.items()} for row in engine.to_arrow(counts).to_pylist()]


# --- times that tell the outcome


def _probe_ends(book: Book) -> Audit:
    """Search the ends of terms, where churn is the end of payment."""
    if "subscriptions" not in book.tables or not pc.any(pc.is_valid(book.labels["left_at"])).as_py():
        return Audit()
    versioned = "recorded_at" in book.tables["subscriptions"].columns
    terms = book.engine.to_arrow(_first_versions(book.tables["subscriptions"]))
    findings = find_open_ends(terms, book.labels, days_ahead=book.days_ahead, versioned=versioned)
    findings += find_overwritten_ends(terms, book.labels, days_ahead=book.days_ahead, versioned=versioned)
    return Audit(
        findings,
        {
            OPEN_ENDS: f"whether the ends of {len(terms):,} terms are filled in only where the customer left",
            OVERWRITTEN_ENDS: f"whether any of {len(terms):,} terms has an unusual length because the customer left",
        },
    )


def _first_versions(subscriptions: ir.Table) -> ir.Table:
    """Return each term that is paid for as it was first recorded: account_id, start_date, end_date."""
    columns = ("account_id", "start_date", "end_date")
    subscriptions = subscriptions.filter(subscriptions.arr > 0)
    if "recorded_at" not in subscriptions.columns:
        return subscriptions.select(*columns)
    key = ["account_id", *CONTRACT["subscriptions"].unique]
    order = ibis.row_number().over(ibis.window(group_by=key, order_by=[subscriptions.known_at]))
    return subscriptions.mutate(version=order).filter(ibis._.version == 0).select(*columns)


def _probe_dates(book: Book) -> Audit:
    accounts = book.tables["accounts"]
    dates = [name for name, type_ in accounts.schema().items() if name.startswith(ATTRIBUTE) and type_.is_timestamp()]
    if not dates:
        return Audit()
    held = book.engine.to_arrow(accounts.select("account_id", *dates))
    findings = find_outcome_dates(held, book.labels, days_ahead=book.days_ahead)
    names = listed([name.removeprefix(ATTRIBUTE) for name in dates])
    return Audit(findings, {OUTCOME_DATES: f"whether dates of accounts ({names}) are written when customers leave"})


# --- rows that cannot have happened, and times of recording


def _probe_beginnings(book: Book) -> Audit:
    """Count rows that are older than their account, or than its first term where nobody knows when the account was created."""
    born = _born(book.tables)
    happening = [name for name in book.tables if CONTRACT[name].occurred and "account_id" in CONTRACT[name].columns]
    findings = [finding for name in happening for finding in _early_rows(book.engine, name, book.tables[name], born)]
    return Audit(tuple(findings), {BEFORE_ACCOUNT: f"whether rows of {', '.join(happening)} are older than their account"})


def _born(tables: Mapping[str, ir.Table]) -> ir.Table:
    """Return account_id, born (its creation, else the start of its first term) and created (whether that is known)."""
    accounts = tables["accounts"]
    created = accounts.created_at if "created_at" in accounts.columns else ibis.null("timestamp")
    known = accounts.select("account_id", created_at=created)
    if "subscriptions" not in tables:
        return known.select("account_id", born=known.created_at, created=known.created_at.notnull())
    first = tables["subscriptions"].group_by("account_id").agg(begun=ibis._.start_date.min())
    joined = known.left_join(first, "account_id")
    return joined.select("account_id", born=joined.created_at.coalesce(joined.begun), created=joined.created_at.notnull())


def _early_rows(engine: Engine, name: str, table: ir.Table, born: ir.Table) -> list[Finding]:
    occurred = str(CONTRACT[name].occurred)
    rows = table.select("account_id", happened=table[occurred]).join(born.filter(born.born.notnull()), "account_id")
    is_early = ~clock.known_by(rows.born, rows.happened)
    early = rows.filter(is_early)
    findings = []
    for part in _counted(engine, rows.group_by("created").agg(n=rows.count(), early=is_early.sum())):
        share, limit = part["early"] / part["n"], _LEAK_BEFORE_CREATED if part["created"] else _LEAK_BEFORE_FIRST_TERM
        if share >= _ODD_BEFORE:
            first = engine.to_arrow(
                early.filter(early.created == bool(part["created"])).order_by("happened", "account_id").limit(_EXAMPLES)
            )
            findings.append(_early_finding(f"{name}.{occurred}", part, first, "leak" if share >= limit else "look at"))
    return findings


def _early_finding(subject: str, part: Mapping[str, int], first: pa.Table, severity: Severity) -> Finding:
    since = "was created" if part["created"] else "had its first term"
    table = subject.split(".")[0]
    keep = f'before_created_at = "quarantine" in [tables.{table}] sets them aside; ' if part["created"] else "Map created_at of accounts; "
    return Finding(
        probe=BEFORE_ACCOUNT,
        severity=severity,
        subject=subject,
        message=(
            f"{part['early']:,} of {part['n']:,} rows ({part['early'] / part['n']:.0%}) happened before their account {since}. Either "
            "their times or their accounts are wrong, so that features made of them say something else than what was known then."
        ),
        todo=f"{keep}if another column is the time of the row, or of the account's beginning, map that one.",
        evidence={"rows": part["n"], "early": part["early"], "share": part["early"] / part["n"]},
        examples=tuple(
            f"account {row['account_id']}: a row of {row['happened']:%Y-%m-%d}, though it {since} on {row['born']:%Y-%m-%d}"
            for row in first.to_pylist()
        ),
    )


def _probe_recording(book: Book) -> Audit:
    """Compare when rows were recorded with when they happened."""
    recorded = {
        name: table
        for name, table in book.tables.items()
        if "recorded_at" in table.columns and not CONTRACT[name].columns[str(CONTRACT[name].occurred)].future
    }
    if not recorded:
        return Audit()
    findings = [finding for name, table in recorded.items() for finding in _recorded_oddly(book, name, table)]
    return Audit(tuple(findings), {RECORDING: f"whether recorded_at of {', '.join(recorded)} fits to when the rows happened"})


def _recorded_oddly(book: Book, name: str, table: ir.Table) -> list[Finding]:
    happened, recorded = (book.engine.microseconds(table[column]) for column in (str(CONTRACT[name].occurred), "recorded_at"))
    end = ibis.literal(clock.microseconds(book.data_until), "int64")
    counts = {
        "n": recorded.count(),
        "early": (~clock.known_by(happened, recorded)).sum(),
        "late": (~clock.known_by(recorded, clock.shifted(happened, 30))).sum(),
        "ahead": (~clock.known_by(recorded, end)).sum(),
    }
    (found,) = _counted(book.engine, table.aggregate(**counts))
    odd = [
        (key, what, todo)
        for key, limit, what, todo in (
            ("early", 0.01, "were recorded before they happened", "Look at the clocks and time zones of the two columns."),
            ("late", 0.5, "were recorded more than 30 days after they happened", _BACKFILLED),
            ("ahead", 0.01, "were recorded after the end of the data", "Look at recorded_at, or at data_until in [workspace]."),
        )
        if found["n"] and found[key] / found["n"] >= limit
    ]
    return [
        Finding(
            probe=RECORDING,
            severity="look at",
            subject=f"{name}.recorded_at",
            message=f"{found[key]:,} of {found['n']:,} rows ({found[key] / found['n']:.0%}) {what}.",
            todo=todo,
            evidence={"rows": found["n"], key: found[key]},
        )
        for key, what, todo in odd
    ]


_BACKFILLED = (
    "Past cutoffs do not see rows that were recorded later. If an import has set recorded_at, leave it unmapped, as long as rows are "
    "never changed after they happened."
)
