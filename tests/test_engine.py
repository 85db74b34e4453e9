from threading import Event
from types import SimpleNamespace

import duckdb
import pytest

from features.engine import Engine, QueryError


def test_a_query_is_watched_while_it_runs_without_a_word_of_the_engines(capfd):
    told, looked, shares = Event(), [], []

    def tell(share):
        shares.append(share)
        told.set()

    def slowly(rows):
        looked.append(len(rows))
        if len(looked) == 200:  # so far the query is; it goes on when that was told
            assert told.wait(timeout=60)
        return rows

    with Engine(threads=1) as engine:
        engine.connection.con.create_function("slowly", slowly, ["BIGINT"], "BIGINT", type="arrow", side_effects=True)
        with engine.watched(tell):
            assert engine.rows("SELECT sum(slowly(range)) FROM range(1_000_000)") == [(499_999_500_000,)]
        assert not engine.rows("SELECT current_setting('enable_progress_bar')")[0][0]
    assert 0 < shares[0] < 1
    assert shares == sorted(shares)
    assert capfd.readouterr() == ("", "")


def test_each_of_several_queries_counts_the_same(monkeypatch):
    looks, told, ended = iter([-0.01, 0.4, 0.8, 0.8, -0.01, 0.2, 1.0, 0.1, 0.9]), [], Event()

    def progress():
        share = next(looks, None)
        if share is None:
            ended.set()
        return 100 * (share or 0)

    monkeypatch.setattr("features.engine._SECONDS_BETWEEN_LOOKS", 0)
    with Engine() as engine:
        connection = SimpleNamespace(con=SimpleNamespace(query_progress=progress))
        with monkeypatch.context() as patched:
            patched.setattr(engine, "connection", connection)
            engine._watch(told.append, 2, ended)
    assert told == pytest.approx([0.2, 0.4, 0.6, 1.0]), "a third one that nobody counted changes nothing"


def test_what_is_none_of_the_engine_counts_as_a_query_that_tells_its_share_itself(monkeypatch):
    told, heard, shares = [], Event(), iter([-1.0, 0.5])

    def share():
        return next(shares, 0.5)

    def tell(found):
        told.append(found)
        heard.set()

    monkeypatch.setattr("features.engine._SECONDS_BETWEEN_LOOKS", 0.001)
    with Engine() as engine:
        with engine.watched(tell, queries=2), engine.measured(share):
            assert heard.wait(timeout=60)
        assert told == [0.25]
        with engine.watched(told.append):
            assert engine.rows("SELECT 1") == [(1,)]
        assert next(shares, None) is None, "it is asked while the block runs only"


def test_an_export_of_another_database_is_measured(tmp_path, monkeypatch):
    with duckdb.connect(str(tmp_path / "other.duckdb")) as connection:
        connection.execute("CREATE TABLE t AS SELECT range AS id FROM range(10)")
    looks = []
    with Engine() as engine:
        measured = engine.measured

        def noted(share):
            looks.append(share())
            return measured(share)

        monkeypatch.setattr(engine, "measured", noted)
        engine.export_database(tmp_path / "other.duckdb", "SELECT * FROM t", tmp_path / "t.parquet")
        assert engine.count(engine.read_parquet(tmp_path / "t.parquet")) == 10
    assert looks[0] <= 1


def test_where_the_engine_refuses_to_measure_a_query_runs_all_the_same(monkeypatch):
    def refuse(sql):
        raise QueryError(sql)

    with Engine() as engine, monkeypatch.context() as patched:
        patched.setattr(engine, "run", refuse)
        with engine.watched(lambda _: None):
            assert engine.rows("SELECT 1") == [(1,)]
