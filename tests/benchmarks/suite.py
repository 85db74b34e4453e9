"""Runs the benchmarks, each beside its peers, and prints one table of what they found.

Usage: `uv run python tests/benchmarks/suite.py` (about half an hour on 2 idle cores; `--size full`, up to 200 M events, takes hours and
needs room for 15 GB on the disk; `--size small`, half a minute, shows that everything runs, and its numbers mean nothing).

Each part runs in a process of its own. A peer that is not there is named with the reason; `uv run --with woodelf-explainer python ...`
brings WOODELF in for one run. With `--results FILE` what was found is kept, and a later run with `--part NAME` measures that part again
and shows the others as they were found. `--chart FILE` draws how the cost of an event and the memory grow with the number of events.
"""

import argparse
import json
import multiprocessing
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from comparison import Comparison, Found, Point, absent, table
from scaling_chart import draw_growth
from surroundings import busy, machine, versions

__all__ = ["SIZES", "Part", "Size", "report", "run_part"]


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much each part does.

    Parameters
    ----------
    snapshots
        Events, and the cutoffs, `shared` or `own`, of the standard job; and whether featuretools does it, too.
    scale
        Events of the simulated books.
    expanded
        Whether `fightchurn_crm5` is measured with its single events.
    explained_rows, scored_accounts
        Rows that are explained by each side, and accounts of the book that is scored as a whole; none if 0.
    accounts, trees
        Accounts and trees of the book that is scored and served.
    trained_accounts, asked_seconds
        Accounts of the book that is trained on, and how long the servers are asked in a round; 0 leaves the part out.
    """

    rounds: int
    snapshots: tuple[tuple[int, str, bool], ...]
    scale: tuple[int, ...]
    expanded: bool
    explained_rows: int
    scored_accounts: int
    accounts: int
    trees: int
    trained_accounts: int
    asked_seconds: int


SIZES = {
    "small": Size(
        rounds=1,
        snapshots=((20_000, "shared", False),),
        scale=(20_000,),
        expanded=False,
        explained_rows=500,
        scored_accounts=0,
        accounts=200,
        trees=20,
        trained_accounts=0,
        asked_seconds=0,
    ),
    "medium": Size(
        rounds=3,
        snapshots=((2_000_000, "shared", True), (2_000_000, "own", True)),
        scale=(2_000_000, 20_000_000),
        expanded=False,
        explained_rows=60_000,
        scored_accounts=0,
        accounts=12_000,
        trees=200,
        trained_accounts=2_000,
        asked_seconds=4,
    ),
    "full": Size(
        rounds=3,
        snapshots=((2_000_000, "shared", True), (2_000_000, "own", True), (20_000_000, "shared", False)),
        scale=(2_000_000, 20_000_000, 200_000_000),
        expanded=True,
        explained_rows=60_000,
        scored_accounts=1_000_000,
        accounts=12_000,
        trees=200,
        trained_accounts=2_000,
        asked_seconds=4,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a part found, at which size and when, and how much the machine did before and after it."""

    found: Found
    size: str
    at: str
    busy: tuple[str, str]


def _snapshots(size: Size, place: Path | None) -> Found:
    from snapshot_speed import Job, measure_snapshots

    fast = ("polars", "pandas")
    jobs = [Job(events, cutoffs, (*fast, "featuretools") if slow else fast) for events, cutoffs, slow in size.snapshots]
    return measure_snapshots(jobs, rounds=size.rounds)


def _scale(size: Size, place: Path | None) -> Found:
    from scale import measure_scale

    return measure_scale(size.scale, expanded=size.expanded, place=place)


def _scoring(size: Size, place: Path | None) -> Found:
    from book_scoring import measure_scoring
    from speed_book import BookSize

    book = BookSize(size.accounts, size.trees)
    return measure_scoring(book, accounts=size.scored_accounts, rounds=size.rounds, rows=size.explained_rows)


def _training(size: Size, place: Path | None) -> Found:
    if not size.trained_accounts:
        return _left_out("a training", "LightGBM, the fits alone")
    from training_overhead import measure_training

    return measure_training(rounds=size.rounds, accounts=size.trained_accounts)


def _serving(size: Size, place: Path | None) -> Found:
    if not size.asked_seconds:
        return _left_out("an explained account over HTTP", "an empty answer, MLflow")
    from serving_speed import measure_serving
    from speed_book import BookSize

    return measure_serving(BookSize(size.accounts, size.trees), rounds=size.rounds, seconds=size.asked_seconds)


def _left_out(what: str, peer: str) -> Found:
    return Found(comparisons=(absent(what, peer, "CPU", why="left out at this size"),))


PARTS: Mapping[str, Callable[[Size, Path | None], Found]] = {
    "snapshots": _snapshots,
    "scale": _scale,
    "scoring": _scoring,
    "training": _training,
    "serving": _serving,
}


def run_part(name: str, size: str, place: Path | None) -> Part:
    """Run a part in a process of its own, so that what it holds and imports burdens no other one."""
    before = busy()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(PARTS[name], SIZES[size], place).result()
    return Part(found=found, size=size, at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", busy=(before, busy()))


def report(parts: Mapping[str, Part]) -> str:
    """Return the table of all parts, with the machine, its state, the versions and the sizes."""
    found = [comparison for part in parts.values() for comparison in part.found.comparisons]
    state = [f"- {name}: size {part.size}, {part.at}; {part.busy[0]} before, {part.busy[1]} after" for name, part in parts.items()]
    return "\n".join([table(found), "", f"{machine()}.", f"{versions()}.", "", *state])


def write_results(parts: Mapping[str, Part], file: Path) -> None:
    """Keep what was found as JSON."""
    file.write_text(json.dumps({name: asdict(part) for name, part in parts.items()}, indent=1), encoding="utf-8")


def read_results(file: Path) -> dict[str, Part]:
    """Read what was kept; nothing if there is no such file."""
    return {name: _part(kept) for name, kept in json.loads(file.read_text(encoding="utf-8")).items()} if file.exists() else {}


def _part(kept: dict[str, Any]) -> Part:
    found = Found(
        comparisons=tuple(Comparison(**each) for each in kept["found"]["comparisons"]),
        points=tuple(Point(**each) for each in kept["found"]["points"]),
    )
    return Part(found=found, size=kept["size"], at=kept["at"], busy=tuple(kept["busy"]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SIZES), default="medium")
    parser.add_argument("--part", choices=list(PARTS), nargs="+", default=list(PARTS), help="measure these parts only")
    parser.add_argument("--place", type=Path, help="where large books are written")
    parser.add_argument("--results", type=Path, metavar="FILE", help="keep what was found here as JSON, and show what was found before")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw the growth of costs here as SVG")
    asked = parser.parse_args(arguments)
    parts = read_results(asked.results) if asked.results else {}
    for name in asked.part:
        print(f"{name}: {busy()}", file=sys.stderr, flush=True)
        parts[name] = run_part(name, asked.size, asked.place)
        if asked.results:
            write_results(parts, asked.results)
    ordered = {name: parts[name] for name in PARTS if name in parts}
    print(report(ordered))
    if asked.chart:
        points = [point for part in ordered.values() for point in part.found.points]
        asked.chart.write_text(draw_growth(points), encoding="utf-8")


if __name__ == "__main__":
    main()
