"""The benchmarks: that all of them run, that what they print is what they found, and that books to measure with hold what they should.

Nothing is timed here; at the smallest size the numbers mean nothing.
"""

import doctest
import importlib
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import duckdb
import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Return a module of the benchmarks, which are scripts and import each other by their bare names."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    command = [sys.executable, str(BENCHMARKS / "suite.py"), "--size", "small", "--place", str(folder)]
    done = subprocess.run(
        [*command, "--results", str(folder / "found.json"), "--chart", str(folder / "growth.svg")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_one_command_runs_every_benchmark_and_prints_one_table(small_run):
    folder, printed = small_run
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("|")]
    assert rows[0][:5] == ["what", "ours", "peer", "theirs", "ours / theirs"]
    assert len(rows) == 2 + len(_comparisons(folder))
    assert {len(row) for row in rows} == {7}
    peers = [row[2] for row in rows[2:]]
    for peer in ("polars", "pandas", "DuckDB alone", "pred_contrib", "woodelf-explainer", "LightGBM", "MLflow"):
        assert any(peer in named for named in peers), peer
    for word in ("cores", "GiB of memory", "Python 3.", "duckdb ", "polars ", "lightgbm ", "processes at work", "size small"):
        assert word in printed
    assert not [left for left in folder.iterdir() if left.is_dir()], "books are removed"


def test_what_was_not_measured_is_said_with_its_reason(small_run):
    folder, _ = small_run
    for comparison in _comparisons(folder):
        missing = comparison["theirs"] is None
        assert missing == (comparison["ratio"] is None) == ("not measured: " in comparison["note"])


def test_ratios_are_those_of_the_numbers_beside_them(small_run):
    folder, _ = small_run
    measured = [comparison for comparison in _comparisons(folder) if comparison["ratio"] is not None]
    assert measured
    for comparison in measured:
        assert comparison["ours"] > 0
        assert comparison["theirs"] > 0
        assert comparison["ratio"] == pytest.approx(comparison["ours"] / comparison["theirs"])  # there is one round


def test_the_chart_shows_each_step_that_was_measured(small_run):
    folder, _ = small_run
    points = json.loads((folder / "found.json").read_text())["scale"]["found"]["points"]
    assert {point["events"] for point in points if point["step"] in ("scan", "check", "features")} == {19_973}
    drawing = ElementTree.parse(folder / "growth.svg").getroot()
    words = {"".join(text.itertext()) for text in drawing.iter("{http://www.w3.org/2000/svg}text")}
    assert {"check", "features", "check, a day later", "features, a later cutoff", "DuckDB scan", "20 k"} <= words
    dots = list(drawing.iter("{http://www.w3.org/2000/svg}circle"))
    assert len(dots) == 2 * len([point for point in points if point["step"] != "next scan"])


def _comparisons(folder):
    parts = json.loads((folder / "found.json").read_text())
    assert list(parts) == ["snapshots", "scale", "scoring", "training", "serving"]
    return [comparison for part in parts.values() for comparison in part["found"]["comparisons"]]


def test_a_comparison_takes_the_median_of_each_side_and_of_the_ratios_of_rounds(benchmark):
    comparison = benchmark("comparison")
    found = comparison.compared("sums", "abacus", "time", [(1.0, 10.0), (4.0, 2.0), (3.0, 4.0)], at_most=0.5, note="by hand")
    assert (found.ours, found.theirs, found.ratio) == (3.0, 4.0, 0.75)
    assert comparison.table([found]).splitlines()[2] == "| sums | 3.0 s | abacus | 4.0 s | 0.75 | at most 0.50 | by hand |"


def test_what_was_found_is_read_as_it_was_kept(benchmark, tmp_path):
    comparison, suite = benchmark("comparison"), benchmark("suite")
    point = comparison.Point(book="simulated", step="check", events=5, cpu=1.5, peak_gib=0.5)
    line = comparison.absent("sums", "abacus", "CPU", why="not installed")
    found = comparison.Found(comparisons=(line,), points=(point,))
    parts = {"scale": suite.Part(found=found, size="small", at="2025-01-01 00:00 UTC", busy=("1", "2"))}
    suite.write_results(parts, tmp_path / "found.json")
    assert suite.read_results(tmp_path / "found.json") == parts
    assert suite.read_results(tmp_path / "none.json") == {}


@pytest.mark.parametrize("name", ["comparison", "scaling_chart"])
def test_the_examples_of_the_benchmarks_hold(benchmark, name):
    tried = doctest.testmod(benchmark(name))
    assert tried.attempted
    assert not tried.failed


def test_names_in_the_chart_do_not_lie_on_each_other(benchmark):
    placed = benchmark("scaling_chart")._apart({"a": 50.0, "b": 51.0, "c": 40.0, "d": 200.0})
    assert list(placed) == ["c", "a", "b", "d"]
    assert all(below - above >= 15 for above, below in pairwise(placed.values()))
    assert placed["d"] == 200.0


def test_a_simulated_book_has_its_events_sorted_once_each_and_the_same_every_time(benchmark, tmp_path):
    books = benchmark("scale_books")
    for name in ("one", "other"):
        books.write_simulated(tmp_path / name, accounts=30, events=30_000)
    files, other = (str(tmp_path / name / "*" / "*.parquet") for name in ("one", "other"))
    with duckdb.connect() as connection:
        events, distinct, late, kinds = connection.sql(
            "SELECT count(*), count(DISTINCT (account_id, recorded_at, event)), avg((occurred_at < recorded_at)::INT), "
            f"count(DISTINCT event) FROM '{files}'"
        ).fetchall()[0]
        assert (events, distinct, kinds) == (30_000, 30_000, 12)
        assert 0.005 < late < 0.015
        assert connection.sql(f"SELECT count(*) FROM (FROM '{files}' EXCEPT ALL FROM '{other}')").fetchall() == [(0,)]
        last = connection.sql(f"SELECT DISTINCT recorded_at::DATE::VARCHAR FROM '{tmp_path}/one/later/*.parquet'").fetchall()
        assert last == [("2024-12-31",)]
        assert connection.sql(f"SELECT max(recorded_at)::DATE::VARCHAR FROM '{tmp_path}/one/telemetry/*.parquet'").fetchall() == [
            ("2024-12-30",)
        ]
        without = connection.sql(
            f"SELECT count(*) FROM '{files}' e JOIN '{tmp_path}/one/accounts.parquet' a USING (account_id) WHERE recorded_at < created_at"
        ).fetchall()
        assert without == [(0,)], "no account is active before it came"
    books.deliver(tmp_path / "one")
    assert len(list((tmp_path / "one" / "telemetry").iterdir())) == 25
    assert not list((tmp_path / "one" / "later").iterdir())


def test_an_expanded_book_adds_up_to_the_counts_that_it_was_made_of(benchmark, tmp_path):
    books = benchmark("scale_books")
    source, config = tmp_path / "set", tmp_path / "renewcast.toml"
    source.mkdir()
    workspace = '[workspace]\ndata = "elsewhere"\ndata_until = 2024-01-01\n'
    config.write_text(f'{workspace}[tables.telemetry]\nsource = "counts"\n[tables.subscriptions]\nsource = "s.csv"\n')
    (source / "event_types.csv").write_text("event_type_id,event_type_name\n0,search\n1,win\n")
    with duckdb.connect() as connection:
        connection.execute(
            f"""
            COPY (
                SELECT (i % 7)::INT AS account_id, DATE '2023-01-30' + (i // 14)::INT AS d, (i // 7 % 2)::SMALLINT AS type,
                       (1 + hash(i) % 90)::INT AS n, (1 + hash(i) % 5)::SMALLINT AS users, (i / 3)::FLOAT AS value
                FROM range(70) counts(i)
            ) TO '{source}/usage_daily.parquet'
            """
        )
        books.write_fightchurn(tmp_path / "book", source=source, config=config)
        counted = f"SELECT account_id::VARCHAR AS account_id, d, event_type_name AS event, n, value FROM '{source}/usage_daily.parquet' "
        counted += f"JOIN '{source}/event_types.csv' ON type = event_type_id"
        events = f"FROM '{tmp_path}/book/*/*.parquet'"
        found = f"SELECT account_id, occurred_at::DATE AS d, event, count(*) AS n, sum(quantity) AS value {events} GROUP BY ALL"
        unlike = f"SELECT count(*) FROM ({counted}) c FULL JOIN ({found}) f USING (account_id, d, event) "
        unlike += "WHERE c.n IS DISTINCT FROM f.n OR abs(c.value - f.value) > 1e-3"
        assert connection.sql(unlike).fetchall() == [(0,)]
        assert connection.sql(f"SELECT count(*) = count(DISTINCT (account_id, event, occurred_at)) {events}").fetchall() == [(True,)]
    files = {file.name for file in (tmp_path / "book").glob("*/*.parquet")}
    assert files == {"2023-01.parquet", "2023-02.parquet", "2023-02-03.parquet"}
    text = (tmp_path / "book" / "renewcast.toml").read_text()
    assert "data_until" not in text
    assert f'data = "{source}"' in text
    assert 'source = "s.csv"' in text
    assert str(tmp_path / "book" / "telemetry") in text
