from threading import Event
from types import SimpleNamespace

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


def test_where_the_engine_refuses_to_measure_a_query_runs_all_the_same(monkeypatch):
    def refuse(sql):
        raise QueryError(sql)

    with Engine() as engine, monkeypatch.context() as patched:
        patched.setattr(engine, "run", refuse)
        with engine.watched(lambda _: None):
            assert engine.rows("SELECT 1") == [(1,)]
