"""Intervals hold the truth as often as they say, and tests keep their level: docs/benchmarks/statistics.md in short.

The seeds are fixed; a binomial standard error is 0.9 % with 600 simulations.
"""

from __future__ import annotations

import pytest

from benchmarks import statistics as check_statistics
from benchmarks.statistics import (
    accuracy,
    area,
    clustered_coverage,
    coverage,
    delong_coverage,
    false_findings,
)


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    monkeypatch.setattr(check_statistics, "RESAMPLES", 600)


@pytest.mark.parametrize("measure", [area, accuracy], ids=["auroc", "accuracy"])
def test_bootstrap_intervals_cover(measure):
    """With 50 patients BCa does; percentiles fall behind for the AUROC, which is why they are not used there."""
    percentile, bca = coverage(measure, 1.19, 50, 600)
    assert 0.93 <= bca.rate <= 0.97 and bca.defined > 0.99
    assert percentile.rate < bca.rate


def test_delong_intervals_cover():
    assert 0.93 <= delong_coverage(1.19, 60, 1000).rate <= 0.97


def test_patients_with_several_cases():
    """Resampling patients covers; resampling cases, which would be wrong, is seen to be wrong."""
    assert clustered_coverage(by_patient=True, simulations=150, patient_count=60)[1].rate > 0.9
    assert clustered_coverage(by_patient=False, simulations=150, patient_count=60)[1].rate < 0.9


def test_equal_models_are_seldom_found_different():
    for rate in false_findings(60, 400):
        assert 0.02 < rate < 0.08
