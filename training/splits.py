"""Which rows a model is trained on, and which it is judged on: forward in time, with closed label windows.

A model judged at a cutoff may have learnt only from labels that were known by then. So a training cutoff counts only if its label
window had closed at the first test cutoff, and the same holds within the training rows, between a fold's earlier and later part.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GroupKFold

from features.clock import closed_by
from features.errors import NotEnoughDataError, explain
from training.dataset import Array, Dataset

__all__ = ["Fold", "ForwardSplit", "InnerFolds", "LabelWindow", "forward_split", "inner_folds", "rolling_splits"]

Times = npt.NDArray[np.datetime64]
Mask = npt.NDArray[np.bool_]
Fold = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
"""Positions of the earlier rows, to train on, and of the later ones, held out."""

_TEST_SHARE = 0.25
_HELD_OUT_SHARE = 0.4
_FOLDS = 3
_FOLD_POSITIVES = 10
_OVERLAPPING = (
    "The training period is too short to keep the label windows of a fold's earlier and later rows apart: "
    "the number of trees and the calibration were chosen on later rows whose windows overlap those of the earlier ones."
)
_BY_ACCOUNT = (
    "The training period is too short for a split in time: "
    "the number of trees and the calibration were chosen on rows of the same time but other accounts."
)


@dataclass(frozen=True, kw_only=True)
class LabelWindow:
    """When everything about a label is known: `lead + horizon + grace` days after the cutoff."""

    horizon_days: int
    lead_days: int
    grace_days: int

    def closed(self, cutoffs: Times, instant: np.datetime64) -> Mask:
        """Tell which cutoffs' label windows `(n,)` have closed by the instant."""
        return np.array([self.closed_at(_as_datetime(cutoff), instant) for cutoff in cutoffs], dtype=bool)

    def closed_at(self, cutoff: datetime, instant: np.datetime64) -> bool:
        """Tell whether one cutoff's label window has closed by the instant."""
        days = {"horizon_days": self.horizon_days, "lead_days": self.lead_days, "grace_days": self.grace_days}
        return closed_by(cutoff, _as_datetime(instant), **days)


@dataclass(frozen=True, eq=False)
class ForwardSplit:
    """Rows to train on and later rows to judge on, as masks `(n,)`, and the first test cutoff."""

    train: Mask
    test: Mask
    first_test: np.datetime64


@dataclass(frozen=True, eq=False)
class InnerFolds:
    """Folds within training rows, earlier to later, and what is to be said about them, if anything."""

    folds: tuple[Fold, ...]
    note: str = ""


def forward_split(
    cutoff: Times, window: LabelWindow, *, test_from: datetime | None = None, test_to: datetime | None = None
) -> ForwardSplit:
    """Split labelled rows by their cutoffs `(n,)`.

    The test rows have cutoffs in `[test_from, test_to]`. Without `test_from` they are the last quarter of the cutoffs, or fewer,
    down to one, where a quarter would leave nothing to train on.

    Raises
    ------
    NotEnoughDataError
        If no cutoff is left to judge on, or none to train on.
    """
    cutoffs, position = np.unique(cutoff, return_inverse=True)
    last = len(cutoffs) if test_to is None else int(np.searchsorted(cutoffs, np.datetime64(test_to), side="right"))
    first = _default_first(cutoffs[:last], window) if test_from is None else int(np.searchsorted(cutoffs, np.datetime64(test_from)))
    if first >= last:
        raise _nothing("judge on", cutoffs, f"no labelled cutoff from {test_from} to {test_to or 'the end'}", "Move test_from or test_to.")
    trained = window.closed(cutoffs[:first], cutoffs[first])
    if not trained.any():
        wait = window.horizon_days + window.lead_days + window.grace_days
        given = f"first test cutoff {_as_datetime(cutoffs[first]):%Y-%m-%d}, label windows of {wait} days (lead, horizon and grace)"
        raise _nothing("train on", cutoffs, given, "Load a longer history, or choose a shorter horizon or a later test_from.")
    known = np.flatnonzero(trained)
    return ForwardSplit(np.isin(position, known), (position >= first) & (position < last), cutoffs[first])


def rolling_splits(cutoff: Times, window: LabelWindow, whole: ForwardSplit, *, folds: int) -> tuple[ForwardSplit, ...]:
    """Cut a test period into blocks, each with the rows that a model made at the block's first cutoff could have learnt from.

    This is the rolling-origin evaluation of forecasting (Tashman, "Out-of-sample tests of forecasting accuracy", International Journal
    of Forecasting 2000): each block is judged as if the model had been retrained at its start, on all label windows closed by then.

    Parameters
    ----------
    cutoff
        `(n,)`, of all labelled rows.
    whole
        The test period, from `forward_split`.
    folds
        The most blocks; there are fewer where the period has fewer cutoffs.

    Returns
    -------
    The blocks in order of time. Their test rows are those of `whole`, each in one block; the rows trained on only grow.
    """
    cutoffs, position = np.unique(cutoff, return_inverse=True)
    tested = np.unique(position[whole.test])
    splits = []
    for block in np.array_split(tested, min(folds, len(tested))):
        first = cutoffs[block[0]]
        known = np.flatnonzero(window.closed(cutoffs[: block[0]], first))
        splits.append(ForwardSplit(np.isin(position, known), np.isin(position, block), first))
    return tuple(splits)


def inner_folds(data: Dataset, window: LabelWindow) -> InnerFolds:
    """Cut training rows into folds that train on earlier and hold out later rows.

    The last two fifths of the cutoffs are held out in up to three blocks, each scored by a model of the rows whose label windows had
    closed at the block's first cutoff. Where the rows do not reach for that, the windows may overlap, and as a last resort the
    folds are made of accounts; the note says so.

    Raises
    ------
    NotEnoughDataError
        If no fold has enough positives on both sides.
    """
    cutoffs, position = np.unique(data.cutoff, return_inverse=True)
    blocks = _held_out_blocks(len(cutoffs))
    apart = [
        (np.isin(position, np.flatnonzero(window.closed(cutoffs[: block[0]], cutoffs[block[0]]))), np.isin(position, block))
        for block in blocks
    ]
    overlapping = [(position < block[0], np.isin(position, block)) for block in blocks]
    for candidates, note in ((apart, ""), (overlapping, _OVERLAPPING), (list(_by_account(data)), _BY_ACCOUNT)):
        folds = tuple(
            (np.flatnonzero(earlier), np.flatnonzero(later)) for earlier, later in candidates if _usable(data.target, earlier, later)
        )
        if folds:
            return InnerFolds(folds, note)
    raise NotEnoughDataError(
        explain(
            "the training rows cannot be cut into folds with enough positives on both sides",
            given=f"{len(data)} rows, {data.positives} positives",
            allowed=f"at least {_FOLD_POSITIVES} positives on either side",
            todo="Load a longer history or more accounts.",
        )
    )


def _default_first(cutoffs: Times, window: LabelWindow) -> int:
    for size in range(max(1, round(_TEST_SHARE * len(cutoffs))), 0, -1):
        first = len(cutoffs) - size
        if first > 0 and window.closed(cutoffs[:1], cutoffs[first]).any():
            return first
    return max(len(cutoffs) - 1, 0)


def _held_out_blocks(cutoffs: int) -> list[npt.NDArray[np.intp]]:
    if cutoffs < 2:
        return []
    held_out = np.arange(cutoffs)[-max(1, round(_HELD_OUT_SHARE * cutoffs)) :]
    return [block for block in np.array_split(held_out, _FOLDS) if len(block)]


def _by_account(data: Dataset) -> Iterator[tuple[Mask, Mask]]:
    if len(np.unique(data.account_id)) < _FOLDS:
        return
    for _, held in GroupKFold(_FOLDS).split(data.target, groups=data.account_id):
        later = np.zeros(len(data), dtype=bool)
        later[held] = True
        yield ~later, later


def _usable(target: Array, earlier: Mask, later: Mask) -> bool:
    return all(_FOLD_POSITIVES <= target[side].sum() <= side.sum() - _FOLD_POSITIVES for side in (earlier, later))


def _nothing(purpose: str, cutoffs: Times, given: str, todo: str) -> NotEnoughDataError:
    ends = (f"{_as_datetime(cutoffs[0]):%Y-%m-%d}", f"{_as_datetime(cutoffs[-1]):%Y-%m-%d}") if len(cutoffs) else ("-", "-")
    return NotEnoughDataError(
        explain(
            f"there is no cutoff to {purpose}", given=given, allowed=f"{len(cutoffs)} labelled cutoffs, {ends[0]} to {ends[1]}", todo=todo
        )
    )


def _as_datetime(instant: np.datetime64) -> datetime:
    value: Any = instant.astype("datetime64[us]").item()
    assert isinstance(value, datetime)
    return value
