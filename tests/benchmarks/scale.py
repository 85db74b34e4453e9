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
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scale_books import EVENTS_AN_ACCOUNT, deliver, write_fightchurn, write_simulated
from workspace_steps import Taken, measure

__all__ = ["Measured", "demands", "measure_book"]

STEPS = ("scan", "check", "features")
HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the steps took on one book.

    Parameters
    ----------
    events
        Events of the files, without the last day.
    next_events
        Events of the last day.
    first, later
        By step: the first time, and after the last day was delivered.
    raw_gib, kept_gib
        Room on the disk: of the files of telemetry, and of the checked tables and the features.
    """

    book: str
    events: int
    next_events: int
    first: dict[str, Taken]
    later: dict[str, Taken]
    raw_gib: float
    kept_gib: float


def write_book(kind: str, folder: Path, *, events: int) -> None:
    """Write a book; `events` counts only for a simulated one."""
    if kind == "simulated":
        write_simulated(folder, accounts=max(events // EVENTS_AN_ACCOUNT, 20), events=events)
    else:
        source = Path(os.environ.get("RENEWCAST_DATA", HERE.parents[2] / "../shared/data"))
        write_fightchurn(
            folder, source=source / "fightchurn_crm5", config=HERE.parent / "workspaces" / "fightchurn_crm5" / "renewcast.toml"
        )


def measure_book(kind: str, folder: Path, *, cores: int) -> Measured:
    """Do all steps on a book that was written, deliver its last day, and do them again."""
    first = {step: _said(step, measure(step, folder, cores=cores)) for step in STEPS}
    deliver(folder)
    later = {step: _said(f"next {step}", measure(step, folder, cores=cores)) for step in STEPS}
    events = first["scan"].found["events"]
    assert later["check"].found["telemetry"] == later["scan"].found["events"], "each event is kept, and once"
    return Measured(
        book=kind,
        events=events,
        next_events=later["scan"].found["events"] - events,
        first=first,
        later=later,
        raw_gib=_room(folder / "telemetry"),
        kept_gib=_room(folder / ".renewcast"),
    )


def _said(name: str, taken: Taken) -> Taken:
    print(
        f"  {name:14} {taken.wall:8.1f} s {taken.cpu:8.1f} s of CPU {taken.peak_gib:6.2f} GiB  {taken.found}", file=sys.stderr, flush=True
    )
    return taken


def _room(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**30


def demands(books: Sequence[Measured]) -> dict[str, float]:
    """Return ratios of CPU seconds: of the steps to the scan for each book, and of the largest book to the smallest by event."""
    found = {}
    for book in books:
        size, scan = f"{book.book}, {book.events / 1e6:.0f} M", book.first["scan"].cpu
        found[f"{size}: check / scan"] = book.first["check"].cpu / scan
        found[f"{size}: features / scan"] = book.first["features"].cpu / scan
        found[f"{size}: next check / scan"] = book.later["check"].cpu / scan
        found[f"{size}: next features / scan"] = book.later["features"].cpu / scan
    for step in STEPS if len(books) > 1 else ():
        smallest, largest = (select(books, key=lambda book: book.events) for select in (min, max))
        found[f"{step} an event, largest / smallest"] = _per_event(largest, step) / _per_event(smallest, step)
    return found


def _per_event(book: Measured, step: str) -> float:
    return book.first[step].cpu / book.events


def show(books: Sequence[Measured]) -> None:
    """Print a table of all steps, and the ratios."""
    print("| book | events | step | s | s of CPU | us of CPU an event | GiB of memory |\n|---|---|---|---|---|---|---|")
    for book in books:
        for name, taken in (*book.first.items(), *((f"next {step}", taken) for step, taken in book.later.items())):
            size, each = f"{book.events:,}", taken.cpu / book.events * 1e6
            print(f"| {book.book} | {size} | {name} | {taken.wall:.1f} | {taken.cpu:.1f} | {each:.2f} | {taken.peak_gib:.2f} |")
        print(f"{book.book}: files {book.raw_gib:.2f} GiB, checked tables and features {book.kept_gib:.2f} GiB")
    for name, ratio in demands(books).items():
        print(f"{name:60} {ratio:8.2f}")


def write_apart(kind: str, folder: Path, *, events: int) -> None:
    """Write a book in a process of its own, since the memory that a process once held counts for those that it starts."""
    subprocess.run([sys.executable, __file__, "--book", kind, "--events", str(events), "--write", str(folder)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--book", choices=["simulated", "fightchurn"], default="simulated")
    parser.add_argument("--events", type=int, nargs="+", default=[2_000_000, 20_000_000], help="sizes of simulated books")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--place", type=Path, help="where books are written")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="only write the book of the first size")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="measure a book that was written, and keep it")
    asked = parser.parse_args()
    if asked.write:
        write_book(asked.book, asked.write, events=asked.events[0])
    elif asked.keep:
        show([measure_book(asked.book, asked.keep, cores=asked.cores)])
    else:
        sizes = asked.events if asked.book == "simulated" else [0]
        show([_made_and_measured(asked.book, asked.place, events=events, cores=asked.cores) for events in sizes])


def _made_and_measured(kind: str, place: Path | None, *, events: int, cores: int) -> Measured:
    folder = Path(tempfile.mkdtemp(prefix="renewcast-scale-", dir=place)) / "book"
    try:
        write_apart(kind, folder, events=events)
        return measure_book(kind, folder, cores=cores)
    finally:
        shutil.rmtree(folder.parent)


if __name__ == "__main__":
    main()
