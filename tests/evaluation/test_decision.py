"""Net benefit by hand and by its definition; curves that start and end where they have to."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from pipeline.evaluation.decision import (
    RATES,
    confusion_matrix,
    decision_curve,
    net_benefit,
    precision_recall_curve,
    prevalences,
    roc_curve,
    treat_all,
)
from pipeline.evaluation.results import predictions


def test_net_benefit_by_hand():
    """At 0.2: two hits and one false alarm of five; a false alarm weighs a quarter."""
    found = net_benefit([0.9, 0.2, 0.1, 0.3, 0.0], [True, True, True, False, False], [0.2, 0.5])
    assert found == pytest.approx([2 / 5 - 1 / 5 * 0.25, 1 / 5])


def test_net_benefit_by_definition(drawn):
    found = drawn(80, 3, seed=1, decimals=2)
    curve, scores, truth = decision_curve(found, 2), found.probabilities[:, 2], found.labels == 2
    for risk, value in zip(curve.x, curve.y, strict=True):
        treated = scores >= risk
        expected = ((treated & truth).sum() - (treated & ~truth).sum() * risk / (1 - risk)) / 80
        assert value == pytest.approx(expected)
    share = truth.mean()
    assert treat_all(found, 2).y == pytest.approx(share - (1 - share) * curve.x / (1 - curve.x))


def test_curves_are_those_of_scikit_learn(drawn):
    found = drawn(120, 2, seed=2, decimals=2)
    scores, truth = found.probabilities[:, 1], found.labels == 1
    rates, hits, _ = metrics.roc_curve(truth, scores, drop_intermediate=False)
    curve = roc_curve(found, 1, resamples=400)
    assert curve is not None
    assert curve.x == pytest.approx(rates) and curve.y == pytest.approx(hits)
    assert (curve.low <= curve.high).all() and np.array_equal(curve.band_x, RATES)
    at = np.array([hits[rates <= rate + 1e-12].max() for rate in RATES])
    assert ((curve.low <= at) & (at <= curve.high)).mean() > 0.9
    recalls = precision_recall_curve(found, 1)
    assert recalls is not None
    precision, recall, _ = metrics.precision_recall_curve(truth, scores)
    assert recalls.x == pytest.approx(recall[:-1][::-1]) and recalls.y == pytest.approx(precision[:-1][::-1])


def test_the_band_is_that_of_patients_and_wider_than_that_of_cases(drawn):
    """Every case four times over: the patient's band is that of the cases once."""
    once = drawn(50, 2, seed=3)
    four = predictions(np.repeat(once.probabilities, 4, axis=0), np.repeat(once.labels, 4), np.repeat(np.arange(50), 4))
    blind = predictions(four.probabilities, four.labels)
    single, grouped, naive = (roc_curve(item, 1, resamples=1500) for item in (once, four, blind))
    assert single is not None and grouped is not None and naive is not None
    assert grouped.low == pytest.approx(single.low) and grouped.high == pytest.approx(single.high)
    assert (naive.high - naive.low).mean() < 0.6 * (grouped.high - grouped.low).mean()


def test_confusion_and_prevalences():
    found = predictions(np.eye(3)[[0, 1, 1, 2, 0]], [0, 0, 1, 2, 2])
    assert confusion_matrix(found).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
    assert prevalences(found).tolist() == [0.4, 0.2, 0.4]


def test_no_curve_without_a_class():
    found = predictions([0.2, 0.3], [0, 0])
    assert roc_curve(found, 1) is None and precision_recall_curve(found, 1) is None
    assert roc_curve(found, 0) is None
