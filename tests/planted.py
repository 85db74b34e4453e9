"""What a training of a simulated book found, held against what was planted in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from features.catalogue import read_catalogue
from features.feature import Feature
from features.intake import check_workspace
from features.preparation import prepare_workspace
from features.simulate import World, write_world
from features.workspace import Workspace, load_workspace
from training.dataset import Dataset, load_dataset
from training.model import make_recipe
from training.procedure import Assignment, Training, split_rows, train_target
from training.splits import LabelWindow

CAUSES = ("health", "support", "value", "partner", "training", "price")
"""The parts of the log hazard that features show by themselves, strongest first but for the last, which hardly shows."""

_BY_FAMILY = {"usage": "health", "peers": "health", "support": "support", "outcomes": "value", "partner": "partner"}


def prepared(world: World, folder) -> Workspace:
    """Write a world, check its tables and compute features and labels."""
    write_world(world, folder)
    workspace = load_workspace(folder, {})
    check_workspace(workspace, now=datetime.now(UTC).replace(tzinfo=None))
    prepare_workspace(workspace)
    return workspace


def trained(workspace: Workspace, *, trials: int = 0) -> tuple[Dataset, Training]:
    """Train the churn model as `renewcast train` does, without registering it."""
    catalogue, config = read_catalogue(workspace.snapshots / "catalogue.json"), workspace.config
    targets, training = config.targets, config.training
    window = LabelWindow(horizon_days=targets.horizon_days, lead_days=targets.lead_days, grace_days=targets.grace_days)
    assignment = Assignment(
        target="churn",
        catalogue=catalogue,
        window=window,
        recipe=make_recipe(training.parameters.get("churn", {}), seed=training.seed, threads=1),
        trials=trials,
        fixed=tuple(training.parameters.get("churn", {})),
        data_fingerprint="",
        code_version="",
    )
    data = load_dataset(workspace.snapshots, "churn", catalogue)
    splits = split_rows(data, window, test_from=None, test_to=None, minimum=training.minimum_positives, folds=training.folds)
    return data, train_target(data, assignment, splits, advance=lambda what: None)


def judged(workspace: Workspace, data: Dataset, training: Training) -> pd.DataFrame:
    """Return one row for each test row: outcome, probability, the oracle's hazard, and each cause as planted and as explained."""
    parts = []
    for package, split in zip(training.folds, training.splits, strict=True):
        rows = data.at(split.test)
        explained = package.explain_rows(rows.features)[:, :-1]
        causes = np.array([cause_of(feature) for feature in package.catalogue])
        found = {f"found_{cause}": explained[:, causes == cause].sum(axis=1) for cause in CAUSES}
        scores = {"target": rows.target, "probability": package.score_rows(rows.features).probability}
        parts.append(pd.DataFrame({"account_id": rows.account_id, "cutoff": rows.cutoff} | scores | found))
    hazards = pd.read_parquet(workspace.folder / "truth" / "hazards.parquet")
    hazards = hazards.rename(columns={cause: f"planted_{cause}" for cause in CAUSES})
    return pd.concat(parts).merge(hazards, on=["account_id", "cutoff"], validate="one_to_one")


def cause_of(feature: Feature) -> str:
    """Return the planted cause of which a feature tells, or `other`."""
    if "training" in feature.name:
        return "training"
    if feature.name.startswith("tickets"):
        return "support"
    if feature.name in ("price_per_seat", "discount") or feature.name.startswith("arr_trend"):
        return "price"
    return _BY_FAMILY.get(feature.family, "other")


@dataclass(frozen=True)
class Recovery:
    """A model's AUC on its test rows beside that of the observable oracle.

    `share` is the model's part of the oracle's advantage over chance, `low` and `high` its 95 % interval over resampled accounts.
    """

    auc: float
    oracle: float
    share: float
    low: float
    high: float


def recovery(rows: pd.DataFrame, *, resamples: int = 200) -> Recovery:
    """Measure how much of what could be known the probabilities tell."""
    target, model, oracle = (rows[name].to_numpy() for name in ("target", "probability", "observable_hazard"))
    _, account = np.unique(rows["account_id"], return_inverse=True)
    rng = np.random.default_rng(0)

    def measured(weight: np.ndarray | None) -> tuple[float, float]:
        aucs = [roc_auc_score(target, score, sample_weight=weight) for score in (model, oracle)]
        return float(aucs[0]), float(aucs[1])

    auc, best = measured(None)
    drawn = [
        measured(np.bincount(rng.integers(account.max() + 1, size=account.max() + 1), minlength=account.max() + 1)[account])
        for _ in range(resamples)
    ]
    shares = [(one - 0.5) / (other - 0.5) for one, other in drawn]
    low, high = np.quantile(shares, [0.025, 0.975]) if shares else (np.nan, np.nan)
    return Recovery(auc, best, (auc - 0.5) / (best - 0.5), float(low), float(high))


def agreement(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the correlation of each planted cause (rows) with what the explanations say of each cause (columns)."""
    planted, found = ([f"{kind}_{cause}" for cause in CAUSES] for kind in ("planted", "found"))
    both = rows[[*planted, *found]].corr().loc[planted, found]
    return both.set_axis(CAUSES).set_axis(CAUSES, axis=1)


def first_drivers(rows: pd.DataFrame) -> pd.DataFrame:
    """Say for the tenth of the rows with the highest scores how high the explanation places the cause that is planted most.

    Returns
    -------
    By that cause: `rows`, the share of them in which its drivers are `first`, or among the first `two`, and the share of the other rows of
    the tenth in which they are among the first two (`elsewhere`).
    """
    planted, found = (rows[[f"{kind}_{cause}" for cause in CAUSES]].set_axis(CAUSES, axis=1) for kind in ("planted", "found"))
    top = rows["probability"] >= rows["probability"].quantile(0.9)
    cause = (planted - planted.mean())[top].idxmax(axis=1)
    place = found[top].rank(axis=1, ascending=False)
    said: Mapping[str, dict[str, float]] = {
        name: {
            "rows": int((cause == name).sum()),
            "first": float((place[name][cause == name] == 1).mean()),
            "two": float((place[name][cause == name] <= 2).mean()),
            "elsewhere": float((place[name][cause != name] <= 2).mean()),
        }
        for name in CAUSES
        if (cause == name).any()
    }
    return pd.DataFrame(said).T
