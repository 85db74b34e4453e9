"""Times a whole training beside LightGBM alone on the same matrices, parameters, numbers of trees and number of fits.

Usage: `uv run python tests/benchmarks/training_overhead.py` (about 5 minutes on 2 cores; `--workspace` takes a workspace whose features
are computed, in place of a simulated book of 2,000 accounts; it is copied, not changed).

The training is what `renewcast train` does in a process that has started and has a model registry: three targets, one after the other,
from snapshots to registered models with reports, figures and cards. All that it does is counted, MLflow's work and the drawing of 30
figures included, by every thread of the process. Not counted are the start of Python, the import of libraries (6 to 7 s of CPU, half of
them MLflow) and the making of an empty MLflow store, which are done once and not for each training. Every fit that it asks LightGBM for
is recorded. Then each is done again by LightGBM alone: a data set of its rows, laid ready as a matrix, and one tree after the other,
which is what `lightgbm.train` does, on one thread as in the training. Unlike the training, which bins the rows of several fits once, it
bins those of each, as one call of `lightgbm.train` for each fit would. The two take turns, and the ratio is the median over the rounds of
the ratio within a round. With other work on the machine CPU is the fairer measure, since it does not count waiting.

Measured on a simulated book of 2,000 accounts (30,000 rows of 213 features; 98 fits, 6,688 trees), on two idle cores: 1.11 times the CPU
of LightGBM alone (59 s against 53 s) and 1.10 times as long. With a dozen other processes waiting for the cores it was 1.00 to 1.05 in
three runs. A search of 5 recipes by itself, whose folds are binned once: 1.00 times (15 fits, 1,819 trees).
"""

import argparse
import cProfile
import pstats
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))

import lightgbm as lgb
import numpy as np
from comparison import Comparison, Found, compared, table

from features.simulate import WorldSettings, simulate
from features.workspace import Workspace, load_workspace
from tests.planted import prepared
from training.pipeline import train_workspace
from training.registry import open_registry

ALLOWED = 1.15


@dataclass
class Fit:
    """One model that a training asked for: its rows, how it was to be fitted, and how often a tree was asked for."""

    source: int
    rows: np.ndarray
    weight: np.ndarray | None
    parameters: dict[str, Any]
    trees: int = 0


@dataclass(frozen=True)
class Spent:
    """Seconds on the clock and of CPU."""

    wall: float
    cpu: float


class Recorder:
    """Notes each model that LightGBM is asked for, by `train`, by `cv` or tree by tree, and the matrices of its data sets."""

    def __init__(self) -> None:
        self.fits: list[Fit] = []
        self._made: dict[int, dict[str, Any]] = {}
        self._kept: list[object] = []  # so that no identity is given twice
        self._by_booster: dict[int, Fit] = {}
        self._dataset, self._booster, self._update = lgb.Dataset.__init__, lgb.Booster.__init__, lgb.Booster.update

    @contextmanager
    def recording(self) -> Iterator[None]:
        recorder = self

        def dataset(made: lgb.Dataset, data: Any, label: Any = None, **options: Any) -> None:
            recorder._dataset(made, data, label, **options)
            if data is not None:
                recorder._made[id(made)] = {"data": data, "label": label, **options}
                recorder._kept.append(made)

        def booster(made: lgb.Booster, params: Any = None, train_set: lgb.Dataset | None = None, **options: Any) -> None:
            recorder._booster(made, params, train_set, **options)
            if train_set is not None:
                source, rows = recorder._origin(train_set)
                fit = Fit(source, rows, train_set.get_weight(), dict(params))
                recorder.fits.append(fit)
                recorder._by_booster[id(made)] = fit
                recorder._kept.append(made)

        def update(made: lgb.Booster, *arguments: Any, **options: Any) -> bool:
            recorder._by_booster[id(made)].trees += 1
            return recorder._update(made, *arguments, **options)

        lgb.Dataset.__init__, lgb.Booster.__init__, lgb.Booster.update = dataset, booster, update
        try:
            yield
        finally:
            lgb.Dataset.__init__, lgb.Booster.__init__, lgb.Booster.update = self._dataset, self._booster, self._update

    def _origin(self, dataset: lgb.Dataset) -> tuple[int, np.ndarray]:
        """Return the data set that was made of a matrix, and the rows of it that this one holds."""
        if dataset.used_indices is None:
            return id(dataset), np.arange(dataset.num_data())
        source, rows = self._origin(dataset.reference)
        return source, rows[np.asarray(dataset.used_indices)]

    def bare(self, fit: Fit) -> Callable[[], object]:
        """Return the same fit by LightGBM alone, its matrix laid ready."""
        made = self._made[fit.source]
        matrix, label = np.ascontiguousarray(made["data"][fit.rows]), np.asarray(made["label"])[fit.rows]
        named = {name: made[name] for name in ("feature_name", "categorical_feature") if name in made}

        def run() -> None:
            alone = lgb.Booster(fit.parameters, lgb.Dataset(matrix, label, weight=fit.weight, params=fit.parameters, **named))
            for _ in range(fit.trees):
                alone.update()

        return run


class InPlace:
    """Stands for a pool of threads, and does their work in the thread that asks for it, the only one that a profiler sees."""

    def __init__(self, workers: int) -> None:
        pass

    def __enter__(self) -> "InPlace":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, work: Callable[..., Any], asked: Iterable[Any]) -> Iterator[Any]:
        return map(work, asked)


def spent(work: Callable[[], object]) -> Spent:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Spent(time.perf_counter() - wall, time.process_time() - cpu)


def bare_training(recorder: Recorder) -> Spent:
    """Do all fits again; laying out their matrices is not counted."""
    done = [spent(recorder.bare(fit)) for fit in recorder.fits]
    return Spent(sum(one.wall for one in done), sum(one.cpu for one in done))


def fresh(workspace: Path, store: Path, folder: Path) -> Workspace:
    """Copy what a training reads, with an empty MLflow store."""
    (folder / ".renewcast").mkdir(parents=True)
    shutil.copy(workspace / "renewcast.toml", folder)
    for name in ("snapshots", "check.json"):
        kept = workspace / ".renewcast" / name
        (shutil.copytree if kept.is_dir() else shutil.copy)(kept, folder / ".renewcast" / name)
    shutil.copy(store, folder / ".renewcast" / "mlflow.db")
    return load_workspace(folder, {})


def compare(workspace: Path, folder: Path, rounds: int, profile: Path | None = None) -> Comparison:
    """Let the training and LightGBM alone take turns."""
    store = folder / "store"
    store.mkdir()
    open_registry(f"sqlite:///{store}/mlflow.db", experiment="template", artifacts=store)
    pairs, recorder = [], Recorder()
    for number in range(rounds):
        book, recorder, profiler = fresh(workspace, store / "mlflow.db", folder / f"book{number}"), Recorder(), cProfile.Profile()
        work = partial(train_workspace, book, workers=1)
        with recorder.recording(), patch("training.pipeline.ThreadPoolExecutor", InPlace) if profile else nullcontext():
            whole = spent(partial(profiler.runcall, work) if profile else work)
        if profile:
            pstats.Stats(profiler).dump_stats(profile)
        pairs.append((whole, bare_training(recorder)))
    slower = median(whole.wall / bare.wall for whole, bare in pairs)
    what = f"a training: {len(recorder.fits)} fits, {sum(fit.trees for fit in recorder.fits):,} trees"
    cpu = [(whole.cpu, bare.cpu) for whole, bare in pairs]
    return compared(what, "LightGBM, the fits alone", "CPU", cpu, at_most=ALLOWED, note=f"{slower:.2f} by the clock")


def measure_training(*, rounds: int, accounts: int, workspace: Path | None = None, profile: Path | None = None) -> Found:
    """Compare on a simulated book of so many accounts, or on a workspace whose features are computed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        book = workspace or prepared(simulate(WorldSettings(accounts=accounts)), folder / "simulated").folder
        return Found(comparisons=(compare(book, folder, rounds, profile),))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--accounts", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", type=Path, help="where to write a profile of the training")
    asked = parser.parse_args()
    found = measure_training(rounds=asked.rounds, accounts=asked.accounts, workspace=asked.workspace, profile=asked.profile)
    print(table(found.comparisons))


if __name__ == "__main__":
    main()
