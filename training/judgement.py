"""How good a trained model is: everything that is measured of it on the rolling-origin backtest, beside what is easier.

All measures are of the test rows, each scored by the judged package of its block; calibrated probabilities rank. Against the baselines,
which have no probability, pairs of rows count only within a block.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import logit

from features.feature import Family
from features.findings import Audit
from training.ablation import FamilyGain, ablate, judge_ablation
from training.audit import audit_target
from training.baseline import BaselineResult, judge_baselines, score_baselines
from training.breakdown import Level, Slice, WeakSpot, account_size, break_down, slice_rows, weak_spots
from training.dataset import Array, Dataset, days_to_renewal
from training.evaluation import Estimate, Positions, Suite, TestRows, judge, standard_measures
from training.model import raw_scores
from training.procedure import Training
from training.profit import churn_measures
from training.reliability import CurveBin, calibration_curve
from training.stability import Stability, judge_stability, resampled_boosters

__all__ = ["Block", "Importance", "Judgement", "judge_training"]

_EXPLAINED = 300
"""Test rows whose explanations the importance of features is averaged over."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of the test period, and the model that was judged on it.

    Parameters
    ----------
    test_from, test_to
        First and last cutoff, ISO 8601, UTC.
    trained_until
        Last cutoff that the block's model was trained on.
    metrics
        On the block; None where it has too few of either outcome.
    """

    test_from: str
    test_to: str
    trained_until: str
    train_rows: int
    rows: int
    positives: int
    metrics: Mapping[str, Estimate] | None


@dataclass(frozen=True)
class Importance:
    """How much a feature moves scores: the mean size of its part over test rows, in log-odds, by the newest judged package."""

    feature: str
    family: Family
    meaning: str
    mean_abs_part: float


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """How a model did on later rows.

    Parameters
    ----------
    metrics
        On all test rows.
    baselines
        Single rules and the logistic regression, by name.
    best_baseline
        The one with the highest AUC; None if there is none.
    slices
        The same measures on parts of the rows, by dimension.
    weak_spots
        The parts that the model serves worse than the whole.
    blocks
        The backtest, block by block.
    importance
        The features, the most important first.
    renewal
        Of churn: how well it was told who lets a renewal inside the horizon pass, on the rows with one; None where that is not told.
    stability
        How far explanations depend on the draw of the accounts.
    ablation
        What each family of features adds, for a model of the rows before the test period.
    audit
        What looks too good or too odd to be true, in the tables and in the target's rows.
    """

    metrics: Mapping[str, Estimate]
    baselines: Mapping[str, BaselineResult]
    best_baseline: str | None
    slices: Mapping[str, tuple[Level, ...]]
    weak_spots: tuple[WeakSpot, ...]
    calibration_curve: tuple[CurveBin, ...]
    blocks: tuple[Block, ...]
    importance: tuple[Importance, ...]
    renewal: Mapping[str, Estimate] | None
    stability: Stability
    ablation: tuple[FamilyGain, ...]
    audit: Audit

    @property
    def gains(self) -> dict[str, Estimate]:
        """The model's gain in AUC over each baseline."""
        return {name: baseline.gain for name, baseline in self.baselines.items()}

    def to_json(self) -> dict[str, Any]:
        """Return the judgement's part of the report."""
        slices = {name: {level.name: asdict(level) for level in levels} for name, levels in self.slices.items()}
        blocks = [asdict(block) for block in self.blocks]
        return {name: value for name, value in asdict(self).items() if name != "blocks"} | {
            "slices": slices,
            "folds": blocks,
            "audit": self.audit.to_json(),
        }


def judge_training(
    data: Dataset, training: Training, *, tables: Audit, plausible_auc: float, health_score: str | None = None, seed: int
) -> Judgement:
    """Measure a training on the test rows of its backtest.

    Parameters
    ----------
    data
        The rows that it was trained on.
    tables
        What the audit of the tables found.
    plausible_auc
        The AUC that no honest model is expected to pass.
    health_score
        The feature that holds the vendor's own health score, if there is one.

    Raises
    ------
    ConfigError
        If there is no feature of that name.
    """
    tested = data.at(training.test.rows)
    rows, probability = TestRows(tested.account_id, tested.target, tested.arr), training.test.probability
    suite: Suite = churn_measures if training.shipped.target == "churn" else standard_measures
    metrics = judge(rows, probability, suite=suite, seed=seed)
    size = account_size(tested.arr, tested.features)
    slices = break_down(rows, probability, slice_rows(tested.context, tested.cutoff, tested.target, size=size), suite=suite, seed=seed)
    catalogue, target = training.shipped.catalogue, training.shipped.target
    matrix = training.judged_rows.matrix
    scored = score_baselines(data, matrix, training.splits, catalogue=catalogue, target_name=target, health_score=health_score)
    baselines = judge_baselines(rows, probability, training.test.fold, scored, seed=seed)
    first_test = training.splits[0].first_test
    read = matrix[training.test.rows]
    own = audit_target(
        data,
        training.shipped_rows,
        catalogue,
        target,
        first_test=first_test,
        judged=metrics["auc"],
        plausible_auc=plausible_auc,
    )
    return Judgement(
        metrics=metrics,
        baselines=baselines,
        best_baseline=max(baselines, key=lambda name: baselines[name].auc.value, default=None),
        slices=slices,
        weak_spots=weak_spots(metrics, slices),
        calibration_curve=calibration_curve(tested.target, probability, tested.account_id),
        blocks=_blocks(data, training, rows, suite, seed=seed),
        importance=_importance(read, training),
        renewal=_renewal(tested, training, seed=seed),
        stability=_stability(data, read, training, seed=seed),
        ablation=_ablation(read, training, rows, seed=seed),
        audit=tables.joined(own),
    )


def _blocks(data: Dataset, training: Training, rows: TestRows, suite: Suite, *, seed: int) -> tuple[Block, ...]:
    cutoffs = [np.unique(data.cutoff[split.test]) for split in training.splits]
    names = tuple(f"{block[0].item():%Y-%m-%d}" for block in cutoffs)
    parted = Slice(names, training.test.fold, np.zeros(len(rows), dtype=bool))
    (measured,) = break_down(rows, training.test.probability, {"block": parted}, suite=suite, seed=seed).values()
    return tuple(
        Block(
            test_from=block[0].item().isoformat(),
            test_to=block[-1].item().isoformat(),
            trained_until=package.cutoff.isoformat(),
            train_rows=int(split.train.sum()),
            rows=level.rows,
            positives=level.positives,
            metrics=level.metrics,
        )
        for block, package, split, level in zip(cutoffs, training.folds, training.splits, measured, strict=True)
    )


def _importance(tested: Array, training: Training) -> tuple[Importance, ...]:
    newest = training.folds[-1]
    sample = _sampled(np.flatnonzero(training.test.fold == len(training.folds) - 1))
    sizes = np.abs(newest.explain_matrix(tested[sample])[:, :-1]).mean(axis=0)
    features = newest.catalogue.features
    return tuple(
        Importance(features[place].name, features[place].family, features[place].meaning, float(sizes[place]))
        for place in np.argsort(-sizes, kind="stable")
        if sizes[place] > 0
    )


def _sampled(rows: Positions) -> Positions:
    return np.asarray(rows[np.linspace(0, len(rows) - 1, min(_EXPLAINED, len(rows))).astype(int)])


def _renewal(tested: Dataset, training: Training, *, seed: int) -> Mapping[str, Estimate] | None:
    lost = tested.context["nonrenewal"].to_numpy(np.float64)
    due = np.flatnonzero(np.isfinite(lost))
    if training.survival is None or not 0 < lost[due].sum() < len(due):
        return None
    moved = training.test.raw[due] + logit(training.folds[0].base_rate) - logit(training.test.level[due])
    gone = 1 - training.survival.probability(moved, days_to_renewal(tested)[due])
    return judge(TestRows(tested.account_id[due], lost[due], tested.arr[due]), gone, seed=seed)


def _stability(data: Dataset, tested: Array, training: Training, *, seed: int) -> Stability:
    accounts = data.account_id[training.splits[0].train]
    boosters = resampled_boosters(training.problem, training.rounds, accounts, seed=seed)
    return judge_stability(boosters, tested[_sampled(np.arange(len(tested)))], catalogue=training.shipped.catalogue)


def _ablation(tested: Array, training: Training, rows: TestRows, *, seed: int) -> tuple[FamilyGain, ...]:
    first = training.folds[0]
    without = ablate(training.problem, training.rounds, tested)
    return judge_ablation(rows, raw_scores(first.booster, tested), without, catalogue=first.catalogue, seed=seed)
