"""Measures explaining and scoring a whole book, beside LightGBM's own explanations, in one run.

Usage: `uv run python tests/benchmarks/book_scoring.py` (the ratios, about 2 minutes on two idle cores), and
`uv run python tests/benchmarks/book_scoring.py --accounts 1_000_000` for a whole scoring beside them: a book of 12,000 accounts, 150
features and three models of 200 trees with up to 15 leaves is copied until it has so many accounts, and scored as `renewcast score` does
it, in a process of its own. `--book FOLDER` takes the accounts and the models of a workspace that was trained. The sides of a ratio take
turns, each with all cores; the ratio is the median over the rounds. A machine that does other things makes all sides slower, but not by
the same factor, so the CPU time is told, too. WOODELF (woodelf-explainer, which Renewcast does not depend on) is measured if it is
installed, as it is for one run by `uv run --with woodelf-explainer python tests/benchmarks/book_scoring.py`: it is under the MIT licence,
needs treelite, works in single precision and with one core. All sides must agree with `pred_contrib` to 1e-5.

Measured on 2 cores that five times as much other work shared, medians of five rounds: the tables explain 29 times as many rows a second as
`pred_contrib`, by the clock and by CPU (10 us a row instead of 297), and differ from it by 1e-15 at most; woodelf-explainer 0.4.8, in the
same rounds, explains 10 times as many (28 us of CPU a row) and differs by 4e-7. So for the same CPU the tables explain 2.8 times as many
rows as WOODELF. 1,008,000 accounts times three targets took 316 s of CPU, hardly any of it on two cores at once, so
about five minutes on idle ones: 40 s to score and explain, 38 s to write the parts, 93 s for the first drivers in words, 52 s for the
past. That was 21 minutes of the shared machine. It held 3.5 GB at most, while the features were read; since then queries get 1 GB instead
of 2, and reading holds 2.6 GB. 3.7 GB were written. Once more, with a dozen other processes on the machine: 24 times the rows (25 by time),
and 309 s of CPU. With small charts of features and first causes, which are made since, 1,008,000 accounts took 521 s of CPU and 472 s by
the clock on two idle cores, held 4.1 GiB and wrote 4.2; in the same run, of one round, the tables explained 18 times as many rows by the
clock and 22 times by CPU.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from comparison import Comparison, Found, absent, compared, table
from speed_book import TARGETS, BookSize, make_book

from features.workspace import Workspace, load_workspace
from training.package import Package, load_package

ROWS, FEW_ROWS, ROUNDS = 60_000, 3_000, 5
CORES = os.cpu_count() or 1
LARGEST_DIFFERENCE = 1e-5
PACKED, OWN, PEER = "tables", "pred_contrib", "woodelf-explainer"
"""The sides: the tables that Renewcast makes of trees, LightGBM's own way, and another library's."""
CLOCKS = ("time", "CPU")
GOALS = {OWN: 1 / 15}
_SCORE = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
from features.workspace import load_workspace
from serving.scores.batch import score_workspace
from surroundings import most_memory
if __name__ == "__main__":
    score_workspace(load_workspace(Path(sys.argv[3]), {}))
    print(most_memory())
"""


def main() -> None:
    """Print what was measured."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--accounts", type=int, default=0, help="score a whole book of so many accounts, too")
    options.add_argument("--book", type=Path, help="a workspace that was trained; without it, one is made")
    options.add_argument("--rounds", type=int, default=ROUNDS)
    chosen = options.parse_args()
    print(table(measure_scoring(BookSize(), accounts=chosen.accounts, rounds=chosen.rounds, book=chosen.book).comparisons))


def measure_scoring(size: BookSize, *, accounts: int, rounds: int, rows: int = ROWS, book: Path | None = None) -> Found:
    """Compare explanations of so many rows, and then score a whole book of so many accounts, unless it is 0.

    Parameters
    ----------
    size
        The book that is made.
    book
        A workspace that was trained, in place of it.
    """
    with tempfile.TemporaryDirectory(prefix="renewcast-book-") as place:
        workspace = load_workspace(book, dict(os.environ)) if book else make_book(Path(place) / "book", workers=1, size=size)
        found = ratios(workspace, rounds=rounds, rows=rows)
        if accounts:
            found.append(whole(workspace, Path(place) / "whole", accounts=accounts, alone=_alone(found)))
    return Found(comparisons=tuple(found))


def _alone(found: Sequence[Comparison]) -> float:
    """Return the seconds of CPU that `pred_contrib` takes for a row and a model."""
    return next(each.theirs for each in found if each.peer == OWN and each.clock == "CPU" and each.theirs)


def ratios(workspace: Workspace, *, rounds: int, rows: int) -> list[Comparison]:
    """Explain rows of the book by each side in turn."""
    package = load_package(workspace.training / "champion" / "churn")
    frame = pq.read_table(workspace.snapshots / "features.parquet").to_pandas()
    matrix = package.encode(frame.iloc[np.arange(rows) % len(frame)])
    few = np.ascontiguousarray(matrix[:FEW_ROWS])
    assert package.tables is not None, "the model's trees are too deep for tables"
    sides: dict[str, tuple[Callable[[], np.ndarray], int]] = {
        PACKED: (lambda: package.explain_matrix(matrix, threads=CORES), len(matrix)),
        OWN: (lambda: np.asarray(package.booster.predict(few, pred_contrib=True, num_threads=CORES)), len(few)),
    } | peer(package, matrix)
    own = sides[OWN][0]()
    off = {name: float(np.abs(explain()[: len(few)] - own).max()) for name, (explain, _) in sides.items()}
    assert max(off.values()) <= LARGEST_DIFFERENCE, off
    taken = [{name: timed(*side) for name, side in sides.items()} for _ in range(rounds)]
    what = f"an explained row, {package.booster.num_trees()} trees, {matrix.shape[1]} features, {CORES} cores"
    notes = {name: f"they differ by at most {off[PACKED if name == OWN else name]:.0e}" for name in sides}
    found = [
        compared(what, name, clock, [(one[PACKED][number], one[name][number]) for one in taken], at_most=GOALS.get(name), note=notes[name])
        for name in sides
        if name != PACKED
        for number, clock in enumerate(CLOCKS)
    ]
    return found if PEER in sides else [*found, absent(what, PEER, "time", ours=found[0].ours, why="not installed, see book_scoring.py")]


def timed(explain: Callable[[], object], rows: int) -> tuple[float, float]:
    """Return seconds a row, of time and of CPU."""
    started, cpu = time.perf_counter(), time.process_time()
    explain()
    return (time.perf_counter() - started) / rows, (time.process_time() - cpu) / rows


def peer(package: Package, matrix: np.ndarray) -> Mapping[str, tuple[Callable[[], np.ndarray], int]]:
    """Return WOODELF's side, if it is installed."""
    try:
        from woodelf import WoodelfExplainer
    except ImportError:
        return {}
    frame = pd.DataFrame(matrix, columns=package.booster.feature_name())
    explainer = WoodelfExplainer(package.booster)

    def explain() -> np.ndarray:
        parts = np.asarray(explainer.shap_values(frame, verbose=False))
        return np.column_stack([parts, np.full(len(parts), explainer.expected_value)])

    return {PEER: (explain, len(frame))}


def whole(workspace: Workspace, folder: Path, *, accounts: int, alone: float) -> Comparison:
    """Score a book of so many accounts in a process of its own, and compare with what `pred_contrib` takes for as many rows and models.

    Parameters
    ----------
    alone
        Seconds of CPU that `pred_contrib` takes for a row and a model.
    """
    copies = tile(workspace, folder, accounts=accounts)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    here = Path(__file__)
    command = [sys.executable, "-c", _SCORE, str(here.parents[2]), str(here.parent), str(folder)]
    most = float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    scored = load_workspace(folder, {})
    written = sum(file.stat().st_size for file in scored.scores.rglob("*") if file.is_file())
    return compared(
        f"{copies:,} accounts scored by {len(TARGETS)} models, explained and written",
        "pred_contrib, explaining alone",
        "CPU",
        [(cpu, alone * copies * len(TARGETS))],
        note=f"{wall:.0f} s on the clock, {most:.1f} GiB of memory, {written / 2**30:.1f} GiB written; peer sampled",
    )


def tile(workspace: Workspace, folder: Path, *, accounts: int) -> int:
    """Copy a workspace so often that it has so many accounts, and return how many those are; of the snapshots the newest months only."""
    folder.mkdir()
    (folder / "renewcast.toml").write_text((workspace.folder / "renewcast.toml").read_text())
    larger = load_workspace(folder, dict(os.environ))
    for place in (larger.tables, larger.snapshots):
        place.mkdir(parents=True, exist_ok=True)
    (larger.snapshots / "catalogue.json").write_text((workspace.snapshots / "catalogue.json").read_text())
    champions = workspace.training / "champion"
    for target in champions.iterdir():
        load_package(target).save(larger.training / "champion" / target.name)
    with duckdb.connect() as connection:
        features = workspace.snapshots / "features.parquet/*.parquet"
        newest = f"cutoff > (SELECT max(cutoff) FROM '{features}') - INTERVAL 100 DAY"
        latest = f"(SELECT count(*) FROM '{features}' WHERE cutoff = (SELECT max(cutoff) FROM '{features}'))"
        times, own = connection.sql(f"SELECT ceil({accounts} / {latest})::INT, {latest}").fetchall()[0]
        for source, target in ((workspace.tables, larger.tables), (workspace.snapshots, larger.snapshots)):
            for file in source.glob("*.parquet"):
                columns = pq.ParquetDataset(file).schema.names
                there = f"'{file}/*.parquet'" if file.is_dir() else f"'{file}'"
                rows = f"(SELECT * FROM {there} WHERE {newest})" if "cutoff" in columns else there
                select = f"SELECT * REPLACE (copy || '-' || account_id AS account_id) FROM {rows}, range({times}) copies(copy)"
                connection.sql(f"COPY ({select if 'account_id' in columns else f'FROM {rows}'}) TO '{target / file.name}' (FORMAT parquet)")
    return int(times * own)


if __name__ == "__main__":
    main()
