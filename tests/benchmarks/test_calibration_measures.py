"""Further measures of calibration against MONAI and counting by hand; nulls and intervals against simulations."""

import numpy as np
import pytest
import torch
from monai.metrics import CalibrationErrorMetric

from benchmarks.calibration_measures import ALL
from pipeline.calibration import Resampling, measures
from pipeline.calibration.binning import confidence_and_hits
from tests.calibration.test_metrics import simulated


def value(name, p, y, bins=15):
    return float(ALL[name].kernel(p, bins)(np.ones((1, len(y))), y[None])[0])


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_mce_and_the_classwise_ece_are_monais(bins):
    p, y = simulated(4000, 0, 1.0)
    confidence, hits = confidence_and_hits(p, y)
    metric = CalibrationErrorMetric(bins, calibration_reduction="maximum")
    metric(torch.from_numpy(confidence)[None, None], torch.from_numpy(hits)[None, None].double())
    assert value("mce", p, y, bins) == pytest.approx(float(metric.aggregate()), abs=1e-6)
    metric = CalibrationErrorMetric(bins)
    metric(torch.from_numpy(p.T[None]), torch.from_numpy(np.eye(3)[y].T[None]))
    assert value("ece_classwise", p, y, bins) == pytest.approx(float(metric.aggregate()), abs=1e-6)


def test_values_by_hand():
    """Four predictions, worked out on paper: confidences .9 .9 .6 .7, right, wrong, right, right."""
    p = np.array([[0.9, 0.1], [0.1, 0.9], [0.4, 0.6], [0.7, 0.3]])
    y = np.array([0, 0, 1, 0])
    assert value("mce", p, y, 5) == pytest.approx(0.4)
    # cumulated from below: .6 - 1 = -.4, + .7 - 1 = -.7, + 1.8 - 1 = .1
    assert value("ks", p, y) == pytest.approx(0.7 / 4)


def test_ks_does_not_depend_on_the_order_of_ties():
    p = np.tile([[0.8, 0.2]], (6, 1))
    y = np.array([0, 0, 0, 1, 1, 0])
    assert value("ks", p, y) == pytest.approx(abs(0.8 - 4 / 6))
    assert value("ks", p, y[::-1].copy()) == value("ks", p, y)


def test_of_the_debiased_square_chance_adds_nothing():
    squared = [value("squared_error_debiased", *simulated(200, 1000 + seed)) for seed in range(400)]
    assert abs(np.mean(squared)) < 4 * np.std(squared) / 20


def test_ks_of_a_perfect_model_lies_in_its_null_interval_and_its_interval_covers():
    """400 simulations: 95 % within three standard errors. benchmarks/calibration.py makes 1,000."""
    ks, truth = {"ks": ALL["ks"]}, value("ks", *simulated(400_000, 11, 1.0))
    null, covered = 0, 0
    for seed in range(400):
        (item,) = measures(*simulated(150, 5000 + seed), kinds=ks, resampling=Resampling(resamples=200, seed=seed))
        null += item.null_low <= item.value <= item.null_high
        (item,) = measures(*simulated(300, 9000 + seed, 1.0), kinds=ks, resampling=Resampling(resamples=300, seed=seed))
        covered += item.low <= truth <= item.high
    assert 0.917 <= null / 400 <= 0.983
    assert 0.91 <= covered / 400 <= 0.98
