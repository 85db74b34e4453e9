import random
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from features import clock
from features.engine import Engine

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis")  # by Ibis 12 on DuckDB 2

TICK = timedelta(microseconds=1)
DAY = timedelta(days=1)
WINDOWS = [(7, 0), (28, 0), (28, 28), (364, 0), (364, 364), (None, 0), (None, 91)]


def edge(rng, cutoff):
    """Return a time at, or a microsecond beside, an edge that a window could have."""
    return cutoff - rng.choice((0, 1, 7, 28, 56, 91, 119, 364, 728, -1, -30, -90)) * DAY + rng.choice((-TICK, timedelta(0), TICK))


@pytest.fixture(scope="module")
def pairs():
    """Cutoffs over a century and, for each, a time at an edge or anywhere."""
    rng = random.Random(0)
    found = []
    for _ in range(3000):
        cutoff = datetime(1970, 1, 1) + timedelta(
            days=rng.randint(0, 36525), microseconds=rng.choice((0, 0, 1, rng.randrange(86_400_000_000)))
        )
        anywhere = datetime(1970, 1, 2) + timedelta(microseconds=rng.randrange(100 * 365 * 86_400_000_000))
        found.append((edge(rng, cutoff) if rng.random() < 0.8 else anywhere, cutoff))
    return [pair for pair in found if pair[0].year >= 1970]


@pytest.fixture(scope="module")
def evaluate(pairs):
    """Evaluate an expression of the columns time and cutoff in the engine."""
    with Engine(threads=1) as engine:
        times, cutoffs = ([clock.microseconds(pair[i]) for pair in pairs] for i in (0, 1))
        rows = engine.hold(pa.table({"n": range(len(pairs)), "time": times, "cutoff": cutoffs}), name="pairs")
        yield lambda of: engine.to_arrow(rows.select("n", value=of(rows.time, rows.cutoff)).order_by("n"))["value"].to_pylist()


def test_known_by(pairs, evaluate):
    assert evaluate(clock.known_by) == [time <= cutoff for time, cutoff in pairs]
    assert evaluate(clock.not_withdrawn) == [time > cutoff for time, cutoff in pairs]


@pytest.mark.parametrize(("days", "lag"), WINDOWS)
def test_windows_are_open_left_and_closed_right(pairs, evaluate, days, lag):
    found = evaluate(lambda time, cutoff: clock.in_window(time, cutoff, days=days, lag_days=lag))
    lower = datetime.min if days is None else None
    assert found == [(lower or cutoff - (lag + days) * DAY) < time <= cutoff - lag * DAY for time, cutoff in pairs]


@pytest.mark.parametrize(("horizon", "lead"), [(90, 0), (30, 30), (1, 90)])
def test_label_windows(pairs, evaluate, horizon, lead):
    found = evaluate(lambda time, cutoff: clock.in_label_window(time, cutoff, horizon_days=horizon, lead_days=lead))
    assert found == [cutoff + lead * DAY < time <= cutoff + (lead + horizon) * DAY for time, cutoff in pairs]


def test_ages_and_weeks(pairs, evaluate):
    assert evaluate(clock.age_days) == [(cutoff - time) / DAY for time, cutoff in pairs]
    assert evaluate(clock.week_number) == [(cutoff - time) // timedelta(days=7) for time, cutoff in pairs]


def test_an_age_below_a_window_is_a_time_in_it(pairs, evaluate):
    for days in (7, 28, 364):
        assert evaluate(lambda time, cutoff, days=days: clock.age_days(time, cutoff) < days) == [t > c - days * DAY for t, c in pairs]


def test_days_end_at_midnight(pairs, evaluate):
    first = datetime(1970, 1, 1)
    assert evaluate(lambda time, cutoff: clock.day_number(time)) == [(time - TICK - first) // DAY for time, _ in pairs]
    assert evaluate(lambda time, cutoff: clock.weekday(time)) == [(time - TICK).weekday() for time, _ in pairs]


def test_terms_run_from_their_start_until_just_before_their_end():
    start, end = datetime(2024, 1, 1), datetime(2024, 2, 1)
    instants = [start - TICK, start, end - TICK, end]
    with Engine(threads=1) as engine:
        rows = engine.hold(pa.table({"at": [clock.microseconds(instant) for instant in instants]}), name="instants")
        closed = clock.active_at(rows["at"] * 0 + clock.microseconds(start), rows["at"] * 0 + clock.microseconds(end), rows["at"])
        opened = clock.active_at(rows["at"] * 0 + clock.microseconds(start), (rows["at"] * 0).nullif(0), rows["at"])
        found = engine.to_arrow(rows.select(closed=closed, opened=opened))
    assert found["closed"].to_pylist() == [False, True, True, False]
    assert found["opened"].to_pylist() == [False, True, True, True]


def test_fields_stay_hidden_until_they_are_known_and_for_ever_if_nobody_knows_when():
    with Engine(threads=1) as engine:
        rows = engine.hold(pa.table({"from": pa.array([1, 2, 3, None], pa.int64()), "value": [1.0, 2.0, 3.0, 4.0]}), name="fields")
        shown = clock.unless_unknown(rows["value"], rows["from"], rows["from"] * 0 + 2)
        assert engine.to_arrow(rows.select(shown=shown))["shown"].to_pylist() == [1, 2, None, None]


def test_a_cutoff_is_closed_when_its_window_and_grace_are():
    cutoff, window = datetime(2024, 1, 1), {"horizon_days": 90, "lead_days": 7, "grace_days": 30}
    end = cutoff + 127 * DAY
    assert clock.label_window_end(cutoff, **window) == end
    assert clock.closed_by(cutoff, end, **window)
    assert not clock.closed_by(cutoff, end - TICK, **window)


def test_times_that_are_missing_never_come():
    times = np.array(["2024-01-01", "2024-01-02", "NaT"], dtype="datetime64[us]")
    assert clock.not_after(times, datetime(2024, 1, 1)).tolist() == [True, False, False]


def test_month_starts_and_steps():
    first, last = datetime(2023, 11, 1), datetime(2024, 2, 1)
    assert list(clock.month_starts(first, last)) == [datetime(2023, 11, 1), datetime(2023, 12, 1), datetime(2024, 1, 1), last]
    assert list(clock.month_starts(first + TICK, last - TICK)) == [datetime(2023, 12, 1), datetime(2024, 1, 1)]
    assert list(clock.steps_of_days(first, first + 14 * DAY, 7)) == [first, first + 7 * DAY, first + 14 * DAY]
    assert list(clock.steps_of_days(first, first - TICK, 7)) == []


def test_midnights():
    noon = datetime(2024, 2, 28, 12)
    assert (clock.midnight(noon), clock.midnight_from(noon)) == (datetime(2024, 2, 28), datetime(2024, 2, 29))
    assert clock.midnight_from(datetime(2024, 2, 28)) == clock.midnight(datetime(2024, 2, 28)) == datetime(2024, 2, 28)


@pytest.mark.parametrize(
    ("text", "expected"), [("2024-05-01", datetime(2024, 5, 1)), ("2024-05-01T00:30:00-01:00", datetime(2024, 5, 1, 1, 30))]
)
def test_instants_are_read_as_utc(text, expected):
    assert clock.parse_instant(text) == expected
