"""What a caller may know of the models and of the features that they read."""

import json
from pathlib import Path

from features.feature import Feature, Target
from serving.answers.account_answers import as_of
from serving.answers.schema_portfolio import FeatureEntry, FeatureReference, ModelEntry, ModelList
from serving.scores.scoring import ScoreSet
from serving.scores.sharing import View
from training.card import render_card
from training.report import REPORT

__all__ = ["features_answer", "find_card", "models_answer"]

_FACTS = ("book", "run", "made_at", "code_version", "data_fingerprint", "features", "horizon_days", "lead_days")


def features_answer(score_set: ScoreSet, view: View) -> FeatureReference:
    """Return the features that the models read and the caller may know of, by family and name."""
    features = sorted(score_set.features.values(), key=lambda feature: (feature.family, feature.name))
    entries = [_entry(score_set, feature, view) for feature in features if view.sees(feature)]
    values = {"features": entries, "withheld": len(entries) < len(features), "as_of": as_of(score_set, view)}
    return FeatureReference(**view.share("FeatureReference", values))


def _entry(score_set: ScoreSet, feature: Feature, view: View) -> FeatureEntry:
    values = {
        "name": feature.name,
        "family": feature.family,
        "unit": feature.unit,
        "meaning": feature.meaning,
        "kind": feature.kind,
        "window_days": feature.source.days if feature.source else None,
        "actionable": feature.actionable,
        "used_by": [target for target, package in score_set.packages.items() if feature.name in package.features],
        "sensitivity": feature.sensitivity,
    }
    return FeatureEntry(**view.share("FeatureEntry", values))


def models_answer(score_set: ScoreSet, view: View) -> ModelList:
    """Return the models that made the scores."""
    entries = [
        ModelEntry(
            **view.share(
                "ModelEntry",
                {
                    "target": target,
                    "horizon_days": model.horizon_days,
                    "lead_days": model.lead_days,
                    "provisional": model.provisional,
                    "trained_until": model.trained_until,
                    "package": model.package_hash,
                    "features": len(score_set.packages[target].features),
                },
            )
        )
        for target, model in score_set.manifest.models.items()
    ]
    return ModelList(**view.share("ModelList", {"models": entries, "as_of": as_of(score_set, view)}))


def find_card(training: Path, target: Target, package_hash: str) -> str | None:
    """Return the card of a model in Markdown, made from the report of its training; None if the report is no longer there.

    Parameters
    ----------
    training
        The workspace's folder of trainings.
    """
    for path in sorted(training.glob(f"*/{REPORT}"), reverse=True):
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            part = report["targets"].get(target, {})
        except (OSError, ValueError, KeyError, AttributeError):
            continue  # a training that is being written, or was made by another version
        if part.get("package_hash") == package_hash:
            return render_card(part, target=target, training={name: report[name] for name in _FACTS if name in report})
    return None
