"""Runs one step on a workspace's telemetry in a process of its own, on so many cores, and prints what it took.

The steps are those of the command, `check` and `features`, and the least that any reader of the telemetry does: `scan`, in which DuckDB
alone counts the events of its files by account, kind and day.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb
from surroundings import most_memory

__all__ = ["Taken", "measure"]

MEMORY_GIGABYTES = 4
"""What the scan may hold in memory, which is what a workspace's queries may."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What a step took, without the start of Python and the import of libraries.

    Parameters
    ----------
    peak_gib
        The most memory that its process held.
    found
        What it counted.
    """

    wall: float
    cpu: float
    peak_gib: float
    found: Mapping[str, int]


def measure(step: str, folder: Path, *, cores: int) -> Taken:
    """Do a step in a process of its own.

    Raises
    ------
    SystemExit
        If it fails, with the last that it said.
    """
    command = [sys.executable, __file__, step, str(folder), "--cores", str(cores)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{step} failed ({done.returncode}):\n{done.stderr[-3000:]}")
    return Taken(**json.loads(done.stdout.splitlines()[-1]))


def prepared(step: str, folder: Path) -> Callable[[], dict[str, int]]:
    """Import what a step needs and return it, ready to be done."""
    if step == "scan":
        return lambda: scan(folder)
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from features.engine import Engine
    from features.intake import check_workspace
    from features.preparation import prepare_workspace
    from features.workspace import load_workspace

    workspace = load_workspace(folder, dict(os.environ))
    workspace.state.mkdir(exist_ok=True)
    Engine().close()  # Ibis imports what it needs of DuckDB when it is first used

    def check() -> dict[str, int]:
        tables = check_workspace(workspace, now=datetime.now(UTC).replace(tzinfo=None)).tables
        return {table.table: table.rows_out for table in tables}

    def features() -> dict[str, int]:
        summary = prepare_workspace(workspace)
        return {"rows": summary.rows, "features": summary.features, "cutoffs": summary.cutoffs}

    return {"check": check, "features": features}[step]


def scan(folder: Path) -> dict[str, int]:
    """Count the events of each account, kind and day."""
    query = "SELECT account_id, event, date_trunc('day', occurred_at) AS day, count(*) AS events FROM read_parquet($files) GROUP BY ALL"
    with duckdb.connect(config={"memory_limit": f"{MEMORY_GIGABYTES}GB", "temp_directory": str(folder / "spill")}) as connection:
        files = str(folder / "telemetry" / "*.parquet")
        counted = connection.execute(f"SELECT count(*), sum(events) FROM ({query})", {"files": files}).fetchone()
    assert counted is not None
    return {"groups": int(counted[0]), "events": int(counted[1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["check", "features", "scan"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cores", type=int, default=2)
    asked = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # every library then takes so many threads; other systems than Linux have no such thing
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: asked.cores])
    step = prepared(asked.step, asked.folder)
    wall, cpu = time.perf_counter(), time.process_time()
    found = step()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps(asdict(Taken(wall=wall, cpu=cpu, peak_gib=most_memory(), found=found))))


if __name__ == "__main__":
    main()
