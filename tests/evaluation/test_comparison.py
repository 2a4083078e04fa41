"""Paired comparisons: the pairing, Holm's correction, p values, and what cannot be compared."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel

from pipeline.evaluation.classification import bootstrap_p_value, compare, holm
from pipeline.evaluation.intervals import delong, delong_test
from pipeline.evaluation.results import ALL, Settings, comparison_table, predictions


def test_holm_by_hand():
    """The smallest times 4, the next times 3 …, never falling, at most 1."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]).tolist() == []


def test_p_value_by_hand():
    assert bootstrap_p_value(np.array([1.0] * 97 + [-1.0] * 2)) == pytest.approx(2 * 3 / 100)
    assert bootstrap_p_value(np.ones(99)) == pytest.approx(0.02)
    assert bootstrap_p_value(np.zeros(99)) == 1


def models(count=200, seed=0):
    """B is A with noise; C is A with a little; all on the same cases."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(count) < 0.4).astype(int)
    logits = 2.5 * (labels - 0.4) + generator.normal(size=count)
    noisy = logits + 2.5 * generator.normal(size=count)
    close = logits + 0.05 * generator.normal(size=count)
    return {
        name: predictions(1 / (1 + np.exp(-values)), labels)
        for name, values in (("A", logits), ("B", noisy), ("C", close))
    }


def of(comparisons, measure, first, second, method="percentile"):
    (found,) = [
        item
        for item in comparisons
        if (item.measure, item.first, item.second) == (measure, first, second) and item.method.startswith(method)
    ]
    return found


def test_the_brier_difference_agrees_with_the_paired_t_test():
    """The Brier score is a mean, for which theory gives the paired interval."""
    found = models()
    result = of(compare(found), "brier", "A", "B")
    losses = [(item.probabilities[:, 1] - item.labels) ** 2 for item in found.values()]
    test = ttest_rel(losses[0], losses[1])
    low, high = test.confidence_interval()
    assert result.difference == pytest.approx(np.mean(losses[0] - losses[1]))
    assert (result.low, result.high) == pytest.approx((low, high), abs=0.05 * (high - low))


def test_pairing_narrows_the_interval():
    """A and C rank nearly alike: their difference is far more certain than either area."""
    results = compare(models())
    close = of(results, "auroc", "A", "C")
    assert close.high - close.low < 0.01
    assert of(results, "auroc", "A", "B").p_value < 0.01 < 0.05 < close.p_value


def test_holm_runs_over_the_pairs_of_one_measure_and_method():
    results = compare(models())
    for method in ("percentile", "DeLong"):
        family = [of(results, "auroc", *pair, method) for pair in (("A", "B"), ("A", "C"), ("B", "C"))]
        assert [item.p_holm for item in family] == pytest.approx(list(holm([item.p_value for item in family])))
        assert any(item.p_holm > item.p_value for item in family)


def test_delong_is_among_the_results():
    found = models()
    result = of(compare(found, Settings(resamples=200)), "auroc", "A", "B", "DeLong")
    areas = delong(np.stack([item.probabilities[:, 1] for item in found.values()]), found["A"].labels == 1)
    error, p_value = delong_test(areas, 0, 1)
    assert result.p_value == pytest.approx(p_value)
    assert result.high - result.low == pytest.approx(2 * 1.959964 * error, rel=1e-5)
    boot = of(compare(found), "auroc", "A", "B")
    assert (boot.low, boot.high) == pytest.approx((result.low, result.high), abs=0.012)


def test_a_model_and_itself_do_not_differ():
    one = models()["A"]
    results = compare({"A": one, "again": one}, Settings(resamples=200))
    assert {item.difference for item in results} == {0.0}
    assert all(item.p_value is None and item.note for item in results)


def test_undefined_differences_say_whose():
    labels = [0, 1, 0, 1, 0, 1]
    never = predictions([0.1, 0.2, 0.3, 0.3, 0.2, 0.4], labels)
    some = predictions([0.1, 0.9, 0.3, 0.7, 0.2, 0.4], labels)
    results = compare({"never": never, "some": some}, Settings(resamples=200))
    (precision,) = [item for item in results if item.measure == "precision"]
    assert precision.difference is None and precision.p_value is None
    assert precision.note == "never: class 1 is never predicted"


def test_several_classes_are_compared_as_a_whole(drawn):
    first = drawn(80, 3, seed=1)
    second = predictions(np.roll(first.probabilities, 1, axis=0), first.labels)
    results = compare({"A": first, "B": second}, Settings(resamples=200))
    assert {item.of for item in results} == {ALL, "macro average"}
    assert "class" in comparison_table(results).columns and len(comparison_table(results)) == len(results) == 9
    assert compare({"A": first}, Settings(resamples=200)) == ()
