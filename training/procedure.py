"""What is done for one target: choose, fit, calibrate, backtest on later rows, and fit again on all rows.

The *judged* packages are those of the rolling-origin backtest: each is trained on the rows whose labels were known at the first cutoff of
its block of the test period, and all measures are theirs. The *shipped* package comes from the same procedure on all labelled rows, the
test period included, so that it knows the latest data; it is the one that scores accounts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from features.catalogue import Catalogue
from features.errors import NotEnoughDataError, explain
from features.feature import Target
from features.progress import Progress, silent
from training.backtest import HeldOut, bring_to_level, join_held_out
from training.calibration import Calibrator, Labels, choose_calibrator, refit_calibrator
from training.change import ChangeModel, fit_change
from training.crossing import cross_score
from training.dataset import Array, Categories, Dataset, Encoded, days_to_renewal, encode_features, learn_categories
from training.latest_level import level_shift, recent_rows
from training.model import Positions, Problem, Recipe, Rehearsal, fit_booster, raw_scores, rehearse
from training.package import Package, Reference, describe
from training.search import SearchResult, search_recipe
from training.segments import SegmentLevels, fit_segment_levels
from training.splits import Fold, ForwardSplit, LabelWindow, forward_split, inner_folds, rolling_splits
from training.survival import SurvivalModel, fit_survival

__all__ = ["Assignment", "Training", "split_rows", "train_target"]

_SEGMENT = "segment"
"""The feature whose levels may get a level of their own in the calibration."""

Advance = Callable[[str], None]
"""Called with what is done next."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What is to be learnt, from what, and how.

    Parameters
    ----------
    trials
        How many recipes to try; 0 to take the one that is given.
    fixed
        Parameters that a search leaves as they are.
    data_fingerprint, code_version
        Where the package will say that it came from.
    """

    target: Target
    catalogue: Catalogue
    window: LabelWindow
    recipe: Recipe
    trials: int
    fixed: tuple[str, ...]
    data_fingerprint: str
    code_version: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """What came of training one target.

    Parameters
    ----------
    shipped
        The package that scores.
    folds
        The judged packages, one for each split of the test period.
    splits
        The rows that each was trained and judged on.
    recipe, rounds
        How all of them were trained, and of how many trees they are.
    problem
        The rows of the first split, as the first judged package was trained on them.
    judged_rows, shipped_rows
        All rows, as the judged packages and as the shipped one read them.
    survival
        Of churn, as it was known before the test period; see `Package.survival`.
    inner, test
        Scores of rows by models that had not learnt from them.
    search
        What was tried to find the recipe; None if nothing was.
    note
        What is to be said about how it was made, if anything.
    """

    shipped: Package
    folds: tuple[Package, ...]
    splits: tuple[ForwardSplit, ...]
    recipe: Recipe
    rounds: int
    problem: Problem
    judged_rows: Encoded
    shipped_rows: Encoded
    survival: SurvivalModel | None
    inner: HeldOut
    test: HeldOut
    search: SearchResult | None
    note: str


def split_rows(
    data: Dataset, window: LabelWindow, *, test_from: datetime | None, test_to: datetime | None, minimum: int, folds: int
) -> tuple[ForwardSplit, ...]:
    """Split labelled rows forward in time, and see that there is enough of both outcomes on both sides.

    Returns
    -------
    The blocks of the test period, each with the rows to train on for it.

    Raises
    ------
    NotEnoughDataError
        If there is not; the message says how many there are and how many are needed.
    """
    if not len(data):
        raise NotEnoughDataError("no row has a label: no label window has closed, or nothing of the kind is recorded")
    whole = forward_split(data.cutoff, window, test_from=test_from, test_to=test_to)
    train, test = data.at(whole.train), data.at(whole.test)
    if min(_rarer(train), _rarer(test)) < minimum:
        raise NotEnoughDataError(
            explain(
                f"too few positives or negatives: {train.positives} of {len(train)} rows to train on are positive, "
                f"and {test.positives} of {len(test)} to judge on",
                allowed=f"at least {minimum} of each kind on both sides",
                todo="Load a longer history or more accounts, choose a longer horizon, or lower minimum_positives in [training].",
            )
        )
    return rolling_splits(data.cutoff, window, whole, folds=folds)


def train_target(
    data: Dataset, assignment: Assignment, splits: Sequence[ForwardSplit], *, advance: Advance, on_search: Progress = silent
) -> Training:
    """Choose recipe, number of trees and calibration before the test period, backtest on it, and train on all rows.

    Parameters
    ----------
    splits
        From `split_rows`.

    Raises
    ------
    ConfigError
        If there is nothing to search for.
    NotEnoughDataError
        If the rows before the test period cannot be cut into folds.
    """
    advance("choosing the number of trees")
    early = data.at(splits[0].train)
    folds = inner_folds(early, assignment.window)
    encoded = _encode(data, early, assignment)
    problem = _problem(early.target, encoded.matrix[splits[0].train], assignment, assignment.recipe)
    search = _search(problem, assignment, folds.folds, early, on_search) if assignment.trials else None
    problem = replace(problem, recipe=search.recipe) if search else problem
    rehearsal = rehearse(problem, folds.folds)
    positions = np.flatnonzero(splits[0].train)
    rounds, inner = rehearsal.rounds, _rehearsed(rehearsal, folds.folds, early, positions)
    held_out = (inner, *_crossed(problem, rounds, early, rehearsal.rows, positions))
    calibration = _calibrate(data, held_out, level=float(early.target.mean()))
    advance("backtesting")
    judged, test = _backtested(data, encoded, assignment, splits, problem, rounds, calibration, held_out)
    advance("training on all rows")
    whole = _encode(data, data, assignment, like=encoded)
    shipped = _shipped(data, whole, assignment, problem.recipe, rounds, (*held_out, test), survival=(inner, test))
    return Training(
        shipped=shipped,
        folds=judged,
        splits=tuple(splits),
        recipe=problem.recipe,
        rounds=rounds,
        problem=problem,
        judged_rows=encoded,
        shipped_rows=whole,
        survival=_survival(data, assignment, (inner,), level=float(early.target.mean())),
        inner=replace(inner, probability=_probability(data, inner, calibration)),
        test=test,
        search=search,
        note=folds.note,
    )


def _encode(data: Dataset, known: Dataset, assignment: Assignment, *, like: Encoded | None = None) -> Encoded:
    """Encode all rows with the levels that occur in some of them, unless these are the levels of another encoding.

    The rows of all splits are then taken from one matrix.
    """
    categories = learn_categories(known.features, assignment.catalogue)
    if like is not None and like.categories == categories:
        return like
    return Encoded(encode_features(data.features, features=assignment.catalogue.names, categories=categories), categories)


def _problem(target: Array, matrix: Array, assignment: Assignment, recipe: Recipe, *, bins: Problem | None = None) -> Problem:
    return Problem(
        matrix=matrix,
        target=target,
        target_name=assignment.target,
        catalogue=assignment.catalogue,
        recipe=recipe,
        bins=bins,
    )


def _search(problem: Problem, assignment: Assignment, folds: Sequence[Fold], early: Dataset, on_search: Progress) -> SearchResult:
    return search_recipe(problem, folds, accounts=early.account_id, trials=assignment.trials, fixed=assignment.fixed, on_progress=on_search)


def _rehearsed(found: Rehearsal, folds: Sequence[Fold], early: Dataset, positions: npt.NDArray[np.intp]) -> HeldOut:
    held_out = [len(later) for _, later in folds]
    level = np.array([early.target[learnt].mean() for learnt, _ in folds])
    return HeldOut(
        stage="inner",
        rows=positions[found.rows],
        fold=np.repeat(np.arange(len(folds)), held_out),
        level=np.repeat(level, held_out),
        raw=found.raw,
        probability=expit(found.raw),
    )


def _crossed(problem: Problem, rounds: int, early: Dataset, rows: Positions, positions: Positions) -> tuple[HeldOut, ...]:
    """Score the rows held out once more, by models of the same months and other accounts."""
    found = cross_score(problem, rounds, early, rows)
    return () if found is None else (replace(found, rows=positions[found.rows]),)


@dataclass(frozen=True)
class _Calibration:
    calibrator: Calibrator
    levels: SegmentLevels | None


def _calibrate(data: Dataset, parts: Sequence[HeldOut], *, level: float) -> _Calibration:
    """Choose the calibrator on held-out scores, and give segments levels of their own where these allow."""
    held_out = bring_to_level(parts, level)
    target, labels = data.target[held_out.rows], {"folds": held_out.model, "accounts": data.account_id[held_out.rows]}
    calibrator = choose_calibrator(held_out.raw, target, **labels)
    if _SEGMENT not in data.features:
        return _Calibration(calibrator, None)
    segments = _levels(data, _SEGMENT, held_out.rows)
    return _Calibration(calibrator, fit_segment_levels(calibrator, held_out.raw, target, feature=_SEGMENT, levels=segments, **labels))


def _levels(data: Dataset, feature: str, rows: Positions) -> Labels:
    return data.features[feature].to_numpy(dtype=object)[rows]


def _probability(data: Dataset, part: HeldOut, calibration: _Calibration) -> Array:
    if calibration.levels is None:
        return calibration.calibrator.probability(part.raw)
    return calibration.levels.probability(calibration.calibrator, part.raw, _levels(data, calibration.levels.feature, part.rows))


def _survival(data: Dataset, assignment: Assignment, parts: Sequence[HeldOut], *, level: float) -> SurvivalModel | None:
    if assignment.target != "churn":
        return None
    held_out = bring_to_level(parts, level)
    known = data.at(held_out.rows)
    return fit_survival(
        held_out.raw, days_to_renewal(known), known.context["nonrenewal"].to_numpy(np.float64), held_out.model, known.account_id
    )


def _change(data: Dataset, assignment: Assignment, matrix: Array) -> ChangeModel | None:
    """Learn by how much the ARR changed of those whose ARR did change in the target's direction."""
    if assignment.target == "churn":
        return None
    ratio = data.context["arr_end"].to_numpy(np.float64) / np.where(data.arr > 0, data.arr, np.nan)
    rows = np.flatnonzero((data.target == 1) & (ratio > 0))
    if not len(rows):
        return None
    categories = [place for place, feature in enumerate(assignment.catalogue) if feature.kind == "category"]
    return fit_change(matrix[rows], ratio[rows], arr=data.arr[rows], account=data.account_id[rows], categories=categories)


def _backtested(
    data: Dataset,
    encoded: Encoded,
    assignment: Assignment,
    splits: Sequence[ForwardSplit],
    problem: Problem,
    rounds: int,
    calibration: _Calibration,
    held_out: Sequence[HeldOut],
) -> tuple[tuple[Package, ...], HeldOut]:
    """Train one package for each split, and score the split's test rows with it.

    Bins, categories and reference distributions are those of the first, so that none looks ahead. The curve of the calibration is fitted
    anew for each, on the test rows of earlier splits too as far as their label windows have closed.
    """
    reference = describe(data.features[splits[0].train], assignment.catalogue)
    newest = splits[-1].train
    later = _problem(data.target[newest], encoded.matrix[newest], assignment, problem.recipe, bins=problem)
    packages: list[Package] = []
    tests: list[HeldOut] = []
    for number, split in enumerate(splits):
        model = fit_booster(later, rounds, rows=np.flatnonzero(split.train[newest]))
        known = data.at(split.train)
        own = _refitted(data, calibration, (*held_out, *(test.at(split.train[test.rows]) for test in tests)), known)
        package = _package(known, assignment, problem.recipe, model, own, encoded.categories, reference)
        packages.append(_at_latest_level(package, data, encoded, np.flatnonzero(split.train)))
        tests.append(_tested(data, encoded, number, split, packages[-1]))
    return tuple(packages), join_held_out(tests)


def _refitted(data: Dataset, calibration: _Calibration, parts: Sequence[HeldOut], known: Dataset) -> _Calibration:
    held_out = bring_to_level(parts, float(known.target.mean()))
    fitted = refit_calibrator(calibration.calibrator, held_out.raw, data.target[held_out.rows], held_out.model)
    return replace(calibration, calibrator=fitted)


def _at_latest_level(package: Package, data: Dataset, encoded: Encoded, learnt: Positions) -> Package:
    """Move a package's calibrator by what its model misses of the level of the latest months that it learnt from."""
    rows = learnt[recent_rows(data.cutoff[learnt])]
    neighbours = len(rows) == rows[-1] - rows[0] + 1  # most are, and then nothing is copied
    shift = level_shift(
        raw_scores(package.booster, encoded.matrix[rows[0] : rows[-1] + 1] if neighbours else encoded.matrix[rows]),
        data.target[rows],
        account_id=data.account_id[rows],
        cutoff=data.cutoff[rows],
        horizon_days=package.horizon_days,
    )
    return replace(package, calibrator=package.calibrator.shifted(shift))


def _tested(data: Dataset, encoded: Encoded, number: int, split: ForwardSplit, package: Package) -> HeldOut:
    rows = np.flatnonzero(split.test)
    levels = None if package.levels is None else _levels(data, package.levels.feature, rows)
    scores = package.score_matrix(encoded.matrix[rows], levels)
    return HeldOut(
        stage="test",
        rows=rows,
        fold=np.full(len(rows), number),
        level=np.full(len(rows), package.base_rate),
        raw=scores.raw,
        probability=scores.probability,
    )


def _shipped(
    data: Dataset,
    encoded: Encoded,
    assignment: Assignment,
    recipe: Recipe,
    rounds: int,
    held_out: Sequence[HeldOut],
    *,
    survival: Sequence[HeldOut],
) -> Package:
    level = float(data.target.mean())
    model = fit_booster(_problem(data.target, encoded.matrix, assignment, recipe), rounds)
    calibration, reference = _calibrate(data, held_out, level=level), describe(data.features, assignment.catalogue)
    package = _package(data, assignment, recipe, model, calibration, encoded.categories, reference)
    return replace(
        _at_latest_level(package, data, encoded, np.arange(len(data))),
        survival=_survival(data, assignment, survival, level=level),
        change=_change(data, assignment, encoded.matrix),
    )


def _package(
    data: Dataset,
    assignment: Assignment,
    recipe: Recipe,
    model: str,
    calibration: _Calibration,
    categories: Categories,
    reference: Reference,
) -> Package:
    return Package(
        target=assignment.target,
        model=model,
        calibrator=calibration.calibrator,
        levels=calibration.levels,
        catalogue=assignment.catalogue,
        categories=categories,
        reference=reference,
        horizon_days=assignment.window.horizon_days,
        lead_days=assignment.window.lead_days,
        cutoff=data.cutoffs[-1].item(),
        base_rate=float(data.target.mean()),
        recipe=recipe.to_json(),
        data_fingerprint=assignment.data_fingerprint,
        code_version=assignment.code_version,
    )


def _rarer(data: Dataset) -> int:
    return min(data.positives, len(data) - data.positives)
