import gzip
import json
import random
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.config import TableSource
from features.contracts import CONTRACT
from features.databases import Exported, export_postgresql, export_sqlite
from features.engine import Engine
from features.errors import SourceError
from features.sources import FILE, LINE, PROBLEM, ROW, open_source, queries_before_reading

CUT_SHORT = gzip.compress(b"id,name\n" + random.Random(0).randbytes(1000).hex().encode(), mtime=0)[:200]


@pytest.fixture(scope="module")
def engine():
    with Engine(threads=1) as engine:
        yield engine


@pytest.fixture
def opened(engine, tmp_path):
    """Open a source and give its rows by number, its notes and its columns."""

    def open_it(location: Path | None, **settings):
        staging = tmp_path / "staging"
        staging.mkdir(exist_ok=True)
        found = open_source(engine, TableSource(table="tickets", location=location, **settings), staging)
        rows = engine.to_arrow(found.table.order_by(FILE, ROW)).to_pylist()
        return rows, found

    return open_it


def values(rows, *names):
    return [tuple(row[name] for name in names) for row in rows]


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_csv_is_text_whatever_its_separator_mark_and_quotes(opened, tmp_path):
    path = write(tmp_path / "a.csv", b'\xef\xbb\xbfid;"a, name"\r\n007;"two\r\nlines"\r\n2;"say ""hi"""\r\n3;\r\n')
    rows, found = opened(path)
    assert found.columns == ("id", "a, name")
    assert values(rows, ROW, "id", "a, name") == [(1, "007", "two\r\nlines"), (2, "2", 'say "hi"'), (3, "3", None)]


def test_a_csv_line_that_cannot_be_read_stays_a_row_with_its_text(opened, tmp_path):
    rows, _ = opened(write(tmp_path / "a.csv", "id,name\n1,a\n2,b,c\n3\n4,d\n"))
    assert values(rows, ROW, "id", LINE) == [(1, "1", None), (2, None, "2,b,c"), (3, None, "3"), (4, "4", None)]
    assert [row[PROBLEM] is None for row in rows] == [True, False, False, True]


def test_row_numbers_stay_right_around_many_unreadable_lines_in_many_files(opened, tmp_path):
    for name in ("a", "b"):
        lines = [f"{number},x" if number % 7 else f"{number},x,y" for number in range(1, 3001)]
        write(tmp_path / "in" / f"{name}.csv", "id,name\n" + "\n".join(lines) + "\n")
    rows, _ = opened(tmp_path / "in" / "*.csv")
    assert len(rows) == 6000
    for row in rows:
        assert row[ROW] == int(row["id"] or row[LINE].split(",")[0])


def test_csv_files_with_different_columns_are_joined_by_name(opened, tmp_path):
    write(tmp_path / "in" / "1.csv", "id,name\n1,a\n")
    write(tmp_path / "in" / "2.csv", "name,id,extra\nb,2,x\n")
    write(tmp_path / "in" / "3.csv", "")
    rows, found = opened(tmp_path / "in")
    assert sorted(values(rows, "id", "name", "extra")) == [("1", "a", None), ("2", "b", "x")]
    assert found.notes == {"files with the columns id, name": 1, "files with the columns name, id, extra": 1}


def test_columns_without_a_name_or_with_a_shared_one_are_numbered(opened, tmp_path):
    _, found = opened(write(tmp_path / "a.csv", "id,,Name,name\n1,2,3,4\n"))
    assert found.columns == ("id", "column_2", "Name", "name_4")


def test_partition_folders_are_columns_and_stay_text(opened, tmp_path):
    write(tmp_path / "in" / "year=2024" / "month=01" / "x.csv", "id\n1\n")
    write(tmp_path / "in" / "year=2024" / "month=02" / "x.csv", "id\n2\n")
    rows, _ = opened(tmp_path / "in")
    assert values(rows, "id", "year", "month") == [("1", "2024", "01"), ("2", "2024", "02")]
    pq.write_table(pa.table({"id": [1]}), write(tmp_path / "pq" / "day=2024-01-02" / "x.parquet", ""))
    rows, _ = opened(tmp_path / "pq")
    assert values(rows, "id", "day") == [(1, "2024-01-02")]


def test_json_lines_follow_a_schema_that_changes(opened, tmp_path):
    write(tmp_path / "in" / "1.jsonl", '{"id": 1, "v": 1.5}\n{"id": 2, "v": "2.5"}\n\n{"id": 3, "v": null}\n')
    with gzip.open(tmp_path / "in" / "2.jsonl.gz", "wt") as stream:
        stream.write('{"id": "4", "new": {"a": [1]}, "v": true}\n')
    rows, found = opened(tmp_path / "in")
    assert values(rows, ROW, "id", "v", "new") == [
        (1, "1", "1.5", None),
        (2, "2", "2.5", None),
        (4, "3", None, None),
        (1, "4", "true", '{"a":[1]}'),
    ]
    assert found.notes == {"new: not in the record": 3, "v: text among numbers": 1, "id: text among numbers": 1}


def test_a_key_may_be_null_in_every_line(opened, tmp_path):
    rows, _ = opened(write(tmp_path / "a.jsonl", '{"id": 1, "v": null}\n{"id": 2, "v": null}\n'))
    assert values(rows, "id", "v") == [("1", None), ("2", None)]


def test_a_json_line_that_cannot_be_read_stays_a_row_with_its_text(opened, tmp_path):
    rows, _ = opened(write(tmp_path / "a.jsonl", '{"id": 1}\n{"id": \n[2]\n'))
    assert values(rows, ROW, "id", PROBLEM, LINE) == [
        (1, "1", None, None),
        (2, None, "line is not JSON", '{"id": '),
        (3, None, "line is not a JSON object", "[2]"),
    ]


def test_parquet_keeps_its_types(opened, tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": [7, 8], "at": pa.array([0, 1], pa.timestamp("ns", tz="Europe/Berlin"))}), path)
    rows, _ = opened(path)
    assert values(rows, ROW, "id") == [(1, 7), (2, 8)]
    assert all(row[FILE] == str(path) for row in rows)


@pytest.mark.parametrize(
    ("name", "content", "settings", "message"),
    [
        ("tickts.csv", None, {}, "the file does not exist"),
        ("tickts.csv", None, {}, "did you mean 'tickets.csv'?"),
        ("none/*.csv", None, {}, "no file is there"),
        ("a.csv", b"", {}, "the file is empty"),
        ("a.csv", b"id,name\n", {}, "has no rows"),
        ("a.jsonl", b"", {}, "the file is empty"),
        ("a.jsonl", b'[{"id": 1}, {"id": 2}]', {}, "jq -c"),
        ("a.jsonl", b"id,name\n1,2\n", {}, "no line of the file is a JSON object"),
        ("a.parquet", b"id,name\n1,2\n", {}, "cannot be read as parquet"),
        ("a.csv", b"PAR1\x00\x01\x15\x00", {}, "not text in UTF-8"),
        ("a.csv", "id;größe\n1;2\n".encode("latin-1"), {}, "not text in UTF-8"),
        ("a.csv.gz", CUT_SHORT, {}, "Copy or export it again|complete"),
        ("a.jsonl.gz", gzip.compress(b'{"id": 1}\n' * 9, mtime=0)[:-12], {}, "complete"),
        ("a.xlsx", b"PK", {}, "does not tell its format"),
        ("a.db", None, {"database": "sqlite", "relation": "t"}, "the file does not exist"),
        ("a.db", b"no database", {"database": "sqlite", "relation": "t"}, "the database cannot be read"),
        ("a.db", b"no database", {"database": "duckdb", "relation": "t"}, "the database cannot be read"),
    ],
)
def test_a_source_that_cannot_be_opened_says_why(opened, tmp_path, name, content, settings, message):
    write(tmp_path / "tickets.csv", "id\n1\n")
    if content is not None:
        write(tmp_path / name, content)
    with pytest.raises(SourceError, match=message) as caught:
        opened(tmp_path / name, **settings)
    assert name.split("/")[0] in str(caught.value)


def test_files_of_several_formats_in_a_folder_are_refused(opened, tmp_path):
    write(tmp_path / "in" / "a.csv", "id\n1\n")
    write(tmp_path / "in" / "a.jsonl", '{"id": 1}\n')
    with pytest.raises(SourceError, match="several formats"):
        opened(tmp_path / "in")


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.parquet"])
def test_it_is_known_how_many_queries_go_through_the_rows_of_text(opened, tmp_path, monkeypatch, name):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "rows.parquet")
    (tmp_path / "rows.csv").write_text("a\n1\n", encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n', encoding="utf-8")
    asked, rows = [], Engine.rows
    monkeypatch.setattr(Engine, "rows", lambda self, sql: asked.append(sql) or rows(self, sql))
    opened(tmp_path / name)
    source = TableSource(table="tickets", location=tmp_path / name)
    staging = sum("FROM read_" in sql for sql in asked)
    how_written = len({column.type for column in CONTRACT["telemetry"].columns.values()} - {"id", "text"})  # times, and numbers
    expected = staging + how_written if staging else 0
    assert queries_before_reading(source) == queries_before_reading(source, only=[tmp_path / name]) == expected
    assert queries_before_reading(replace(source, query="SELECT * FROM source")) == expected + 1


def test_databases_are_read_as_text_but_for_duckdb(tmp_path):
    source = TableSource(table="telemetry", location=tmp_path / "shop.db", database="sqlite")
    assert queries_before_reading(source) == queries_before_reading(replace(source, location=None, database="postgresql")) > 1
    assert queries_before_reading(replace(source, database="duckdb")) == 1, "the export alone"


def test_sqlite_and_duckdb(opened, tmp_path):
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.execute("CREATE TABLE t (id, name)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", [(1, 'a,"b"\nc'), ("x", None), (2.5, "ü")])
        connection.commit()
    rows, found = opened(tmp_path / "a.db", database="sqlite", relation="t")
    assert values(rows, ROW, "id", "name") == [(1, "1", 'a,"b"\nc'), (2, "x", None), (3, "2.5", "ü")]
    assert found.label == f"{tmp_path / 'a.db'}: t"
    rows, _ = opened(tmp_path / "a.db", database="sqlite", query="SELECT count(*) AS n FROM t;")
    assert values(rows, "n") == [("3",)]
    with duckdb.connect(str(tmp_path / "a.duckdb")) as connection:
        connection.execute("CREATE SCHEMA crm; CREATE TABLE crm.t AS SELECT 1 AS id, DATE '2024-01-02' AS d")
    rows, _ = opened(tmp_path / "a.duckdb", database="duckdb", relation="crm.t")
    assert [(row["id"], str(row["d"])) for row in rows] == [(1, "2024-01-02")]
    with pytest.raises(SourceError, match="no such table"):
        opened(tmp_path / "a.db", database="sqlite", relation="tt")


@pytest.mark.parametrize(
    ("create", "source", "expected"),
    [
        ("CREATE TABLE t (id)", {"relation": "t"}, 3),
        ("CREATE TABLE t (id INTEGER PRIMARY KEY)", {"relation": "main.T"}, 3),
        ("CREATE TABLE t (id PRIMARY KEY) WITHOUT ROWID", {"relation": "t"}, 0),
        ("CREATE TABLE t (id, _rowid_ REAL DEFAULT 9e999)", {"relation": "t"}, 0),
        ("CREATE TABLE t (id, _rowid_ TEXT DEFAULT 'none')", {"relation": "t"}, 1),
        ("CREATE TABLE t (id); CREATE VIEW v AS SELECT id, rowid AS _rowid_ FROM t", {"relation": "v"}, 0),
        ("CREATE TABLE t (id)", {"query": "SELECT id FROM t"}, 0),
    ],
    ids=["a table", "numbers far from 1", "no numbers of rows", "endless ones", "a column of that name", "a view", "a query"],
)
def test_an_export_from_sqlite_tells_how_far_it_is(tmp_path, create, source, expected):
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.executescript(create)
        connection.executemany("INSERT INTO t (id) VALUES (?)", [(1_700_000_001,), (1_700_000_002,), (1_700_000_003,)])
        connection.commit()
    done = Exported()
    export_sqlite(TableSource(table="tickets", location=tmp_path / "a.db", database="sqlite", **source), tmp_path / "a.csv", done)
    assert (done.rows, done.expected) == (3, expected)


def test_no_rows_of_sqlite_are_expected_of_an_empty_table(tmp_path):
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.execute("CREATE TABLE t (id)")
        connection.commit()
    done = Exported()
    export_sqlite(TableSource(table="tickets", location=tmp_path / "a.db", database="sqlite", relation="t"), tmp_path / "a.csv", done)
    assert (done.rows, done.expected) == (0, 0)


def test_an_export_from_postgresql_tells_how_far_it_is(tmp_path, postgres):
    import psycopg

    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS counted")
        connection.execute("CREATE TABLE counted AS SELECT n, E'two\nlines' AS said FROM generate_series(1, 5000) AS n")
        connection.execute("ANALYZE counted")
    done = Exported()
    source = TableSource(table="tickets", database="postgresql", relation="counted", url=postgres, url_env="CRM")
    export_postgresql(source, tmp_path / "a.csv", done)
    assert (done.rows, done.expected) == (5000, 5000)


@pytest.mark.parametrize("plan", ["no plan", "a plan of another shape"])
def test_an_export_does_not_need_the_servers_guess(tmp_path, postgres, monkeypatch, plan):
    import psycopg

    execute = psycopg.Connection.execute

    def answer(connection, query, *args, **options):
        if not query.startswith(b"EXPLAIN"):
            return execute(connection, query, *args, **options)
        return execute(connection, b"EXPLAIN (FORMAT unheard_of) SELECT 1" if plan == "no plan" else b"SELECT 'a text'")

    monkeypatch.setattr(psycopg.Connection, "execute", answer)
    done = Exported()
    source = TableSource(table="tickets", database="postgresql", query="SELECT 1 AS id", url=postgres, url_env="CRM")
    export_postgresql(source, tmp_path / "a.csv", done)
    assert (tmp_path / "a.csv").read_text() == "id\n1\n"
    assert (done.rows, done.expected) == (1, 0)


def test_postgresql(opened, postgres):
    import psycopg

    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (id int, name text, at timestamptz, ok bool)")
        connection.execute("INSERT INTO t VALUES (1, 'a,\"b\"\nc', '2024-05-01 02:00:00+02', true), (2, NULL, NULL, NULL)")
    rows, found = opened(None, database="postgresql", relation="public.t", url=postgres, url_env="CRM")
    assert values(rows, "id", "name", "ok") == [("1", 'a,"b"\nc', "t"), ("2", None, None)]
    assert rows[0]["at"] == "2024-05-01 00:00:00+00"
    assert found.label == "the database in CRM: public.t"
    with pytest.raises(SourceError, match="does not exist"):
        opened(None, database="postgresql", relation="tt", url=postgres, url_env="CRM")
    with pytest.raises(SourceError, match="read-only"):
        opened(None, database="postgresql", query="DELETE FROM t RETURNING id", url=postgres, url_env="CRM")
    with pytest.raises(SourceError, match="syntax error"):
        opened(None, database="postgresql", query="SELECT 1; COMMIT; BEGIN READ WRITE; DELETE FROM t; COMMIT", url=postgres, url_env="CRM")
    with psycopg.connect(postgres) as connection:
        assert connection.execute("SELECT count(*) > 0 FROM t").fetchone() == (True,)


def test_postgresql_without_address_or_server(opened):
    with pytest.raises(SourceError, match="CRM is not set"):
        opened(None, database="postgresql", relation="t", url_env="CRM")
    with pytest.raises(SourceError, match="cannot be read") as caught:
        opened(None, database="postgresql", relation="t", url="postgresql://u:secret@127.0.0.1:1/d", url_env="CRM")
    assert "secret" not in str(caught.value)


def test_nested_json_survives(opened, tmp_path):
    records = [{"id": 1, 'odd "name"': "x", "dotted.name": 2}]
    rows, _ = opened(write(tmp_path / "a.ndjson", "\n".join(map(json.dumps, records))))
    assert values(rows, 'odd "name"', "dotted.name") == [("x", "2")]


def test_a_large_file_is_read_once_to_be_sorted(tmp_path):
    path = tmp_path / "sorted.parquet"
    with Engine(threads=1) as engine:
        engine.write_parquet("SELECT TIMESTAMP '2024-01-01' + to_seconds(i) AS time FROM range(12_000_000) rows(i)", path)
        table = engine.read_parquet(path)
        plan = engine.rows(f"EXPLAIN {engine.compile(table.order_by('time'))}")[0][1]
    assert plan.count("READ_PARQUET") == 1


def test_a_staged_file_holds_what_a_written_one_does(tmp_path):
    sql = """
        SELECT i, hash(i) AS hash, if(i % 7 = 0, NULL, 'text ' || i % 5) AS text, i % 3 = 0 AS flag, '' AS empty,
               ([1e308, 'inf', '-inf', 'nan', -0.0, NULL]::DOUBLE[])[1 + i % 6] AS number,
               TIMESTAMP '1900-01-01' + to_seconds((hash(i) % 30_000_000_000)::BIGINT) AS time
        FROM range(300_000) rows(i)
    """
    with Engine(threads=1) as engine:
        engine.write_parquet(sql, tmp_path / "written.parquet")
        assert engine.stage_parquet(sql, tmp_path / "staged.parquet") == 300_000
        written, staged = (
            engine.rows(f"SELECT count(*), sum(hash(found)) FROM read_parquet('{tmp_path / name}', file_row_number = true) AS found")
            for name in ("written.parquet", "staged.parquet")
        )
    assert staged == written
