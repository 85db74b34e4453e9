"""What a family of features adds: the model against models that were trained alike without the family.

A feature's gain in the search for splits is multiplied by zero, so that no tree uses it; LightGBM's bins stay as they are, and a model
without a family costs no more than its trees. Where every feature may be used by every tree, the result is the model of a matrix
without those columns, tree for tree.

But: what a family adds is what the others cannot stand in for. Two families that say the same add nothing each, and much together.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import lightgbm as lgb
import numpy as np
from scipy.special import expit

from features.catalogue import Catalogue
from features.feature import Family
from training.dataset import Array
from training.evaluation import Estimate, TestRows, auc_measure, estimate_all, log_loss, resample
from training.model import Problem, fit_booster, raw_scores

__all__ = ["FamilyGain", "ablate", "families", "judge_ablation"]

_RESAMPLES = 200


@dataclass(frozen=True)
class FamilyGain:
    """What a family of features adds on rows that the models had not learnt from, paired.

    Parameters
    ----------
    features
        How many features it has.
    auc
        The AUC with the family less that without it.
    log_loss
        The log loss without the family less that with it, in nats a row.
    """

    family: Family
    features: int
    auc: Estimate
    log_loss: Estimate


def families(catalogue: Catalogue) -> tuple[Family, ...]:
    """Return the families of which a catalogue has features, in its order."""
    return tuple(dict.fromkeys(feature.family for feature in catalogue))


def ablate(problem: Problem, rounds: int, matrix: Array) -> dict[Family, Array]:
    """Train a model without each family in turn, and return the raw scores `(n,)`, in log-odds, of encoded rows `(n, n_features)`.

    Where there is only one family, nothing would be left without it, and nothing is returned.
    """
    present = families(problem.catalogue)
    if len(present) < 2:
        return {}
    return {
        family: raw_scores(lgb.Booster(model_str=fit_booster(problem, rounds, without=(family,))), matrix, threads=problem.recipe.threads)
        for family in present
    }


def judge_ablation(
    rows: TestRows,
    raw: Array,
    without: Mapping[Family, Array],
    *,
    catalogue: Catalogue,
    resamples: int = _RESAMPLES,
    seed: int,
) -> tuple[FamilyGain, ...]:
    """Compare a model's raw scores `(n,)` with those of models without a family, the family that adds most to the AUC first.

    The models must have learnt from the same rows. All are measured on the same resamples of accounts, and the log loss is that of the
    scores as they are, before calibration.
    """
    ranked = {name: auc_measure(rows.target, score, np.zeros(len(rows))) for name, score in [("", raw), *without.items()]}
    sure = {name: expit(score) for name, score in [("", raw), *without.items()]}

    def measured(weights: Array) -> dict[str, Array]:
        auc = {name: measure(weights) for name, measure in ranked.items()}
        loss = {name: log_loss(rows.target, probability, weights) for name, probability in sure.items()}
        return {f"auc {name}": auc[""] - auc[name] for name in without} | {f"loss {name}": loss[name] - loss[""] for name in without}

    found = estimate_all(measured, resample(rows.account_id, resamples=resamples, seed=seed)) if without else {}
    sizes = [feature.family for feature in catalogue]
    gains = [FamilyGain(family, sizes.count(family), found[f"auc {family}"], found[f"loss {family}"]) for family in without]
    return tuple(sorted(gains, key=lambda gain: -gain.auc.value))
