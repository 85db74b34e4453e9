import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from features.catalogue import Catalogue
from features.feature import Feature, Window
from training.audit import audit_target
from training.dataset import CONTEXT, Dataset, Encoded, encode_features, learn_categories
from training.evaluation import Estimate
from training.screening import auc_alone, bin_columns, jumps, order_within, pure_subset

MONTHS = pd.date_range("2022-01-01", periods=18, freq="MS").to_numpy().astype("datetime64[us]")
FIRST_TEST = MONTHS[13]
HONEST = Estimate(0.75, 0.70, 0.80)
DAY = np.timedelta64(1, "D")


def feature(name, table="telemetry", *, unit="events", kind="number", inputs=(), **direction):
    source = None if inputs else Window(table=table)
    words = dict.fromkeys(("meaning", "sentence"), "")
    return Feature(
        name=name, family="usage", unit=unit, expression=len, source=source, kind=kind, inputs=inputs, direction=direction, **words
    )


class Book:
    """Accounts that leave at a rate of their own, looked at each month, with features that tell a part of it; tests plant more.

    Arrays have one value a row; `days_left` is missing for those who do not leave within 90 days.
    """

    def __init__(self, seed=0, *, accounts=500, base=-3.4):
        self.rng = rng = np.random.default_rng(seed)
        risk = rng.normal(size=accounts)
        left = MONTHS[0] + rng.geometric(1 / (1 + np.exp(-base - risk))) * 30 * DAY + rng.integers(0, 30, accounts) * DAY
        cutoff, account = (grid.ravel() for grid in np.meshgrid(MONTHS, np.arange(accounts), indexing="ij"))
        there = cutoff < left[account]
        self.cutoff, self.account = cutoff[there], account[there]
        days = (left[self.account] - self.cutoff) / DAY
        self.target = (days <= 90).astype(float)
        self.days_left = np.where(self.target == 1, days, np.nan)
        self.n = len(days)
        self.features: list[Feature] = []
        self.columns = {}
        told = risk[self.account] + self.target / 2
        self.plant(feature("events_28d"), rng.poisson(np.exp(2 - 0.2 * told)).astype(float))
        self.plant(feature("recency", unit="days"), np.where(rng.random(self.n) < 0.1, np.nan, rng.exponential(np.exp(2 + 0.3 * told))))
        self.plant(
            feature("segment", "accounts", unit="level", kind="category"), np.array(["big", "small", None], object)[self.account % 3]
        )
        self.plant(feature("customer_days", "accounts", unit="days"), 1000.0 * rng.random(accounts)[self.account] + self.since(MONTHS[0]))
        self.plant(feature("days_to_renewal", "subscriptions", unit="days"), rng.integers(0, 365, self.n).astype(float))

    def since(self, instant):
        return (self.cutoff - instant) / DAY

    def plant(self, planted, values):
        self.features.append(planted)
        self.columns[planted.name] = values
        return self

    def noise(self, size=1.0):
        return self.rng.normal(0, size, self.n)

    def audit(self, *, target="churn", judged=HONEST, plausible_auc=0.95, first_test=FIRST_TEST):
        left = np.where(self.target == 1, self.cutoff + np.nan_to_num(self.days_left) * DAY, np.datetime64("NaT", "us"))
        context = pd.DataFrame(index=range(self.n), columns=list(CONTEXT), dtype=object)
        context["left_at"], context["renewal_at"] = left, self.cutoff + self.columns["days_to_renewal"].astype(int) * DAY
        names = np.array([f"a{number:04d}" for number in self.account], object)
        data = Dataset(names, self.cutoff, pd.DataFrame(self.columns), self.target, np.full(self.n, np.nan), context)
        catalogue = Catalogue(tuple(self.features))
        levels = learn_categories(data.features, catalogue)
        encoded = Encoded(encode_features(data.features, features=catalogue.names, categories=levels), levels)
        return audit_target(data, encoded, catalogue, target, first_test=first_test, judged=judged, plausible_auc=plausible_auc)


def found(audit):
    return [(finding.severity, finding.subject) for finding in audit.findings]


@pytest.mark.parametrize("seed", range(6))
def test_an_honest_book_is_left_alone(seed):
    audit = Book(seed).audit()
    assert found(audit) == []
    assert len(audit.probes) == 6


# --- one feature alone


@pytest.mark.parametrize("shape", ["up", "down", "at both ends"])
def test_the_label_with_noise_is_a_leak_in_any_shape(shape):
    book = Book()
    sign = {"up": 1, "down": -1, "at both ends": np.where(book.account % 2, 1, -1)}[shape]
    audit = book.plant(feature("score"), sign * book.target + book.noise(0.3)).audit()
    assert found(audit) == [("leak", "score")]
    assert audit.leaks[0].evidence["auc"] > audit.leaks[0].evidence["bound"] == pytest.approx(0.8825)


def test_a_value_that_is_only_there_for_those_who_leave_is_a_leak():
    book = Book()
    assert found(book.plant(feature("closing_days", unit="days"), np.where(book.target == 1, 5.0, np.nan)).audit()) == [
        ("leak", "closing_days")
    ]


def test_features_that_say_the_same_are_one_finding():
    book = Book()
    score = book.target + book.noise(0.3)
    book.plant(feature("score"), score).plant(feature("doubled", inputs=("score",)), 2 * score).plant(feature("turned"), 1 / (score + 9))
    (leak,) = book.audit().findings
    assert leak.evidence["features"] == 3
    assert "say the same" in leak.message
    assert "telemetry" in leak.todo


def test_how_good_is_too_good_depends_on_what_is_plausible():
    book = Book()
    book.plant(feature("score"), book.target + book.noise(0.75))
    assert found(book.audit(plausible_auc=0.85)) == [("leak", "score")]
    assert not book.audit(plausible_auc=0.95).leaks


def test_a_feature_far_ahead_of_all_others_is_looked_at():
    book = Book()
    (odd,) = book.plant(feature("score"), book.target + book.noise(0.75)).audit().findings
    assert (odd.severity, odd.subject) == ("look at", "score")
    assert odd.evidence["auc"] - odd.evidence["next_auc"] >= 0.15


def test_an_attribute_has_no_time_and_less_is_too_good():
    book, other = Book(), Book()
    score = book.target + book.noise(0.7)
    book.plant(feature("account_score", "accounts", unit="as declared"), score)
    assert found(book.audit()) == [("leak", "account_score")]
    assert "export" in book.audit().leaks[0].todo
    other.plant(feature("account_score_days", "accounts", unit="days"), score)  # of a date, which has one
    assert not other.audit().leaks
    weaker = Book()
    weaker.plant(feature("account_score", "accounts", unit="as declared"), weaker.target + weaker.noise(1.3))
    assert found(weaker.audit()) == [("look at", "account_score")]


def test_with_few_positives_nothing_is_certain():
    book = Book(accounts=120, base=-5.5)
    assert len(set(book.account[book.target == 1])) < 20
    assert found(book.plant(feature("score"), book.target + book.noise(0.1)).audit()) == [("look at", "score")]


def test_a_level_that_tells_nothing_about_other_accounts_is_no_leak():
    book = Book()
    names = np.array([f"owner {account % 250}" for account in book.account], object)
    assert found(book.plant(feature("owner", "accounts", unit="level", kind="category"), names).audit()) == []


# --- values that only positives have


def some_positives(book, share):
    """Mark the positive rows of a share of the accounts."""
    marked = book.rng.random(book.account.max() + 1) < share
    return marked[book.account] & (book.target == 1)


@pytest.mark.parametrize(
    ("share", "table", "severity"),
    [(0.08, "telemetry", "look at"), (0.4, "telemetry", "leak"), (0.08, "accounts", "leak"), (0.01, "accounts", None)],
)
@pytest.mark.parametrize("kind", ["a rare number", "a level", "missing"])
def test_a_value_that_only_positives_have(share, table, severity, kind):
    book = Book()
    rows = some_positives(book, share)
    values = {
        "a rare number": lambda: np.where(rows, 7.5, book.rng.integers(0, 40, book.n) + 0.0),
        "a level": lambda: np.where(rows, "closing", np.array(["open", "new"], object)[book.account % 2]),
        "missing": lambda: np.where(rows, np.nan, book.noise()),
    }[kind]()
    planted = feature("state", table, unit="level", kind="category" if kind == "a level" else "number")
    audit = book.plant(planted, values).audit()
    assert found(audit) == ([(severity, "state")] if severity else [])
    if severity:
        said = {"a rare number": "state is 7.5", "a level": "state is closing", "missing": "state is missing"}[kind]
        assert said in audit.findings[0].message
        assert audit.findings[0].evidence["purity"] == 1


def test_what_is_known_to_say_it_may_say_it():
    book = Book()
    given = some_positives(book, 0.15).astype(float)
    assert found(book.plant(feature("notice_given", "subscriptions", churn=1), given).audit()) == []


def test_features_that_mark_the_same_rows_are_one_finding():
    book = Book()
    rows = some_positives(book, 0.4)
    for name in ("one", "two", "three"):
        book.plant(feature(name), np.where(rows, np.nan, book.noise()))
    assert found(book.audit()) == [("leak", "one, two, three")]


# --- when accounts leave


@pytest.mark.parametrize("table", ["accounts", "telemetry"])
def test_a_feature_that_counts_the_days_to_leaving(table):
    book = Book()
    days = np.where(book.target == 1, book.days_left, book.rng.integers(0, 90, book.n)) + book.noise()
    (leak,) = book.plant(feature("days_left", table, unit="days"), days).audit().findings
    assert (leak.severity, leak.subject, leak.probe) == ("leak", "days_left", "a feature that tells when accounts leave")
    assert leak.evidence["rank_correlation"] > 0.95


@pytest.mark.parametrize("unit", [1, 30.4375, 365.25])
def test_how_long_the_account_will_have_been_there(unit):
    book = Book()
    lasts = book.columns["customer_days"] + np.where(book.target == 1, book.days_left, 100 + 300 * book.rng.random(book.n))
    (leak,) = book.plant(feature("lifetime", "accounts", unit="as declared"), lasts / unit).audit().findings
    assert (leak.severity, leak.subject, leak.probe) == ("leak", "lifetime", "a feature that tells when accounts leave")
    people = Book()
    people.plant(feature("employees", "accounts", unit="people"), 1000 * people.rng.random(500)[people.account])
    assert found(people.audit()) == []


def test_a_contract_may_tell_when_it_ends():
    book = Book()
    days = np.where(book.target == 1, book.days_left, book.rng.integers(0, 90, book.n))
    assert found(book.plant(feature("days_since_term_start", "subscriptions", unit="days"), -days).audit()) == []
    renewing = Book()
    renewing.columns["days_to_renewal"] = np.where(renewing.target == 1, renewing.days_left, renewing.rng.integers(0, 365, renewing.n))
    renewing.plant(feature("also_known", unit="days"), np.minimum(renewing.columns["days_to_renewal"], 90))
    assert "a feature that tells when accounts leave" not in {finding.probe for finding in renewing.audit().findings}


# --- sudden changes, the ceiling, constants


def test_a_jump_at_the_start_of_the_test_period_or_in_it_is_looked_at():
    for start in (13, 15):
        book = Book()
        later = book.cutoff >= MONTHS[start]
        book.plant(feature("gone"), np.where(later, np.nan, book.noise())).plant(feature("moved"), book.noise() + 2 * later)
        (odd,) = book.audit().findings
        assert (odd.severity, odd.subject) == ("look at", "gone, moved")
        assert str(MONTHS[start])[:10] in odd.message
        assert (odd.evidence["missing_before"], odd.evidence["missing_after"]) == (0, 1)


def test_what_drifts_or_jumped_before_or_comes_back_is_left_alone():
    book = Book()
    month = np.searchsorted(MONTHS, book.cutoff)
    book.plant(feature("drifting"), book.noise() + month / 4)
    book.plant(feature("jumped_before"), book.noise() + 3 * (month >= 6))
    book.plant(feature("for_a_month"), book.noise() + 3 * (month == 14))
    assert found(book.audit()) == []
    assert found(book.audit(first_test=MONTHS[0])) == []
    assert found(book.audit(first_test=MONTHS[-1] + 40 * DAY)) == []


@pytest.mark.parametrize(
    ("judged", "severity"),
    [
        (Estimate(0.97, 0.96, 0.98), "leak"),
        (Estimate(0.97, None, None), "leak"),
        (Estimate(0.96, 0.94, 0.98), "look at"),
        (Estimate(0.95, 0.94, 0.96), None),
    ],
)
def test_a_model_that_is_too_good(judged, severity):
    assert found(Book().audit(judged=judged)) == ([(severity, "model of churn")] if severity else [])


def test_constant_features_are_listed_once():
    book = Book()
    book.plant(feature("always_five"), np.full(book.n, 5.0)).plant(feature("never"), np.full(book.n, np.nan))
    book.plant(feature("one_level", kind="category"), np.full(book.n, "x", object))
    book.plant(feature("five_or_missing"), np.where(book.account % 2, 5.0, np.nan))
    assert found(book.audit()) == [("look at", "always_five, never, one_level")]


# --- the measures


def brute_auc(score, target):
    positives, negatives = score[target == 1], score[target == 0]
    return np.mean([(p > negatives).mean() + (p == negatives).mean() / 2 for p in positives])


def test_the_auc_of_bins_is_learnt_on_one_half_and_judged_on_the_other():
    rng = np.random.default_rng(0)
    target, half = (rng.random(300) < 0.3).astype(float), rng.random(300) < 0.5
    values = np.where(rng.random(300) < 0.2, np.nan, rng.integers(0, 6, 300) + target)
    expected = []
    for judged in (True, False):
        learnt = half != judged
        keys = np.nan_to_num(values, nan=-1)
        rate = {
            key: (target[learnt & (keys == key)].sum() + 5 * target.mean()) / ((learnt & (keys == key)).sum() + 5)
            for key in np.unique(keys)
        }
        expected.append(brute_auc(np.array([rate[key] for key in keys[half == judged]]), target[half == judged]))
    assert auc_alone(bin_columns(values[:, None], [None]), target, half) == pytest.approx([np.mean(expected)])


@given(seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_the_auc_of_a_feature_is_that_of_any_growing_function_of_it(seed):
    rng = np.random.default_rng(seed)
    target, half = (rng.random(400) < 0.3).astype(float), rng.random(400) < 0.5
    values = rng.normal(size=400) + target
    one, other = (auc_alone(bin_columns(column[:, None], [None]), target, half)[0] for column in (values, np.exp(values)))
    assert one == pytest.approx(other)
    assert 0 <= one <= 1


def test_bins_are_named_by_their_limits():
    values = np.concatenate([np.arange(100.0), [np.nan]])
    bins = bin_columns(values[:, None], [None])
    assert bins.code[-1, 0] == 0
    low, high = int(bins.code[0, 0]), int(bins.code[99, 0])
    assert bins.named(0, [low]) == f"below {bins.limits[0][0]:g}"
    assert bins.named(0, [high]) == f"from {bins.limits[0][-1]:g}"
    assert bins.named(0, [0, low, low + 1]) == f"missing, below {bins.limits[0][1]:g}"


def test_levels_beyond_those_that_fit_share_a_bin():
    codes = np.arange(300.0)
    bins = bin_columns(codes[:, None], [tuple(map(str, range(300)))])
    assert bins.code[:, 0].tolist() == [min(code + 1, 254) for code in range(300)]


def test_a_pure_subset_is_made_of_all_bins_that_are():
    values = np.repeat([0.0, 1.0, 2.0, 3.0], 30)
    target = np.repeat([1.0, 0.0, 1.0, 0.0], 30)
    subset = pure_subset(bin_columns(values[:, None], [None]), 0, values, target, purity=0.9, levels=None)
    assert subset.rows.tolist() == (target == 1).tolist()
    assert pure_subset(bin_columns(values[:, None], [None]), 0, values, np.ones(120) * (values == 5), purity=0.9, levels=None) is None


def test_order_within_groups_is_that_of_ranks():
    rng = np.random.default_rng(1)
    time = rng.random(60)
    values = np.column_stack([time**2, -time, rng.random(60), np.ones(60), np.where(rng.random(60) < 0.6, np.nan, time)])
    one_group = order_within(values, time, np.zeros(60, np.intp))
    assert one_group[:3] == pytest.approx([spearmanr(values[:, place], time).statistic for place in range(3)])
    assert one_group[3:].tolist() == [0, 0]
    shifted = values[:, 0] + np.repeat([0, 5], 30)
    assert order_within(shifted[:, None], time, np.repeat([0, 1], 30)) == pytest.approx([1])


def test_jumps_are_the_part_of_the_rows_that_moves():
    block = np.repeat([0, 1, 2], 100)
    moved = np.concatenate([np.zeros(150), np.full(150, 100.0)])
    same = np.tile(np.arange(100.0), 3)
    assert jumps(bin_columns(np.column_stack([moved, same]), [None, None]), block) == pytest.approx(np.array([[0.5, 0.5], [0, 0]]))
