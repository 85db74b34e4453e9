import math
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features import slices
from features.config import ChangeTarget, Targets
from features.engine import Engine
from features.labels import build_labels, eligible_rows
from features.snapshots import build_matrix
from tests.brute_force import is_customer, labels
from tests.random_worlds import CUTS, ORIGIN, as_spine, catalogue_of, known_tables, recipes, spines

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis")  # by Ibis 12 on DuckDB 2
LONG_AFTER = datetime(2030, 1, 1)


@pytest.fixture(scope="module")
def engine():
    with Engine(threads=1) as engine:
        yield engine


def targets(*, kind="subscription", measure="arr", **options):
    changes = {"expansion": ChangeTarget(measure=measure), "contraction": ChangeTarget(measure=measure)}
    return Targets(kind=kind, **(changes | options))


def labels_of(engine, world, pairs, wanted, *, data_until=LONG_AFTER):
    return build_labels(known_tables(engine, world, pairs), as_spine(pairs), wanted, data_until=data_until)


changes = st.builds(
    ChangeTarget,
    measure=st.sampled_from(("arr", "seats", "active_users", "events")),
    threshold=st.sampled_from((0.0, 0.05, 0.5)),
    minimum_change=st.sampled_from((0.0, 1.0, 50.0)),
)
any_targets = st.builds(
    Targets,
    kind=st.sampled_from(("subscription", "usage")),
    horizon_days=st.sampled_from((28, 90, 182)),
    lead_days=st.sampled_from((0, 0, 7, 31)),
    grace_days=st.sampled_from((0, 30, 30, 60)),
    eligible_events=st.sampled_from((1, 3)),
    eligible_days=st.sampled_from((91, 182)),
    expansion=changes,
    contraction=changes,
)


def is_possible(world, wanted):
    telemetry, terms = world["telemetry"], world.get("subscriptions", [])
    measures = {wanted.expansion.measure, wanted.contraction.measure}
    has_users = bool(telemetry) and "user_id" in telemetry[0]
    has_seats = bool(terms) and "seats" in terms[0]
    needs_terms = wanted.kind == "subscription" or measures & {"arr", "seats"}
    return (
        ("subscriptions" in world or not needs_terms)
        and (has_users or "active_users" not in measures)
        and (has_seats or "seats" not in measures)
    )


@pytest.mark.parametrize("cut", CUTS)
@settings(
    max_examples=12, derandomize=True, deadline=None, phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck)
)
@given(data=st.data())
def test_labels_and_customers_are_those_of_their_twins(data, cut, engine):
    recipe = data.draw(recipes())
    pairs = data.draw(spines(recipe.sizes["accounts"]))
    world = recipe.world()
    wanted = data.draw(any_targets.filter(lambda wanted: is_possible(world, wanted)))
    data_until = ORIGIN + timedelta(days=data.draw(st.sampled_from((0, 120, 2000))))
    slices.ROWS_WORTH_A_QUERY, before = CUTS[cut], slices.ROWS_WORTH_A_QUERY
    try:
        found = labels_of(engine, world, pairs, wanted, data_until=data_until).to_pylist()
        customers = eligible_rows(known_tables(engine, world, pairs), wanted, n_rows=len(pairs))
    finally:
        slices.ROWS_WORTH_A_QUERY = before
    for (account, cutoff), row, customer in zip(pairs, found, customers, strict=True):
        assert row == {"account_id": account, "cutoff": cutoff} | labels(world, account, cutoff, wanted, data_until), (account, cutoff)
        assert customer == is_customer(world, account, cutoff, wanted), (account, cutoff)


# Known answers

CUTOFF = datetime(2024, 1, 1)


def day(n):
    """Return the midnight n days after the cutoff."""
    return CUTOFF + timedelta(days=n)


def term(start, end, *, of="s1", arr=100.0, ended=None, seats=None):
    return {
        "account_id": "a",
        "subscription_id": of,
        "start_date": day(start),
        "end_date": None if end is None else day(end),
        "arr": arr,
        "seats": seats,
        "ended_at": None if ended is None else day(ended),
    }


def event(after, *, user="u"):
    return {"account_id": "a", "occurred_at": day(after), "event": "login", "user_id": user, "events": 1.0}


def label(engine, terms=(), telemetry=(), *, data_until=LONG_AFTER, **options):
    world = {"accounts": [{"account_id": "a"}], "telemetry": list(telemetry) or [event(-1)]}
    if terms:
        world["subscriptions"] = list(terms)
    pairs = [("a", CUTOFF)]
    found = labels_of(engine, world, pairs, targets(**options), data_until=data_until).to_pylist()[0]
    return found["churn"], found["contraction"], found["expansion"]


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        pytest.param([term(-100, 20)], (1, 0, 0), id="ends inside and is not renewed"),
        pytest.param([term(-100, 20), term(40, 400)], (0, 0, 0), id="renewed late, inside the grace"),
        pytest.param([term(-100, 20), term(49, 400)], (0, 0, 0), id="renewed a day before the grace is over"),
        pytest.param([term(-100, 20), term(50, 400)], (1, 0, 0), id="renewed when the grace is over"),
        pytest.param([term(-100, 80), term(100, 400)], (0, None, None), id="between two terms at the window's end"),
        pytest.param([term(-100, 20), term(-50, 400, of="s2")], (0, 1, 0), id="one of two subscriptions ends"),
        pytest.param([term(-100, 20), term(-50, 60, of="s2")], (1, 0, 0), id="the last one ends too"),
        pytest.param([term(-100, 20), term(10, 400, arr=100.0)], (0, 0, 0), id="renewed early: the terms overlap"),
        pytest.param([term(-100, 20), term(20, 400, arr=94.0)], (0, 1, 0), id="renewed for less"),
        pytest.param([term(-100, 20), term(20, 400, arr=95.0)], (0, 1, 0), id="renewed for less by just the threshold"),
        pytest.param([term(-100, 20), term(20, 400, arr=96.0)], (0, 0, 0), id="renewed for hardly less"),
        pytest.param([term(-100, 400), term(90, 400, of="s2", arr=5.0)], (0, 0, 1), id="grows at the window's last instant"),
        pytest.param([term(-100, 400), term(91, 400, of="s2")], (0, 0, 0), id="grows the day after"),
        pytest.param([term(-100, 90)], (1, 0, 0), id="ends at the window's last instant"),
        pytest.param([term(-100, 91)], (0, 0, 0), id="ends the day after"),
        pytest.param([term(-100, 0)], (None, None, None), id="ends at the cutoff: it does not pay then"),
        pytest.param([term(0, 20)], (1, 0, 0), id="begins at the cutoff"),
        pytest.param([term(1, 20)], (None, None, None), id="begins after it"),
        pytest.param([term(-100, 300, ended=30)], (1, 0, 0), id="cancelled in mid-term"),
        pytest.param([term(-100, 30, ended=300)], (1, 0, 0), id="said to have ended after its end: the planned end counts"),
        pytest.param([term(-100, None)], (0, 0, 0), id="open-ended"),
        pytest.param([term(-100, 20), term(30, 30), term(55, 400)], (1, 0, 0), id="a term without any day bridges no gap"),
        pytest.param([term(-100, 20), term(40, 400, arr=0.0)], (1, 0, 0), id="goes on for nothing"),
    ],
)
def test_subscription_labels(engine, terms, expected):
    assert label(engine, terms) == expected


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        pytest.param(14, (None, None, None), id="left inside the lead, at its last instant"),
        pytest.param(15, (1, 0, 0), id="left at the first instant of the window"),
        pytest.param(104, (1, 0, 0), id="left at its last"),
        pytest.param(105, (0, 0, 0), id="left after it"),
    ],
)
def test_lead(engine, end, expected):
    assert label(engine, [term(-100, end)], lead_days=14) == expected


def test_seats_that_nobody_knows_say_nothing_of_growth(engine):
    terms = [term(-100, 20), term(20, 400, seats=10.0)]
    assert label(engine, terms, measure="seats") == (0, None, None)
    assert label(engine, [term(-100, 20, seats=9.0), terms[1]], measure="seats") == (0, 0, 1)


def test_a_window_that_is_not_closed_has_no_label(engine):
    closes = day(90 + 30)
    assert label(engine, [term(-100, 20)], data_until=closes) == (1, 0, 0)
    assert label(engine, [term(-100, 20)], data_until=closes - timedelta(microseconds=1)) == (None, None, None)


@pytest.mark.parametrize(
    ("telemetry", "expected"),
    [
        pytest.param([event(-1)], (1, 0, 0), id="falls silent"),
        pytest.param([event(-1), event(0)], (1, 0, 0), id="last used at the cutoff"),
        pytest.param([event(-1), event(90)], (0, 0, 0), id="used at the window's last instant"),
        pytest.param([event(-1), event(91)], (1, 0, 0), id="used the day after"),
        pytest.param([event(-90), event(-1), event(1, user="v")], (0, 0, 0), id="the window before is open on the left"),
        pytest.param([event(-1), event(1), event(2, user="v")], (0, 0, 1), id="one more user"),
        pytest.param([event(-1), event(-2, user="v"), event(1)], (0, 1, 0), id="one user less"),
    ],
)
def test_usage_labels(engine, telemetry, expected):
    assert label(engine, telemetry=telemetry, kind="usage", measure="active_users") == expected


def test_minimum_change(engine):
    change = ChangeTarget(measure="active_users", threshold=0.25, minimum_change=2)
    telemetry = [event(-1), event(1), event(2, user="v")]
    assert label(engine, telemetry=telemetry, kind="usage", expansion=change, contraction=change) == (0, 0, 0)
    assert label(engine, telemetry=[*telemetry, event(3, user="w")], kind="usage", expansion=change, contraction=change) == (0, 0, 1)


def test_labels_see_the_real_end_and_features_never_before_it(engine):
    """A term planned for a year that ended in mid-term: until then nothing but the label may know."""
    world = {"accounts": [{"account_id": "a"}], "telemetry": [event(-1)], "subscriptions": [term(-100, 265, ended=30)]}
    pairs = [("a", day(n)) for n in (0, 29, 30)]
    matrix = build_matrix(known_tables(engine, world, pairs), as_spine(pairs), catalogue_of(world))
    assert matrix["days_to_renewal"].to_pylist() == [265, 236, None]
    assert matrix["arr"].to_pylist() == [100, 100, 0]
    assert labels_of(engine, world, pairs, targets())["churn"].to_pylist() == [1, 1, None]


@pytest.mark.parametrize(
    ("terms", "options", "expected"),
    [
        pytest.param([term(-100, 20)], {}, (20, 1), id="not renewed"),
        pytest.param([term(-100, 20), term(20, 400)], {}, (None, 0), id="renewed"),
        pytest.param([term(-100, 20), term(49, 400)], {}, (None, 0), id="renewed late, inside the grace"),
        pytest.param([term(-100, 20), term(50, 400)], {}, (20, 1), id="renewed when the grace was over"),
        pytest.param([term(-100, 20), term(20, 60)], {}, (60, 0), id="renewed, and left afterwards in the window"),
        pytest.param([term(-100, 60, ended=30)], {}, (30, 1), id="left in mid-term, before the renewal"),
        pytest.param([term(-100, 20), term(-50, 60, of="s2")], {}, (60, 0), id="one of two subscriptions was not renewed"),
        pytest.param([term(-100, 400)], {}, (None, None), id="no renewal in the window"),
        pytest.param([term(-100, 400, ended=30)], {}, (30, None), id="left in mid-term, the renewal after the window"),
        pytest.param([term(-100, 90)], {}, (90, 1), id="due at the window's last instant"),
        pytest.param([term(-100, 14)], {"lead_days": 14}, (None, None), id="left inside the lead"),
        pytest.param([term(-100, 14), term(14, 40)], {"lead_days": 14}, (40, None), id="renewed inside the lead, then left"),
        pytest.param([term(-100, 20)], {"data_until": day(119)}, (None, None), id="censored"),
        pytest.param([term(-100, 20)], {"kind": "usage", "measure": "events"}, (None, None), id="churn is silence"),
    ],
)
def test_when_it_left_and_whether_it_renewed(engine, terms, options, expected):
    world = {"accounts": [{"account_id": "a"}], "telemetry": [event(-1)], "subscriptions": terms}
    when = {"data_until": options.get("data_until", LONG_AFTER)}
    wanted = targets(**{name: value for name, value in options.items() if name not in when})
    found = labels_of(engine, world, [("a", CUTOFF)], wanted, **when).to_pylist()[0]
    left = None if expected[0] is None else day(expected[0])
    assert (found["left_at"], found["nonrenewal"]) == (left, expected[1])


def test_arr_and_renewal(engine):
    world = {
        "accounts": [{"account_id": "a"}],
        "telemetry": [event(-1)],
        "subscriptions": [term(-100, 20), term(-50, 60, of="s2", arr=50.0), term(20, 400, arr=120.0)],
    }
    found = labels_of(engine, world, [("a", CUTOFF)], targets()).to_pylist()[0]
    assert (found["arr"], found["arr_end"], found["renewal_at"]) == (150, 120, day(20))


def test_who_is_a_customer(engine):
    def customer(terms, cutoff=CUTOFF, **options):
        world = {"accounts": [{"account_id": "a"}], "telemetry": [event(-1)], "subscriptions": terms}
        return eligible_rows(known_tables(engine, world, [("a", cutoff)]), targets(**options), n_rows=1)[0]

    assert customer([term(-100, 20)])
    assert customer([term(-100, -29)])
    assert not customer([term(-100, -30)])
    assert not customer([term(-100, 0)], grace_days=0)
    assert not customer([term(1, 20)])
    assert not customer([term(-100, 20, arr=0.0)])
    assert not customer([term(-10, 20, ended=-20)])


def test_distinct_accounts_may_number_their_subscriptions_alike(engine):
    late = {"recorded_at": day(-10)}
    mine = term(-100, 20) | {"recorded_at": day(-100)}
    world = {
        "accounts": [{"account_id": "a"}, {"account_id": "b"}],
        "telemetry": [event(-1)],
        "subscriptions": [mine, mine | {"account_id": "b", "arr": 7.0} | late],
    }
    found = labels_of(engine, world, [("a", CUTOFF), ("b", CUTOFF)], targets())
    assert found["arr"].to_pylist() == [100, 7]


def test_labels_are_numbers_or_missing(engine):
    world = {"accounts": [{"account_id": "a"}], "telemetry": [event(-1)]}
    found = labels_of(engine, world, [("a", CUTOFF)], targets(kind="usage", measure="events")).to_pylist()[0]
    assert found["arr"] is None
    assert not any(isinstance(value, float) and math.isnan(value) for value in found.values())
