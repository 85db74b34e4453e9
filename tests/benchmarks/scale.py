"""Measures how the cost of an event grows with the size of the book, beside a plain scan by DuckDB.

Usage: `uv run python tests/benchmarks/scale.py --events 2_000_000 20_000_000` for simulated books of so many events, one after the other;
`--book fightchurn` for the 98.5 M single events of `fightchurn_crm5` (from the folder in RENEWCAST_DATA). `--write FOLDER` only writes the
book, to try things with; `--keep FOLDER` measures one that was written. Books are written below `--place` and removed afterwards; one of
200 M events and all that is made of it need room for about 15 GB.

All runs on so many cores as `--cores` says (2), queries hold 4 GB before they go on to disk, and each step is a process of its own:

- `scan`: DuckDB alone counts the events of the same files by account, kind and day, the least that any reader of them does
- `check`, `features`: the steps of the command, with cutoffs on each first of a month and on the last day
- the last day is delivered, and both steps are done again: `next check`, `next features`

Time and CPU are those of the step without imports. Compare CPU where the machine does other things.

Measured on two cores in a bad hour of a host with other machines, in seconds of CPU, at 2 M, 20 M, 200 M and the 98.5 M events of
`fightchurn_crm5`: scan 0.4, 5.9, 90 and 9.3 to 10.3; check 6.2, 45, 554 and 174 to 231 (4.1 GiB at most); features of 24, 24, 24 and 25
cutoffs 5.4, 26, 270 and 31 to 42 (4.1 GiB); a day later, with a scoring cutoff of its own, the check 0.4, 0.6, 1.7 and 0.4 and the features
1.1, 2.7, 20 and 2.3 (1.5 GiB).

Before users were looked up some accounts at a time, those of an account were counted side by side, and files were mapped into memory, in
a better hour: scan 0.4, 4.8, 63 to 88 and 8.1; features 4.9, 23, 261 to 316 and 27 to 31; a day later 1.1, 2.3, 19 to 25 and 2.3.

Before checked tables were Parquet of version 2, and counting went on beside queries, on a better day: check 5.6, 48, 536 and 162; features
4.5, 23, 267 and 31, by the clock 200 M took 280 and 201 s, `fightchurn_crm5` 86 and 22.

Before the check of a day looked for repeated rows by their hashes alone, and its users were looked up without tables of all, one more day
of 200 M took 4.5 s to check and 28 s to make features of; labels that stay had their rows sorted, which took 1.4 s of these.

Before forms of whole months, blocks instead of months in memory, and a file for each month of the matrix, on a better day: scan 0.3, 3.6,
67 and 6.3; features 3.9, 21, 263 and 24 (4.6 GiB); a day later 1.2, 4.1, 38 and 3.7.

Before telemetry was folded to days and numbered by the dictionaries of its files, features took 6.8, 29, 427 and 92 s, and a day later
1.7, 5.0, - and 10.

Before each row was counted once for all cutoffs, features of 2 M, 20 M and `fightchurn_crm5` took 8.7, 50 and 157 s (200 M were stopped
after 796 s, unfinished, at 9.2 GiB); before telemetry was numbered, those of 2 M and 20 M took 15.5 and 127 s (busy machine). A check of
200 M took 1,583 s while, to sort a month, the engine read all that the filter left once more for every 10 M staged rows.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from comparison import Comparison, Found, Point, absent, compared, table
from scale_books import EVENTS_AN_ACCOUNT, deliver, write_fightchurn, write_simulated
from workspace_steps import Taken, measure

__all__ = ["Measured", "compare", "measure_book", "measure_scale"]

STEPS = ("check", "scan", "features")
LATER = ("scan", "check", "features")
"""Once the last day is there, so that a scan comes right before and right after the features at all cutoffs: a host has better minutes."""
BOOKS = {"simulated": "simulated", "fightchurn": "fightchurn_crm5"}
"""By the word for it on the command line, what a book is called."""

HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the steps took on one book.

    Parameters
    ----------
    events
        Events of the files, without the last day.
    first, later
        By step: the first time, and after the last day was delivered.
    """

    book: str
    events: int
    first: Mapping[str, Taken]
    later: Mapping[str, Taken]

    @property
    def size(self) -> str:
        """The number of events in words."""
        return f"{self.events / 1e6:.3g} M events"


def write_book(kind: str, folder: Path, *, events: int) -> None:
    """Write a book; `events` counts only for a simulated one."""
    if kind == "simulated":
        write_simulated(folder, accounts=max(events // EVENTS_AN_ACCOUNT, 20), events=events)
    else:
        write_fightchurn(folder, source=expandable(), config=HERE.parent / "workspaces" / "fightchurn_crm5" / "renewcast.toml")


def expandable() -> Path:
    """Return where the set `fightchurn_crm5` is looked for."""
    return Path(os.environ.get("RENEWCAST_DATA", HERE.parents[1] / ".." / "shared" / "data")).absolute() / "fightchurn_crm5"


def measure_book(kind: str, folder: Path, *, cores: int) -> Measured:
    """Do all steps on a book that was written, deliver its last day, and do them again."""
    first = {step: _said(step, measure(step, folder, cores=cores)) for step in STEPS}
    deliver(folder)
    later = {step: _said(f"next {step}", measure(step, folder, cores=cores)) for step in LATER}
    assert later["check"].found["telemetry"] == later["scan"].found["events"], "each event is kept, and once"
    return Measured(book=BOOKS[kind], events=first["scan"].found["events"], first=first, later=later)


def _said(name: str, taken: Taken) -> Taken:
    print(
        f"  {name:14} {taken.wall:8.1f} s {taken.cpu:8.1f} s of CPU {taken.peak_gib:6.2f} GiB  {taken.found}", file=sys.stderr, flush=True
    )
    return taken


def compare(books: Sequence[Measured]) -> Found:
    """Compare the steps with the scan, a day with all days, and an event of the largest simulated book with one of the smallest."""
    found = [comparison for book in books for comparison in (*_beside_scan(book), _beside_nothing(book))]
    simulated = sorted((book for book in books if book.book == BOOKS["simulated"]), key=lambda book: book.events)
    if len(simulated) > 1:
        found += _beside_smallest(simulated[-1], simulated[0])
    points = [
        Point(book=book.book, step=f"{when}{step}", events=book.events, cpu=taken.cpu, peak_gib=taken.peak_gib)
        for book in books
        for when, all_taken in (("", book.first), ("next ", book.later))
        for step, taken in all_taken.items()
    ]
    return Found(comparisons=tuple(found), points=tuple(points))


def _beside_scan(book: Measured) -> list[Comparison]:
    """Compare each step with the scan of the same files, the cheaper one of the two around the features at all cutoffs."""
    scan = min(taken["scan"].cpu for taken in (book.first, book.later))
    cutoffs = book.first["features"].found["cutoffs"]
    steps = (
        ("check", book.first["check"], None),
        (f"features at {cutoffs} cutoffs", book.first["features"], 4.0),
        ("check a day later", book.later["check"], None),
        ("features of the later cutoff", book.later["features"], 0.5),
    )
    return [
        compared(
            f"{book.size} ({book.book}): {name}",
            "DuckDB alone, scanning and grouping",
            "CPU",
            [(taken.cpu, scan)],
            at_most=at_most,
            note=f"{taken.peak_gib:.1f} GiB",
        )
        for name, taken, at_most in steps
    ]


def _beside_nothing(book: Measured) -> Comparison:
    """Compare what one more day costs with what all days do."""
    first, later = (sum(taken[step].cpu for step in ("check", "features")) for taken in (book.first, book.later))
    return compared(f"{book.size} ({book.book}): one more day", "check and features from nothing", "CPU", [(later, first)], at_most=0.03)


def _beside_smallest(largest: Measured, smallest: Measured) -> list[Comparison]:
    return [
        compared(
            f"{step}, an event of {largest.size}",
            f"itself, an event of {smallest.size}",
            "CPU",
            [(largest.first[step].cpu / largest.events, smallest.first[step].cpu / smallest.events)],
            at_most=1.3 if step != "scan" else None,
        )
        for step in STEPS
    ]


def write_apart(kind: str, folder: Path, *, events: int) -> None:
    """Write a book in a process of its own, so that what it held is given back before the steps."""
    subprocess.run([sys.executable, __file__, "--book", kind, "--events", str(events), "--write", str(folder)], check=True)


def measure_scale(sizes: Sequence[int], *, expanded: bool, place: Path | None = None, cores: int = 2) -> Found:
    """Write, measure and remove simulated books of so many events, and the expanded `fightchurn_crm5` if its folder is there.

    Parameters
    ----------
    place
        Where books are written, in a folder of their own; the operating system's place for such if None.
    """
    there = expanded and expandable().exists()
    wanted = [("simulated", events) for events in sizes] + ([("fightchurn", 0)] if there else [])
    found = compare([_made_and_measured(kind, place, events=events, cores=cores) for kind, events in wanted])
    if there or not expanded:
        return found
    missing = absent("98.5 M events (fightchurn_crm5)", "DuckDB alone, scanning and grouping", "CPU", why="the set is not there")
    return replace(found, comparisons=(*found.comparisons, missing))


def _made_and_measured(kind: str, place: Path | None, *, events: int, cores: int) -> Measured:
    folder = Path(tempfile.mkdtemp(prefix="renewcast-scale-", dir=place)) / "book"
    try:
        write_apart(kind, folder, events=events)
        return measure_book(kind, folder, cores=cores)
    finally:
        shutil.rmtree(folder.parent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--book", choices=list(BOOKS), default="simulated")
    parser.add_argument("--events", type=int, nargs="+", default=[2_000_000, 20_000_000], help="sizes of simulated books")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--place", type=Path, help="where books are written")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="only write the book of the first size")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="measure a book that was written, and keep it")
    asked = parser.parse_args()
    expanded = asked.book == "fightchurn"
    if asked.write:
        write_book(asked.book, asked.write, events=asked.events[0])
    elif asked.keep:
        print(table(compare([measure_book(asked.book, asked.keep, cores=asked.cores)]).comparisons))
    else:
        found = measure_scale([] if expanded else asked.events, expanded=expanded, place=asked.place, cores=asked.cores)
        print(table(found.comparisons))


if __name__ == "__main__":
    main()
