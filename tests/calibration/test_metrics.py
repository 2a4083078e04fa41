"""Measures against MONAI, scikit-learn and counting by hand; nulls and intervals against simulations."""

import time
from dataclasses import astuple

import numpy as np
import pytest
import torch
from monai.metrics import CalibrationErrorMetric
from scipy.stats import norm
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from pipeline.calibration import MEASURES, Resampling, measures, reliability
from pipeline.calibration.binning import confidence_and_hits, make_bins
from pipeline.calibration.kernels import ece, folded_normal_mean
from pipeline.calibration.metrics import drawn_labels
from pipeline.errors import UsageError
from pipeline.probabilities import group_resamples


def simulated(rows, seed, temperature=2.0, classes=3):
    """Probabilities softmax(z / temperature) and labels of softmax(z / 2): calibrated where the temperature is 2."""
    random = np.random.default_rng(seed)
    raised = np.exp(3 * random.normal(size=(rows, classes)))
    p, true = (raised ** (1 / power) for power in (temperature, 2.0))
    p, true = p / p.sum(axis=1, keepdims=True), true / true.sum(axis=1, keepdims=True)
    return p, (random.random((rows, 1)) > true.cumsum(axis=1)[:, :-1]).sum(axis=1)


def value(name, p, y, bins=15):
    return float(MEASURES[name].kernel(p, bins)(np.ones((1, len(y))), y[None])[0])


def kinds(*names):
    return {name: MEASURES[name] for name in names}


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_ece_is_monais(bins):
    p, y = simulated(4000, 0, 1.0)
    confidence, hits = confidence_and_hits(p, y)
    metric = CalibrationErrorMetric(bins, calibration_reduction="expected")
    metric(torch.from_numpy(confidence)[None, None], torch.from_numpy(hits)[None, None].double())
    assert value("ece", p, y, bins) == pytest.approx(float(metric.aggregate()), abs=1e-6)


@pytest.mark.parametrize("classes", [2, 4])
def test_nll_and_brier_are_scikit_learns(classes):
    p, y = simulated(500, 1, 1.3, classes)
    assert value("nll", p, y) == pytest.approx(log_loss(y, p), rel=1e-9)
    table = p if classes > 2 else p[:, 1]
    assert value("brier", p, y) == pytest.approx(brier_score_loss(y, table, labels=range(classes)), rel=1e-12)


def test_values_by_hand():
    """Four predictions, worked out on paper: confidences .9 .9 .6 .7, right, wrong, right, right."""
    p = np.array([[0.9, 0.1], [0.1, 0.9], [0.4, 0.6], [0.7, 0.3]])
    y = np.array([0, 0, 1, 0])
    # (.8, 1]: .9 against 1/2; (.4, .6]: .6 against 1; (.6, .8]: .7 against 1
    assert value("ece", p, y, 5) == pytest.approx((2 * 0.4 + 0.4 + 0.3) / 4)
    assert value("brier", p, y) == pytest.approx((0.01 + 0.81 + 0.16 + 0.09) / 4)


def test_equal_mass_bins():
    random = np.random.default_rng(2)
    values = np.concatenate([random.beta(5, 1, 985), np.full(15, 0.5)])
    bins = make_bins(values, 10, "equal_mass")
    counts = np.bincount(bins.index, minlength=bins.count)
    assert counts.sum() == 1000 and counts.min() >= 85 and counts.max() <= 115
    assert all(len(set(bins.index[values == value])) == 1 for value in np.unique(values))
    assert make_bins(np.full(50, 1.0), 10, "equal_mass").count == 1


def test_folded_normal_mean():
    draws = np.abs(np.random.default_rng(4).normal(0.3, 0.5, 2_000_000)).mean()
    found = folded_normal_mean(np.array([0.3, 0.0, -0.2]), np.array([0.5, 1.0, 0.0]))
    assert found == pytest.approx([draws, 2 * norm.pdf(0), 0.2], abs=1e-3)


def equal_mass(p, y):
    return float(ece(p, 15, "equal_mass")(np.ones((1, len(y))), y[None])[0])


def test_debiasing_takes_away_what_chance_adds():
    """A perfect model at n = 200: .08 of plug-in ECE is chance; .59 of that stays."""
    plain, less = [], []
    for seed in range(400):
        p, y = simulated(200, 1000 + seed)
        plain.append(equal_mass(p, y))
        less.append(value("ece_debiased", p, y))
    assert np.mean(plain) > 0.07
    assert np.mean(less) == pytest.approx((2 - np.sqrt(2)) * np.mean(plain), rel=0.15)
    # and of a model that is not perfect it gives the endless sample's figure back
    truth = equal_mass(*simulated(400_000, 5, 1.0))
    found = [value("ece_debiased", *simulated(300, 2000 + seed, 1.0)) for seed in range(200)]
    assert np.mean(found) == pytest.approx(truth, abs=0.01)


def test_resamples_draw_whole_cases():
    cases = np.repeat(np.arange(50), 3)
    weights = np.concatenate(list(group_resamples(cases, 4000, np.random.default_rng(7))))
    assert weights.shape == (4000, 150)
    assert (weights.reshape(4000, 50, 3).std(axis=2) == 0).all()
    assert (weights.sum(axis=1) == 150).all()
    assert weights[:, ::3].var() == pytest.approx(1 - 1 / 50, rel=0.05)


@pytest.mark.parametrize("classes", [2, 5, 40])
def test_redrawn_labels_follow_the_probabilities(classes):
    p, _ = simulated(20, 8, 2.0, classes)
    drawn = np.concatenate(list(drawn_labels(p, 20_000, 9)))
    assert drawn.shape == (20_000, 20) and drawn.max() < classes
    frequency = np.stack([(drawn == number).mean(axis=0) for number in range(classes)], axis=1)
    assert np.abs(frequency - p).max() < 0.02


def test_intervals_of_few_cases_with_many_rows_are_wider():
    p, y = simulated(100, 10, 1.0)
    once = measures(p, y, kinds=kinds("nll"))[0]
    copies = measures(np.repeat(p, 8, 0), np.repeat(y, 8), np.repeat(np.arange(100), 8), kinds=kinds("nll"))[0]
    rows = measures(np.repeat(p, 8, 0), np.repeat(y, 8), kinds=kinds("nll"))[0]
    assert copies.high - copies.low == pytest.approx(once.high - once.low, rel=0.1)
    assert rows.high - rows.low == pytest.approx((once.high - once.low) / np.sqrt(8), rel=0.1)


def test_a_perfect_model_lies_in_its_null_interval():
    """400 simulations: 95 % within three standard errors. benchmarks/calibration.py makes 1,000."""
    inside = dict.fromkeys(("ece", "ece_debiased", "nll"), 0)
    for seed in range(400):
        p, y = simulated(150, 5000 + seed)
        for item in measures(p, y, kinds=kinds(*inside), resampling=Resampling(resamples=200, seed=seed)):
            inside[item.name] += item.null_low <= item.value <= item.null_high
    for name, count in inside.items():
        assert 0.917 <= count / 400 <= 0.983, name


def test_bootstrap_intervals_cover():
    """400 simulations at n = 300; the plug-in ECE's interval falls short, as docs/benchmarks/calibration.md says."""
    names = ("nll", "brier", "ece_debiased", "ece")
    endless = simulated(400_000, 11, 1.0)
    truth = {name: value(name, *endless) for name in names}
    inside = dict.fromkeys(names, 0)
    for seed in range(400):
        p, y = simulated(300, 9000 + seed, 1.0)
        for item in measures(p, y, kinds=kinds(*names), resampling=Resampling(resamples=300, seed=seed)):
            inside[item.name] += item.low <= truth[item.name] <= item.high
    for name in ("nll", "brier", "ece_debiased"):
        assert 0.91 <= inside[name] / 400 <= 0.98, (name, inside)
    assert 0.85 <= inside["ece"] / 400 <= 0.97


def test_a_thousand_nulls_of_a_thousand_cases_are_quick():
    p, y = simulated(1000, 12)
    started = time.process_time()
    measures(p, y)
    assert time.process_time() - started < 5  # 0.6 s when nothing else runs


def test_measures_are_the_same_again_and_read_a_column():
    p, y = simulated(200, 13, 1.5, 2)
    for one, other in zip(measures(p, y), measures(p[:, 1], y), strict=True):
        assert astuple(one)[1:] == pytest.approx(astuple(other)[1:], abs=1e-9), one.name
    assert measures(p, y) == measures(p, y)
    one, other = (measures(p, y, kinds=kinds("ece"), resampling=Resampling(seed=seed)) for seed in (1, 2))
    assert one != other


def test_a_probability_of_0_that_comes_true_is_infinitely_unlikely():
    p, y = np.array([[1.0, 0.0], [0.5, 0.5], [0.2, 0.8]]), np.array([1, 0, 1])
    item = measures(p, y, kinds=kinds("nll"), resampling=Resampling(resamples=100))[0]
    assert item.value == np.inf and item.high == np.inf and not np.isnan(item.low)


def test_reliability_is_scikit_learns_curve_with_wilsons_bands():
    p, y = simulated(2000, 14, 1.0, 2)
    found = reliability(p, y, bins=10)
    top, hits = confidence_and_hits(p, y)
    frequency, confidence = calibration_curve(hits, top, n_bins=10)
    assert [item.frequency for item in found] == pytest.approx(frequency.tolist())
    assert [item.confidence for item in found] == pytest.approx(confidence.tolist())
    assert sum(item.count for item in found) == 2000
    item = found[3]
    z, n, share = norm.ppf(0.975), item.count, item.frequency
    centre, reach = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    assert (item.frequency_low, item.frequency_high) == pytest.approx(
        tuple((centre + sign * reach) / (1 + z**2 / n) for sign in (-1, 1))
    )
    assert all(bin.lower < bin.confidence <= bin.upper for bin in found)


def test_reliability_of_the_predicted_class():
    p, y = simulated(500, 15)
    found = reliability(p, y)
    ece = sum(item.count * abs(item.confidence - item.frequency) for item in found) / 500
    assert ece == pytest.approx(value("ece", p, y))
    with pytest.raises(UsageError, match="E_CAL_METHOD"):
        reliability(p, y, bins=0)
