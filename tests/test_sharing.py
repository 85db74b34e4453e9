import math
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.assignments import Assignments, Term
from serving.policy import default_policy
from serving.reasons import Contribution, explain_score
from serving.sharing import VENDOR, Caller, View, shared_explanation, visible_accounts
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


def test_a_partner_sees_its_own_accounts_only_and_the_vendor_all():
    assigned = np.array(["p1", "p2", None, "p1"], dtype=object)
    assert visible_accounts(assigned, PARTNER).tolist() == [True, False, False, True]
    assert visible_accounts(assigned, VENDOR).all()
    assert not visible_accounts(assigned, Caller("")).any()


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
