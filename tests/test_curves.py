import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_curve

from training.curves import GRID, gain_curves, threshold_curves

ROWS = st.integers(4, 60)


@st.composite
def scored(draw):
    n = draw(ROWS)
    target = draw(hnp.arrays(float, n, elements=st.sampled_from([0.0, 1.0])))
    target[:2] = (0.0, 1.0)
    return target, draw(hnp.arrays(float, n, elements=st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0])))


@given(scored())
def test_thresholds_are_those_of_scikit_learn(rows):
    target, score = rows
    found, vain = threshold_curves(target, score, np.ones((len(target), 1)))
    vain_twin, found_twin, _ = roc_curve(target, score, drop_intermediate=False)
    np.testing.assert_allclose(found[:, 0], found_twin)
    np.testing.assert_allclose(vain[:, 0], vain_twin)


@given(scored(), st.integers(0, 2**32 - 1))
def test_a_weight_is_a_row_that_is_there_several_times(rows, seed):
    target, score = rows
    weights = np.random.default_rng(seed).integers(1, 4, len(target))
    repeated = gain_curves(np.repeat(target, weights), np.repeat(score, weights), np.ones((weights.sum(), 1)))
    np.testing.assert_allclose(gain_curves(target, score, weights[:, None].astype(float)), repeated, atol=1e-9)


@given(scored())
def test_gain_rises_from_nothing_to_all(rows):
    gain = gain_curves(*rows, np.ones((len(rows[0]), 1)))[:, 0]
    assert (gain[0], gain[-1]) == (0, pytest.approx(1))
    assert (np.diff(gain) >= -1e-12).all()


def test_gain_is_counted_by_hand():
    target = np.array([1.0, 0, 0, 1, 0, 0, 0, 0, 0, 0])
    gain = gain_curves(target, np.arange(10, 0, -1.0), np.ones((10, 1)))[:, 0]
    assert np.interp([0.1, 0.3, 0.4], GRID, gain) == pytest.approx([0.5, 0.5, 1.0])


def test_rows_of_one_score_share():
    gain = gain_curves(np.array([1.0, 0, 0, 0]), np.zeros(4), np.ones((4, 1)))[:, 0]
    np.testing.assert_allclose(gain, GRID)


def test_a_resample_without_positives_has_no_curve():
    weights = np.array([[1.0, 0.0], [1.0, 1.0]])
    gain = gain_curves(np.array([1.0, 0.0]), np.array([0.9, 0.1]), weights)
    assert np.isfinite(gain[:, 0]).all()
    assert np.isnan(gain[:, 1]).all()
