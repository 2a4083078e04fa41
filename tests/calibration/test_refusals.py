"""What cannot be calibrated is refused with a code and a sentence."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.calibration import METHODS, About, compare, from_json, measures
from pipeline.errors import UsageError

ABOUT = About("simulated", "2026-01-02")
RANDOM = np.random.default_rng(0)
Z = 3 * RANDOM.normal(size=(120, 3))
Y = np.array([RANDOM.choice(3, p=row) for row in np.exp(Z / 2) / np.exp(Z / 2).sum(axis=1, keepdims=True)])
pytestmark = pytest.mark.filterwarnings("ignore::pipeline.calibration.record.CalibrationWarning")


def spoilt(value):
    table = Z.copy()
    table[7, 1] = value
    return table


def probabilities(dtype=np.float64):
    raised = np.exp(Z)
    return (raised / raised.sum(axis=1, keepdims=True)).astype(dtype)


@pytest.mark.parametrize("name", ["temperature", "vector", "beta", "dirichlet", "matrix", "isotonic"])
@pytest.mark.parametrize(
    ("logits", "labels", "code", "words"),
    [
        (Z, Y[:-1], "E_ROWS", "120 labels"),
        (Z[None], Y, "E_ROWS", r"\(1, 120, 3\)"),
        (Z[:0], Y[:0], "E_ROWS", r"\(0, 3\)"),
        (spoilt(np.nan), Y, "E_CAL_NONFINITE", "NaN or infinity 1 times"),
        (spoilt(np.inf), Y, "E_CAL_NONFINITE", "NaN or infinity 1 times"),
        (spoilt(-np.inf), Y, "E_CAL_NONFINITE", "NaN or infinity 1 times"),
        (Z, np.where(Y == 2, 3, Y), "E_LABEL", "got 3"),
        (Z, np.where(Y == 0, -1, Y), "E_LABEL", "got -1"),
        (Z, Y + 0.5, "E_LABEL", "0 … 2"),
        (Z, np.where(Y == 1, 0, Y), "E_CAL_CLASS_ABSENT", "none of 1"),
        (probabilities(), Y, "E_CAL_PROBABILITIES", "look like probabilities"),
        (probabilities(np.float16), Y, "E_CAL_PROBABILITIES", "look like probabilities"),
        (Z[:1], Y[:1], "E_CAL_TOO_FEW", "at least 2 cases, got 1"),
    ],
)
def test_bad_input(name, logits, labels, code, words):
    with pytest.raises(UsageError, match=words) as caught:
        METHODS[name].fit(logits, labels, ABOUT)
    assert caught.value.code == code


def test_log_probabilities_are_logits():
    logs = METHODS["temperature"].fit(np.log(probabilities()), Y, ABOUT)
    assert logs.temperature == pytest.approx(METHODS["temperature"].fit(Z, Y, ABOUT).temperature, rel=1e-6)


def test_a_column_of_probabilities():
    with pytest.raises(UsageError, match="E_CAL_PROBABILITIES"):
        METHODS["platt"].fit(probabilities()[:, 1], Y == 1, ABOUT)


def test_several_rows_of_one_case_are_one_case():
    with pytest.raises(UsageError, match="E_CAL_TOO_FEW"):
        METHODS["temperature"].fit(Z, Y, ABOUT, cases=["a"] * 120)


@pytest.mark.parametrize("weights", [np.ones(3), np.zeros(120), np.full(120, np.nan)])
def test_weights_are_positive_and_one_a_row(weights):
    with pytest.raises(UsageError, match="E_ROWS"):
        METHODS["temperature"].fit(Z, Y, ABOUT, weights=weights)


def test_platt_takes_two_classes():
    with pytest.raises(UsageError, match="E_CAL_CLASSES"):
        METHODS["platt"].fit(Z, Y, ABOUT)


@pytest.mark.parametrize(
    ("logits", "words"), [(np.zeros_like(Z), "opposite or none"), (-Z, "opposite"), (np.eye(3)[Y] * 4, "none")]
)
@pytest.mark.parametrize("name", ["temperature", "vector", "matrix"])
def test_a_likelihood_without_a_maximum(name, logits, words):
    """Logits that say nothing or the opposite, and predictions that are all right: no T is the best."""
    with pytest.raises(UsageError, match=words) as caught:
        METHODS[name].fit(logits, Y, ABOUT)
    assert caught.value.code == "E_CAL_NO_FIT"


def test_classes_that_a_vector_separates():
    """Every class is wrong somewhere, but offsets put all right."""
    z = np.eye(2)[np.arange(60) % 2] * 2.0
    z[:, 0] += 3.0
    with pytest.raises(UsageError, match="separates"):
        METHODS["vector"].fit(z, np.arange(60) % 2, ABOUT)


@pytest.mark.parametrize("source", ["training", "train", ""])
def test_training_logits_are_refused(source):
    with pytest.raises(UsageError, match="E_CAL_TRAINING"):
        About("simulated", "2026-01-02", source)


def saved(**changes):
    data = METHODS["vector"].fit(Z, Y, ABOUT).to_json()
    return json.loads(json.dumps({**data, **changes}))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ([], "E_CAL_FILE"),
        ({}, "E_CAL_FILE"),
        ({"method": "vector"}, "E_CAL_FILE"),
        (saved(format="x"), "E_CAL_FILE"),
        (saved(method="none such"), "E_CAL_METHOD"),
        (saved(method="temperature"), "E_CAL_FILE"),
        (saved(source="training"), "E_CAL_TRAINING"),
        (saved(parameters={"scale": [1, 2], "offset": [0, 0, 0]}), "E_CAL_FILE"),
        (saved(parameters={"scale": [1, 2, float("nan")], "offset": [0, 0, 0]}), "E_CAL_FILE"),
        (saved(parameters={"scale": "abc", "offset": [0, 0, 0]}), "E_CAL_FILE"),
        (saved(parameters={"scale": [1, 2, 3]}), "E_CAL_FILE"),
    ],
)
def test_a_damaged_file(data, code):
    with pytest.raises(UsageError) as caught:
        from_json(data)
    assert caught.value.code == code


def test_a_temperature_that_is_none():
    fitted = METHODS["temperature"].fit(Z, Y, ABOUT)
    for wrong in (0.0, -2.0, float("inf")):
        with pytest.raises(ValueError, match="temperature"):
            replace(fitted, temperature=wrong)


@pytest.mark.parametrize("logits", [Z[:, :2], Z[:, 0], np.zeros((4, 5, 6, 7)) + 2.5, np.zeros((1, 5, 6, 7)) + 2.5])
def test_a_calibration_of_another_class_count(logits):
    fitted = METHODS["temperature"].fit(Z, Y, ABOUT)
    with pytest.raises(UsageError, match="logits of 3 classes") as caught:
        fitted.apply(logits)
    assert caught.value.code == "E_CAL_CLASSES"


@pytest.mark.parametrize(
    ("logits", "code"),
    [
        (spoilt(np.nan), "E_CAL_NONFINITE"),
        (spoilt(-np.inf), "E_CAL_NONFINITE"),
        (probabilities(), "E_CAL_PROBABILITIES"),
        (torch.from_numpy(probabilities()).float().T.reshape(3, 4, 5, 6), "E_CAL_PROBABILITIES"),
        (np.empty((0, 3)), "E_ROWS"),
        (np.array(["a", "b"]), "E_ROWS"),
    ],
)
def test_what_cannot_be_applied_to(logits, code):
    with pytest.raises(UsageError) as caught:
        METHODS["temperature"].fit(Z, Y, ABOUT).apply(logits)
    assert caught.value.code == code


def test_comparisons_and_measures():
    with pytest.raises(UsageError, match="E_CAL_METHOD"):
        compare(Z, Y, methods=["netcal"])
    rare = np.where(np.arange(120) == np.flatnonzero(Y == 1)[0], 1, np.where(Y == 1, 0, Y))
    with pytest.raises(UsageError, match="5 cases of each class for 5 folds, got 1"):
        compare(Z, rare)
    with pytest.raises(UsageError, match="E_CAL_TOO_FEW"):
        measures(probabilities(), Y, cases=np.zeros(120))
    with pytest.raises(UsageError, match="E_PROBABILITY"):
        measures(Z, Y)
