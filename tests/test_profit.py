"""EMPC and EMPB against published values, cases that can be worked out, and slow twins written from the definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta as beta_distribution

from training.evaluation import TestRows, judge
from training.profit import B2BCampaign, Campaign, churn_measures, empb, empc

rows = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.integers(0, 6), st.integers(0, 3), st.integers(0, 4000)), min_size=1, max_size=30)
campaigns = st.builds(
    Campaign,
    alpha=st.floats(1.5, 10),
    beta=st.floats(1.5, 15),
    value=st.floats(60, 400),
    incentive=st.floats(0, 50),
    contact=st.floats(0.1, 20),
)


def as_arrays(rows):
    target, score, weight, value = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    weight[0] = max(weight[0], 1)
    return target, score, weight, value


def thresholds(score):
    """Return which rows are contacted at each threshold, none first."""
    return [score > np.inf, *(score >= level for level in sorted(set(score), reverse=True))]


def slow_empc(target, score, campaign):
    """Average, over equally likely values of gamma, what the best threshold earns, and how many it contacts."""
    gamma = beta_distribution.ppf((np.arange(4000) + 0.5) / 4000, campaign.alpha, campaign.beta)
    contacted = thresholds(score)
    earned = np.array(
        [
            (gamma * (campaign.value - campaign.incentive) - campaign.contact) * target[chosen].sum()
            - (campaign.incentive + campaign.contact) * (1 - target[chosen]).sum()
            for chosen in contacted
        ]
    )
    best = earned.argmax(axis=0)
    share = np.array([chosen.mean() for chosen in contacted])
    return earned.max(axis=0).mean() / len(target), share[best].mean()


def slow_empb(target, score, value, campaign):
    accepted = campaign.alpha / (campaign.alpha + campaign.beta)
    best = 0.0
    for chosen in thresholds(score):
        earned = 0.0
        for i in np.flatnonzero(chosen):
            stays = accepted * (1 - campaign.incentive_share) * value[i] if target[i] else -campaign.incentive_share * value[i]
            earned += stays - campaign.contact
        best = max(best, earned)
    return best / len(target)


def once(found):
    return float(found.per_customer[0]), float(found.targeted[0])


HALF = np.tile([0.0, 1.0], 10)
# What the empulse package tests its empc with; the values are those of the R package EMP.
PUBLISHED_VALUES = [(HALF, (28.0000000000391, 0.499999999728095)), (1 - HALF, (22.5007912244511, 0.9991601018889205))]


@pytest.mark.parametrize(("score", "expected"), [*PUBLISHED_VALUES, (np.zeros(20), PUBLISHED_VALUES[1][1])])
def test_empc_is_what_the_published_packages_say(score, expected):
    assert once(empc(HALF, score, np.ones((20, 1)))) == pytest.approx(expected, rel=1e-8)


@settings(max_examples=40, deadline=None)
@given(rows, campaigns)
def test_empc_is_the_integral_of_its_definition(rows, campaign):
    target, score, weight, _ = as_arrays(rows)
    found = empc(target, score, np.column_stack([np.ones(len(target)), weight]), campaign=campaign)
    repeated = np.repeat(np.arange(len(target)), weight.astype(int))
    for column, chosen in enumerate((np.arange(len(target)), repeated)):
        profit, targeted = slow_empc(target[chosen], score[chosen], campaign)
        assert found.per_customer[column] == pytest.approx(profit, rel=2e-3, abs=1e-3)
        assert found.targeted[column] == pytest.approx(targeted, abs=2e-3)


@given(rows, st.floats(0, 0.5), st.floats(0, 60))
def test_empb_is_the_best_of_all_thresholds(rows, incentive_share, contact):
    target, score, weight, value = as_arrays(rows)
    campaign = B2BCampaign(incentive_share=incentive_share, contact=contact)
    found = empb(target, score, value, np.column_stack([np.ones(len(target)), weight]), campaign=campaign)
    repeated = np.repeat(np.arange(len(target)), weight.astype(int))
    expected = [slow_empb(target[chosen], score[chosen], value[chosen], campaign) for chosen in (np.arange(len(target)), repeated)]
    np.testing.assert_allclose(found.per_customer, expected, atol=1e-9)
    assert (found.targeted <= 1).all()
    assert ((found.targeted > 0) == (found.per_customer > 0)).all()


@given(rows, st.floats(0.5, 20))
def test_money_in_another_currency_is_that_many_times_as_much(rows, rate):
    target, score, weight, value = as_arrays(rows)
    weights = weight[:, None]
    other = Campaign(value=200 * rate, incentive=10 * rate, contact=rate)
    np.testing.assert_allclose(empc(target, score, weights, campaign=other).per_customer, rate * empc(target, score, weights).per_customer)
    own = empb(target, score, rate * value, weights, campaign=B2BCampaign(contact=15 * rate)).per_customer
    np.testing.assert_allclose(own, rate * empb(target, score, value, weights).per_customer)


@given(rows)
def test_no_scores_earn_more_than_the_outcomes_themselves(rows):
    target, score, weight, value = as_arrays(rows)
    weights = weight[:, None]
    assert 0 <= empc(target, score, weights).per_customer[0] <= empc(target, target, weights).per_customer[0] + 1e-12
    gains = target * np.maximum(0.3 * 0.95 * value - 15, 0) @ weights / weights.sum()
    assert 0 <= empb(target, score, value, weights).per_customer[0] <= gains[0] + 1e-9


def test_what_every_accepting_customer_is_worth_can_be_worked_out():
    """A perfect list of ten in twenty: each contact earns 0.3 * (200 - 10) - 1 = 56 and, by value, 0.3 * 0.95 * 200 - 15 = 42."""
    assert once(empc(HALF, HALF, np.ones((20, 1)))) == pytest.approx((28, 0.5), rel=1e-8)
    assert once(empb(HALF, HALF, np.full(20, 200.0), np.ones((20, 1)))) == pytest.approx((21, 0.5))


def test_customers_that_are_worth_less_than_a_contact_are_left_alone():
    assert once(empb(np.ones(4), np.arange(4.0), np.full(4, 50.0), np.ones((4, 1)))) == (0, 0)


def test_churn_is_judged_by_profit_too_and_by_value_where_there_is_one():
    rng = np.random.default_rng(0)
    probability = rng.uniform(0.01, 0.8, 300)
    target, arr = (rng.random(300) < probability).astype(float), rng.lognormal(9, 1, 300)
    account = np.arange(300).astype(str).astype(object)
    found = judge(TestRows(account, target, arr), probability, suite=churn_measures, resamples=40, seed=0)
    assert found["empc"].value == once(empc(target, probability, np.ones((300, 1))))[0]
    assert (found["empb"].value, found["empb_targeted"].value) == once(empb(target, probability, arr, np.ones((300, 1))))
    assert found["empb"].low < found["empb"].value < found["empb"].high
    without = judge(TestRows(account, target, np.full(300, np.nan)), probability, suite=churn_measures, resamples=0, seed=0)
    assert set(found) - set(without) == {"empb", "empb_targeted", "arr_caught_top_5", "arr_caught_top_10", "arr_caught_top_20"}
    assert without["empc"].value == found["empc"].value
