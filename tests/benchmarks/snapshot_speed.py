"""Times the snapshot engine beside polars, pandas and featuretools, in turn, on the same file.

Usage: `uv run python tests/benchmarks/snapshot_speed.py` (about 15 minutes on 2 cores; `--quick` leaves the 20 M events out).

Each run is a process of its own; it is timed from the Parquet file to the finished matrix, after its libraries are loaded. The sides take
turns, so that a change of the machine's speed meets all of them; the ratio is the median over the rounds of the ratio within a round.
All sides must find the same sums. featuretools, which is slow, goes once and does a part of the job.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from comparison import Comparison, Found, absent, compared, table
from standard_job import ACCOUNTS, SHARED, write_events

HERE = Path(__file__).parent
OF_ITS_TIME = ("featuretools==1.31.0", "pandas==2.2.3", "numpy==1.26.4", "pyarrow==17.0.0", "setuptools==75.8.0", "duckdb")
"""The newest versions with which featuretools runs, in an environment of its own."""

PART = {"shared": 1, "own": 3}
"""What featuretools does of the job: shared cutoffs of 12, accounts with cutoffs of their own of 2,000."""

CUTOFFS = {"shared": f"{len(SHARED)} cutoffs that accounts share", "own": f"{ACCOUNTS * len(SHARED):,} different cutoffs"}

Run = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """How many events, at which cutoffs, `shared` or `own`, and which sides do it beside ours."""

    events: int
    cutoffs: str
    peers: tuple[str, ...] = ("polars", "pandas", "featuretools")

    @property
    def what(self) -> str:
        """What a reader is told."""
        return f"120 features of {self.events:,} events, {CUTOFFS[self.cutoffs]}"


ALL = (Job(2_000_000, "shared"), Job(2_000_000, "own"), Job(20_000_000, "shared", ("polars", "pandas")))


class SideError(Exception):
    """A side could not do the job."""


def run_side(side: str, events: Path, cutoffs: str) -> Run:
    """Run one side once; featuretools' time is extrapolated from the part that it did."""
    command = [sys.executable]
    extra: list[str] = []
    if side == "featuretools":
        packages = [part for package in OF_ITS_TIME for part in ("--with", package)]
        command = ["uv", "run", "--no-project", "--python", "3.11", *packages, "python"]
        extra = ["--part", str(PART[cutoffs])]
    command += [str(HERE / "side.py"), side, str(events), cutoffs, *extra]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise SideError(f"{command[0]} is not installed") from error
    except subprocess.CalledProcessError as error:
        raise SideError(f"{side} failed: {error.stderr.strip()[-3000:]}") from error
    result: Run = json.loads(done.stdout.splitlines()[-1])
    if side == "featuretools":
        result["seconds"] *= (len(SHARED) if cutoffs == "shared" else ACCOUNTS) / PART[cutoffs]
    return result


def compare(job: Job, events: Path, rounds: int) -> list[Comparison]:
    """Let the sides take turns."""
    fast = ["renewcast", *(peer for peer in job.peers if peer != "featuretools")]
    taken = [{side: run_side(side, events, job.cutoffs) for side in fast} for _ in range(rounds)]
    found = [
        compared(
            job.what, side, "time", [(runs["renewcast"]["seconds"], runs[side]["seconds"]) for runs in taken], note=_besides(taken, side)
        )
        for side in fast[1:]
    ]
    for runs in taken:
        _refuse_other_sums(runs)
    return found + ([_slow(job, events, found[0].ours)] if "featuretools" in job.peers else [])


def _slow(job: Job, events: Path, ours: float | None) -> Comparison:
    """Let featuretools do its part once, if it can be had."""
    done = f"one of {len(SHARED)} cutoffs" if job.cutoffs == "shared" else f"{PART['own']} of {ACCOUNTS:,} accounts"
    try:
        run = run_side("featuretools", events, job.cutoffs)
    except SideError as error:
        return absent(job.what, "featuretools", "time", ours=ours, why=str(error).splitlines()[-1])
    return compared(
        job.what, "featuretools", "time", [(ours or math.nan, run["seconds"])], note=f"{OF_ITS_TIME[0]}, extrapolated from {done}"
    )


def _besides(taken: Sequence[Mapping[str, Run]], side: str) -> str:
    """Say the ratio by CPU, which threads do not lower, and the most memory of both sides."""
    ratio = median(runs["renewcast"]["cpu_seconds"] / runs[side]["cpu_seconds"] for runs in taken)
    ours, theirs = (max(runs[name]["peak_gib"] for runs in taken) for name in ("renewcast", side))
    return f"{ratio:.2f} by CPU; {ours:.1f} and {theirs:.1f} GiB"


def _refuse_other_sums(runs: Mapping[str, Run]) -> None:
    expected = runs["renewcast"]["found"]
    for side, run in runs.items():
        for name, value in run["found"].items():
            assert abs(value - expected[name]) <= 1e-9 * abs(expected[name]), (side, name, value, expected[name])


def measure_snapshots(jobs: Sequence[Job], *, rounds: int) -> Found:
    """Do the jobs and compare the sides."""
    found: list[Comparison] = []
    with tempfile.TemporaryDirectory() as folder:
        for job in jobs:
            events = Path(folder) / f"{job.events}.parquet"
            if not events.exists():
                write_events(str(events), job.events)
            found += compare(job, events, rounds)
    return Found(comparisons=tuple(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave the 20 M events out")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    print(table(measure_snapshots(ALL[:2] if asked.quick else ALL, rounds=asked.rounds).comparisons))


if __name__ == "__main__":
    main()
