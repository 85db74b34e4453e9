"""What was said and what happened: held-out scores of the past against who left, as everybody should be able to check them.

The scores come from the rolling-origin backtest of the last training (`training.backtest`): each block of months was scored by a model
that had learnt only from what was known before it, and nothing was chosen on those rows. They are what would have been said, not what
was said: a workspace has no scores of its own from before it was set up.
"""

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pandas as pd

from features.errors import WorkspaceError
from features.workspace import Workspace
from serving.answers import schema_track as schema
from serving.answers.account_answers import as_of
from serving.health import BANDS, Band, band_of, health_of
from serving.scores.scoring import ScoreSet
from serving.scores.sharing import View
from training.backtest import read_backtest

__all__ = [
    "MOST_MISSES",
    "BandRecord",
    "Cohort",
    "Miss",
    "Record",
    "calibration_answer",
    "cohort_answer",
    "known_misses",
    "miss_answer",
    "read_record",
    "record_of",
    "track_record_answer",
]

MOST_MISSES = 10
"""So many misses of each kind are listed, those that were furthest off first."""

_KEY: Hashable = "track record"
_NONE_YET = "No training has left held-out scores yet. Run `renewcast train`, and what it would have said of the past is shown here."


@dataclass(frozen=True, kw_only=True)
class BandRecord:
    """Of the accounts that stood in a band: how many there were, and how many left within the horizon."""

    band: Band
    accounts: int
    left: int

    @property
    def share(self) -> float | None:
        """The share that left; None of no accounts."""
        return self.left / self.accounts if self.accounts else None


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """All accounts as of one cutoff, and what had become of them by `until`."""

    cutoff: datetime
    until: datetime
    bands: tuple[BandRecord, ...]


@dataclass(frozen=True, kw_only=True)
class Miss:
    """An account of the newest cohort of which the score gave the wrong picture.

    Parameters
    ----------
    left
        Whether it left though it was green, or stayed though it was red.
    """

    account_id: str
    probability: float
    health: int
    left: bool
    arr: float | None


@dataclass(frozen=True, kw_only=True)
class Record:
    """A training's record.

    Parameters
    ----------
    cohorts
        Newest first.
    calibration
        The bins of the report's calibration curve.
    package
        The hash of the package of churn that the training made.
    """

    run: str
    cohorts: tuple[Cohort, ...]
    misses: tuple[Miss, ...]
    calibration: tuple[Mapping[str, Any], ...]
    package: str


def record_of(rows: pd.DataFrame, *, score_set: ScoreSet) -> tuple[tuple[Cohort, ...], tuple[Miss, ...]]:
    """Return the cohorts of held-out rows of churn, newest first, and the misses of the newest.

    Parameters
    ----------
    rows
        `account_id`, `cutoff`, `target`, `probability`, `arr`; one row an account and cutoff. `health` as well, where it was said.
    score_set
        Whose definition of health holds where none was said, and whose horizon.
    """
    model = score_set.manifest.models["churn"]
    said = rows["health"] if "health" in rows.columns else None
    health = health_of(rows["probability"].to_numpy(), score_set.manifest.health) if said is None else said.to_numpy()
    marked = rows.assign(health=health, band=[band_of(int(points)) for points in health])
    horizon = timedelta(days=model.lead_days + model.horizon_days)
    cutoffs = [when.to_pydatetime() for when in sorted(pd.to_datetime(marked["cutoff"].unique()), reverse=True)]
    parts = [marked[marked["cutoff"] == when] for when in cutoffs]
    cohorts = tuple(Cohort(cutoff=when, until=when + horizon, bands=_bands(part)) for when, part in zip(cutoffs, parts, strict=True))
    return cohorts, _misses(parts[0]) if parts else ()


def read_record(workspace: Workspace, score_set: ScoreSet) -> Record | None:
    """Return the record of the last training; None if it left none.

    It is read once for a score set.
    """
    if _KEY not in score_set.memory:
        score_set.memory[_KEY] = _read(workspace, score_set)
    found: Record | None = score_set.memory[_KEY]
    return found


def track_record_answer(workspace: Workspace, score_set: ScoreSet, view: View, *, said: schema.Said) -> schema.TrackRecord:
    """Return what was said and what happened, as far as the caller may know it.

    Parameters
    ----------
    said
        What was really said; the rest is what would have been said.
    """
    record = read_record(workspace, score_set)
    model = score_set.manifest.models["churn"]
    values: dict[str, Any] = {
        "source": "backtest",
        "run": record and record.run,
        "in_use": None if record is None else record.package == model.package_hash,
        "horizon_days": model.horizon_days,
        "cohorts": [cohort_answer(cohort, view) for cohort in record.cohorts] if record else [],
        "calibration": calibration_answer(record, view),
        "misses": [miss_answer(miss, view) for miss in known_misses(record.misses, score_set, view)] if record else [],
        "said": said,
        "note": None if record else _NONE_YET,
        "as_of": as_of(score_set, view),
    }
    return schema.TrackRecord(**view.share("TrackRecord", values))


def calibration_answer(record: Record | None, view: View) -> list[schema.CalibrationBin]:
    """Return how chances that were given compare with what happened, as far as the caller may know it."""
    bins = [_bin(one, view) for one in record.calibration] if record else []
    return view.share("TrackRecord", {"calibration": bins})["calibration"] or []


def cohort_answer(cohort: Cohort, view: View) -> schema.Cohort:
    """Return a cohort as far as the caller may know it: a partner gets no shares of too few accounts."""
    bands = [schema.BandRecord(**view.share("BandRecord", _band(band, view))) for band in cohort.bands]
    values = {"cutoff": cohort.cutoff, "until": cohort.until, "bands": bands}
    return schema.Cohort(**view.share("Cohort", values))


def known_misses(misses: Sequence[Miss], score_set: ScoreSet, view: View) -> list[Miss]:
    """Return the misses of accounts that the caller may know of: a partner knows of those that it manages."""
    rows = [score_set.index.get(miss.account_id) for miss in misses]
    managed = [row is not None and view.manages(row, score_set.assignments) for row in rows]
    return [miss for miss, own in zip(misses, managed, strict=True) if own or view.caller.is_vendor]


def miss_answer(miss: Miss, view: View) -> schema.Miss:
    """Return a miss as far as the caller may know it."""
    return schema.Miss(**view.share("Miss", vars(miss)))


def _bands(part: pd.DataFrame) -> tuple[BandRecord, ...]:
    stood = {band: part.loc[part["band"] == band, "target"] for band in BANDS}
    return tuple(BandRecord(band=band, accounts=len(left), left=int(left.sum())) for band, left in stood.items())


def _misses(part: pd.DataFrame) -> tuple[Miss, ...]:
    gone = part[(part["band"] == "green") & (part["target"] == 1)].sort_values(["probability", "account_id"])
    stayed = part[(part["band"] == "red") & (part["target"] == 0)].sort_values(["probability", "account_id"], ascending=[False, True])
    return tuple(_miss(row) for rows in (gone, stayed) for row in rows.head(MOST_MISSES).to_dict("records"))


def _miss(row: Mapping[Any, Any]) -> Miss:
    return Miss(
        account_id=row["account_id"],
        probability=float(row["probability"]),
        health=int(row["health"]),
        left=bool(row["target"]),
        arr=None if pd.isna(row["arr"]) else float(row["arr"]),
    )


def _read(workspace: Workspace, score_set: ScoreSet) -> Record | None:
    try:
        run = (workspace.training / "CURRENT").read_text(encoding="utf-8").strip()
        report = json.loads((workspace.training / run / "report.json").read_text(encoding="utf-8"))["targets"]["churn"]
        rows = read_backtest(workspace.training / run, "churn")
    except (FileNotFoundError, KeyError, WorkspaceError):
        return None
    if report["status"] != "trained":
        return None
    cohorts, misses = record_of(rows[rows["stage"] == "test"], score_set=score_set)
    return Record(run=run, cohorts=cohorts, misses=misses, calibration=tuple(report["calibration_curve"]), package=report["package_hash"])


def _band(record: BandRecord, view: View) -> dict[str, Any]:
    enough = view.caller.is_vendor or record.accounts >= view.policy.numbers.peers_needed
    return {"band": record.band, "accounts": record.accounts, "left": record.left, "share": record.share if enough else None}


def _bin(one: Mapping[str, Any], view: View) -> schema.CalibrationBin:
    values = {name: one[name] for name in ("rows", "probability", "frequency", "low", "high")}
    return schema.CalibrationBin(**view.share("CalibrationBin", values))
