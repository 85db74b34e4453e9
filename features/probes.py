"""Probes of the tables and of how features are made from them: what `renewcast features` leaves for the audit of a training.

The future is taken away and the features are computed again; rows that cannot have happened are counted; times that tell the outcome
are searched for. The findings go to `probes.json` in the snapshots, because the tables are at hand only here.

But: an attribute of an account has no time, and what an own feature reads from elsewhere than the tables stays the same without the
future. Those are found, if at all, by what they tell of the outcome (`training.audit`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.catalogue import Catalogue
from features.config import ATTRIBUTE
from features.contracts import CONTRACT
from features.findings import Audit, Finding, listed
from features.hindsight import HINDSIGHT, Rebuild, find_hindsight
from features.label_times import (
    OPEN_ENDS,
    OUTCOME_DATES,
    OVERWRITTEN_ENDS,
    find_open_ends,
    find_outcome_dates,
    find_overwritten_ends,
)
from features.numbered import NumberedTelemetry
from features.piece_times import PieceTimes
from features.queries import QueryEngine
from features.row_times import find_early_rows, find_odd_recording
from features.workspace import Workspace

__all__ = ["PROBES_FILE", "Book", "audit_tables", "earlier_hindsight", "probe_tables"]

PROBES_FILE = "probes.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class Book:
    """All that a workspace's snapshots were made of.

    Parameters
    ----------
    tables
        The checked tables.
    labels
        One row for each account and cutoff.
    matrix
        The features, at least those of `features.hindsight.probed_accounts`; not looked at where their findings are at hand.
    days_ahead
        Days from a cutoff to the end of its label window.
    instant
        The cutoff at which features are computed again, see `features.hindsight.probed_instant`.
    times
        What was counted of the pieces of telemetry, where there are such.
    telemetry
        The telemetry of `tables` with numbers for texts, where there is such.
    """

    engine: QueryEngine
    tables: Mapping[str, ir.Table]
    matrix: pa.Table
    labels: pa.Table
    catalogue: Catalogue
    days_ahead: int
    instant: np.datetime64
    times: PieceTimes | None = None
    telemetry: NumberedTelemetry | None = None


def audit_tables(workspace: Workspace) -> Audit:
    """Return what the probes found when the workspace's snapshots were made.

    Snapshots that were not made by `renewcast features` come without: that is then the only finding.
    """
    try:
        stored = (workspace.snapshots / PROBES_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return Audit((_UNPROBED,))
    return Audit.from_json(json.loads(stored))


def earlier_hindsight(workspace: Workspace) -> Audit:
    """Return what computing features without the future found when the workspace's snapshots were made."""
    found = audit_tables(workspace)
    findings = tuple(finding for finding in found.findings if finding.probe == HINDSIGHT)
    return Audit(findings, {name: asked for name, asked in found.probes.items() if name == HINDSIGHT})


_UNPROBED = Finding(
    probe=HINDSIGHT,
    severity="look at",
    subject="all tables",
    message="Nobody has probed the tables that these snapshots were made of.",
    todo="Make the snapshots with `renewcast features`.",
)


def probe_tables(book: Book, rebuild: Rebuild, *, hindsight: Audit | None = None) -> Audit:
    """Run all probes of the tables; the caller writes what they found to `PROBES_FILE` in the folder of the snapshots.

    Parameters
    ----------
    rebuild
        Computes the features of a spine from other tables; it is called once, and once more if anything differs. What the engine keeps
        under names, such as loaded tables, is replaced by it.
    hindsight
        What computing features again without the future found before, where nothing that it looks at has changed; it is done if None.
    """
    found = hindsight or find_hindsight(
        book.engine, book.tables, book.matrix, book.catalogue, rebuild, instant=book.instant, telemetry=book.telemetry
    )
    for probed in (
        _probe_ends(book),
        _probe_dates(book),
        find_early_rows(book.engine, book.tables, times=book.times),
        find_odd_recording(book.engine, book.tables, times=book.times),
    ):
        found = found.joined(probed)
    return found


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
    """Search the date attributes of accounts."""
    accounts = book.tables["accounts"]
    dates = [name for name, type_ in accounts.schema().items() if name.startswith(ATTRIBUTE) and type_.is_timestamp()]
    if not dates:
        return Audit()
    held = book.engine.to_arrow(accounts.select("account_id", *dates))
    findings = find_outcome_dates(held, book.labels, days_ahead=book.days_ahead)
    names = listed([name.removeprefix(ATTRIBUTE) for name in dates])
    return Audit(findings, {OUTCOME_DATES: f"whether dates of accounts ({names}) are written when customers leave"})
