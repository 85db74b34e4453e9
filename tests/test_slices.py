from datetime import datetime, timedelta

import pyarrow as pa
import pytest

from features import slices
from features.engine import Engine
from features.feature import Window
from features.slices import gather, summed
from tests.brute_force import HAPPENED, Row, known_since, known_world
from tests.random_worlds import CUTS, FULL, FULL_OWN, FULL_SHARED, KINDS, as_spine, known_tables

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis")  # by Ibis 12 on DuckDB 2

TICK = timedelta(microseconds=1)


@pytest.fixture(scope="module")
def engine():
    with Engine(threads=1) as engine:
        yield engine


@pytest.fixture(params=CUTS)
def cut(request, monkeypatch):
    monkeypatch.setattr(slices, "ROWS_WORTH_A_QUERY", CUTS[request.param])
    return request.param


def rows_of(engine, parts, query=lambda part: part):
    return pa.concat_tables(list(gather(engine, parts, query))).to_pylist()


@pytest.mark.parametrize("case", [FULL_SHARED, FULL_OWN], ids=["shared cutoffs", "own cutoffs"])
@pytest.mark.parametrize(
    "window",
    [Window(table=table, days=days, lag_days=lag) for table in ("telemetry", "tickets") for days, lag in ((28, 0), (91, 182), (None, 0))],
)
def test_a_slice_holds_the_rows_that_were_known_in_the_window(engine, cut, case, window):
    recipe, pairs = case
    world = recipe.world()
    known = known_tables(engine, world, pairs)
    assert known.n_parts(window.table) == (1 if cut == "at once" else len({cutoff for _, cutoff in pairs}))
    found = sorted((row["row"], row["age_days"]) for row in rows_of(engine, known.slices(window)))
    at = {cutoff: known_world(world, cutoff) for _, cutoff in pairs}
    rows = [Row(at[cutoff], account, cutoff) for account, cutoff in pairs]
    time = HAPPENED[window.table]
    expected = [(n, row.age(hit[time])) for n, row in enumerate(rows) for hit in row.within(window.table, window.days, lag=window.lag_days)]
    assert found == sorted(expected)
    assert found


def test_each_spine_has_its_own_rows_while_others_are_looked_at(engine, cut):
    world, pairs, window = FULL.world(), FULL_SHARED[1], Window(table="tickets")
    alone = rows_of(engine, known_tables(engine, world, pairs).slices(window))
    known, other = known_tables(engine, world, pairs), known_tables(engine, world, pairs[:2])
    few = rows_of(engine, other.slices(window))
    found = rows_of(engine, known.slices(window))
    assert sorted(found, key=repr) == sorted(alone, key=repr)
    assert {row["row"] for row in few} < {row["row"] for row in found}


def test_fields_of_a_slice_are_those_known_at_its_cutoff(engine, cut):
    pairs = FULL_SHARED[1]
    world = FULL.world()
    known = known_tables(engine, world, pairs)
    found = {(row["row"], row["ticket_id"]): row["closed_at_age_days"] for row in rows_of(engine, known.slices(Window(table="tickets")))}
    at = {cutoff: known_world(world, cutoff) for _, cutoff in pairs}
    for n, (account, cutoff) in enumerate(pairs):
        row = Row(at[cutoff], account, cutoff)
        for ticket in row.of("tickets"):
            assert found.pop((n, ticket["ticket_id"])) == (None if ticket["closed_at"] is None else row.age(ticket["closed_at"]))
    assert not found


def test_outcomes_are_the_rows_of_the_label_window_known_then_or_not(engine, cut):
    recipe, pairs = FULL_OWN
    world = recipe.world()
    known = known_tables(engine, world, pairs)
    found = rows_of(engine, known.outcome_slices("telemetry", days=90, lead_days=7), lambda part: part.group_by("row").agg(n=part.count()))
    counts = {row["row"]: row["n"] for row in found}
    for n, (account, cutoff) in enumerate(pairs):
        opens, closes = cutoff + timedelta(days=7), cutoff + timedelta(days=97)
        rows = [row for row in world["telemetry"] if row["account_id"] == account and opens < row["occurred_at"] <= closes]
        assert counts.get(n, 0) == len(rows)
    assert any(known_since("telemetry", row) > cutoff for _, cutoff in pairs for row in world["telemetry"])


CUTOFF = datetime(2024, 1, 1)


def small_world(**tables):
    return {"accounts": [{"account_id": "a", "segment": "x"}, {"account_id": "b", "segment": None}], "telemetry": []} | tables


def event(ago, user="u", event="login", events=1.0):
    return {"account_id": "a", "occurred_at": CUTOFF - timedelta(days=ago), "event": event, "user_id": user, "events": events}


def test_users_days_and_weeks_are_summed_up(engine):
    world = small_world(telemetry=[event(0), event(6.5), event(7, events=3.0), event(7, user=None), event(60)])
    known = known_tables(engine, world, [("a", CUTOFF)])
    users, days, weeks = (
        rows_of(engine, known.slices(window), lambda part, window=window: summed(part, window).order_by(*window.by))
        for window in (Window(table="telemetry", by=(column,)) for column in ("user_id", "day", "week"))
    )
    assert [(row["events"], row["newest_age_days"], row["oldest_age_days"]) for row in users] == [(6, 0, 60)]
    assert [(row["events_7d"], row["rows_before_7d"], row["rows_before_28d"]) for row in users] == [(2, 1, 0)]
    assert [row["gap_days"] for row in days] == [None, 53, 1, 6]
    assert [(row["week"], row["events"]) for row in weeks] == [(0, 2), (1, 4), (8, 1)]


def test_levels_are_numbered_in_the_order_asked_for(engine):
    world = small_world(telemetry=[event(1, event=kind) for kind in (*KINDS, "other")])
    found = rows_of(engine, known_tables(engine, world, [("a", CUTOFF)]).slices(Window(table="telemetry", each="event")))
    assert {row["event"]: row["level"] for row in found} == {kind: n for n, kind in enumerate(KINDS)} | {"other": None}


def test_the_newest_version_known_at_the_cutoff_counts(engine, cut):
    def version(days, arr):
        start = CUTOFF - timedelta(days=100)
        term = {"account_id": "a", "subscription_id": "s", "start_date": start, "end_date": None, "arr": arr}
        return term | {"recorded_at": days if days is None else CUTOFF + timedelta(days=days)}

    world = small_world(subscriptions=[version(0, 2.0), version(None, 1.0), version(30, 3.0)])
    cutoffs = [CUTOFF - timedelta(days=101), CUTOFF - TICK, CUTOFF, CUTOFF + timedelta(days=30) - TICK, CUTOFF + timedelta(days=30)]
    known = known_tables(engine, world, [("a", cutoff) for cutoff in cutoffs])
    found = {row["row"]: row["arr"] for row in rows_of(engine, known.slices(Window(table="subscriptions")))}
    assert found == {1: 1, 2: 2, 3: 2, 4: 3}


def test_segments_of_accounts(engine):
    known = known_tables(engine, small_world(), [("a", CUTOFF)])
    assert known.segments(pa.chunked_array([["b", "a", "a"]])).to_pylist() == [None, "x", "x"]
    without = {"accounts": [{"account_id": "a"}], "telemetry": []}
    assert known_tables(engine, without, [("a", CUTOFF)]).segments(pa.chunked_array([["a"]])).to_pylist() == [None]


def test_the_number_of_candidate_pairs_decides_how_tables_are_cut(engine, monkeypatch):
    world = small_world(telemetry=[event(n) for n in range(30)])
    pairs = [(account, CUTOFF + timedelta(days=n)) for n in range(3) for account in ("a", "b")]
    known = known_tables(engine, world, pairs)
    monkeypatch.setattr(slices, "ROWS_WORTH_A_QUERY", 30)
    assert known.n_parts("telemetry") == 1
    monkeypatch.setattr(slices, "ROWS_WORTH_A_QUERY", 29)
    assert known.n_parts("telemetry") == 3


def test_spines_are_put_behind_each_other_and_taken_apart():
    spine = as_spine([("a", CUTOFF)]).followed_by(as_spine([("b", CUTOFF + TICK)]))
    assert (len(spine), spine.account_id.to_pylist()) == (2, ["a", "b"])
    assert spine.instants.tolist()[1] - spine.instants.tolist()[0] == 1
    assert spine.take([1]).account_id.to_pylist() == ["b"]
