"""Runs one side of a comparison in a process of its own and prints what it took."""

import argparse
import importlib
import json
import sys
import time
import warnings
from pathlib import Path

from surroundings import most_memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=["renewcast", "polars", "pandas", "featuretools"])
    parser.add_argument("events", help="Parquet file of events")
    parser.add_argument("cutoffs", choices=["shared", "own"])
    parser.add_argument("--part", type=int)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    root = Path(__file__).parent.parent.parent
    sys.path.insert(0, str(root))
    side = importlib.import_module(f"side_{arguments.side}")
    side.warm_up()
    part = {} if arguments.part is None else {"part": arguments.part}
    started, started_cpu = time.perf_counter(), time.process_time()
    found = side.run(arguments.events, arguments.cutoffs, **part)
    seconds, cpu = time.perf_counter() - started, time.process_time() - started_cpu
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak_gib": most_memory(), "found": found}))


if __name__ == "__main__":
    main()
