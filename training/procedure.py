"""What is done for one target: fit, calibrate, judge on later rows, and fit again on all rows.

The *judged* package is trained on the rows whose labels were known at the first test cutoff, and all measures are its own. The *shipped*
package comes from the same procedure on all labelled rows, the test period included, so that it knows the latest data; it is the one
that scores accounts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from scipy.special import logit

from features.catalogue import Catalogue
from features.errors import NotEnoughDataError, explain
from features.feature import Target
from training.baseline import fit_logistic, fit_rules
from training.calibration import Calibrator, choose_calibrator
from training.dataset import Array, Dataset, encode_features, learn_categories
from training.evaluation import Estimate, TestRows, auc, estimate, judge
from training.model import Problem, Recipe, Rehearsal, fit_booster, rehearse
from training.package import Package, describe
from training.splits import Fold, ForwardSplit, LabelWindow, forward_split, inner_folds

__all__ = ["Assignment", "Baseline", "Judgement", "Trained", "judge_package", "split_rows", "train_package"]

_RESAMPLES = 200


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What is to be learnt, from what, and how.

    Parameters
    ----------
    data_fingerprint, code_version
        Where the package will say that it came from.
    """

    target: Target
    catalogue: Catalogue
    window: LabelWindow
    recipe: Recipe
    data_fingerprint: str
    code_version: str


@dataclass(frozen=True)
class Trained:
    """A package, its number of trees, and what is to be said about how it was made, if anything."""

    package: Package
    rounds: int
    note: str


@dataclass(frozen=True)
class Baseline:
    """A single rule's feature and its AUC on the test rows."""

    feature: str
    auc: Estimate


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """How a package did on later rows, beside what is easier.

    Parameters
    ----------
    baselines
        The single rules, by name.
    best_baseline
        The rule with the highest AUC on the test rows, None if the catalogue has a feature for none.
    gain
        The package's AUC less that of the best rule (less one half where there is none), on the same resamples.
    """

    metrics: Mapping[str, Estimate]
    baselines: Mapping[str, Baseline]
    best_baseline: str | None
    gain: Estimate
    logistic_regression: Estimate


def split_rows(data: Dataset, window: LabelWindow, *, test_from: datetime | None, test_to: datetime | None, minimum: int) -> ForwardSplit:
    """Split labelled rows forward in time, and see that there is enough of both outcomes on both sides.

    Raises
    ------
    NotEnoughDataError
        If there is not; the message says how many there are and how many are needed.
    """
    if not len(data):
        raise NotEnoughDataError("no row has a label: no label window has closed, or nothing of the kind is recorded")
    split = forward_split(data.cutoff, window, test_from=test_from, test_to=test_to)
    train, test = data.at(split.train), data.at(split.test)
    if min(_rarer(train), _rarer(test)) < minimum:
        raise NotEnoughDataError(
            explain(
                f"too few positives or negatives: {train.positives} of {len(train)} rows to train on are positive, "
                f"and {test.positives} of {len(test)} to judge on",
                allowed=f"at least {minimum} of each kind on both sides",
                todo="Load a longer history or more accounts, choose a longer horizon, or lower minimum_positives in [training].",
            )
        )
    return split


def train_package(data: Dataset, assignment: Assignment) -> Trained:
    """Choose the number of trees on later folds, calibrate on their scores, and train on all rows.

    Raises
    ------
    NotEnoughDataError
        If the rows cannot be cut into folds.
    """
    catalogue, target, recipe = assignment.catalogue, assignment.target, assignment.recipe
    categories = learn_categories(data.features, catalogue)
    matrix = encode_features(data.features, features=catalogue.names, categories=categories)
    inner = inner_folds(data, assignment.window)
    problem = Problem(matrix=matrix, target=data.target, target_name=target, catalogue=catalogue, recipe=recipe)
    found = rehearse(problem, inner.folds)
    package = Package(
        target=target,
        model=fit_booster(problem, found.rounds),
        calibrator=_calibrated(found, inner.folds, data),
        catalogue=catalogue,
        categories=categories,
        reference=describe(data.features, catalogue),
        horizon_days=assignment.window.horizon_days,
        lead_days=assignment.window.lead_days,
        cutoff=data.cutoffs[-1].item(),
        base_rate=float(data.target.mean()),
        data_fingerprint=assignment.data_fingerprint,
        code_version=assignment.code_version,
    )
    return Trained(package, found.rounds, inner.note)


def judge_package(package: Package, train: Dataset, test: Dataset, *, seed: int, threads: int) -> Judgement:
    """Measure a package on test rows, beside single rules and a logistic regression that were fitted on the same training rows."""
    catalogue = package.catalogue
    scores = package.score_rows(test.features, threads=threads)
    rules = fit_rules(train.features, train.target, catalogue=catalogue, target_name=package.target)
    by_rule = {rule.name: rule.score(test.features) for rule in rules}
    baselines = {rule.name: Baseline(rule.feature, _auc(test, by_rule[rule.name], seed)) for rule in rules}
    best = max(baselines, key=lambda name: baselines[name].auc.value, default=None)
    logistic = fit_logistic(package.encode(train.features), train.target, catalogue=catalogue)
    rows = TestRows(test.account_id, test.target, test.arr)
    return Judgement(
        metrics=judge(rows, scores.probability, resamples=_RESAMPLES, seed=seed),
        baselines=baselines,
        best_baseline=best,
        gain=_gain(test, scores.raw, by_rule[best] if best else np.zeros(len(test)), seed),
        logistic_regression=_auc(test, logistic.decision_function(package.encode(test.features)), seed),
    )


def _calibrated(found: Rehearsal, folds: Sequence[Fold], data: Dataset) -> Calibrator:
    """Fit the calibrator on held-out scores that are moved to the level of all rows, as the model of all rows would give them."""
    fold = np.repeat(np.arange(len(folds)), [len(later) for _, later in folds])
    moved = np.array([logit(data.target.mean()) - logit(data.target[earlier].mean()) for earlier, _ in folds])
    return choose_calibrator(found.raw + moved[fold], data.target[found.rows], folds=fold, accounts=data.account_id[found.rows])


def _auc(test: Dataset, score: Array, seed: int) -> Estimate:
    return estimate(lambda weights: auc(test.target, score, weights), test.account_id, resamples=_RESAMPLES, seed=seed)


def _gain(test: Dataset, raw: Array, rule: Array, seed: int) -> Estimate:
    def difference(weights: Array) -> Array:
        return auc(test.target, raw, weights) - auc(test.target, rule, weights)

    return estimate(difference, test.account_id, resamples=_RESAMPLES, seed=seed)


def _rarer(data: Dataset) -> int:
    return min(data.positives, len(data) - data.positives)
