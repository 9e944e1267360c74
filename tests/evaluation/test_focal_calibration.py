"""The focal inverse gives the class probabilities back, at any confidence and any class weights."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from lasps.evaluation.focal_calibration import (
    calibrated_log_probabilities,
    calibrated_probabilities,
)


def best_constant_logits(eta, gamma, weights):
    """Minimise the expected weighted focal loss over constants, by brute force."""

    def expected_loss(free):
        z = np.append(free, 0.0)
        q = np.exp(z - z.max())
        q /= q.sum()
        return float(np.sum(eta * weights * (1 - q) ** gamma * -np.log(q)))

    options = {"xatol": 1e-11, "fatol": 1e-16, "maxiter": 4000, "maxfev": 4000}
    found = minimize(expected_loss, np.zeros(2), method="Nelder-Mead", options=options)
    return np.append(found.x, 0.0)


@settings(max_examples=15, deadline=None)
@given(
    st.tuples(*[st.floats(0.05, 1.0)] * 3),
    st.floats(0.0, 4.0),
    st.tuples(*[st.floats(0.3, 3.0)] * 3),
)
def test_the_best_constant_under_focal_loss_inverts_to_the_class_probabilities(shares, gamma, weights):
    eta, alpha = np.array(shares) / sum(shares), np.array(weights)
    logits = best_constant_logits(eta, gamma, alpha)
    np.testing.assert_allclose(calibrated_probabilities(logits, gamma, alpha), eta, atol=2e-4)


def test_without_focal_and_weights_it_is_softmax():
    logits = np.random.default_rng(0).normal(size=(50, 3))
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(calibrated_probabilities(logits, 0.0, (1, 1, 1)), softmax, rtol=1e-12)


def test_class_weights_alone_are_divided_out():
    p = np.array([[0.2, 0.5, 0.3]])
    skewed = np.log(p * [2.0, 1.0, 4.0])
    np.testing.assert_allclose(calibrated_probabilities(skewed, 0.0, (2.0, 1.0, 4.0)), p, rtol=1e-12)


def test_softmax_of_a_focal_model_is_not_the_prior_but_the_correction_is():
    prior = np.array([0.26, 0.53, 0.21])
    logits = best_constant_logits(prior, 2.0, np.ones(3))
    raw = np.exp(logits) / np.exp(logits).sum()
    assert abs(raw[1] - prior[1]) > 0.05
    np.testing.assert_allclose(calibrated_probabilities(logits, 2.0), prior, atol=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("gap", [1.0, 20.0, 29.9, 30.1, 40.0, 800.0, 1e6])
def test_extreme_logits_stay_finite_ordered_and_sum_to_one(gamma, gap):
    logits = np.array([[gap, 0.0, -gap], [0.0, gap, gap], [-gap, -gap, gap]])
    log_p = calibrated_log_probabilities(logits, gamma)
    assert np.isfinite(log_p).all()
    p = np.exp(log_p)
    np.testing.assert_allclose(p.sum(1), 1.0, rtol=1e-12)
    assert (log_p[0, 0] > log_p[0, 1]) and (log_p[0, 1] > log_p[0, 2])
    np.testing.assert_allclose(p[1], [0.0, 0.5, 0.5], atol=0.2)


def test_the_inverse_is_continuous_where_the_two_branches_meet():
    below, above = (calibrated_log_probabilities([[x, 0.0, 0.0]], 2.0) for x in (30.68, 30.72))
    assert np.abs(below - above).max() < 0.2


def test_shapes_with_more_leading_dimensions_are_kept():
    logits = np.random.default_rng(1).normal(size=(4, 5, 3))
    np.testing.assert_allclose(calibrated_probabilities(logits, 2.0)[2, 3], calibrated_probabilities(logits[2, 3], 2.0))


@pytest.mark.parametrize(
    ("logits", "gamma", "weights", "word"),
    [
        ([[0.0, np.nan, 0.0]], 2.0, None, "finite"),
        ([[0.0, np.inf, 0.0]], 2.0, None, "index"),
        ([[0.0, 0.0, 0.0]], -1.0, None, "gamma"),
        ([[0.0, 0.0, 0.0]], 2.0, (1, 0, 1), "class_weights"),
        ([[0.0, 0.0, 0.0]], 2.0, (1, 1), "class_weights"),
    ],
)
def test_nonsense_is_refused_by_name(logits, gamma, weights, word):
    with pytest.raises(ValueError, match=word):
        calibrated_probabilities(logits, gamma, weights)


def test_each_sample_can_have_a_gamma_of_its_own():
    z = np.random.default_rng(0).normal(size=(6, 3))
    gammas = np.array([0.0, 2.0, 2.0, 0.5, 0.0, 2.0])
    found = calibrated_probabilities(z, gammas)
    for row, gamma in enumerate(gammas):
        np.testing.assert_array_equal(found[row], calibrated_probabilities(z[row], gamma))
