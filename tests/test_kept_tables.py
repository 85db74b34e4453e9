import csv
import dataclasses
import shutil
from datetime import datetime, timedelta

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.config import TableConfig, TableSource
from features.errors import QuarantineError
from features.expressions import is_steady
from features.intake import check_workspace
from features.kept_tables import is_repeatable
from features.workspace import load_workspace

NOW = datetime(2025, 1, 1)
CONFIG = """
[tables.accounts]
source = "accounts.csv"
[tables.telemetry]
source = "events.parquet"
[tables.partners]
source = "partners.csv"
[tables.assignments]
source = "assignments.csv"
[tables.tickets]
source = "tickets.csv"
quarantine_limit = 0.5
where = "{where}"
"""
TABLES = {
    "accounts": "account_id,created_at,name\nA,2023-01-01,Abc\nB,2023-02-01,Bcd\n",
    "partners": "partner_id,name\np1,One\n",
    "assignments": "account_id,partner_id,valid_from\nA,p1,2024-01-01\n",
    "tickets": "account_id,ticket_id,opened_at\nA,t1,2024-03-01\nC,t2,2024-04-01\nB,t3,2024-05-01\n",
}


class Book:
    """A workspace of small tables."""

    def __init__(self, folder):
        self.folder = folder
        self.state = folder / ".renewcast"
        self.settle("true")
        for name, text in TABLES.items():
            self.give(name, text)
        event = {"account_id": ["A"], "event": ["login"], "occurred_at": pa.array([datetime(2024, 6, 1)], pa.timestamp("us"))}
        pq.write_table(pa.table(event), folder / "events.parquet")

    def settle(self, where):
        (self.folder / "renewcast.toml").write_text(CONFIG.format(where=where), encoding="utf-8")

    def give(self, name, text):
        (self.folder / f"{name}.csv").write_text(text, encoding="utf-8")

    def add(self, name, line):
        self.give(name, (self.folder / f"{name}.csv").read_text(encoding="utf-8") + line + "\n")

    def check(self, now=NOW):
        """Check and return what was read anew, and all that was left."""
        workspace = load_workspace(self.folder, {})
        workspace.state.mkdir(exist_ok=True)
        summary = check_workspace(workspace, now=now)
        read = {table.table for table in summary.tables if not table.unchanged}
        return read, [self._found(table) for table in summary.tables], (summary.data_from, summary.data_until)

    def _found(self, check):
        rows = pq.read_table(self.state / "tables" / f"{check.table}.parquet").to_pylist() if check.table in TABLES else []
        listed = []
        if check.quarantine_file is not None:
            with (self.state / "quarantine" / f"{check.table}.csv").open(encoding="utf-8", newline="") as stream:
                listed = list(csv.DictReader(stream))
        return rows, listed, dataclasses.replace(check, seconds=0.0, read=0, unchanged=0)

    def agree(self, now=NOW):
        """Check on top of the last check and from nothing, and return what was read anew on top of the last."""
        read, *found = self.check(now)
        tables, aside = self.state / "tables", self.folder / "aside"
        shutil.copytree(tables, aside)
        shutil.rmtree(tables)
        assert self.check(now)[1:] == tuple(found)
        shutil.rmtree(tables)
        aside.rename(tables)
        return read


@pytest.fixture
def book(tmp_path, monkeypatch):
    monkeypatch.setattr("features.intake.code_digest", lambda: "as it is")  # somebody may be editing it while this runs
    made = Book(tmp_path)
    assert made.check()[0] == {*TABLES, "telemetry"}
    return made


def test_what_has_not_changed_is_taken_over_with_the_list_of_its_broken_rows(book):
    book.give("tickets", TABLES["tickets"])  # written again with the same contents
    assert book.agree() == set()
    assert book.agree(NOW + timedelta(days=1)) == set()


def test_a_table_is_checked_again_with_its_file_or_with_what_its_rows_are_held_against(book):
    book.add("tickets", "A,t4,2024-06-01")
    assert book.agree() == {"tickets"}
    book.give("accounts", TABLES["accounts"].replace("Bcd", "Bce"))
    assert book.agree() == {"accounts"}
    book.add("accounts", "C,2023-03-01,Cde")
    assert book.agree() == {"accounts", "assignments", "tickets"}
    book.give("partners", TABLES["partners"].replace("p1,One", "p1,Two"))
    assert book.check()[0] == {"partners", "assignments"}


def test_a_row_of_the_future_and_a_clock_that_was_set_back_are_looked_at_again(book):
    book.add("tickets", "A,t4,2025-01-05")
    assert book.agree() == {"tickets"}
    assert book.check()[0] == {"tickets"}
    assert book.agree(NOW + timedelta(days=6)) == {"tickets"}
    assert book.agree(NOW + timedelta(days=7)) == set()
    assert book.agree(NOW - timedelta(days=1)) == set(TABLES)


def test_other_settings_and_sql_that_asks_for_the_time_are_checked_again(book):
    book.settle("ticket_id <> 't1'")
    assert book.agree() == {"tickets"}
    assert book.check()[0] == set()
    book.settle("opened_at < today()")
    assert book.check()[0] == {"tickets"}
    assert book.check()[0] == {"tickets"}


def test_the_quarantine_of_a_check_that_was_refused_is_not_taken_for_that_of_the_last_good_one(book):
    found = book.check()[1:]
    book.give("tickets", TABLES["tickets"].replace("\nA,", "\nD,"))
    with pytest.raises(QuarantineError):
        book.check()
    book.give("tickets", TABLES["tickets"])
    assert book.check() == (set(), *found)


def test_a_database_may_hold_views_of_anything_and_a_query_may_name_other_files(tmp_path):
    def repeatable(**given):
        return is_repeatable(TableConfig(table="tickets", sources=(TableSource(table="tickets", **given),), quarantine_limit=0.1))

    here = tmp_path / "tickets.csv"
    assert repeatable(location=here)
    assert not repeatable(location=here, database="duckdb", relation="tickets")
    assert repeatable(location=here, query="WITH a AS (FROM source) SELECT * FROM a JOIN Terms USING (x)", lookups={"terms": here})
    assert not repeatable(location=here, query="SELECT * FROM source JOIN 'terms.csv' USING (x)")
    assert not repeatable(location=here, query="SELECT * FROM source JOIN read_csv('terms.csv') USING (x)")


def test_functions_of_the_engine_that_are_not_constant_are_known():
    about_the_connection = {"current_database", "current_schema", "current_schemas", "in_search_path"}
    without_a_value = {"error", "sleep_ms", "vector_type", "write_log"}
    asked = "SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'"
    with duckdb.connect() as connection:
        unsteady = {name for (name,) in connection.execute(asked).fetchall()}
    assert {name for name in unsteady if is_steady(f"{name}()")} == about_the_connection | without_a_value
    assert not any(is_steady(word) for word in ("current_date", "localtimestamp", "coalesce(x, current_time)", "age(x)"))
