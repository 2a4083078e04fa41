"""Every measure against scikit-learn, on all cases and on cases that count several times or not at all."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from pipeline.evaluation.measures import measure_values, rank, sensitivities, undefined_reason
from pipeline.evaluation.results import ALL, MACRO, predictions


def expected_of_class(labels, scores, predicted, index, weight):
    truth, chosen = labels == index, predicted == index
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        truth, chosen, average="binary", sample_weight=weight
    )
    rates, hits, _ = metrics.roc_curve(truth, scores, sample_weight=weight, drop_intermediate=False)
    return {
        "auroc": metrics.roc_auc_score(truth, scores, sample_weight=weight),
        "average_precision": metrics.average_precision_score(truth, scores, sample_weight=weight),
        "sensitivity_at_specificity_0.85": hits[rates <= 0.15 + 1e-12].max(),
        "precision": precision,
        "recall": recall,
        "f1": f1,
    }


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("decimals", [12, 1], ids=["no ties", "ties"])
def test_equal_to_scikit_learn(drawn, classes, decimals):
    found = drawn(90, classes, seed=classes, decimals=decimals)
    weights = np.vstack([np.ones(90), np.random.default_rng(0).multinomial(90, np.full(90, 1 / 90), size=3)])
    values = measure_values(found, weights, specificity=0.85)
    table, labels = found.probabilities, found.labels
    for row, weight in enumerate(weights):
        for index in found.scored:
            expected = expected_of_class(labels, table[:, index], found.predicted, index, weight)
            for name, value in expected.items():
                assert values[name, f"class {index}"][row] == pytest.approx(value, abs=1e-12), name
        accuracy = metrics.accuracy_score(labels, table.argmax(axis=1), sample_weight=weight)
        scaled = metrics.brier_score_loss(
            labels, table if classes > 2 else table[:, 1], sample_weight=weight, labels=np.arange(classes)
        )
        assert values["accuracy", ALL][row] == pytest.approx(accuracy)
        assert values["brier", ALL][row] == pytest.approx(scaled)
        if decimals == 12:  # rounded, a true class may have the probability 0
            likelihood = metrics.log_loss(labels, table, sample_weight=weight, labels=np.arange(classes))
            assert values["negative_log_likelihood", ALL][row] == pytest.approx(likelihood, rel=1e-6)
    if classes > 2:
        areas = [values["auroc", f"class {index}"] for index in range(classes)]
        assert values["auroc", MACRO] == pytest.approx(np.mean(areas, axis=0))


def test_a_case_that_does_not_count_is_as_if_it_were_not_there(drawn):
    found = drawn(60, 3, seed=5, decimals=1)
    kept = np.arange(60) % 4 != 1
    part = predictions(found.probabilities[kept], found.labels[kept])
    with_zeros = measure_values(found, kept[None].astype(float))
    alone = measure_values(part, np.ones((1, kept.sum())))
    for key, value in alone.items():
        assert with_zeros[key] == pytest.approx(value, nan_ok=True), key


def test_the_roc_curve_is_read_as_steps(drawn):
    found = drawn(70, 2, seed=9, decimals=1)
    scores, truth = found.probabilities[:, 1], found.labels == 1
    rates, hits, _ = metrics.roc_curve(truth, scores, drop_intermediate=False)
    asked = np.linspace(0, 1, 23)
    expected = [hits[rates <= rate + 1e-12].max() for rate in asked]
    assert sensitivities(rank(scores, truth, np.ones((1, 70))), asked)[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("labels", "key", "reason"),
    [
        ([0, 0, 0], ("auroc", "class 1"), "no case is class 1"),
        ([1, 1, 1], ("auroc", "class 1"), "every case is class 1"),
        ([0, 0, 0], ("average_precision", "class 1"), "no case is class 1"),
        ([0, 0, 0], ("sensitivity_at_specificity_0.9", "class 1"), "no case is class 1"),
        ([1, 1, 1], ("sensitivity_at_specificity_0.9", "class 1"), "every case is class 1"),
        ([0, 0, 0], ("recall", "class 1"), "no case is class 1"),
        ([1, 0, 1], ("precision", "class 1"), "class 1 is never predicted"),
        ([0, 0, 0], ("f1", "class 1"), "no case is class 1"),
        ([1, 0, 0], ("negative_log_likelihood", ALL), "infinite"),
    ],
)
def test_undefined_measures_are_nan_with_a_reason(labels, key, reason):
    found = predictions([0.0, 0.2, 0.4], labels)
    assert np.isnan(measure_values(found, np.ones((1, 3)))[key]).all()
    assert reason in undefined_reason(found, key)


def test_a_class_that_is_present_but_never_predicted_has_an_f1_of_0():
    values = measure_values(predictions([0.1, 0.2, 0.4], [1, 0, 0]), np.ones((1, 3)))
    assert values["f1", "class 1"][0] == 0 and values["recall", "class 1"][0] == 0


def test_the_macro_average_is_undefined_where_one_class_is_absent():
    found = predictions([[0.5, 0.3, 0.2], [0.2, 0.7, 0.1], [0.4, 0.5, 0.1]], [0, 1, 0])
    values = measure_values(found, np.ones((1, 3)))
    assert np.isfinite(values["auroc", "class 0"]).all() and np.isnan(values["auroc", MACRO]).all()
    assert undefined_reason(found, ("auroc", MACRO)) == "no case is class 2"
