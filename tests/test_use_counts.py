"""Features from numbered telemetry are those from the tables, to the bit, whatever came in which delivery."""

import random
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from features import day_counts, day_tallies, slices, use_counts
from features.catalogue import Catalogue
from features.day_counts import DayCounts
from features.day_tallies import DayTallies, DayTally, WeekTally
from features.engine import Engine
from features.families import VIEWS
from features.feature import Feature, Window
from features.forms import WHOLE
from features.habits import Habit, Habits
from features.month_tallies import MonthTallies
from features.numbered import NumberedTelemetry
from features.slices import KnownTables
from features.snapshots import build_matrix
from features.tally import Tally
from features.use_counts import UseCounts
from features.use_tallies import UseTallies, UseTally
from tests.numbered_books import make_all_forms, numbered
from tests.random_worlds import FULL, FULL_OWN, FULL_SHARED, KINDS, ORIGIN, as_spine, as_tables, cases, catalogue_of, known_tables

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis")  # by Ibis 12 on DuckDB 2
RANDOM = settings(
    max_examples=2, derandomize=True, deadline=None, phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck)
)


MIDNIGHTS = [(f"a{i:02d}", ORIGIN + timedelta(days=days)) for days in (-400, -91, -60, 0, 31) for i in range(24)]


@pytest.fixture(scope="module")
def engine():
    with Engine(threads=1) as engine:
        yield engine


@pytest.fixture
def answered(monkeypatch):
    """Note which windows are counted without the engine."""
    found = set()

    def noting(cls):
        asked = cls.answer

        def answer(self, window, *more):
            is_answered = asked(self, window, *more)
            found.update([window] if is_answered else [])
            return is_answered

        monkeypatch.setattr(cls, "answer", answer)

    noting(UseCounts)
    noting(DayCounts)
    noting(DayTallies)
    noting(UseTallies)
    noting(MonthTallies)
    noting(Habits)
    return found


def with_events(world):
    """Return the world with a number of events in each row of telemetry."""
    return world | {"telemetry": [row | {"events": 1.0 if row["events"] is None else row["events"]} for row in world["telemetry"]]}


def with_single_events(world):
    return world | {"telemetry": [row | {"events": 1.0} for row in world["telemetry"]]}


def counted(engine, world, pairs, catalogue, folder, *, deliveries=2, seed=0):
    """Compute the features from numbered telemetry."""
    numbers = [random.Random(f"{seed}/{i}").randrange(deliveries) for i in range(len(world["telemetry"]))]
    telemetry = numbered(engine, world, numbers, folder)
    known = KnownTables(engine, as_tables(engine, world), as_spine(pairs), levels={"event": KINDS}, views=VIEWS, telemetry=telemetry)
    return build_matrix(known, as_spine(pairs), catalogue)


def both(engine, world, pairs, catalogue, folder, **how):
    """Compute the features from numbered telemetry and from the tables."""
    found = counted(engine, world, pairs, catalogue, folder, **how)
    return found, build_matrix(known_tables(engine, world, pairs), as_spine(pairs), catalogue)


def differing(one, other):
    return [name for name in one.column_names if not one[name].equals(other[name])]


@pytest.fixture
def per_cutoff(monkeypatch):
    monkeypatch.setattr(slices, "ROWS_WORTH_A_QUERY", 0)


@RANDOM
@example(case=FULL_SHARED, filled=with_events, deliveries=3, seed=1, folds=True)
@example(case=(FULL, MIDNIGHTS), filled=with_events, deliveries=4, seed=3, folds=False)
@example(case=(FULL, MIDNIGHTS), filled=with_single_events, deliveries=2, seed=4, folds=True)
@example(case=FULL_OWN, filled=with_single_events, deliveries=1, seed=2, folds=False)
@given(
    case=cases(),
    filled=st.sampled_from((with_events, with_single_events, lambda world: world)),
    deliveries=st.integers(1, 4),
    seed=st.integers(0, 100),
    folds=st.booleans(),
)
def test_every_feature_is_the_same_to_the_bit(engine, tmp_path_factory, per_cutoff, case, filled, deliveries, seed, folds):
    recipe, pairs = case
    world = filled(recipe.world())
    folder = tmp_path_factory.mktemp("book")
    with pytest.MonkeyPatch.context() as patch:
        if folds:
            make_all_forms(patch)
        assert not differing(*both(engine, world, pairs, catalogue_of(world), folder, deliveries=deliveries, seed=seed))


@pytest.mark.parametrize("without", [set(), {"recorded_at", "product"}], ids=["recorded late", "never recorded late"])
def test_every_feature_is_the_same_where_a_row_stands_for_several_of_a_day(engine, tmp_path, monkeypatch, per_cutoff, answered, without):
    asked, stood_for_several = NumberedTelemetry.arrivals, set()

    def noting(columns, month):
        for rows in month:
            if rows.weights is not None and rows.weights.max(initial=0) > 1:
                stood_for_several.add(tuple(name for name in columns if name != "oldest"))
            yield rows

    def arrivals(self, columns, cutoffs, **how):
        return (noting(columns, month) for month in asked(self, columns, cutoffs, **how))

    monkeypatch.setattr(use_counts, "_PLACES_AT_ONCE", 1)
    monkeypatch.setattr(NumberedTelemetry, "arrivals", arrivals)
    make_all_forms(monkeypatch)
    world = with_single_events(FULL.world())
    world["telemetry"] = [{name: value for name, value in row.items() if name not in without} for row in world["telemetry"] * 2]
    oldest = feature("oldest", lambda users: users.oldest_age_days.max(), Window(table="telemetry", by=("user_id",)))
    catalogue = Catalogue((oldest, *(f for f in catalogue_of(world) if f.source and f.source.table == "telemetry")))
    assert not differing(*both(engine, world, MIDNIGHTS, catalogue, tmp_path))
    assert stood_for_several == {("account",), ("account", "event"), ("user_id",)} and len(answered) > 5


def test_every_feature_is_the_same_where_a_row_stands_for_all_of_a_piece(engine, tmp_path, monkeypatch, per_cutoff, answered):
    read, forms = NumberedTelemetry.file, set()
    monkeypatch.setattr(NumberedTelemetry, "file", lambda self, piece, form="": forms.add(form) or read(self, piece, form))
    make_all_forms(monkeypatch)
    world = with_single_events(FULL.world())
    catalogue = Catalogue(tuple(f for f in catalogue_of(world) if f.source and f.source.table == "telemetry"))
    later = [(account, cutoff + timedelta(days=days)) for days in (2000, 2010) for account, cutoff in MIDNIGHTS]
    assert not differing(*both(engine, world, [*MIDNIGHTS, *later], catalogue, tmp_path / "all"))
    assert "users" not in forms and answered, "at some cutoff each piece is cut"
    assert not differing(*both(engine, world, later, catalogue, tmp_path / "later"))
    assert WHOLE.keys() <= forms


def test_every_feature_is_the_same_where_cutoffs_are_computed_at_once(engine, tmp_path, monkeypatch, answered):
    monkeypatch.setattr(slices, "ROWS_WORTH_A_QUERY", 10**15)
    world = FULL_OWN[0].world()
    assert not differing(*both(engine, world, FULL_OWN[1], catalogue_of(world), tmp_path))
    assert not answered


def feature(name, expression, window, level=None):
    declared = {"family": "usage", "unit": "events", "meaning": "a sum", "sentence": "{moved}"}
    return Feature(name=name, expression=expression, source=window, level=level, **declared)


def columns_of_summed(by, days):
    numbers = ["events", "newest_age_days", *(["oldest_age_days"] if days is None else [])]
    numbers += [f"{name}_{days}d" for days in (7, 28, 91, 182, 364) for name in ("events", "rows_before")]
    return numbers + (["gap_days"] if by == "day" else []) + ([by] if by in ("day", "week") else [])


WINDOWS = [(28, 0), (364, 0), (91, 30), (None, 0), (None, 91)]


@pytest.mark.parametrize(
    ("by", "filled"),
    [*((by, with_events) for by in ("user_id", "event", "product", "day", "week")), ("user_id", with_single_events)],
    ids=["users", "kinds", "products", "days", "weeks", "users of single events"],
)
def test_every_column_of_summed_up_rows_is_the_same(engine, tmp_path, monkeypatch, per_cutoff, answered, filled, by):
    world = filled(FULL_SHARED[0].world())
    windows = [Window(table="telemetry", days=days, lag_days=lag, by=(by,)) for days, lag in WINDOWS]
    features = [
        feature(f"{how}_{column}_{number}", lambda rows, column=column, how=how: getattr(rows[column], how)(), window)
        for number, window in enumerate(windows)
        for column in columns_of_summed(by, window.days)
        for how in ("max", "count")
    ]
    monkeypatch.setattr(day_counts, "_PLACES_AT_ONCE", 5_000)
    pairs = MIDNIGHTS if by in ("day", "week") else FULL_SHARED[1]
    assert not differing(*both(engine, world, pairs, Catalogue(tuple(features)), tmp_path))
    assert answered == {window for window in windows if window.days is not None or by not in ("day", "week")}


@pytest.mark.parametrize("by", ["user_id", "day"])
def test_the_oldest_row_of_a_window_with_two_ends_is_left_to_the_engine(engine, tmp_path, per_cutoff, answered, by):
    world = with_events(FULL_SHARED[0].world())
    window = Window(table="telemetry", days=91, by=(by,))
    catalogue = Catalogue((feature("oldest", lambda rows: rows.oldest_age_days.max(), window),))
    assert not differing(*both(engine, world, FULL_SHARED[1], catalogue, tmp_path))
    assert not answered


TALLIES = [Tally("count"), Tally("events"), Tally("newest")]
TALLIES += [Tally(kind, column) for kind in ("sum", "mean") for column in ("events", "quantity", "users")]


@pytest.mark.parametrize("filled", [with_events, with_single_events], ids=["counts", "single events"])
@pytest.mark.parametrize("each", ["event", None])
def test_every_tally_is_the_same(engine, tmp_path, per_cutoff, answered, filled, each):
    world = filled(FULL_SHARED[0].world())
    windows = [Window(table="telemetry", days=days, lag_days=lag, each=each) for days, lag in WINDOWS]
    features = [
        feature(f"{number}/{tally.kind}/{tally.column}/{level}", tally, window, level)
        for number, window in enumerate(windows)
        for tally in (*TALLIES, *([Tally("oldest")] if window.days is None else []))
        for level in (KINDS if each else (None,))
    ]
    assert not differing(*both(engine, world, FULL_SHARED[1], Catalogue(tuple(features)), tmp_path))
    assert answered == set(windows)


def test_habits_are_the_same(engine, tmp_path, per_cutoff, answered):
    world = with_events(FULL_SHARED[0].world())
    windows = [Window(table="telemetry", days=days, lag_days=lag, by=("user_id", "day")) for days, lag in ((91, 0), (28, 30))]
    features = [feature(f"habit_{days}_{n}", Habit(days), window) for n, window in enumerate(windows) for days in (7, 28, 91, 182)]
    assert not differing(*both(engine, world, MIDNIGHTS, Catalogue(tuple(features)), tmp_path))
    assert answered == set(windows)


DAY_TALLIES = [DayTally("longest"), DayTally("mean"), DayTally("deviation"), *(DayTally("active", days=days) for days in (3, 28, 364))]
WEEK_TALLIES = [WeekTally(kind, weeks=weeks, since=since) for kind in ("events", "swing") for weeks, since in ((1, 0), (4, 4), (60, 0))]


@pytest.mark.parametrize("filled", [with_events, with_single_events], ids=["counts", "single events"])
def test_tallies_of_days_and_weeks_are_the_same(engine, tmp_path, per_cutoff, answered, filled):
    world = filled(FULL_SHARED[0].world())
    windows = {(days, by): Window(table="telemetry", days=days, by=(by,)) for days in (28, 364) for by in ("day", "week")}
    features = [
        feature(f"{number}_{days}_{by}", tally, window)
        for (days, by), window in windows.items()
        for number, tally in enumerate(DAY_TALLIES if by == "day" else WEEK_TALLIES)
    ]
    assert not differing(*both(engine, world, MIDNIGHTS, Catalogue(tuple(features)), tmp_path))
    assert answered == set(windows.values())


USE_TALLIES = [UseTally(kind, days) for kind in ("active", "before", "lost", "kept", "top") for days in (7, 28, 91)]


@pytest.mark.parametrize("filled", [with_events, with_single_events], ids=["counts", "single events"])
@pytest.mark.parametrize("by", ["user_id", "event", "product"])
def test_tallies_of_use_are_the_same(engine, tmp_path, per_cutoff, answered, filled, by):
    world = filled(FULL_SHARED[0].world())
    windows = [Window(table="telemetry", days=days, lag_days=lag, by=(by,)) for days, lag in WINDOWS]
    features = [
        feature(f"{number}_{tally}", tally, window)
        for number, window in enumerate(windows)
        for tally in (UseTally("ever"), *USE_TALLIES, *([UseTally("new", 91)] if window.days is None else []))
    ]
    assert not differing(*both(engine, world, FULL_SHARED[1], Catalogue(tuple(features)), tmp_path))
    assert answered == set(windows)


def test_an_expression_beside_tallies_of_the_same_window_is_computed_with_them(engine, tmp_path, per_cutoff, monkeypatch):
    fill, tallied = DayTallies.fill, []

    def noting(self, columns, asked):
        tallied.extend(feature.name for _, features in asked for feature in features)
        return fill(self, columns, asked)

    monkeypatch.setattr(DayTallies, "fill", noting)
    world = with_events(FULL_SHARED[0].world())
    window = Window(table="telemetry", days=364, by=("day",))
    own = feature("own", lambda days: days.events.max(), window)
    catalogue = Catalogue((feature("longest", DayTally("longest"), window), own))
    assert not differing(*both(engine, world, MIDNIGHTS, catalogue, tmp_path))
    assert tallied == ["longest"]


def test_squares_that_floats_might_round_are_left_to_the_engine(engine, tmp_path, monkeypatch, per_cutoff):
    monkeypatch.setattr(day_tallies, "EXACT_BELOW", 1.0)
    monkeypatch.setattr(DayTallies, "fill", None)
    world = with_events(FULL_SHARED[0].world())
    catalogue = Catalogue((feature("swing", WeekTally("swing", weeks=13), Window(table="telemetry", days=364, by=("week",))),))
    assert not differing(*both(engine, world, MIDNIGHTS, catalogue, tmp_path))


def test_days_are_left_to_the_engine_where_a_cutoff_is_no_midnight(engine, tmp_path, per_cutoff, answered):
    world = with_events(FULL_SHARED[0].world())
    features = [feature("days", lambda rows: rows.count(), Window(table="telemetry", days=91, by=("day",)))]
    features += [feature("habit", Habit(28), Window(table="telemetry", days=91, by=("user_id", "day")))]
    assert not differing(*both(engine, world, FULL_SHARED[1], Catalogue(tuple(features)), tmp_path))
    assert not answered


def test_a_new_cutoff_gives_what_it_gives_among_many(engine, tmp_path, per_cutoff):
    pairs = MIDNIGHTS
    world = with_events(FULL.world())
    catalogue = Catalogue(tuple(f for f in catalogue_of(world) if f.source and f.source.table == "telemetry"))
    last = [(account, cutoff) for account, cutoff in pairs if cutoff == max(cutoff for _, cutoff in pairs)]
    whole = counted(engine, world, pairs, catalogue, tmp_path / "whole", deliveries=1)
    alone = counted(engine, world, last, catalogue, tmp_path / "alone", deliveries=4)
    assert not differing(whole.slice(len(whole) - len(last)).combine_chunks(), alone.combine_chunks())


def test_too_many_places_are_left_to_the_engine(engine, tmp_path, monkeypatch, per_cutoff, answered):
    monkeypatch.setattr(use_counts, "_MOST_BYTES", 10)
    world = with_events(FULL_SHARED[0].world())
    catalogue = Catalogue((feature("users", lambda users: users.count(), Window(table="telemetry", by=("user_id",))),))
    assert not differing(*both(engine, world, FULL_SHARED[1], catalogue, tmp_path))
    assert not answered


def test_an_account_that_comes_twice_at_a_cutoff_is_left_to_the_engine(engine, tmp_path, per_cutoff, answered):
    world = with_events(FULL_SHARED[0].world())
    catalogue = Catalogue((feature("users", lambda users: users.count(), Window(table="telemetry", by=("user_id",))),))
    assert not differing(*both(engine, world, FULL_SHARED[1] * 2, catalogue, tmp_path))
    assert not answered
