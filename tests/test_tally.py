from dataclasses import replace
from datetime import timedelta
from itertools import chain

import numpy as np
import pytest

from features import slices, snapshots, tally
from features.catalogue import Catalogue
from features.engine import Engine
from features.feature import Feature, Window
from features.snapshots import build_matrix
from features.tally import Tallies, Tally
from tests.brute_force import Row, differences, known_world
from tests.random_worlds import CUTS, FULL, KINDS, ORIGIN, Recipe, as_spine, known_tables

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis")  # by Ibis 12 on DuckDB 2

AT_ONCE_KNOWN = Recipe(3, FULL.sizes | {"telemetry": 600}, (("telemetry", "recorded_at"),))
PAIRS = [(f"a{i:02d}", ORIGIN + timedelta(days=d, hours=h)) for d, h in ((-91, 0), (0, 0), (31, 13)) for i in range(20)]
PAIRS += [("a20", ORIGIN)]
TALLIES = {
    "count": (Tally("count"), lambda rows: len(rows) or None),
    "sum": (Tally("sum", "quantity"), lambda rows: sum(row["quantity"] or 0 for row in rows) if rows else None),
    "mean": (Tally("mean", "quantity"), lambda rows: _mean([row["quantity"] for row in rows if row["quantity"] is not None])),
    "distinct": (Tally("distinct", "user_id"), lambda rows: len({row["user_id"] for row in rows} - {None}) if rows else None),
}
WINDOWS = [(7, 0), (28, 0), (91, 0), (28, 28), (91, 182), (None, 0)]


def _mean(values):
    return float(np.mean(values)) if values else None


@pytest.fixture(scope="module")
def engine():
    with Engine(threads=1) as engine:
        yield engine


@pytest.fixture
def answered(monkeypatch):
    """Note which windows are tallied without the engine."""
    found = []
    asked = Tallies.answer

    def answer(self, window, features):
        found.append(asked(self, window, features))
        return found[-1]

    monkeypatch.setattr(snapshots.Tallies, "answer", answer)
    return found


def feature(name, expression, window, level=None):
    declared = {"family": "usage", "unit": "events", "meaning": "a tally", "sentence": "{moved}"}
    return Feature(name=name, expression=expression, source=window, level=level, **declared)


def tallied(days, lag, *, each):
    window = Window(table="telemetry", days=days, lag_days=lag, each="event" if each else None)
    levels = KINDS if each else (None,)
    return [feature(f"{name}/{level}", tally, window, level) for name, (tally, _) in TALLIES.items() for level in levels]


@pytest.mark.parametrize("each", [True, False], ids=["each kind", "all kinds"])
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("recipe", [AT_ONCE_KNOWN, FULL], ids=["known at once", "late rows"])
def test_tallies_are_those_of_the_twin_whichever_way_they_are_counted(engine, monkeypatch, answered, recipe, cut, each):
    monkeypatch.setattr(slices, "ROWS_WORTH_A_QUERY", CUTS[cut])
    world = recipe.world()
    at = {cutoff: known_world(world, cutoff) for _, cutoff in PAIRS}
    rows = [Row(at[cutoff], account, cutoff) for account, cutoff in PAIRS]
    for days, lag in WINDOWS:
        features = tallied(days, lag, each=each)
        matrix = build_matrix(known_tables(engine, world, PAIRS), as_spine(PAIRS), Catalogue(tuple(features)))
        seen = [row.within("telemetry", days, lag=lag) for row in rows]
        truth = {
            f.name: [TALLIES[f.name.split("/")[0]][1]([e for e in found if f.level in (None, e["event"])]) for found in seen]
            for f in features
        }
        assert not differences(matrix, truth, PAIRS)
    assert set(answered) == {cut == "per cutoff" and recipe is AT_ONCE_KNOWN}


@pytest.mark.parametrize("windows", [WINDOWS, WINDOWS[::-1]], ids=["the narrower first", "the wider first"])
def test_windows_of_a_table_are_tallied_alike_alone_and_together(engine, monkeypatch, answered, windows):
    monkeypatch.setattr(slices, "ROWS_WORTH_A_QUERY", CUTS["per cutoff"])
    known, spine = known_tables(engine, AT_ONCE_KNOWN.world(), PAIRS), as_spine(PAIRS)
    of_window = {
        (days, lag): [replace(feature, name=f"{feature.name}/{days}/{lag}") for feature in tallied(days, lag, each=True)]
        for days, lag in windows
    }
    together = build_matrix(known, spine, Catalogue(tuple(chain.from_iterable(of_window.values()))))
    assert all(answered)
    for features in of_window.values():
        alone = build_matrix(known_tables(engine, AT_ONCE_KNOWN.world(), PAIRS), spine, Catalogue(tuple(features)))
        assert together.select(alone.column_names).equals(alone)


def test_a_table_is_read_once_more_for_a_wider_window_and_never_again(engine, monkeypatch):
    monkeypatch.setattr(slices, "ROWS_WORTH_A_QUERY", CUTS["per cutoff"])
    known, spine, read = known_tables(engine, AT_ONCE_KNOWN.world(), PAIRS), as_spine(PAIRS), []
    reader = tally._read
    monkeypatch.setattr(tally, "_read", lambda *asked: read.append(asked[2:]) or reader(*asked))
    tallies, narrow, wide = Tallies(known, spine), Window(table="telemetry", days=28), Window(table="telemetry", days=91)
    asked = [(narrow, feature("sum", TALLIES["sum"][0], narrow)), (wide, feature("users", TALLIES["distinct"][0], wide))]
    for window, one in 2 * asked:
        tallies._order(window, [one])
    assert [columns for columns, _ in read] == [{"quantity"}, {"quantity", "user_id"}]
    assert read[0][1] < read[1][1]


@pytest.mark.parametrize(("first", "last"), [(timedelta(minutes=1), timedelta(hours=23, minutes=59)), (timedelta(), timedelta())])
def test_what_is_read_reaches_back_to_the_beginning_of_the_first_window(engine, monkeypatch, first, last):
    monkeypatch.setattr(slices, "ROWS_WORTH_A_QUERY", CUTS["per cutoff"])
    world = AT_ONCE_KNOWN.world()
    pairs = [(account, ORIGIN + after) for after in (first, timedelta(days=3) + last) for account in ("a00", "a01")]
    inside = pairs[0][1] - timedelta(days=7) + timedelta(microseconds=1)
    row = world["telemetry"][0]
    world["telemetry"] = [row | {"account_id": account, "occurred_at": inside, "known_at": inside} for account in ("a00", "a01")]
    count = feature("count", TALLIES["count"][0], Window(table="telemetry", days=7))
    matrix = build_matrix(known_tables(engine, world, pairs), as_spine(pairs), Catalogue((count,)))
    assert matrix["count"].to_pylist() == [1, 1, None, None]


@pytest.mark.parametrize(
    ("table", "tally"),
    [
        pytest.param("tickets", Tally("mean", "csat"), id="a field that became known later than its row"),
        pytest.param("telemetry", Tally("distinct", "product"), id="texts"),
        pytest.param("accounts", Tally("count"), id="a table without a time"),
    ],
)
def test_what_cannot_be_tallied_is_left_to_the_engine(engine, monkeypatch, answered, table, tally):
    world = AT_ONCE_KNOWN.world()
    catalogue = Catalogue((feature("tally", tally, Window(table=table)),))
    found = []
    for way in CUTS.values():
        monkeypatch.setattr(slices, "ROWS_WORTH_A_QUERY", way)
        found.append(build_matrix(known_tables(engine, world, PAIRS), as_spine(PAIRS), catalogue)["tally"].to_pylist())
    assert found[0] == found[1]
    assert any(value is not None for value in found[0])
    assert not any(answered)


def test_a_table_whose_rows_are_in_no_order_is_put_into_one(engine, monkeypatch, answered):
    monkeypatch.setattr(slices, "ROWS_WORTH_A_QUERY", 0)
    world = AT_ONCE_KNOWN.world()
    catalogue = Catalogue(tuple(tallied(28, 0, each=True)))
    one, other = (
        build_matrix(known_tables(engine, world | {"telemetry": rows}, PAIRS), as_spine(PAIRS), catalogue)
        for rows in (sorted(world["telemetry"], key=lambda row: row["occurred_at"]), world["telemetry"][::-1])
    )
    assert not differences(one, other.select([f.name for f in catalogue]).to_pydict(), PAIRS)
    assert all(answered)
