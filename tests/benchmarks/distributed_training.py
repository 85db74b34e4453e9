"""Trains one model on two workers with LightGBM's own distributed learner, under Spark, beside the same on one machine and on samples.

Usage: `uv run python tests/benchmarks/distributed_training.py` (about two minutes on 2 cores; needs Java).

Each Spark task of a barrier stage holds half of the rows, encoded as ever, and talks to the other over LightGBM's sockets; both end with
the same trees, in the same text format that one machine writes. All models learn from the first three quarters of the cutoffs and are
judged on the others.

Measured with 8,000 accounts, 96,000 rows to learn from and 32,000 to judge on, 100 trees, LightGBM 4.7, two workers on a busy machine
of 2 cores: log loss 0.33097 on two workers, 0.33074 on one machine, 0.33112 on half of the accounts, 0.33673 on a tenth; AUC 0.8575,
0.8573, 0.8563, 0.8484. The workers took 87 s, of which most is the start of Spark and the waiting for each other's histograms, one
machine 3.8 s: what is won is memory, not time.
"""

import argparse
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.metrics import log_loss, roc_auc_score

sys.path.insert(0, str(Path(__file__).parents[2]))

from features.spark_engine import SparkEngine
from tests.conftest import SYNTHETIC_CATALOGUE, synthetic_tables
from training.dataset import encode_features, learn_categories
from training.model import Problem, fit_booster, make_recipe

ROOT = Path(__file__).parents[2]
CATALOGUE = SYNTHETIC_CATALOGUE
ROUNDS = 100
SETTINGS = {
    "spark.master": "local[2]",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.log.level": "ERROR",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.executorEnv.PYTHONPATH": str(ROOT),
}


def problem_of(frame: pd.DataFrame, categories) -> Problem:
    matrix = encode_features(frame, features=CATALOGUE.names, categories=categories)
    target = frame["churn"].to_numpy(dtype=float)
    recipe = make_recipe({}, seed=0, threads=1)
    return Problem(matrix=matrix, target=target, target_name="churn", catalogue=CATALOGUE, recipe=recipe)


def trainer(categories, workers: int):
    """Return what each task runs: rows in, and from the first task the model out."""

    def train(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import BarrierTaskContext

        context = BarrierTaskContext.get()
        problem = problem_of(pa.Table.from_batches(list(batches)).to_pandas(), categories)
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        host = context.getTaskInfos()[context.partitionId()].address.split(":")[0]
        machines = context.allGather(f"{host}:{port}")
        network = {"tree_learner": "data", "num_machines": workers, "machines": ",".join(machines), "local_listen_port": port}
        # the rows are binned inside, once the workers are connected: bins must be the same on all of them
        rows = lgb.Dataset(problem.matrix, problem.target, feature_name=list(CATALOGUE.names), categorical_feature=_categories())
        model = lgb.train({**problem.parameters, **network, "pre_partition": True, "time_out": 2}, rows, ROUNDS)
        yield pa.RecordBatch.from_pydict({"worker": [context.partitionId()], "model": [model.model_to_string()]})

    return train


def _categories() -> list[int]:
    return [position for position, feature in enumerate(CATALOGUE) if feature.kind == "category"]


def train_on_workers(frame: pd.DataFrame, categories, workers: int = 2) -> str:
    with SparkEngine(SETTINGS) as engine:
        rows = engine.session.createDataFrame(pa.Table.from_pandas(frame, preserve_index=False)).repartition(workers, "account_id")
        found = rows.mapInArrow(trainer(categories, workers), "worker long, model string", barrier=True).toArrow().to_pylist()
    models = {row["model"].split("\nparameters:")[0] for row in found}
    assert len(found) == workers
    assert len(models) == 1, "all workers end with the same trees"
    return found[0]["model"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=20_000)
    options = parser.parse_args()
    features, labels = (
        table.to_pandas() if isinstance(table, pa.Table) else table for table in synthetic_tables(accounts=options.accounts)
    )
    frame = features.assign(churn=labels["churn"].to_numpy())
    frame = frame[frame["churn"].notna()]
    border = frame["cutoff"].quantile(0.75)
    past, later = frame[frame["cutoff"] <= border], frame[frame["cutoff"] > border]
    categories = learn_categories(past[list(CATALOGUE.names)], CATALOGUE)
    number = past["account_id"].str[1:].astype(int)
    ways = {
        "two workers": lambda: train_on_workers(past, categories),
        "one machine": lambda: fit_booster(problem_of(past, categories), ROUNDS),
        "half of the accounts": lambda: fit_booster(problem_of(past[number % 2 == 0], categories), ROUNDS),
        "a tenth of the accounts": lambda: fit_booster(problem_of(past[number % 10 == 0], categories), ROUNDS),
    }
    matrix, target = problem_of(later, categories).matrix, later["churn"].to_numpy()
    print(f"{len(past):,} rows to learn from, {len(later):,} to judge on, base rate {target.mean():.3f}, LightGBM {lgb.__version__}")
    for name, way in ways.items():
        started = time.perf_counter()
        probability = np.asarray(lgb.Booster(model_str=way()).predict(matrix, num_threads=1))
        took = time.perf_counter() - started
        print(f"{name:24s} log loss {log_loss(target, probability):.5f}  AUC {roc_auc_score(target, probability):.4f}  {took:6.1f} s")


if __name__ == "__main__":
    main()
