"""A rule is found where every account obeys it, and nowhere else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.feature import Feature, Window
from serving.answers.feature_rules import find_rules

N = 40


def measured(name, unit="users", *, empty=0.0, lag_days=0):
    window = Window(table="telemetry", lag_days=lag_days)
    return Feature(
        name=name, family="usage", unit=unit, meaning="", sentence="", expression=None, source=window, empty=empty, actionable=True
    )


def derived(name, inputs, unit="share", family="usage"):
    return Feature(name=name, family=family, unit=unit, meaning="", sentence="", expression=None, inputs=inputs, actionable=True)


FEATURES = {
    feature.name: feature
    for feature in (
        *(measured(f"active_users_{days}d") for days in (7, 28, 91)),
        *(measured(f"users_lost_{days}d") for days in (28, 91)),
        measured("seats", "seats", empty=None),
        measured("days_since_event", "days", empty=None),
        measured("gap_mean_364d", "days", empty=None),
        derived("seat_use_28d", ("active_users_28d", "seats")),
        derived("silence", ("days_since_event", "gap_mean_364d"), "ratio"),
        derived("users_share", ("active_users_28d", "active_users_91d")),
        derived("odd", ("active_users_28d", "active_users_91d"), "ratio"),
        derived("active_users_28d_rank", ("active_users_28d",), family="peers"),
    )
}


def book(rng, n=N):
    users = np.sort(rng.integers(0, 60, (3, n)), axis=0).astype(float)
    lost = rng.integers(0, 9, (2, n)).astype(float)
    lost[:, 0] = (5, 1)
    seats = np.where(rng.random(n) < 0.2, np.nan, rng.integers(1, 80, n))
    since, gap = rng.exponential(3, n), rng.exponential(2, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = {
            **{f"active_users_{days}d": users[row] for row, days in enumerate((7, 28, 91))},
            **{f"users_lost_{days}d": lost[row] for row, days in enumerate((28, 91))},
            "seats": seats,
            "days_since_event": since,
            "gap_mean_364d": gap,
            "seat_use_28d": users[1] / seats,
            "silence": since / (gap + 1),
            "users_share": np.where(users[2] == 0, np.nan, users[1] / users[2]),
            "odd": users[1] * users[2],
        }
    segments = np.where(np.arange(n) < n // 2, "a", "b").astype(object)
    rank = np.empty(n)
    for segment in ("a", "b"):
        own = segments == segment
        values = users[1][own]
        rank[own] = [(values < value).sum() / (len(values) - 1) for value in values]
    return columns | {"active_users_28d_rank": rank}, segments


def found(rng):
    (now, segments), (earlier, _) = book(rng), book(rng)
    return find_rules(FEATURES, now, earlier, segments), now, segments


def test_the_rules_of_a_book():
    rules, now, segments = found(np.random.default_rng(1))
    assert rules.chains == (("active_users_7d", "active_users_28d", "active_users_91d"),)
    assert {name: (form.above, form.below, form.added) for name, form in rules.quotients.items()} == {
        "seat_use_28d": ("active_users_28d", "seats", 0.0),
        "silence": ("days_since_event", "gap_mean_364d", 1.0),
        "users_share": ("active_users_28d", "active_users_91d", 0.0),
    }
    assert set(rules.ranks) == {("active_users_28d_rank", "a"), ("active_users_28d_rank", "b")}
    assert rules.whole == {name for name in FEATURES if name.startswith(("active_users", "users_lost"))} - {"active_users_28d_rank"} | {
        "seats"
    }
    assert len(now["seats"]) == len(segments)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), row=st.integers(0, N - 1), value=st.integers(0, 70).map(float))
def test_what_is_worked_out_is_what_the_book_would_hold(seed, row, value):
    rules, now, segments = found(np.random.default_rng(seed))
    before = {name: None if np.isnan(column[row]) else float(column[row]) for name, column in now.items()}
    changed = before | {"active_users_28d": value}
    seats = before["seats"]
    assert rules.quotients["seat_use_28d"].value(changed) == (None if seats is None else value / seats)
    moved = now["active_users_28d"].copy()
    moved[row] = value
    peers = moved[segments == segments[row]]
    rank = rules.ranks["active_users_28d_rank", segments[row]]
    assert rank.value(changed, before) == pytest.approx((peers < value).sum() / (len(peers) - 1))
    assert rank.value(before, before) == pytest.approx(now["active_users_28d_rank"][row])


def test_one_account_that_breaks_a_rule_is_enough():
    (now, segments), (earlier, _) = book(np.random.default_rng(2)), book(np.random.default_rng(3))
    broken = {name: column.copy() for name, column in earlier.items()}
    for days, users in ((7, 0.0), (28, 2.0), (91, 1.0)):
        broken[f"active_users_{days}d"][0] = users
    broken["silence"][3] += 0.1
    broken["seats"][~np.isnan(broken["seats"])] += 0.5
    now["active_users_28d_rank"][0] = 0.99
    rules = find_rules(FEATURES, now, broken, segments)
    assert rules.chains == (("active_users_7d", "active_users_28d"),)
    assert "silence" not in rules.quotients
    assert "seat_use_28d" not in rules.quotients
    assert set(rules.ranks) == {("active_users_28d_rank", "b")}
    assert "seats" not in rules.whole


def test_few_accounts_make_no_rule():
    (now, segments), (earlier, _) = book(np.random.default_rng(2), 4), book(np.random.default_rng(3), 4)
    rules = find_rules(FEATURES, now, earlier, segments)
    assert (rules.chains, dict(rules.quotients), dict(rules.ranks), rules.whole) == ((), {}, {}, frozenset())
