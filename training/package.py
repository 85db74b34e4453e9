"""The model package: everything that a scorer needs, and nothing that can be executed.

A package is a folder of text, sealed as `training.package_files` says:

    manifest.json     format, version, package hash, sum of each file
    package.json      target, time window, category levels, calibrator, where the model came from
    model.txt         the trees, in LightGBM's own text format
    catalogue.json    the features, in the order of the model's columns
    reference.json    how the features were distributed in training
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import lightgbm as lgb
import numpy as np
import pandas as pd

from features.catalogue import Catalogue, read_catalogue
from features.errors import PackageError, explain
from features.feature import Target
from training.calibration import Calibrator, Labels, calibrator_from_json
from training.change import ChangeModel, change_from_json
from training.dataset import Array, Categories, encode_features
from training.explanation import check_parts, parts
from training.leaf_tables import LeafTables, leaf_tables
from training.model import model_names, raw_scores
from training.package_files import as_text, damaged, hash_of, read_texts, write_texts
from training.segments import SegmentLevels, segment_levels_from_json
from training.survival import SurvivalModel, survival_from_json

__all__ = ["Package", "Reference", "Scores", "describe", "load_package"]

_CHECKED = 100
"""Rows of a book, or of a piece of one, of which the parts are worked out a second time."""
_QUANTILES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)


@dataclass(frozen=True)
class Reference:
    """How the features were distributed in training.

    Parameters
    ----------
    quantiles
        For a number feature, its quantiles at `levels`; None where no value was present.
    shares
        For a category feature, the share of each level among the rows that have one.
    missing
        For each feature, the share of rows without a value.
    """

    levels: tuple[float, ...]
    quantiles: Mapping[str, tuple[float, ...] | None]
    shares: Mapping[str, Mapping[str, float]]
    missing: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of `n` rows.

    Parameters
    ----------
    raw
        `(n,)` log-odds, to which the parts of an explanation add up.
    probability
        `(n,)` calibrated, a rising function of `raw`.
    """

    raw: Array
    probability: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Package:
    """A trained model with all that is needed to score and explain with it.

    Parameters
    ----------
    model
        The trees, in LightGBM's text format.
    catalogue
        The features that the model reads, in the order of its columns.
    cutoff
        The last cutoff that the model was trained on, UTC.
    base_rate
        Share of positives among the rows that it was trained on.
    recipe
        LightGBM's parameters and what else decides on the trees but the rows.
    levels
        How much higher or lower the calibrator is in some segments; None where it is the same in all.
    survival
        Of churn: whether a customer is still there after a renewal inside the horizon; None where too few were due.
    change
        Of contraction and expansion: by how much the ARR changes, given that it happens; None for churn, or without ARR.
    data_fingerprint
        SHA-256 of the snapshots that it was trained on.
    code_version
        Version of the code that trained it.
    """

    target: Target
    model: str
    calibrator: Calibrator
    catalogue: Catalogue
    categories: Categories
    reference: Reference
    horizon_days: int
    lead_days: int
    cutoff: datetime
    base_rate: float
    recipe: Mapping[str, float | int | str]
    data_fingerprint: str
    code_version: str
    levels: SegmentLevels | None = None
    survival: SurvivalModel | None = None
    change: ChangeModel | None = None

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features, in the order of the model's columns."""
        return self.catalogue.names

    @cached_property
    def booster(self) -> lgb.Booster:
        """The trees, ready to predict; one booster may be used by several threads."""
        return lgb.Booster(model_str=self.model)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the package's contents: two packages with one hash give the same scores and the same words."""
        return hash_of(self._texts)

    def encode(self, frame: pd.DataFrame) -> Array:
        """Return the matrix `(n, n_features)` that the model reads; see `training.dataset.encode_features`."""
        return encode_features(frame, features=self.features, categories=self.categories)

    def encode_rows(self, rows: Sequence[Mapping[str, object]]) -> Array:
        """Return the same matrix for a few rows as they come from a request, many times faster than by way of a frame.

        Raises
        ------
        PackageError
            If a row lacks a feature, which is None where it is not known, or a number feature holds text.
        """
        try:
            return np.array([[encode(row[name]) for name, encode in self._encoders] for row in rows], dtype=np.float64)
        except KeyError as error:
            raise PackageError(
                explain(f"a row does not have the feature {error}", todo="Give every feature of the model; None where it is not known.")
            ) from error
        except (TypeError, ValueError) as error:
            raise PackageError(explain(f"a number feature holds something else: {error}", todo="Give numbers as numbers.")) from error

    @cached_property
    def _encoders(self) -> tuple[tuple[str, Callable[[object], object]], ...]:
        coders = {name: _coder(levels) for name, levels in self.categories.items()}
        return tuple((name, coders.get(name, _number)) for name in self.features)

    def score_rows(self, frame: pd.DataFrame, *, threads: int = 1) -> Scores:
        """Score rows of features.

        Raises
        ------
        PackageError
            If a feature has no column, or a number feature holds text.
        """
        return self.score_matrix(self.encode(frame), self._levels(frame), threads=threads)

    def _levels(self, frame: pd.DataFrame) -> Labels | None:
        return None if self.levels is None else frame[self.levels.feature].to_numpy(dtype=object)

    def score_matrix(self, matrix: Array, levels: Labels | None, *, threads: int = 1) -> Scores:
        """Score encoded rows `(n, n_features)`.

        Parameters
        ----------
        levels
            `(n,)` values of the feature that `self.levels` is about; None where there is none.
        """
        return self._calibrated(raw_scores(self.booster, matrix, threads=threads), levels)

    def _calibrated(self, raw: Array, levels: Labels | None) -> Scores:
        if self.levels is None:
            return Scores(raw=raw, probability=self.calibrator.probability(raw))
        if levels is None:
            raise ValueError(f"the calibrator needs the rows' {self.levels.feature}")
        return Scores(raw=raw, probability=self.levels.probability(self.calibrator, raw, levels))

    def calibrator_at(self, value: Callable[[str], object]) -> Calibrator:
        """Return the calibrator of one row, given a function from a feature's name to its value there."""
        return self.calibrator if self.levels is None else self.levels.calibrator(self.calibrator, value(self.levels.feature))

    def explain_rows(self, frame: pd.DataFrame, *, threads: int = 1) -> Array:
        """Return the parts `(n, n_features + 1)` of the raw scores in log-odds, the base last; see `training.explanation.parts`."""
        return self.explain_matrix(self.encode(frame), threads=threads)

    def explain_matrix(self, matrix: Array, *, threads: int = 1) -> Array:
        """Return the parts `(n, n_features + 1)` of the raw scores of encoded rows `(n, n_features)`; see `explain_rows`."""
        return parts(self.booster, matrix, threads=threads) if self.tables is None else self.tables.explain(matrix, threads=threads)[1]

    def score_and_explain(self, matrix: Array, levels: Labels | None, *, threads: int = 1) -> tuple[Scores, Array]:
        """Return what `score_matrix` and `explain_matrix` do, to the last bit, in one go."""
        if self.tables is None:
            return self.score_matrix(matrix, levels, threads=threads), self.explain_matrix(matrix, threads=threads)
        raw, explained = self.tables.explain(matrix, threads=threads)
        return self._calibrated(raw, levels), explained

    def score_book(self, frame: pd.DataFrame, *, threads: int = 1, checked: int = _CHECKED) -> tuple[Scores, Array]:
        """Return what `score_rows` and `explain_rows` do, after a check of the parts.

        Parameters
        ----------
        checked
            How many rows LightGBM explains a second time; see `training.explanation.check_parts`.

        Raises
        ------
        PackageError
            If a feature has no column, a number feature holds text, or the parts are not LightGBM's own.
        """
        matrix = self.encode(frame)
        scores, explained = self.score_and_explain(matrix, self._levels(frame), threads=threads)
        check_parts(self.booster, matrix, scores.raw, explained, sample=checked)
        return scores, explained

    @cached_property
    def tables(self) -> LeafTables | None:
        """The model's leaves, laid out for lookups; None for a model with deep trees."""
        return leaf_tables(self.booster)

    def save(self, folder: Path) -> None:
        """Write the package's files into a folder, which is made if it is not there."""
        write_texts(folder, self._texts)

    @cached_property
    def _texts(self) -> dict[str, str]:
        facts = {
            "target": self.target,
            "horizon_days": self.horizon_days,
            "lead_days": self.lead_days,
            "cutoff": self.cutoff.isoformat(),
            "base_rate": self.base_rate,
            "calibrator": self.calibrator.to_json(),
            "categories": {name: list(levels) for name, levels in self.categories.items()},
            "catalogue_hash": self.catalogue.hash,
            "recipe": dict(self.recipe),
            "data_fingerprint": self.data_fingerprint,
            "code_version": self.code_version,
            "levels": self.levels and self.levels.to_json(),
            "survival": self.survival and self.survival.to_json(),
            "change": self.change and self.change.to_json(),
        }
        return {
            "package.json": as_text(facts),
            "model.txt": self.model,
            "catalogue.json": self.catalogue.to_json(),
            "reference.json": as_text(vars(self.reference)),
        }


def describe(frame: pd.DataFrame, catalogue: Catalogue) -> Reference:
    """Describe how the features of training rows are distributed."""
    numbers = [feature.name for feature in catalogue if feature.kind == "number"]
    levels = [feature.name for feature in catalogue if feature.kind == "category"]
    return Reference(
        levels=_QUANTILES,
        quantiles={name: _quantiles(frame[name]) for name in numbers},
        shares={name: _shares(frame[name]) for name in levels},
        missing={name: float(frame[name].isna().mean()) for name in catalogue.names},
    )


def load_package(folder: Path) -> Package:
    """Read a package, and believe no file of it before its SHA-256 agrees with the manifest.

    Raises
    ------
    PackageError
        If the folder holds no package, a file of it is missing, damaged or from another package, or the format is unknown.
    """
    texts = read_texts(folder)
    try:
        package = _from_texts(folder, texts)
    except (KeyError, TypeError, ValueError, lgb.basic.LightGBMError) as error:
        raise damaged(folder, f"{type(error).__name__}: {error}") from error
    if package.booster.feature_name() != model_names(package.features):
        raise damaged(folder, "the model's columns are not the features of the catalogue")
    return package


def _from_texts(folder: Path, texts: Mapping[str, str]) -> Package:
    facts = json.loads(texts["package.json"])
    catalogue = read_catalogue(folder / "catalogue.json")
    if catalogue.hash != facts["catalogue_hash"]:
        raise ValueError("the catalogue is not the one that the model was trained with")
    return Package(
        target=_target(facts["target"]),
        model=texts["model.txt"],
        calibrator=calibrator_from_json(facts["calibrator"]),
        catalogue=catalogue,
        categories={name: tuple(levels) for name, levels in facts["categories"].items()},
        reference=_reference(json.loads(texts["reference.json"])),
        horizon_days=int(facts["horizon_days"]),
        lead_days=int(facts["lead_days"]),
        cutoff=datetime.fromisoformat(facts["cutoff"]),
        base_rate=float(facts["base_rate"]),
        recipe=facts.get("recipe", {}),  # not there in the first format
        data_fingerprint=facts["data_fingerprint"],
        code_version=facts["code_version"],
        levels=segment_levels_from_json(facts["levels"]) if facts.get("levels") else None,
        survival=survival_from_json(facts["survival"]) if facts.get("survival") else None,
        change=change_from_json(facts["change"]) if facts.get("change") else None,
    )


def _coder(levels: tuple[str, ...]) -> Callable[[object], object]:
    codes: dict[object, float] = {level: float(code) for code, level in enumerate(levels)}
    return lambda level: codes.get(level, np.nan)


def _number(value: object) -> object:
    if isinstance(value, str):
        raise TypeError(f"{value!r} is text")
    return value


def _target(name: str) -> Target:
    for known in get_args(Target):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise ValueError(f"unknown target {name!r}")


def _reference(data: Mapping[str, Any]) -> Reference:
    return Reference(
        levels=tuple(data["levels"]),
        quantiles={name: values and tuple(values) for name, values in data["quantiles"].items()},
        shares=data["shares"],
        missing=data["missing"],
    )


def _quantiles(column: pd.Series) -> tuple[float, ...] | None:
    values = np.sort(column.dropna().to_numpy(dtype=np.float64))  # of which np.quantile selects in half the time that it needs without
    return tuple(float(value) for value in np.quantile(values, _QUANTILES)) if len(values) else None


def _shares(column: pd.Series) -> dict[str, float]:
    return {str(level): float(share) for level, share in column.value_counts(normalize=True).sort_index().items()}
