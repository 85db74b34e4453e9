"""A book to measure serving with: 12,000 accounts, 150 features, three models of 200 trees with up to 15 leaves, as training makes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from features.catalogue import Catalogue
from features.feature import Feature, Target, Window
from features.snapshot_files import write_matrix
from features.workspace import Workspace, load_workspace
from training.calibration import BetaCalibrator
from training.dataset import encode_features, learn_categories
from training.model import model_names
from training.package import Package, describe

__all__ = ["CATALOGUE", "FEATURES", "TARGETS", "BookSize", "make_book"]

FEATURES = 150
TARGETS: tuple[Target, ...] = ("churn", "contraction", "expansion")
CUTOFF, EARLIER = datetime(2025, 7, 1), datetime(2025, 4, 1)

_CONFIG = """
[workspace]
name = "Speed"
currency = "USD"
[tables.accounts]
source = "accounts.parquet"
[tables.telemetry]
source = "telemetry.parquet"
[tables.subscriptions]
source = "subscriptions.parquet"
[serving]
workers = {workers}
[serving.limits]
requests_per_minute = 10_000_000
failures_per_minute = 10_000_000
"""


@dataclass(frozen=True)
class BookSize:
    """How many accounts a book has, and how many trees each of its models."""

    accounts: int = 12_000
    trees: int = 200


def _feature(number: int) -> Feature:
    """Return one of the features: windows of 45 measures, a tenth of them the vendor's, and two categories."""
    if number >= FEATURES - 2:
        name, unit, kind, sentence = f"level_{number}", "level", "category", "the level {moved}"
    else:
        window = (28, 91, 182, 364)[number % 4]
        name, unit, kind, sentence = f"measure_{number // 4}_{window}d", "events", "number", "events of a kind {moved} in the last days"
    return Feature(
        name=name,
        family=("usage", "engagement", "support", "commercial")[number // 40],
        unit=unit,
        meaning=name.replace("_", " "),
        sentence=sentence,
        expression=lambda rows: rows,
        source=Window(table="telemetry"),
        kind="category" if kind == "category" else "number",
        sensitivity="vendor" if number % 10 == 9 else "shared",
        actionable=number % 3 == 0,
    )


CATALOGUE = Catalogue(tuple(_feature(number) for number in range(FEATURES)))


def make_book(folder: Path, *, workers: int, size: BookSize) -> Workspace:
    """Write all that scoring reads below a new workspace folder."""
    folder.mkdir(parents=True)
    (folder / "renewcast.toml").write_text(_CONFIG.format(workers=workers))
    workspace = load_workspace(folder, {})
    rng = np.random.default_rng(11)
    workspace.tables.mkdir(parents=True)
    workspace.snapshots.mkdir()
    ids = [f"acc-{number:05d}" for number in range(size.accounts)]
    _write_tables(workspace.tables, ids, rng)
    _write_snapshots(workspace.snapshots, ids, rng)
    for target, package in _packages(size.trees).items():
        package.save(workspace.training / "champion" / target)
    return workspace


def _rows(rng: np.random.Generator, count: int) -> pd.DataFrame:
    columns: dict[str, object] = {}
    for feature in CATALOGUE:
        if feature.kind == "category":
            columns[feature.name] = rng.choice(["gold", "silver", "blue"], count)
        else:
            values = np.round(rng.gamma(2.0, 20.0, count))
            columns[feature.name] = np.where(rng.random(count) < 0.1, np.nan, values)
    return pd.DataFrame(columns)


def _packages(trees: int) -> Mapping[Target, Package]:
    rng = np.random.default_rng(5)
    frame = _rows(rng, 6000)
    categories = learn_categories(frame, CATALOGUE)
    matrix = encode_features(frame, features=CATALOGUE.names, categories=categories)
    known = np.nan_to_num(matrix[:, : FEATURES - 2], nan=40.0) / 40.0 - 1.0
    return {target: _package(target, frame, matrix, known @ rng.normal(0, 0.12, FEATURES - 2) - 1.5, trees, rng) for target in TARGETS}


def _package(target: Target, frame: pd.DataFrame, matrix: np.ndarray, risk: np.ndarray, trees: int, rng: np.random.Generator) -> Package:
    outcome = (rng.random(len(frame)) < 1 / (1 + np.exp(-risk))).astype(float)
    parameters = {
        "objective": "binary",
        "num_leaves": 15,
        "max_depth": 5,
        "learning_rate": 0.04,
        "verbosity": -1,
        "num_threads": 1,
        "seed": 1,
    }
    data = lgb.Dataset(matrix, outcome, feature_name=model_names(CATALOGUE.names), categorical_feature=[FEATURES - 2, FEATURES - 1])
    return Package(
        target=target,
        model=lgb.train(parameters, data, num_boost_round=trees).model_to_string(),
        calibrator=BetaCalibrator(low=1.1, high=0.8, intercept=0.1),
        catalogue=CATALOGUE,
        categories=learn_categories(frame, CATALOGUE),
        reference=describe(frame, CATALOGUE),
        horizon_days=90,
        lead_days=0,
        cutoff=datetime(2025, 1, 1),
        base_rate=float(outcome.mean()),
        recipe={},
        data_fingerprint="0" * 64,
        code_version="0",
    )


def _write_tables(tables: Path, ids: list[str], rng: np.random.Generator) -> None:
    created = [CUTOFF - timedelta(days=int(age)) for age in rng.integers(60, 1500, len(ids))]
    accounts = {
        "account_id": ids,
        "name": [f"Customer {number}" for number in range(len(ids))],
        "segment": rng.choice(["Enterprise", "Mid-market", "Small business"], len(ids)).tolist(),
        "csm": rng.choice(["Ada Moreau", "Ben Okafor"], len(ids)).tolist(),
        "created_at": _stamps(created),
    }
    _write(tables / "accounts.parquet", accounts)
    used = _stamps([CUTOFF - timedelta(days=int(day), hours=3) for day in rng.integers(0, 300, len(ids))])
    _write(tables / "telemetry.parquet", {"account_id": ids, "occurred_at": used, "known_at": used, "event": ["open"] * len(ids)})
    partners = [f"p{number}" for number in range(20)]
    _write(tables / "partners.parquet", {"partner_id": partners, "name": [f"Partner {number}" for number in range(20)]})
    start = _stamps([datetime(2024, 1, 1)] * (len(ids) // 2))
    held = {"account_id": ids[::2], "partner_id": [partners[number % 20] for number in range(len(ids) // 2)]}
    end = pa.nulls(len(start), pa.timestamp("us"))
    _write(tables / "assignments.parquet", held | {"valid_from": start, "valid_to": end, "known_at": start})


def _write_snapshots(snapshots: Path, ids: list[str], rng: np.random.Generator) -> None:
    (snapshots / "catalogue.json").write_text(CATALOGUE.to_json())
    frames = [_rows(rng, len(ids)).assign(account_id=ids, cutoff=cutoff) for cutoff in (EARLIER, CUTOFF)]
    rows = pa.Table.from_pandas(pd.concat(frames, ignore_index=True).astype({"cutoff": "datetime64[us]"}), preserve_index=False)
    write_matrix(snapshots / "features.parquet", rows.schema, [rows])
    labels = {
        "account_id": ids,
        "cutoff": _stamps([CUTOFF] * len(ids)),
        "churn": pa.nulls(len(ids), pa.float64()),
        "arr": np.round(rng.gamma(2.0, 20_000.0, len(ids))),
        "renewal_at": _stamps([CUTOFF + timedelta(days=int(days)) for days in rng.integers(1, 365, len(ids))]),
    }
    _write(snapshots / "labels.parquet", labels)


def _stamps(times: list[datetime]) -> pa.Array:
    return pa.array(times, pa.timestamp("us"))


def _write(path: Path, columns: Mapping[str, object]) -> None:
    pq.write_table(pa.table(columns), path)
