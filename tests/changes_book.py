"""A book that was scored as of three cutoffs, for the tests of what changed: the last two with different models of churn."""

import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq

from features.workspace import Workspace, load_workspace
from serving.scores.batch import score_workspace
from tests.feature_files import write_features
from tests.serving_book import CUTOFF, EARLIER, make_workspace, packages
from training.calibration import PlattCalibrator

__all__ = ["CUTOFFS", "MIDDLE", "make_scored_thrice", "older_churn"]

MIDDLE = datetime(2025, 6, 24)
CUTOFFS = (EARLIER, MIDDLE, CUTOFF)


def older_churn():
    """Return the model of churn of the first two scorings: the same trees, but another calibrator."""
    return replace(packages()["churn"], calibrator=PlattCalibrator(slope=0.8, intercept=-0.3), code_version="0.0.9")


def make_scored_thrice(folder: Path) -> Workspace:
    """Make a workspace that was scored as of its last three cutoffs; `acc-0000` is in the last two, `acc-0239` in the first two only.

    It is scored once; the next ones are copies.
    """
    template = folder.parent / "scored-thrice"
    if not template.exists():
        score_thrice(template)
    shutil.copytree(template, folder, dirs_exist_ok=True)
    return load_workspace(folder, {})


def score_thrice(folder: Path) -> None:
    workspace = make_workspace(folder)
    whole = pq.read_table(workspace.snapshots / "features.parquet").to_pandas()
    whole = whole[~((whole["account_id"] == "acc-0239") & (whole["cutoff"] == CUTOFF))]
    for cutoff in CUTOFFS:
        (packages()["churn"] if cutoff == CUTOFF else older_churn()).save(workspace.training / "champion" / "churn")
        write_features(workspace.snapshots, whole[~whole["cutoff"].isin([later for later in CUTOFFS if later > cutoff])])
        score_workspace(workspace)
