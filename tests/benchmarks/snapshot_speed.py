"""Times the snapshot engine beside polars, pandas and featuretools, in turn, on the same file, and prints the ratios.

Usage: `uv run python tests/benchmarks/snapshot_speed.py` (about 15 minutes on 2 cores; `--quick` leaves the 20 M events out).

Each run is a process of its own; it is timed from the Parquet file to the finished matrix, after its libraries are loaded. The sides take
turns, so that a change of the machine's speed meets all of them; the ratio is the median over the rounds of the ratio within a round.
All sides must find the same sums.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from standard_job import ACCOUNTS, SHARED, write_events

HERE = Path(__file__).parent
OF_ITS_TIME = ("featuretools==1.31.0", "pandas==2.2.3", "numpy==1.26.4", "pyarrow==17.0.0", "setuptools==75.8.0", "duckdb")
"""The newest versions with which featuretools runs."""

PART = {"shared": 1, "own": 3}
"""What featuretools does of the job: shared cutoffs of 12, accounts with cutoffs of their own of 2,000."""

Run = dict[str, Any]


def run_side(side: str, events: Path, cutoffs: str) -> Run:
    """Run one side once; featuretools' time is extrapolated from the part that it did."""
    command = [sys.executable]
    extra: list[str] = []
    if side == "featuretools":
        packages = [part for package in OF_ITS_TIME for part in ("--with", package)]
        command = ["uv", "run", "--no-project", "--python", "3.11", *packages, "python"]
        extra = ["--part", str(PART[cutoffs])]
    done = subprocess.run(
        [*command, str(HERE / "side.py"), side, str(events), cutoffs, *extra], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-3000:]}")
    result: Run = json.loads(done.stdout.splitlines()[-1])
    if side == "featuretools":
        result["seconds"] *= (len(SHARED) if cutoffs == "shared" else ACCOUNTS) / PART[cutoffs]
    return result


def compare(sides: list[str], events: Path, cutoffs: str, rounds: int) -> dict[str, list[Run]]:
    """Let the sides take turns; featuretools goes once."""
    runs: dict[str, list[Run]] = {side: [] for side in sides}
    for number in range(rounds):
        for side in sides if number == 0 else [side for side in sides if side != "featuretools"]:
            runs[side].append(run_side(side, events, cutoffs))
    expected = runs["renewcast"][0]["found"]
    for side in set(sides) - {"featuretools"}:
        for name, value in runs[side][0]["found"].items():
            assert abs(value - expected[name]) <= 1e-9 * abs(expected[name]), (side, name, value, expected[name])
    return runs


def show(title: str, runs: dict[str, list[Run]]) -> dict[str, float]:
    print(f"\n{title}\n\n| side | seconds (median) | times Renewcast | peak memory |\n|---|---|---|---|")
    ours = [run["seconds"] for run in runs["renewcast"]]
    ratios = {}
    for side, results in runs.items():
        ratios[side] = median(run["seconds"] / own for run, own in zip(results, ours, strict=False))
        note = " (a part, extrapolated)" if side == "featuretools" else ""
        seconds, peak = median(run["seconds"] for run in results), max(run["peak_gib"] for run in results)
        print(f"| {side}{note} | {seconds:.2f} | {ratios[side]:.2f} | {peak:.1f} GiB |", flush=True)
    return {"renewcast": median(ours)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave the 20 M events out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-featuretools", action="store_true")
    arguments = parser.parse_args()
    slow = [] if arguments.without_featuretools else ["featuretools"]
    names = ("duckdb", "polars", "pandas", "ibis-framework", "pyarrow", "numpy")
    print(f"{platform.machine()}, {platform.python_version()}; " + ", ".join(f"{name} {version(name)}" for name in names))
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder) / "small.parquet", Path(folder) / "large.parquet"
        write_events(str(small), 2_000_000)
        few = show("2 M events, 12 shared cutoffs", compare(["renewcast", "polars", "pandas", *slow], small, "shared", arguments.rounds))
        show("2 M events, 24,000 different cutoffs", compare(["renewcast", "polars", "pandas", *slow], small, "own", arguments.rounds))
        if not arguments.quick:
            write_events(str(large), 20_000_000)
            many = show("20 M events, 12 shared cutoffs", compare(["renewcast", "polars", "pandas"], large, "shared", arguments.rounds))
            print(f"\nTen times the events take {many['renewcast'] / few['renewcast']:.1f} times as long.")


if __name__ == "__main__":
    main()
