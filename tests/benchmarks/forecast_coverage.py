"""Counts how often the intervals of retention forecasts hold what happens: on simulated books, and on one of your own.

Usage: `uv run python tests/benchmarks/forecast_coverage.py` (about five minutes for each of the six simulated books; `--keep DIR` keeps
them, and what is there is not done again; `--book DIR --test-from DATE` takes a workspace in their place).

Each book of 1,200 accounts and 48 months is trained once; its test period begins after a year and is cut into blocks of about three months,
each scored by models of what was closed when it began. From every month of it retention is forecast a horizon and a year ahead, with
shocks, evolution and sizes of changes from what was closed by then, for the book, each partner and each segment with ten accounts or more.
A book of one's own that has no partners is parted into twelfths of its accounts, which share nothing but its shocks.
"""

import argparse
import shutil
import sys
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from features.simulate import WorldSettings, simulate_workspace
from features.workspace import CONFIG_NAME, Workspace, load_workspace
from serving.settings import process_environment
from serving.steps import run_steps
from training.coverage import PastForecast, backtest_forecasts, measure_coverage, weigh_periods
from training.history import Groups, History
from training.records import read_records

START, MONTHS, ACCOUNTS, PARTNERS = datetime(2020, 1, 1), 48, 1200, 12
TRAINING = """
[training]
test_from = {test_from}
folds = 12
{parameters}
"""
PARAMETERS = "\n".join(f"[training.parameters.{target}]\nrounds = 100" for target in ("churn", "contraction", "expansion"))
TWELFTHS = 12


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the forecasts and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6])
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--book", type=Path)
    parser.add_argument("--test-from")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.keep or Path(temporary)
        if asked.book:
            books = [own_book(asked.book, folder / asked.book.name, asked.test_from)]
        else:
            books = [simulated_book(folder / f"seed{seed}", seed) for seed in asked.seeds]
        past = [one for book in books for one in forecasts(book)]
    show(past, books=len(books))


def simulated_book(folder: Path, seed: int) -> Workspace:
    """Make and train a simulated book, unless it is there."""
    if not (folder / CONFIG_NAME).exists():
        simulate_workspace(folder, WorldSettings(accounts=ACCOUNTS, months=MONTHS, partners=PARTNERS, seed=seed, start=START))
        with (folder / CONFIG_NAME).open("a", encoding="utf-8") as file:
            file.write(TRAINING.format(test_from="2020-12-01", parameters=PARAMETERS))
    return trained(load_workspace(folder))


def own_book(book: Path, folder: Path, test_from: str | None) -> Workspace:
    """Copy a workspace, let its test period begin earlier if asked, and train it."""
    if not folder.exists():
        shutil.copytree(book, folder, ignore=shutil.ignore_patterns("training", "mlflow.db", "mlartifacts", "forecasts"))
        file = folder / CONFIG_NAME
        kept = [line for line in file.read_text(encoding="utf-8").splitlines() if not (test_from and line.startswith("test_from"))]
        text = "\n".join(kept)
        if test_from:
            text = text.replace("[training]\n", f"[training]\ntest_from = {test_from}\nfolds = 12\n")
        file.write_text(text, encoding="utf-8")
    return trained(load_workspace(folder, process_environment))


def trained(workspace: Workspace) -> Workspace:
    """Do the main job as far as training."""
    for step in run_steps(workspace, until="train"):
        print(f"{workspace.folder.name}: {step.step} ({step.seconds:.0f} s)", file=sys.stderr, flush=True)
    return workspace


def forecasts(workspace: Workspace) -> tuple[PastForecast, ...]:
    """Forecast from every past cutoff of the test period."""
    history = read_records(workspace).history
    if not history.groups:
        history = replace(history, groups={"twelfth": twelfths(history)})
    evidence, models = weigh_periods(history)
    return backtest_forecasts(history, evidence, models, draws=1000, seed=0)


def twelfths(history: History) -> Groups:
    """Part accounts by the checksum of their ids."""
    part = np.array([zlib.crc32(str(name).encode()) % TWELFTHS for name in history.account_id])
    return Groups(tuple(f"twelfth {number + 1}" for number in range(TWELFTHS)), part[history.account])


def show(past: Sequence[PastForecast], *, books: int) -> None:
    """Print how often the intervals held."""
    print(f"{books} books; share of forecasts whose interval of 80 % and of 95 % held what came\n")
    print(f"{'':<10}{'days':>6}{'forecasts':>11}{'NDR 80 %':>10}{'NDR 95 %':>10}{'GRR 80 %':>10}{'GRR 95 %':>10}")
    for one in measure_coverage(past):
        shares = "".join(f"{share:>10.0%}" for share in (one.ndr80, one.ndr95, one.grr80, one.grr95))
        print(f"{one.kind:<10}{one.days:>6}{one.forecasts:>11,}{shares}")


if __name__ == "__main__":
    main()
