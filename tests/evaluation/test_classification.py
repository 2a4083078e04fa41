"""Evaluations as a whole: which interval is used when, what is missing and why, and what they cost."""

from __future__ import annotations

import time

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.evaluation.classification import evaluate
from pipeline.evaluation.intervals import BCA_BELOW
from pipeline.evaluation.results import ALL, MACRO, Settings, evaluation_table, predictions


def test_many_patients_get_percentiles_and_few_get_bca(drawn):
    many, few = drawn(BCA_BELOW, 2, seed=0), drawn(BCA_BELOW - 1, 2, seed=0)
    for found, method in ((many, "percentile"), (few, "BCa")):
        (result,) = evaluate({"A": found}, Settings(resamples=200))
        assert result.estimate("accuracy", ALL).method == f"{method} bootstrap"
        assert result.estimate("auroc", "class 1", "DeLong").method == "DeLong, logit scale"


def test_the_two_intervals_of_the_auroc_nearly_agree(drawn):
    (result,) = evaluate({"A": drawn(500, 2, seed=1)})
    first, second = result.estimate("auroc", "class 1"), result.estimate("auroc", "class 1", "DeLong")
    assert first.value == pytest.approx(second.value, abs=1e-12)
    assert (first.low, first.high) == pytest.approx((second.low, second.high), abs=0.008)


def test_patients_with_several_cases_get_wider_intervals_and_no_delong(drawn):
    """Every case four times over: nothing is learned, so the interval is that of the cases once."""
    once = drawn(120, 2, seed=2)
    four = predictions(
        np.repeat(once.probabilities, 4, axis=0), np.repeat(once.labels, 4), np.repeat(np.arange(120), 4)
    )
    settings = Settings(resamples=1000)
    (single,), (grouped,) = evaluate({"A": once}, settings), evaluate({"A": four}, settings)
    assert (grouped.case_count, grouped.patient_count) == (480, 120)
    for name, of in (("auroc", "class 1"), ("accuracy", ALL), ("brier", ALL)):
        one, other = single.estimate(name, of), grouped.estimate(name, of)
        assert (other.value, other.low, other.high) == pytest.approx((one.value, one.low, one.high))
    notes = [item.note for item in grouped.estimates if item.measure == "auroc" and item.low is None]
    assert notes == ["DeLong's variance takes independent cases, and some patients have several"]


def test_the_same_seed_gives_the_same_intervals(drawn):
    found = {"A": drawn(150, 3, seed=3)}
    settings = Settings(resamples=300, seed=5)
    assert evaluate(found, settings) == evaluate(found, settings)
    assert evaluate(found, settings)[0].estimates != evaluate(found, Settings(resamples=300, seed=6))[0].estimates


def test_an_absent_class_is_none_with_a_reason_and_never_0():
    table = np.random.default_rng(0).dirichlet(np.ones(3), 40)
    (result,) = evaluate({"A": predictions(table, np.arange(40) % 2, classes=("a", "b", "c"))}, Settings(resamples=200))
    for name in ("auroc", "average_precision", "recall", "sensitivity_at_specificity_0.9"):
        for of in ("c", MACRO):
            missing = result.estimate(name, of)
            assert missing.value is None and missing.low is None and missing.note == "no case is c"
    assert result.estimate("auroc", "a").low is not None
    assert result.prevalences == {"a": 0.5, "b": 0.5, "c": 0.0}


def test_one_case_has_an_accuracy_and_no_interval():
    (result,) = evaluate({"A": predictions([0.8], [1])}, Settings(resamples=200))
    accuracy = result.estimate("accuracy", ALL)
    assert accuracy.value == 1 and accuracy.low is None and accuracy.note == "an interval takes at least two patients"
    assert result.estimate("auroc", "class 1").note == "every case is class 1"
    assert result.estimate("brier", ALL).value == pytest.approx(0.04)


def test_a_perfect_model_gets_no_interval_of_width_0():
    labels = np.arange(60) % 2
    (result,) = evaluate({"A": predictions(labels * 0.6 + 0.2, labels)}, Settings(resamples=200))
    for found in (result.estimate("accuracy", ALL), result.estimate("auroc", "class 1")):
        assert found.value == 1 and found.low is None and "same value" in found.note


def test_the_table_has_a_row_a_measure(drawn):
    results = evaluate({"A": drawn(60, 2, seed=4), "B": drawn(60, 2, seed=4)}, Settings(resamples=200))
    table = evaluation_table(results)
    assert list(table.columns) == [
        *("model", "measure", "class", "value", "low", "high", "confidence", "method"),
        *("prevalence", "cases", "patients", "note"),
    ]
    assert len(table) == sum(len(item.estimates) for item in results) == 20
    row = table[(table.model == "B") & (table.measure == "brier")].iloc[0]
    expected = results[1].estimate("brier", ALL)
    assert (row["value"], row["low"], row["high"]) == (expected.value, expected.low, expected.high)
    assert (row["cases"], row["patients"], row["confidence"]) == (60, 60, 0.95)
    assert table[table["class"] == "class 1"].prevalence.unique() == pytest.approx([results[0].prevalences["class 1"]])


def test_2000_resamples_of_500_cases_take_no_more_than_a_few_seconds(drawn):
    found = {"A": drawn(500, 4, seed=5)}
    start = time.process_time()
    evaluate(found)
    assert time.process_time() - start < 4


def test_models_with_other_cases_are_refused(drawn):
    with pytest.raises(UsageError) as caught:
        evaluate({"A": drawn(30, 2, seed=1), "B": drawn(30, 2, seed=2)})
    assert caught.value.code == "E_ROWS" and "for B" in caught.value.message


@pytest.mark.parametrize("settings", [Settings(specificity=1.2), Settings(confidence=1.0), Settings(resamples=10)])
def test_settings_out_of_range_are_refused(drawn, settings):
    with pytest.raises(UsageError) as caught:
        evaluate({"A": drawn(30, 2, seed=1)}, settings)
    assert caught.value.code == "E_OPTION"


@pytest.mark.parametrize("names", [("a",), ("a", "a"), ("a", ALL)])
def test_names_of_classes_are_checked(names):
    with pytest.raises(UsageError) as caught:
        predictions([0.5], [1], classes=names)
    assert caught.value.code == "E_NAMES"
