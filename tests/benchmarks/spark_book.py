"""Makes features, labels, groups and movements of a book on Spark, and compares them with DuckDB's, column by column and to the bit.

Usage: `uv run python tests/benchmarks/spark_book.py FOLDER`, with the folder of a workspace whose tables were checked (needs Java).

Its checked tables are the lake: Parquet files, which Spark reads where they lie, and DuckDB, too. Attributes of accounts are left out.

Measured in November 2026 with Spark 4.0.5 on 2 cores that five times as much other work shared: of `openstack_orgs` (12,438 rows at 183
cutoffs, 90 features) and `ravenstack` (24,180 rows, 125 features) no column differs. Check and features took 422 and 370 s, much of it for
planning queries; DuckDB took some 20 s for `openstack_orgs`, beside the same other work.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))

import pyarrow as pa
import pyarrow.parquet as pq
from surroundings import busy

from features.lake import check_lake
from features.lake_snapshots import lake_folder, prepare_lake
from features.preparation import prepare_workspace
from features.workspace import Workspace, load_workspace

IN_THE_LAKE = ("features", "labels", "groups")
SETTINGS = {
    "spark.master": "local[*]",
    "spark.driver.memory": "3g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.log.level": "ERROR",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.shuffle.partitions": "4",
    "spark.sql.codegen.wholeStage": "false",  # code for few rows takes longer to compile than to run
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}


def main() -> None:
    """Print what each table holds and which columns differ; fail if one does."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    book = load_workspace(options.parse_args().folder, dict(os.environ))
    now = datetime.now(UTC).replace(tzinfo=None)
    with tempfile.TemporaryDirectory(prefix="renewcast-spark-") as place:
        on_duckdb, on_spark = copied(book, Path(place) / "duckdb"), over_tables_of(book, Path(place) / "spark")
        prepare_workspace(on_duckdb)
        started = time.perf_counter()
        check_lake(on_spark, now=now)
        checked = time.perf_counter()
        prepare_lake(on_spark, now=now)
        print(f"on Spark: check {checked - started:.0f} s, features {time.perf_counter() - checked:.0f} s; {busy()}")
        differing = [name for table in (*IN_THE_LAKE, "movements") for name in compared(on_duckdb, on_spark, table)]
    sys.exit(f"not the same on both: {', '.join(differing)}" if differing else 0)


def copied(book: Workspace, folder: Path) -> Workspace:
    """Copy a book as its check left it."""
    folder.mkdir()
    shutil.copy(book.folder / "renewcast.toml", folder)
    made = load_workspace(folder, dict(os.environ))
    shutil.copytree(book.tables, made.tables)
    shutil.copy(book.check_report, made.check_report)
    return made


def over_tables_of(book: Workspace, folder: Path) -> Workspace:
    """Write a workspace on Spark with the settings of the book, over its checked tables."""
    sections = re.split(r"(?m)^(?=\[)", (book.folder / "renewcast.toml").read_text(encoding="utf-8"))
    kept = "".join(section for section in sections if not section.startswith(("[tables", "[workspace]", "[spark")))
    tables = "".join(f'[tables.{file.stem}]\nsource = "{file.name}"\n' for file in sorted(book.tables.glob("*.parquet")))
    workspace = f'[workspace]\nname = "{book.config.name}"\nengine = "spark"\ndata = "{book.tables.absolute()}"\n'
    spark = "[spark]\nsample_rows = 100_000_000\n[spark.settings]\n" + "".join(f'"{key}" = "{value}"\n' for key, value in SETTINGS.items())
    folder.mkdir()
    (folder / "renewcast.toml").write_text("\n".join([workspace, tables, kept, spark]), encoding="utf-8")
    made = load_workspace(folder, dict(os.environ))
    made.state.mkdir()
    return made


def compared(on_duckdb: Workspace, on_spark: Workspace, table: str) -> list[str]:
    """Return the columns of a table that differ."""
    file = on_duckdb.snapshots / f"{table}.parquet"
    if not file.exists():
        return []
    expected = pq.read_table(file)
    place = lake_folder(on_spark, table) if table in IN_THE_LAKE else on_spark.snapshots / f"{table}.parquet"
    found = pq.read_table(place, partitioning=None)
    missing = [name for name in expected.column_names if name not in found.column_names]
    there = [name for name in expected.column_names if name not in missing]
    one, other = (in_order(each.select(there)) for each in (found, expected))
    differing = [name for name in there if not one[name].cast(other[name].type).equals(other[name])]
    print(f"{table}: {len(expected):,} rows on DuckDB, {len(found):,} on Spark; {len(there)} columns, of which {len(differing)} differ")
    return [f"{table}.{name}" for name in (*missing, *differing)]


def in_order(rows: pa.Table) -> pa.Table:
    """Return rows in an order of their own."""
    key = [name for name in ("cutoff", "account_id") if name in rows.column_names]
    return rows.sort_by([(name, "ascending") for name in key or rows.column_names])


if __name__ == "__main__":
    main()
