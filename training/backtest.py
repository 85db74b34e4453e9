"""Scores that models gave to rows that they had not learnt from, kept so that what was said can be held against what happened.

A training leaves two kinds of them. *Inner* ones come from its forward folds before the test period, on which the number of trees and the
calibration were chosen. *Test* ones come from the rolling-origin backtest, in which each block of the test period is scored by a model of
the rows whose label windows had closed at the block's first cutoff; nothing was chosen on them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import logit

from features.errors import WorkspaceError, explain
from training.dataset import CONTEXT, Array, Dataset

__all__ = ["BACKTEST", "HeldOut", "Levelled", "Stage", "bring_to_level", "held_out_frame", "join_held_out", "read_backtest"]

BACKTEST = "backtest"
"""The folder of a training in which each target has a file of its held-out scores."""

Stage = Literal["inner", "test"]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Scores of `m` rows by models that had not learnt from them.

    Parameters
    ----------
    rows
        `(m,)` positions of the rows in the dataset.
    fold
        `(m,)` number of the fold, and so of the model, within its stage.
    level
        `(m,)` share of positives among the rows that the model had learnt from.
    raw
        `(m,)` log-odds.
    probability
        `(m,)` calibrated.
    """

    stage: Stage
    rows: npt.NDArray[np.intp]
    fold: npt.NDArray[np.intp]
    level: Array
    raw: Array
    probability: Array

    def at(self, rows: npt.NDArray[np.bool_]) -> "HeldOut":
        """Return the rows of a boolean mask `(m,)`."""
        columns = {name: getattr(self, name)[rows] for name in ("rows", "fold", "level", "raw", "probability")}
        return replace(self, **columns)


@dataclass(frozen=True, eq=False)
class Levelled:
    """Held-out rows of several stages, their scores moved to one level, as a model of rows with that share of positives gives them.

    Parameters
    ----------
    rows, raw
        `(n,)` positions, and scores in log-odds.
    model
        `(n,)` the number of the model that scored the row.
    """

    rows: npt.NDArray[np.intp]
    raw: Array
    model: npt.NDArray[np.intp]


def bring_to_level(parts: Sequence[HeldOut], level: float) -> Levelled:
    """Move the scores of held-out rows from the share of positives that each model learnt from to another one."""
    return Levelled(
        rows=np.concatenate([part.rows for part in parts]),
        raw=np.concatenate([part.raw + logit(level) - logit(part.level) for part in parts]),
        model=np.concatenate([part.fold + 1000 * stage for stage, part in enumerate(parts)]),
    )


def join_held_out(parts: Sequence[HeldOut]) -> HeldOut:
    """Put the folds of one stage together."""
    together = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "fold", "level", "raw", "probability")}
    return HeldOut(stage=parts[0].stage, **together)


def held_out_frame(data: Dataset, parts: Sequence[HeldOut]) -> pd.DataFrame:
    """Return the held-out rows, one each, ordered by stage, cutoff and account.

    Returns
    -------
    account_id, cutoff (UTC), stage, fold, target, raw (log-odds), probability, arr (at the cutoff), and the columns `CONTEXT`.
    """
    return pd.concat([_frame(data, part) for part in parts], ignore_index=True)


def read_backtest(training: Path, target: str) -> pd.DataFrame:
    """Read the held-out rows of a target from the folder of one training; see `held_out_frame`.

    Raises
    ------
    WorkspaceError
        If the training left none.
    """
    file = training / BACKTEST / f"{target}.parquet"
    try:
        return pd.read_parquet(file)
    except FileNotFoundError as error:
        raise WorkspaceError(
            explain(f"this training has no backtest of {target}", given=file, todo="Run `renewcast train` again.")
        ) from error


def _frame(data: Dataset, part: HeldOut) -> pd.DataFrame:
    order = np.lexsort((part.fold, part.rows))
    rows = data.at(part.rows[order])
    columns: dict[str, Any] = {"account_id": rows.account_id, "cutoff": rows.cutoff, "stage": part.stage, "fold": part.fold[order]}
    columns |= {"target": rows.target, "raw": part.raw[order], "probability": part.probability[order], "arr": rows.arr}
    return pd.DataFrame(columns | {name: rows.context[name].to_numpy() for name in CONTEXT})
