"""The comparison: held-out by case, and a recommendation that follows from the numbers."""

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from pipeline.calibration import METHODS, About, Resampling, compare
from pipeline.calibration.folds import grouped_folds
from pipeline.calibration.rows import Rows

FEW = Resampling(resamples=200)


def softmax(z):
    raised = np.exp(z - z.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def simulated(rows, link, seed, classes=3):
    random = np.random.default_rng(seed)
    z = 3 * random.normal(size=(rows, classes))
    return z, (random.random((rows, 1)) > softmax(link(z)).cumsum(axis=1)[:, :-1]).sum(axis=1)


@pytest.mark.parametrize(
    ("link", "methods"),
    [
        (lambda z: z, ("none",)),
        (lambda z: z / 2, ("temperature",)),
        (lambda z: z * [0.3, 0.6, 1.0] + [1.0, 0.0, -1.0], ("temperature", "vector")),
        (lambda z: z @ np.array([[0.3, 0.5, 0.0], [0.0, 0.3, 0.5], [0.5, 0.0, 0.3]]).T, ("vector", "dirichlet")),
    ],
    ids=["none", "temperature", "vector", "dirichlet"],
)
def test_the_method_that_made_the_labels_is_recommended(link, methods):
    """By its name where it is the last of the methods; `none` and temperature have a vector beside them."""
    z, y = simulated(2500, link, 1)
    offered = ("temperature", "vector") if len(methods) == 1 else methods
    found = compare(z, y, methods=offered, folds=3, resampling=FEW)
    assert found.recommended == methods[-1]
    assert [item.name for item in found.candidates] == ["none", *offered]
    best = min(found.candidates, key=lambda item: item.measures[0].value)
    assert best.name == found.best and best.excess == 0
    for item in found.candidates:
        assert item.measures[0].name == "nll"
        assert item.excess == pytest.approx(item.measures[0].value - best.measures[0].value)
    assert found.best.capitalize() in found.reason and f"{best.measures[0].value:.4f}" in found.reason


def test_held_out_probabilities_come_from_fits_without_the_case():
    z, y = simulated(300, lambda z: z / 2, 2)
    cases = np.array([f"P{number % 100}" for number in range(300)])
    found = compare(z, y, cases, ["temperature"], 4, FEW)
    assert found.cases == 100
    rows = Rows.of(z, y, cases)
    seen = np.zeros(300, dtype=int)
    for inside, outside in grouped_folds(rows, 4, FEW.seed):
        assert not set(cases[inside]) & set(cases[outside])
        fitted = METHODS["temperature"].fit_rows(rows.take(inside), About("", ""))
        assert np.abs(found.held_out["temperature"][outside] - softmax(z[outside] / fitted.temperature)).max() < 1e-12
        seen[outside] += 1
    assert (seen == 1).all()
    assert np.abs(found.held_out["none"] - softmax(z)).max() < 1e-12


def test_excess_error_counts_cases():
    z, y = simulated(150, lambda z: z / 2, 3)
    once = compare(z, y, None, ["temperature"], 3, FEW)
    none = once.candidates[0]
    losses = {name: -np.log(table[np.arange(150), y]) for name, table in once.held_out.items()}
    difference = losses["none"] - losses["temperature"]
    assert none.excess == pytest.approx(difference.mean())
    assert none.excess_error == pytest.approx(difference.std(ddof=1) / np.sqrt(150))
    names = np.repeat(np.arange(150), 6)
    many = compare(np.repeat(z, 6, 0), np.repeat(y, 6), names, ["temperature"], 3, FEW).candidates[0]
    assert many.excess_error == pytest.approx(none.excess_error, rel=0.1)


def test_platt_for_two_classes_only_and_a_method_that_fails_says_why():
    z, y = simulated(200, lambda z: z / 2, 4, classes=2)
    assert "platt" in {item.name for item in compare(z, y, folds=3, resampling=FEW).candidates}
    # the logits say the opposite: nothing with a temperature can be fitted, isotonic regression can
    found = compare(-z, y, methods=["temperature", "isotonic"], folds=3, resampling=FEW)
    named = {item.name: item for item in found.candidates}
    assert named["temperature"].fault.startswith("E_CAL_NO_FIT: Expected logits that speak for")
    assert named["temperature"].measures == () and "temperature" not in found.held_out
    assert found.recommended == "isotonic"


@pytest.mark.parametrize("cases", [1, 4], ids=["a row each", "several rows each"])
def test_folds_are_those_of_scikit_learn(cases, monkeypatch):
    random = np.random.default_rng(5)
    y, names = random.choice(4, 240, p=[0.5, 0.3, 0.15, 0.05]), random.permutation(240) // cases
    rows = Rows.of(random.normal(size=(240, 4)), y, names)
    theirs = [held_out for _, held_out in StratifiedGroupKFold(3, shuffle=True, random_state=1).split(y, y, rows.cases)]
    # scikit-learn's own search takes a second for 5,000 cases
    monkeypatch.delattr(StratifiedGroupKFold, "_find_best_fold")
    ours = [held_out for _, held_out in grouped_folds(rows, 3, 1)]
    assert all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))
