"""The driver that leads each account's reasons, for the vendor and for the partner that manages it, as of one score set.

It is what the list of accounts tells first. Each score set keeps its own in `leads.parquet`, beside health and band, so that the next one
can tell what changed without reading anything else of it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from serving.permissions.caller import VENDOR, Caller
from serving.permissions.policy import Policy
from serving.scores.account_json import tier_of
from serving.scores.explained import Teller, book_evidence, teller_of
from serving.scores.scoring import ScoreSet
from serving.scores.sharing import NOTHING_SUPPLIED, View
from serving.scores.windows import windows

__all__ = ["LEAD", "LEADS", "leads_of", "read_leads", "write_leads"]

LEADS = "leads.parquet"

LEAD = pa.struct([("features", pa.list_(pa.string())), ("sentence", pa.string()), ("effect", pa.string())])
"""A driver: its features, the one in the sentence first."""

_CHUNK = 1024
_NOBODY = 0
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("account_id", "name", "band")),
        ("health", pa.uint8()),
        ("partner", pa.string()),
        ("vendors_lead", LEAD),
        ("partners_lead", LEAD),
    ]
)

Lead = Mapping[str, Any]


def leads_of(score_set: ScoreSet, policy: Policy) -> pa.Table:
    """Return a line for each account: name, health, band, the partner that manages it when it is scored, and both sides' first driver."""
    lines = [_lines(window, policy) for _, window in windows(score_set)]
    return pa.concat_tables([_SCHEMA.empty_table(), *lines])


def _lines(score_set: ScoreSet, policy: Policy) -> pa.Table:
    at, n = score_set.manifest.scored_at, len(score_set)
    partners = score_set.assignments.partners(at)
    vendors = dict(_told(score_set, range(n), View(VENDOR, None, policy, at)))
    theirs: dict[int, Lead] = {}
    for partner in sorted({partner for partner in partners if partner is not None}):
        view = View(Caller(partner), tier_of(score_set, partner), policy, at)
        theirs |= dict(_told(score_set, np.flatnonzero(partners == partner).tolist(), view))
    columns = {
        **{name: pa.array(score_set.accounts[name], pa.string()) for name in ("account_id", "name", "band")},
        "health": pa.array(score_set.accounts["health"].astype(np.uint8)),
        "partner": pa.array(partners, pa.string()),
        "vendors_lead": pa.array([vendors.get(row) for row in range(n)], LEAD),
        "partners_lead": pa.array([theirs.get(row) for row in range(n)], LEAD),
    }
    return pa.table(columns, schema=_SCHEMA)


def write_leads(leads: pa.Table, folder: Path) -> None:
    """Write them into a score set's folder."""
    pq.write_table(leads, folder / LEADS, compression="zstd")


def read_leads(folder: Path) -> pa.Table | None:
    """Return the leads in a score set's folder; None if it was made without."""
    path = folder / LEADS
    return pq.read_table(path).select(_SCHEMA.names).cast(_SCHEMA) if path.exists() else None


def _told(score_set: ScoreSet, rows: Sequence[int], view: View) -> Iterator[tuple[int, Lead]]:
    """Yield the rows that have a named driver, with the one to look at first."""
    teller = teller_of(score_set, "churn", view)
    closed = "features" in teller.closed["Driver"]
    for chunk, visible in _alike(score_set, rows, teller):
        parts = score_set.parts["churn"][chunk, :-1]
        evidence = book_evidence(score_set, chunk, peers_needed=view.policy.numbers.peers_needed)
        leads = teller.groups.leads(parts, visible, most=view.policy.numbers.named_drivers)
        for position in np.flatnonzero(leads >= 0).tolist():
            driver, own = int(leads[position]), parts[position].tolist()
            members = teller.groups.largest_first(driver, own)
            sentence, *_ = evidence.told(position, teller.groups.features[members[0]])
            raises = math.fsum(own[member] for member in members) > 0
            yield (
                chunk[position],
                {
                    "features": None if closed else [teller.groups.names[member] for member in members],
                    "sentence": sentence,
                    "effect": "raises" if raises else "lowers",
                },
            )


def _alike(score_set: ScoreSet, rows: Sequence[int], teller: Teller) -> Iterator[tuple[list[int], Sequence[bool]]]:
    """Yield rows of which the view sees the same drivers, some at a time, and which it sees."""
    alike: dict[int, list[int]] = {}
    supplied = {_NOBODY: NOTHING_SUPPLIED}
    for row in rows:
        partners = score_set.supplies.of(row)  # one object for all accounts of a kind
        kind = id(partners) if partners else _NOBODY
        supplied[kind] = partners
        alike.setdefault(kind, []).append(row)
    for kind, own in alike.items():
        visible = teller.sees(supplied[kind])
        for start in range(0, len(own), _CHUNK):
            yield own[start : start + _CHUNK], visible
