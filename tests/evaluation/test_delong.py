"""DeLong in O(N log N) against the O(mn) definition, and its interval and test against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logit
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from pipeline.evaluation.intervals import delong, delong_interval, delong_test


def brute_force(scores, positive):
    """Every pair of a positive and a negative, as in the paper of 1988."""
    first, second = scores[:, positive], scores[:, ~positive]
    kernel = (first[:, :, None] > second[:, None, :]) + 0.5 * (first[:, :, None] == second[:, None, :])
    over, under = kernel.mean(axis=2), kernel.mean(axis=1)
    covariance = np.cov(over) / first.shape[1] + np.cov(under) / second.shape[1]
    return kernel.mean(axis=(1, 2)), np.atleast_2d(covariance)


@pytest.mark.parametrize("decimals", [12, 1, 0], ids=["no ties", "ties", "mostly ties"])
def test_equal_to_brute_force(decimals):
    generator = np.random.default_rng(decimals)
    positive = generator.random(151) < 0.3
    scores = np.round(generator.normal(size=(3, 151)) + np.array([[1.5], [0.5], [0.0]]) * positive, decimals)
    found, (areas, covariance) = delong(scores, positive), brute_force(scores, positive)
    assert np.abs(found.values - areas).max() < 1e-10
    assert np.abs(found.covariance - covariance).max() < 1e-10
    assert found.values[1] == pytest.approx(roc_auc_score(positive, scores[1]), abs=1e-12)


def test_one_model_and_large_data():
    generator = np.random.default_rng(0)
    positive = generator.random(200_000) < 0.5
    scores = generator.normal(size=200_000) + positive
    found = delong(scores, positive)
    # Phi(1 / sqrt 2); the standard error is about 0.001
    assert found.values[0] == pytest.approx(norm.cdf(2**-0.5), abs=0.004)
    assert found.covariance[0, 0] ** 0.5 == pytest.approx(0.00108, rel=0.05)


def test_the_interval_is_symmetric_in_the_logit():
    found = delong_interval(0.9, 0.0016, 0.95)
    middle = logit([found.low, found.high])
    assert middle.mean() == pytest.approx(logit(0.9))
    assert np.diff(middle)[0] == pytest.approx(2 * norm.ppf(0.975) * 0.04 / 0.09)
    assert 0 < found.low < 0.9 < found.high < 1 and "logit" in found.method


@pytest.mark.parametrize(("area", "variance"), [(1.0, 0.0), (0.0, 0.0), (0.7, float("nan"))])
def test_no_interval_without_a_variance(area, variance):
    found = delong_interval(area, variance)
    assert found.low is None and found.high is None and "variance" in found.note


def test_one_positive_gives_an_area_but_no_variance():
    found = delong([0.1, 0.2, 0.9, 0.4], [False, False, False, True])
    assert found.values[0] == pytest.approx(2 / 3) and np.isnan(found.covariance).all()


def test_the_paired_test_uses_the_covariance():
    generator = np.random.default_rng(1)
    positive = generator.random(120) < 0.4
    scores = generator.normal(size=(2, 120)) + generator.normal(size=120) + np.array([[1.2], [0.6]]) * positive
    areas, covariance = brute_force(scores, positive)
    error = (covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]) ** 0.5
    found_error, p_value = delong_test(delong(scores, positive), 0, 1)
    assert found_error == pytest.approx(error)
    assert p_value == pytest.approx(2 * (1 - norm.cdf(abs(areas[0] - areas[1]) / error)))


def test_models_with_the_same_ranks_have_no_p_value():
    generator = np.random.default_rng(2)
    scores = generator.normal(size=80)
    assert delong_test(delong(np.stack([scores, np.exp(scores)]), scores + 0.5 > 0), 0, 1) == (0.0, None)
