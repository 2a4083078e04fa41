"""Resampling whole patients; percentiles and BCa against SciPy; intervals that cannot be made."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap, norm

from pipeline.evaluation.intervals import bca_levels, bootstrap_interval, leave_one_out
from pipeline.probabilities import group_resamples

PATIENTS = np.array([0, 0, 1, 2, 2, 2, 3])


def test_patients_are_drawn_whole():
    weights = np.concatenate(list(group_resamples(PATIENTS, 3000, np.random.default_rng(0))))
    assert weights.shape == (3000, 7)
    assert (weights[:, 0] == weights[:, 1]).all() and (weights[:, 3] == weights[:, 5]).all()
    drawn = weights[:, [0, 2, 3, 6]]
    assert (drawn.sum(axis=1) == 4).all()
    # multinomial: mean 1, variance 4 * 1/4 * 3/4, covariance -1/4
    assert drawn.mean(axis=0) == pytest.approx(np.ones(4), abs=0.06)
    assert np.cov(drawn.T) == pytest.approx(np.eye(4) - 0.25, abs=0.07)


def test_blocks_do_not_change_what_is_drawn():
    whole = np.concatenate(list(group_resamples(PATIENTS, 10, np.random.default_rng(4))))
    blocks = list(group_resamples(PATIENTS, 10, np.random.default_rng(4), at_once=21))
    assert [len(block) for block in blocks] == [3, 3, 3, 1]
    assert np.array_equal(np.concatenate(blocks), whole)


def test_leave_one_out():
    assert leave_one_out(np.array([0, 1, 1])).tolist() == [[0, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_equal_to_scipy_on_its_resamples(method):
    values = np.random.default_rng(1).exponential(size=30)
    expected = bootstrap((values,), np.mean, n_resamples=3000, method=method, rng=np.random.default_rng(2))
    without = leave_one_out(np.arange(30)) @ values / 29 if method == "BCa" else None
    found = bootstrap_interval(float(values.mean()), expected.bootstrap_distribution, without)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval), rel=1e-4)
    assert found.method == f"{method} bootstrap" and not found.note


def test_resamples_of_the_mean_spread_as_theory_says():
    values = np.random.default_rng(1).exponential(size=30)
    weights = np.concatenate(list(group_resamples(np.arange(30), 20_000, np.random.default_rng(3))))
    means = weights @ values / 30
    assert means.mean() == pytest.approx(values.mean(), abs=0.005)
    assert means.std() == pytest.approx(values.std() / 30**0.5, rel=0.02)


def test_bca_without_bias_and_skewness_is_the_percentile():
    replicates = np.linspace(-1, 1, 2001)
    levels = bca_levels(0.0, replicates, np.array([-1.0, 0.0, 1.0]), np.array([0.025, 0.975]))
    assert levels == pytest.approx([0.025, 0.975])
    # bias alone moves both levels by twice the normal quantile
    moved = bca_levels(0.2, replicates, np.array([-1.0, 0.0, 1.0]), np.array([0.025, 0.975]))
    bias = norm.ppf(np.mean(replicates < 0.2) + np.mean(replicates == 0.2) / 2)
    assert moved == pytest.approx(norm.cdf(2 * bias + norm.ppf([0.025, 0.975])))


def test_what_the_bootstrap_cannot_say_is_not_said():
    same = bootstrap_interval(1.0, np.ones(500), None)
    assert same.low is None and "same value" in same.note
    lost = np.where(np.arange(500) < 30, np.nan, np.linspace(0, 1, 500))
    assert "undefined in 30 of 500" in bootstrap_interval(0.5, lost, None).note
    assert bootstrap_interval(0.5, lost, None).low is None
    few = np.where(np.arange(500) < 20, np.nan, np.linspace(0, 1, 500))
    kept = bootstrap_interval(0.5, few, None)
    assert kept.low == pytest.approx(np.quantile(few[20:], 0.025)) and "20 of 500" in kept.note
    alone = bootstrap_interval(0.5, np.linspace(0, 1, 500), np.array([0.5, np.nan]))
    assert alone.low is None and "without one of the patients" in alone.note
