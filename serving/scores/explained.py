"""Scores explained for one view, many rows at once: the records that answers are made of, as plain values that JSON knows.

The numbers are those of `serving.scores.reasons.explain_score` and the choice is that of `serving.scores.sharing.shared_explanation`, to
the last digit; here the drivers of all rows are summed and ranked together, and words are found only for those that are named.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from features.feature import Feature, Target
from serving.scores.drivers import Calibrated, DriverGroups, RankedParts, slope
from serving.scores.reasons import Effect, worded
from serving.scores.scoring import ScoreSet
from serving.scores.sharing import NOTHING_SUPPLIED, Supplied, View, gives_away
from training.calibration import Calibrator
from training.package import Package

__all__ = [
    "MOST_OTHERS",
    "Evidence",
    "ExplainedScore",
    "NamedDriver",
    "Scored",
    "Teller",
    "book_evidence",
    "closed_fields",
    "json_value",
    "lead_of",
    "row_evidence",
    "score_features",
    "scored_rows",
    "teller_of",
]

MOST_OTHERS = 10
"""How many of the features that are not named one by one the vendor is told, the largest first."""

Floats = npt.NDArray[np.float64]
Record = dict[str, Any]
Value = float | str | None
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "Driver": (
        *("features", "family", "sentence", "effect", "part", "odds_factor", "value", "earlier", "peers", "unit", "actionable"),
        "sensitivity",
    ),
    "OtherFactors": ("part", "odds_factor", "features", "count", "confidential"),
    "Score": (
        *("target", "probability", "book_average", "horizon_days", "lead_days", "raw_score", "base", "base_probability", "drivers"),
        *("other_factors", "sizes", "package"),
    ),
}


@dataclass(frozen=True, eq=False)
class Evidence:
    """The values behind `n` rows, as functions of a row's position and a feature's name; what is not known is None.

    Parameters
    ----------
    value, earlier
        At the cutoff, and about a quarter before.
    peers
        The median of the row's segment.
    """

    value: Callable[[int, str], Value]
    earlier: Callable[[int, str], Value]
    peers: Callable[[int, str], float | None]
    _told: dict[tuple[int, str], tuple[str, Value, Value, float | None]] = field(default_factory=dict, repr=False)

    def told(self, row: int, feature: Feature) -> tuple[str, Value, Value, float | None]:
        """Return a feature's sentence, value, earlier value and peers' median, worded once for all targets and views."""
        key = row, feature.name
        found = self._told.get(key)
        if found is None:
            value, earlier = self.value(*key), self.earlier(*key)
            found = self._told[key] = worded(feature, value, earlier), value, earlier, self.peers(*key)
        return found


def book_evidence(score_set: ScoreSet, rows: Sequence[int], *, peers_needed: int) -> Evidence:
    """Return the values behind some rows of a score set, with medians of at least so many peers; positions are those in `rows`."""
    values, earlier = score_set.values, score_set.earlier
    peers = _enough_peers(score_set, peers_needed)
    medians = [peers.get(score_set.accounts["segment"][row], {}) for row in rows]
    return Evidence(
        lambda position, name: json_value(values[name][rows[position]]),
        lambda position, name: json_value(earlier[name][rows[position]]),
        lambda position, name: medians[position].get(name),
    )


def _enough_peers(score_set: ScoreSet, needed: int) -> Mapping[str, Mapping[str, float]]:
    found: dict[str, dict[str, float]] | None = score_set.memory.get(("peers", needed))
    if found is None:
        found = score_set.memory["peers", needed] = {
            segment: {name: median for name, median in medians.items() if score_set.peer_counts[segment][name] >= needed}
            for segment, medians in score_set.peers.items()
        }
    return found


def row_evidence(rows: Sequence[Mapping[str, Value]]) -> Evidence:
    """Return the values behind rows of features that somebody sent; nothing earlier is known of them."""
    return Evidence(lambda position, name: json_value(rows[position][name]), lambda *_: None, lambda *_: None)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """The scores of `n` rows by one model.

    Parameters
    ----------
    raw, probability
        `(n,)` log-odds, and calibrated probability.
    parts
        `(n, n_features + 1)` log-odds, the base last.
    calibrators
        One a row, the same object for rows that share one.
    plain
        Whether the probabilities are what the calibrators give for the raw scores to the last digit; where segments have levels of their
        own they may differ in it.
    """

    raw: Floats
    probability: Floats
    parts: Floats
    calibrators: Sequence[Calibrator]
    plain: bool

    def own_probability(self, row: int, calibrator: Calibrator) -> float:
        """Return the probability that the row's calibrator gives for its raw score."""
        return float(self.probability[row] if self.plain else calibrator.probability(self.raw[row : row + 1])[0])


def scored_rows(score_set: ScoreSet, target: Target, rows: Sequence[int]) -> Scored:
    """Return the scores of some accounts of the score set."""
    package, chosen = score_set.packages[target], list(rows)
    calibrators = [package.calibrator] * len(chosen)
    if package.levels is not None:
        levels = score_set.values[package.levels.feature][chosen].tolist()
        of_level = {level: package.levels.calibrator(package.calibrator, level) for level in set(levels)}
        calibrators = [of_level[level] for level in levels]
    return Scored(
        raw=score_set.accounts[f"{target}_raw"][chosen],
        probability=score_set.accounts[f"{target}_probability"][chosen],
        parts=score_set.parts[target][chosen],
        calibrators=calibrators,
        plain=package.levels is None,
    )


def score_features(packages: Mapping[Target, Package], rows: Sequence[Mapping[str, Value]]) -> dict[Target, Scored]:
    """Score and explain rows of features that somebody sent.

    Raises
    ------
    PackageError
        If a row lacks a feature of a model, or a number feature holds text.
    """
    matrices: dict[object, Floats] = {}
    scored = {}
    for target, package in packages.items():
        encoding = package.features, tuple(package.categories.items())
        if encoding not in matrices:  # models of one training read the same matrix
            matrices[encoding] = package.encode_rows(rows)
        scored[target] = _score_matrix(package, matrices[encoding], rows)
    return scored


def _score_matrix(package: Package, matrix: Floats, rows: Sequence[Mapping[str, Value]]) -> Scored:
    levels = None if package.levels is None else np.array([row[package.levels.feature] for row in rows], dtype=object)
    scores, parts = package.score_and_explain(matrix, levels)
    return Scored(
        raw=scores.raw,
        probability=scores.probability,
        parts=parts,
        calibrators=[package.calibrator_at(row.get) for row in rows] if package.levels else [package.calibrator] * len(rows),
        plain=package.levels is None,
    )


@dataclass(frozen=True)
class NamedDriver:
    """A driver that the view is told by name: the feature that gives it its words, and what they say."""

    main: Feature
    sentence: str
    effect: Effect


def lead_of(named: Sequence[NamedDriver]) -> int | None:
    """Return the place of the strongest named driver that somebody can act on, one that raises the risk first, or of the strongest of all.

    The renewal date leads most explanations and stands in a column of its own; what a list of accounts should tell is what to look at.
    None if no driver is named.
    """
    can_act = [position for position, driver in enumerate(named) if driver.main.actionable] or list(range(len(named)))
    return next((position for position in can_act if named[position].effect == "raises"), can_act[0] if can_act else None)


@dataclass(frozen=True)
class ExplainedScore:
    """One score as the view reads it: its record, and the drivers that it names, the strongest first."""

    target: Target
    record: Record
    named: tuple[NamedDriver, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Teller:
    """Explains the scores of one model to one view.

    Parameters
    ----------
    visible
        For each driver, whether the view may see it, where no partner supplied data to it.
    closed
        By record, the fields that the view may not read.
    constant
        The fields of a `Score` that are the same for all rows.
    """

    target: Target
    groups: DriverGroups
    view: View
    visible: tuple[bool, ...]
    closed: Mapping[str, tuple[str, ...]]
    constant: Mapping[str, Any]
    averages: dict[tuple[Calibrator, float], float] = field(default_factory=dict, repr=False)

    def tell(self, scored: Scored, evidence: Evidence, supplied: Sequence[Supplied]) -> list[ExplainedScore]:
        """Explain each of `n` scores.

        Parameters
        ----------
        supplied
            For each row, what partners supplied to it.
        """
        ranked = self.groups.rank(scored.parts[:, :-1])
        numbers = zip(scored.raw.tolist(), scored.probability.tolist(), scored.parts[:, -1].tolist(), scored.calibrators, strict=True)
        told = []
        for row, (raw, probability, base, calibrator) in enumerate(numbers):
            average = Calibrated(base, self._average(calibrator, base))
            exponent = slope(calibrator, average, Calibrated(raw, scored.own_probability(row, calibrator)))
            record = {"probability": probability, "raw_score": raw, "base": base, "base_probability": average.probability}
            told.append(self._tell_row(_Row(ranked[row], row, exponent, evidence), record, self.sees(supplied[row])))
        return told

    def _average(self, calibrator: Calibrator, base: float) -> float:
        """Return the calibrated base, which is the same for all rows of a model."""
        key = calibrator, base
        found = self.averages.get(key)
        if found is None:
            found = self.averages[key] = float(calibrator.probability(np.array([base]))[0])
        return found

    def _tell_row(self, row: "_Row", numbers: Record, visible: Sequence[bool]) -> ExplainedScore:
        policy = self.view.policy.numbers
        named = row.ranked.named(visible, most=policy.named_drivers)
        confidential = not all(visible)
        exact = not confidential or not gives_away(row.ranked.hidden(visible), policy)
        drivers = [self._driver(row, driver, exact) for driver in named]
        record = {
            "target": self.target,
            "probability": numbers["probability"],
            "book_average": self.constant["book_average"],
            "horizon_days": self.constant["horizon_days"],
            "lead_days": self.constant["lead_days"],
            "raw_score": numbers["raw_score"],
            "base": numbers["base"],
            "base_probability": numbers["base_probability"],
            "drivers": [record for record, _ in drivers],
            "other_factors": self._other(row, named, exact=exact, confidential=confidential),
            "sizes": "exact" if exact else "withheld",
            "package": self.constant["package"],
        }
        return ExplainedScore(self.target, self._share("Score", record), tuple(told for _, told in drivers))

    def _driver(self, row: "_Row", driver: int, exact: bool) -> tuple[Record, NamedDriver]:
        features = row.ranked.members(driver)
        main = self.groups.features[features[0]]
        part = row.ranked.sums[driver]
        sentence, value, earlier, peers = row.evidence.told(row.row, main)
        effect: Effect = "raises" if part > 0 else "lowers"
        names = self.groups.names
        record = {
            "features": [names[feature] for feature in features],
            "family": main.family,
            "sentence": sentence,
            "effect": effect,
            "part": part if exact else None,
            "odds_factor": math.exp(row.slope * part) if exact else None,
            "value": value,
            "earlier": earlier,
            "peers": peers,
            "unit": main.unit,
            "actionable": self.groups.actionable[driver],
            "sensitivity": main.sensitivity,
        }
        return self._share("Driver", record), NamedDriver(main, sentence, effect)

    def _other(self, row: "_Row", named: list[int], *, exact: bool, confidential: bool) -> Record:
        part = row.ranked.merged(named) if exact else None
        record = {
            "part": part,
            "odds_factor": None if part is None else math.exp(row.slope * part),
            "features": row.ranked.others(named, most=MOST_OTHERS),
            "count": len(self.groups.features) - sum(len(self.groups.members[driver]) for driver in named),
            "confidential": confidential,
        }
        return self._share("OtherFactors", record)

    def sees(self, supplied: Supplied) -> Sequence[bool]:
        """Return for each driver whether the view may see it, where partners supplied this."""
        return self.visible if not supplied else _visible(self.groups, self.view, supplied)

    def _share(self, record: str, values: Record) -> Record:
        for name in self.closed[record]:
            values[name] = None
        return values


@dataclass(frozen=True, eq=False, slots=True)
class _Row:
    """One of the rows that are explained together."""

    ranked: RankedParts
    row: int
    slope: float
    evidence: Evidence


def teller_of(score_set: ScoreSet, target: Target, view: View) -> Teller:
    """Return what explains a score set's scores of one target to a view; it is kept with the score set."""
    policy = view.policy.fingerprint
    key = "teller", target, policy, view.tier, view.caller
    found: Teller | None = score_set.memory.get(key)
    if found is None:
        grouped = "groups", target, policy
        if grouped not in score_set.memory:
            catalogue = score_set.packages[target].catalogue
            score_set.memory[grouped] = DriverGroups.of(catalogue, audience_of=view.policy.audience_of)
        found = score_set.memory[key] = _teller(score_set, target, view, score_set.memory[grouped])
    return found


def _teller(score_set: ScoreSet, target: Target, view: View, groups: DriverGroups) -> Teller:
    model = score_set.manifest.models[target]
    return Teller(
        target=target,
        groups=groups,
        view=view,
        visible=_visible(groups, view, NOTHING_SUPPLIED),
        closed={record: closed_fields(view, record, fields) for record, fields in _FIELDS.items()},
        constant={
            "book_average": model.average_probability if len(score_set) >= view.policy.numbers.peers_needed else None,
            "horizon_days": model.horizon_days,
            "lead_days": model.lead_days,
            "package": model.package_hash,
        },
    )


def _visible(groups: DriverGroups, view: View, supplied: Supplied) -> tuple[bool, ...]:
    """Return for each driver whether the view may see all of its features."""
    seen = [view.sees(feature, supplied_by=supplied.get(feature.name, ())) for feature in groups.features]
    return tuple(all(seen[member] for member in members) for members in groups.members)


def closed_fields(view: View, record: str, fields: Sequence[str]) -> tuple[str, ...]:
    """Return the fields of a record that the view may not read, as the policy says."""
    shared = view.share(record, dict.fromkeys(fields, True))
    return tuple(name for name in fields if shared[name] is None)


def json_value(value: Any) -> Value:
    """Return a feature's value as JSON knows it: missing ones as None."""
    if value is None or value != value:
        return None
    return value if isinstance(value, str) else float(value)
