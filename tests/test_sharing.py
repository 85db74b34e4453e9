import itertools
import math
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.permissions.assignments import Assignments, Term
from serving.permissions.caller import VENDOR, Caller
from serving.permissions.policy import default_policy
from serving.scores.reasons import Contribution, explain_score, group_drivers
from serving.scores.sharing import View, confidential_parts, merge_parts, shared_explanation
from tests.serving_book import feature
from training.calibration import PlattCalibrator

PARTNER = Caller("p1")
POLICY = default_policy()
TO_PARTNER, TO_VENDOR = View(PARTNER, None, POLICY), View(VENDOR, None, POLICY)
CALIBRATOR = PlattCalibrator(slope=0.9, intercept=0.0)
parts_of = st.lists(st.floats(-3, 3), min_size=0, max_size=12)


def explained(shared, vendor):
    contributions = [Contribution(feature=feature(f"open_{i}", "usage", "users", "it {moved}"), part=part) for i, part in enumerate(shared)]
    contributions += [
        Contribution(feature=feature(f"secret_{i}", "commercial", "USD", "it {moved}", sensitivity="vendor"), part=part)
        for i, part in enumerate(vendor)
    ]
    raw = -2.0 + math.fsum([*shared, *vendor])
    probability = float(CALIBRATOR.probability(np.array([raw]))[0])
    return explain_score("churn", contributions, base=-2.0, raw=raw, probability=probability, calibrator=CALIBRATOR)


@given(parts_of, parts_of, st.sampled_from([TO_VENDOR, TO_PARTNER]))
def test_named_and_merged_parts_add_up_for_everybody(shared, vendor, view):
    explanation = explained(shared, vendor)
    seen = shared_explanation(explanation, view)
    if seen.sizes == "exact":
        assert -2.0 + math.fsum(driver.part for driver in seen.named) + seen.other.part == pytest.approx(explanation.raw, abs=1e-9)


@given(parts_of, parts_of)
def test_a_partner_is_never_told_a_confidential_driver_by_name(shared, vendor):
    seen = shared_explanation(explained(shared, vendor), TO_PARTNER)
    assert all(driver.sensitivity == "shared" for driver in seen.named)
    assert seen.other.confidential == bool(vendor)


@given(parts_of, parts_of)
def test_subtracting_never_gives_one_confidential_part_away(shared, vendor):
    """Whoever subtracts all that is shown from the score is left with the merged parts; no confidential one may make them up."""
    seen = shared_explanation(explained(shared, vendor), TO_PARTNER)
    if seen.sizes == "exact" and vendor:
        confidential = [abs(part) for part in vendor if part]
        assert len(confidential) == 0 or len(confidential) >= 3
        assert max(vendor, key=abs) == 0 or max(confidential) <= 0.9 * math.fsum(confidential)
    if seen.sizes == "withheld":
        assert seen.other.part is None and seen.other.odds_factor is None


@given(parts_of, parts_of)
def test_the_vendor_sees_all_sizes(shared, vendor):
    seen = shared_explanation(explained(shared, vendor), TO_VENDOR)
    assert seen.sizes == "exact"
    assert not seen.other.confidential


@pytest.mark.parametrize(
    ("shared", "vendor", "sizes"),
    [
        ([1.0, 0.5, 0.2], [0.4], "withheld"),  # one merged part
        ([1.0, 0.5, 0.2], [0.4, 0.3], "withheld"),  # two
        ([1.0, 0.5, 0.2], [0.4, 0.3, -0.2], "exact"),
        ([1.0, 0.5, 0.2], [2.0, 0.01, 0.01], "withheld"),  # one makes up nearly all
        ([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [0.3], "withheld"),  # the two shared ones beside it may be named on another day
        ([1.0, 0.5], [0.0, 0.0], "exact"),
        ([1.0, 0.5], [], "exact"),
    ],
)
def test_when_sizes_are_withheld(shared, vendor, sizes):
    assert shared_explanation(explained(shared, vendor), TO_PARTNER).sizes == sizes


def test_what_the_policy_does_not_name_cannot_leave():
    with pytest.raises(KeyError):
        TO_VENDOR.share("Driver", {"features": [], "notes": "ours"})
    with pytest.raises(KeyError):
        TO_VENDOR.share("Margin", {})


def test_what_is_the_vendor_s_alone_is_null_for_a_partner():
    assert TO_PARTNER.share("Driver", {"family": "usage", "sensitivity": "vendor"}) == {"family": "usage", "sensitivity": None}
    assert TO_VENDOR.share("Driver", {"sensitivity": "vendor"}) == {"sensitivity": "vendor"}


def test_a_partner_manages_what_is_assigned_to_it_at_the_instant_of_the_request():
    start, end = datetime(2025, 1, 1), datetime(2025, 6, 1)
    terms = [Term(account_id="a", partner_id="p1", valid_from=start, valid_to=end), Term(account_id="b", partner_id="p2", valid_from=start)]
    assignments = Assignments.of(terms, ["a", "b", "c"])

    def managed(caller, at):
        view = View(caller, None, POLICY, at)
        rows = view.managed_rows(assignments).tolist()
        assert rows == [row for row in range(3) if view.manages(row, assignments)]
        return rows

    assert managed(VENDOR, None) == [0, 1, 2]
    assert managed(PARTNER, start) == [0]
    assert managed(PARTNER, end) == []
    assert managed(Caller("p2"), end) == [1]
    assert managed(Caller(""), end) == []
    assert managed(PARTNER, None) == []


# what a partner can work out from all that it was ever told about an account


FEATURES = [
    *(feature(f"open_{i}", "usage", "users", "it {moved}") for i in range(4)),
    *(feature(f"secret_{i}", "commercial", "USD", "it {moved}", sensitivity="vendor") for i in range(4)),
    feature("window_28d", "usage", "users", "it {moved}", days=28),
    feature("window_91d", "usage", "users", "it {moved}", days=91),
]
HIDDEN = [position for position, one in enumerate(FEATURES) if one.sensitivity == "vendor"]
sizes_of_parts = st.sampled_from([0.0, 0.0, 0.001, 0.25, -0.5, 1.0, -2.0])
a_score = st.lists(sizes_of_parts, min_size=len(FEATURES), max_size=len(FEATURES)).map(np.array)


class Notebook:
    """Writes down, as linear equations, all that a partner is told about an account: its scores of several days, what changed, what-ifs.

    Each part of each score is an unknown of its own, but which ones are zero is taken as known, as are the names.
    """

    def __init__(self, scores):
        self.scores = scores
        self.rows = []

    def told(self, combination, merged):
        """Note an answer about a combination of scores, such as `{1: 1.0, 0: -1.0}` for a change; the sum of all parts is always told."""
        self.note(combination, range(len(FEATURES)))
        if merged.sizes == "exact":
            for group in (*([driver] for driver in merged.named), merged.rest):
                self.note(combination, [FEATURES.index(member.feature) for driver in group for member in driver.members])

    def note(self, combination, positions):
        row = np.zeros((len(self.scores), len(FEATURES)))
        for score, sign in combination.items():
            row[score, list(positions)] = sign
        self.rows.append(np.where(np.array(self.scores) != 0.0, row, 0.0).ravel())

    def worked_out(self):
        """Return the confidential parts, as score and feature, that follow from the notes."""
        known = np.array(self.rows)
        rank = np.linalg.matrix_rank(known)
        found = []
        for score, position in itertools.product(range(len(self.scores)), HIDDEN):
            unknown = np.zeros((len(self.scores), len(FEATURES)))
            unknown[score, position] = 1.0
            if self.scores[score][position] != 0.0 and np.linalg.matrix_rank(np.vstack([known, unknown.ravel()])) == rank:
                found.append((score, position))
        return found


def drivers_of(parts):
    return group_drivers((Contribution(feature=one, part=float(part)) for one, part in zip(FEATURES, parts, strict=True)), slope=1.0)


def moves_the_score_alone(score):
    """Tell whether nothing but one confidential part moves the score: then the score itself says it."""
    return np.count_nonzero(score) == 1


@given(st.lists(a_score, min_size=2, max_size=4), st.integers(1, 6))
def test_no_confidential_part_can_be_worked_out_from_all_answers_together(scores, named):
    scores = [score for score in scores if not moves_the_score_alone(score)]
    told = Notebook(scores)
    drivers = [drivers_of(score) for score in scores]
    hidden = [confidential_parts(one, TO_PARTNER) for one in drivers]
    for position, one in enumerate(drivers):
        for most in {named, POLICY.numbers.named_drivers}:  # the account, a list, another day's policy
            told.told({position: 1.0}, merge_parts(one, TO_PARTNER, named=most))
    for before, after in itertools.combinations(range(len(scores)), 2):  # a change between any two days, and any what-if
        move = drivers_of(scores[after] - scores[before])
        merged = merge_parts(move, TO_PARTNER, beside=[hidden[before], hidden[after]], named=named)
        told.told({after: 1.0, before: -1.0}, merged)
    assert not scores or told.worked_out() == []


def test_a_change_beside_a_score_whose_sizes_are_withheld_would_give_it_away():
    today, yesterday = np.zeros(len(FEATURES)), np.zeros(len(FEATURES))
    today[[0, 1, *HIDDEN]] = [0.5, 0.4, 0.3, -0.25, 0.2, 0.1]
    yesterday[[0, HIDDEN[0]]] = [0.2, 0.7]
    move, hidden = drivers_of(today - yesterday), [confidential_parts(drivers_of(parts), TO_PARTNER) for parts in (yesterday, today)]

    def found(**options):
        told = Notebook([yesterday, today])
        for position, parts in enumerate((yesterday, today)):
            told.told({position: 1.0}, merge_parts(drivers_of(parts), TO_PARTNER))
        told.told({1: 1.0, 0: -1.0}, merge_parts(move, TO_PARTNER, **options))
        return told.worked_out()

    assert found() == [(0, HIDDEN[0])]
    assert found(beside=hidden) == []


@given(a_score, a_score)
def test_exact_changes_are_of_exact_scores(before, after):
    hidden = [confidential_parts(drivers_of(parts), TO_PARTNER) for parts in (before, after)]
    merged = merge_parts(drivers_of(after - before), TO_PARTNER, beside=hidden)
    if merged.sizes == "exact":
        assert merge_parts(drivers_of(before), TO_PARTNER).sizes == merge_parts(drivers_of(after), TO_PARTNER).sizes == "exact"
        total = math.fsum(driver.part for driver in merged.named) + merged.part
        assert total == pytest.approx(math.fsum(after - before), abs=1e-9)
    else:
        assert merged.part is None
