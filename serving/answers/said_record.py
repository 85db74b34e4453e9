"""What the score sets that were served really said, and what had become of it by the time that their windows had closed.

The history that each score set carries along (`serving.scores.timeline`) knows what was said of which account as of which cutoff, whether
the account is still there or not; the labels of the snapshots know what happened. Where a cutoff was scored more than once, what was said
first counts: nobody can improve on it later. Replayed points were never said, and are left out.
"""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.workspace import Workspace
from serving.answers import schema_track as schema
from serving.answers.track_record import Cohort, Miss, cohort_answer, known_misses, miss_answer, record_of
from serving.scores.scoring import ScoreSet
from serving.scores.sharing import View
from serving.scores.standings import Archive
from serving.scores.timeline import HISTORY

__all__ = ["NamedMiss", "SaidRecord", "name_misses", "read_said", "said_answer"]

_KEY: Hashable = "said record"
_NEWEST = 36
"""Of so many closed cutoffs the scores are looked up."""


@dataclass(frozen=True, kw_only=True)
class SaidRecord:
    """What was said, as far as its windows have closed.

    Parameters
    ----------
    cohorts
        Newest first.
    misses
        Of the newest.
    first_due
        When the first of what was said comes due, where nothing has yet; None where nothing was said.
    """

    cohorts: tuple[Cohort, ...]
    misses: tuple[Miss, ...]
    first_due: datetime | None


@dataclass(frozen=True, kw_only=True)
class NamedMiss:
    """A miss with the name of its account; it is `there` if the caller can open it."""

    miss: schema.Miss
    name: str
    there: bool


def read_said(archive: Archive, workspace: Workspace, score_set: ScoreSet) -> SaidRecord:
    """Return what was said and has come due; it is read once for a score set."""
    if _KEY not in score_set.memory:
        history = archive.folder(score_set.manifest.version) / HISTORY
        labels = workspace.snapshots / "labels.parquet"
        there = history.exists() and labels.exists()
        score_set.memory[_KEY] = _read(history, labels, score_set) if there else SaidRecord(cohorts=(), misses=(), first_due=None)
    found: SaidRecord = score_set.memory[_KEY]
    return found


def said_answer(said: SaidRecord, score_set: ScoreSet, view: View) -> schema.Said:
    """Return what was said, and what happened, as far as the caller may know it."""
    values = {
        "cohorts": [cohort_answer(cohort, view) for cohort in said.cohorts],
        "misses": [miss_answer(miss, view) for miss in known_misses(said.misses, score_set, view)],
        "first_due": said.first_due,
    }
    return schema.Said(**view.share("Said", values))


def name_misses(misses: Sequence[Miss], workspace: Workspace, score_set: ScoreSet, view: View) -> list[NamedMiss]:
    """Return the misses that the caller may know of, by the names that people know: accounts that are gone have theirs in the tables.

    A partner is told, if the policy shares misses at all, of accounts that it manages.
    """
    if view.share("TrackRecord", {"misses": True})["misses"] is None or view.share("Miss", {"account_id": True})["account_id"] is None:
        return []
    rows = {miss.account_id: score_set.index.get(miss.account_id) for miss in misses}
    there = {key for key, row in rows.items() if row is not None and view.manages(row, score_set.assignments)}
    names = {key: score_set.accounts["name"][row] for key, row in rows.items() if row is not None}
    names |= _names(workspace.book_tables / "accounts.parquet", rows.keys() - names.keys())
    return [
        NamedMiss(miss=miss_answer(miss, view), name=names.get(miss.account_id) or miss.account_id, there=miss.account_id in there)
        for miss in known_misses(misses, score_set, view)
    ]


def _read(history: Path, labels: Path, score_set: ScoreSet) -> SaidRecord:
    known = pq.read_table(labels, columns=["account_id", "cutoff", "churn"])
    known = known.filter(pc.is_valid(known["churn"]))
    said = _first_said(history, pc.unique(known["cutoff"]).sort()[-_NEWEST:])
    if not len(said):
        return SaidRecord(cohorts=(), misses=(), first_due=_first_due(score_set, history))
    happened = known.to_pandas().rename(columns={"churn": "target"})
    cohorts, misses = record_of(said.merge(happened, on=["account_id", "cutoff"]), score_set=score_set)
    return SaidRecord(cohorts=cohorts, misses=misses, first_due=None)


def _first_said(history: Path, cutoffs: pa.Array) -> pd.DataFrame:
    """Return what was said first of each account as of each of the cutoffs."""
    wanted = pc.field("score_set").is_valid() & pc.field("cutoff").isin(cutoffs)
    columns = ["account_id", "cutoff", "scored_at", "health", "churn", "arr"]
    said = pq.read_table(history, columns=columns, filters=wanted).to_pandas()
    first: pd.DataFrame = said.sort_values("scored_at", kind="stable").drop_duplicates(["account_id", "cutoff"])
    return first.drop(columns="scored_at").rename(columns={"churn": "probability"})


def _first_due(score_set: ScoreSet, history: Path) -> datetime | None:
    """Return when the first of what was said comes due."""
    said = pq.read_table(history, columns=["cutoff"], filters=pc.field("score_set").is_valid())
    if not len(said):
        return None
    model = score_set.manifest.models["churn"]
    first: datetime = pc.min(said["cutoff"]).as_py()
    return first + timedelta(days=model.lead_days + model.horizon_days)


def _names(path: Path, wanted: Collection[str]) -> dict[str, str]:
    """Return the names that the checked tables have, as far as they have any."""
    if not wanted or not path.exists() or "name" not in pq.read_schema(path).names:
        return {}
    rows = pq.read_table(path, columns=["account_id", "name"], filters=pc.field("account_id").isin(list(wanted))).to_pylist()
    return {row["account_id"]: row["name"] for row in rows if row["name"]}
