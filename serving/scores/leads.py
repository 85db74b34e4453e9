"""The driver that leads each account's reasons, for the vendor and for the partner that manages it, as of one score set.

It is what the list of accounts tells first. Each score set keeps its own in `leads.parquet`, beside health and band, so that the next one
can tell what changed without reading anything else of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from serving.permissions.caller import VENDOR, Caller
from serving.permissions.policy import Policy
from serving.scores.account_json import tier_of
from serving.scores.explained import book_evidence, lead_of, scored_rows, teller_of
from serving.scores.scoring import ScoreSet
from serving.scores.sharing import View
from serving.scores.windows import windows

__all__ = ["LEAD", "LEADS", "leads_of", "read_leads", "write_leads"]

LEADS = "leads.parquet"

LEAD = pa.struct([("features", pa.list_(pa.string())), ("sentence", pa.string()), ("effect", pa.string())])
"""A driver: its features, the one in the sentence first."""

_CHUNK = 1024
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
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        evidence = book_evidence(score_set, chunk, peers_needed=view.policy.numbers.peers_needed)
        told = teller.tell(scored_rows(score_set, "churn", chunk), evidence, [score_set.supplies.of(row) for row in chunk])
        for row, score in zip(chunk, told, strict=True):
            lead = lead_of(score.named)
            if lead is not None:
                driver = score.named[lead]
                yield row, {"features": score.record["drivers"][lead]["features"], "sentence": driver.sentence, "effect": driver.effect}
