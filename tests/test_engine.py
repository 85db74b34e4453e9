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


def test_a_block_in_which_the_engine_does_nothing_counts_as_a_query_and_tells_its_share_itself(monkeypatch):
    told, heard, asked = [], Event(), []

    def share():
        asked.append(None)
        return -1.0 if len(asked) < 3 else 0.5

    def tell(found):
        told.append(found)
        heard.set()

    monkeypatch.setattr("features.engine._SECONDS_BETWEEN_LOOKS", 0.001)
    with Engine() as engine:
        with engine.watched(tell, queries=2), engine.measured(share):
            assert heard.wait(timeout=60)
        assert told == [0.25]
        so_often = len(asked)
        with engine.watched(told.append):
            assert engine.rows("SELECT sum(range) FROM range(100_000_000)") == [(4_999_999_950_000_000,)]
        assert len(asked) == so_often, "it is asked while the block runs only"


def test_a_block_whose_share_nobody_knows_counts_when_it_ends(monkeypatch):
    told, ended, looks = [], Event(), iter([0.4, 0.8, 0.8])

    def progress():
        share = next(looks, None)
        if share is None:
            ended.set()
        return 100 * (share or 0)

    def in_the_block():
        engine._asking.release()  # as this is called in the watcher, which holds it
        block.__exit__(None, None, None)
        engine._asking.acquire()
        return -1.0

    monkeypatch.setattr("features.engine._SECONDS_BETWEEN_LOOKS", 0)
    with Engine() as engine, monkeypatch.context() as patched:
        patched.setattr(engine, "connection", SimpleNamespace(con=SimpleNamespace(query_progress=progress)))
        block = engine.measured(in_the_block)
        block.__enter__()
        engine._watch(told.append, 2, ended)
    assert told == pytest.approx([0.7, 0.9])


def test_an_export_of_another_database_is_watched(tmp_path, monkeypatch):
    with duckdb.connect(str(tmp_path / "other.duckdb")) as connection:
        connection.execute("CREATE TABLE t AS SELECT range AS id, md5(range::VARCHAR) AS said FROM range(3_000_000)")
    told = []
    monkeypatch.setattr("features.engine._SECONDS_BETWEEN_LOOKS", 0.005)
    with Engine() as engine:
        with engine.watched(told.append, queries=2):
            engine.export_database(tmp_path / "other.duckdb", "SELECT * FROM t", tmp_path / "t.parquet")
        assert engine.count(engine.read_parquet(tmp_path / "t.parquet")) == 3_000_000
    assert told == sorted(told)
    assert 0 < told[0] < 0.5
    assert told[-1] <= 0.5


def test_where_the_engine_refuses_to_measure_a_query_runs_all_the_same(monkeypatch):
    def refuse(sql):
        raise QueryError(sql)

    with Engine() as engine, monkeypatch.context() as patched:
        patched.setattr(engine, "run", refuse)
        with engine.watched(lambda _: None):
            assert engine.rows("SELECT 1") == [(1,)]
