"""Each method against the parameters that were simulated, against scikit-learn, and whatever the type that comes in."""

import json
import math
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from benchmarks.segmentation_comparison import case_weights
from pipeline.calibration import METHODS, About, CalibrationWarning, from_json
from pipeline.calibration.one_vs_rest import log_odds_parts
from pipeline.calibration.optimise import temperature_note

ABOUT = About("simulated", "2026-01-02", "out_of_fold")
pytestmark = pytest.mark.filterwarnings("ignore::pipeline.calibration.record.CalibrationWarning")


def softmax(z):
    raised = np.exp(z - z.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def drawn(random, probabilities):
    return (random.random((len(probabilities), 1)) > probabilities.cumsum(axis=1)[:, :-1]).sum(axis=1)


def simulated(rows, classes=3, seed=0, link=lambda z: z / 2):
    random = np.random.default_rng(seed)
    logits = 3 * random.normal(size=(rows, classes))
    return logits, drawn(random, softmax(link(logits)))


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose outputs are its inputs."""

    def fit(self, given, labels):
        return self

    def __init__(self, classes=3):
        self.classes = classes

    def __sklearn_is_fitted__(self):
        return True

    @property
    def classes_(self):
        return np.arange(self.classes)

    def decision_function(self, given):
        return given[:, 0] if given.shape[1] == 1 else given

    def predict(self, given):
        return given.argmax(axis=1)


@pytest.mark.parametrize(
    ("rows", "mean", "spread", "repeats"), [(200, 1.999, 0.186, 60), (1000, 2.0, 0.083, 30), (10_000, 2.0, 0.032, 10)]
)
def test_temperature_is_recovered(rows, mean, spread, repeats):
    """z ~ N(0, 9), y ~ softmax(z / 2): mean and spread of T, and the error reported is the information's."""
    fits = [METHODS["temperature"].fit(*simulated(rows, 5, seed), ABOUT) for seed in range(repeats)]
    found = np.array([fit.temperature for fit in fits])
    assert found.mean() == pytest.approx(mean, abs=3 * spread / math.sqrt(repeats))
    assert np.abs(found - mean).max() < 3.5 * spread
    # Fisher's information about ln T in one row: the expected variance of z / T under softmax(z / T), from 10^6 rows
    scaled = 3 * np.random.default_rng(99).normal(size=(1_000_000, 5)) / 2
    shares = softmax(scaled)
    information = ((shares * scaled**2).sum(axis=1) - (shares * scaled).sum(axis=1) ** 2).mean()
    errors = [fit.relative_error for fit in fits]
    assert np.mean(errors) == pytest.approx(1 / math.sqrt(rows * information), rel=0.05)


def test_temperature_is_scikit_learns():
    for seed, rows in ((0, 200), (1, 2000)):
        z, y = simulated(rows, 4, seed)
        theirs = CalibratedClassifierCV(FrozenEstimator(Given(4)), method="temperature").fit(z, y)
        ours = METHODS["temperature"].fit(z, y, ABOUT)
        beta = theirs.calibrated_classifiers_[0].calibrators[0].beta_
        assert ours.temperature == pytest.approx(1 / float(beta), rel=1e-3)
        assert np.abs(ours.apply(z) - theirs.predict_proba(z)).max() < 1e-3


def test_platt_is_scikit_learns_sigmoid():
    z, y = simulated(500, 2, 2, lambda z: z / 2 + [0.0, 0.7])
    odds = z[:, 1] - z[:, 0]
    theirs = CalibratedClassifierCV(FrozenEstimator(Given(2)), method="sigmoid").fit(odds[:, None], y)
    ours = METHODS["platt"].fit(odds, y, ABOUT)
    assert np.abs(ours.apply(odds) - theirs.predict_proba(odds[:, None])[:, 1]).max() < 1e-3
    # two columns say the same as their difference
    pairs = METHODS["platt"].fit(z, y, ABOUT)
    assert pairs.slope == pytest.approx(ours.slope, rel=1e-4)
    assert np.abs(pairs.apply(z)[:, 1] - ours.apply(odds)).max() < 1e-4


def test_vector_recovers_scales_and_offsets():
    scale, offset = np.array([0.4, 0.6, 0.8]), np.array([0.5, -0.3, -0.2])
    z, y = simulated(40_000, 3, 3, lambda z: z * scale + offset)
    found = METHODS["vector"].fit(z, y, ABOUT)
    assert np.abs(np.array(found.scale) - scale).max() < 0.03
    assert np.abs(np.array(found.offset) - offset).max() < 0.05


@pytest.mark.parametrize("name", ["matrix", "dirichlet"])
def test_matrix_recovers_weights_and_offsets(name):
    weight = np.array([[0.5, 0.15, -0.1], [-0.2, 0.6, 0.05], [0.2, -0.25, 0.55]])
    offset = np.array([0.4, -0.1, -0.3])

    def link(z):
        return (np.log(softmax(z)) if name == "dirichlet" else z) @ weight.T + offset

    z, y = simulated(20_000, 3, 4, link)
    found = METHODS[name].fit(z, y, ABOUT)
    assert found.penalty in (1e-2, 1e-3, 1e-4)
    # a constant added to a column of W reaches no probability
    ours, truth = (np.asarray(item) - np.mean(item, axis=0) for item in (found.weight, weight))
    assert np.abs(ours - truth).max() < 0.06
    assert np.abs(np.asarray(found.offset) - np.mean(found.offset) - offset).max() < 0.08
    assert np.abs(found.apply(z) - softmax(link(z))).mean() < 0.008


def test_unregularised_matrix_is_multinomial_regression_and_warns():
    z, y = simulated(3000, 3, 5, lambda z: z / 2 + [0.3, 0.0, -0.3])
    with pytest.warns(CalibrationWarning, match="Unregularised matrix scaling overfits"):
        ours = METHODS["matrix"].fit(z, y, ABOUT, penalty=0.0)
    assert "Unregularised" in ours.record.notes[0]
    theirs = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(z, y)
    assert np.abs(ours.apply(z) - theirs.predict_proba(z)).max() < 1e-4


def test_a_strong_penalty_leaves_a_diagonal():
    z, y = simulated(2000, 3, 6, lambda z: z @ np.array([[0.5, 0.3, 0], [0, 0.5, 0.3], [0.3, 0, 0.5]]).T + [1, 0, -1])
    free, held = (METHODS["matrix"].fit(z, y, ABOUT, penalty=item) for item in (1e-6, 1e3))
    outside = ~np.eye(3, dtype=bool)
    assert np.abs(np.array(free.weight)[outside]).max() > 0.15
    assert np.abs(np.array(held.weight)[outside]).max() < 1e-3
    assert np.abs(held.offset).max() < 1e-3
    assert held.record.nll_after > free.record.nll_after


@pytest.mark.parametrize(("classes", "penalty"), [(8, 1e-4), (23, 1e-2)], ids=["few", "more than a Hessian is made of"])
@pytest.mark.parametrize("name", ["matrix", "dirichlet"])
def test_all_but_separated_classes_are_fitted_to_the_minimum(name, classes, penalty):
    """The gradient by the formula of softmax regression: in a flat loss a search by slopes stops early."""
    random = np.random.default_rng(3)
    y = random.permutation(np.arange(600) % classes)
    z = 3 * random.normal(size=(len(y), classes)) + 14 * np.eye(classes)[y] + 2 * random.normal(size=classes)
    y[:6] = (y[:6] + 1) % classes
    found = METHODS[name].fit(z, y, ABOUT, penalty=penalty)
    inverse = 1 / METHODS["temperature"].fit(z, y, ABOUT).temperature
    given = (np.log(softmax(z)) if name == "dirichlet" else z) * inverse
    weight, offset = np.array(found.weight) / inverse, np.array(found.offset)
    pull = (softmax(given @ weight.T + offset) - np.eye(classes)[y]) / len(y)
    shrunk = 2 * penalty * weight * (1 - np.eye(classes)) / (classes * (classes - 1))
    assert np.abs(pull.T @ given + shrunk).max() < 1e-6
    assert np.abs(pull.sum(axis=0) + 2 * penalty * offset / classes).max() < 1e-6


def test_beta_recovers_its_curve_and_keeps_it_rising():
    random = np.random.default_rng(7)
    p = random.beta(0.7, 0.9, 60_000)
    odds = 0.6 * np.log(p) - 1.4 * np.log1p(-p) + 0.3
    y = (random.random(len(p)) < 1 / (1 + np.exp(-odds))).astype(int)
    found = METHODS["beta"].fit(np.log(p) - np.log1p(-p), y, ABOUT)
    assert np.abs(np.array(found.curves[0]) - [0.6, 1.4, 0.3]).max() < 0.06
    # where the free fit would fall, one term is left out, as the paper does
    odds = 0.9 * np.log(p) + 0.3 * np.log1p(-p)
    y = (random.random(len(p)) < 1 / (1 + np.exp(-odds))).astype(int)
    a, b, _ = METHODS["beta"].fit(np.log(p) - np.log1p(-p), y, ABOUT).curves[0]
    assert b == 0 and a > 0.5


def test_isotonic_is_scikit_learns_with_bounded_ends():
    z, y = simulated(3000, 2, 8)
    p = softmax(z)[:, 1]
    theirs = IsotonicRegression(y_min=1 / 3002, y_max=3001 / 3002, out_of_bounds="clip").fit(p, y)
    found = METHODS["isotonic"].fit(z, y, ABOUT).apply(z)
    assert np.abs(found[:, 1] - theirs.predict(p)).max() < 1e-12
    assert found.min() >= 1 / 3002 - 1e-12 and np.abs(found.sum(axis=1) - 1).max() < 1e-12


@pytest.mark.parametrize("name", [name for name in METHODS if name != "platt"])
def test_every_method_mends_an_overconfident_model(name):
    z, y = simulated(3000, 3, 9)
    fitted = METHODS[name].fit(z, y, ABOUT)
    fresh, truth = simulated(3000, 3, 10)
    p = fitted.apply(fresh)
    assert np.abs(p.sum(axis=1) - 1).max() < 1e-12 and p.min() > 0
    before, after = (-np.log(table[np.arange(3000), truth]).mean() for table in (softmax(fresh), p))
    best = -np.log(softmax(fresh / 2)[np.arange(3000), truth]).mean()
    assert best - 0.005 < after < best + 0.02 < before
    assert fitted.record.nll_after < fitted.record.nll_before - 0.05
    assert from_json(json.loads(json.dumps(fitted.to_json()))) == fitted


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["temperature", "vector", "matrix", "beta", "isotonic"])
def test_every_type_gives_the_answer_of_float64(dtype, name):
    z, y = simulated(1000, 3, 11)
    rounded = torch.from_numpy(z).to(dtype)
    settings = {"penalty": 0.1} if name == "matrix" else {}
    ours = METHODS[name].fit(rounded, y, ABOUT, **settings)
    reference = METHODS[name].fit(rounded.double(), y, ABOUT, **settings)
    assert ours == reference
    assert ours.apply(rounded).dtype == torch.float32
    assert float((ours.apply(rounded).double() - reference.apply(rounded.double())).abs().max()) < 1e-6


def test_numpy_half_and_lists_are_read():
    z, y = simulated(300, 3, 12)
    half = z.astype(np.float16)
    found = METHODS["temperature"].fit(half, y.tolist(), ABOUT)
    assert found == METHODS["temperature"].fit(half.astype(float).tolist(), torch.from_numpy(y), ABOUT)


def test_a_column_and_a_pair_are_one():
    z, y = simulated(400, 2, 13)
    odds = z[:, 1] - z[:, 0]
    for name in METHODS:
        column = METHODS[name].fit(odds, y, ABOUT)
        pair = METHODS[name].fit(np.stack([np.zeros(400), odds], axis=1), y, ABOUT)
        assert column == pair
        assert np.abs(column.apply(odds) - pair.apply(np.stack([np.zeros(400), odds], axis=1))[:, 1]).max() < 1e-12
        assert column.apply(odds[:, None]).shape == (400, 1)


def test_extreme_logits_keep_their_digits():
    """Against 50-digit arithmetic: p within 1e-300 of 0 and within 1e-40 of 1."""
    from mpmath import exp, log, mp, mpf

    mp.dps = 80
    z = [90.0, -2.0, -600.0]
    inside, outside = log_odds_parts(torch.tensor([z], dtype=torch.float64))
    total = sum(exp(mpf(value)) for value in z)
    for number, value in enumerate(z):
        p = exp(mpf(value)) / total
        assert float(inside[0, number]) == pytest.approx(float(log(p)), rel=1e-12, abs=1e-15)
        assert float(outside[0, number]) == pytest.approx(float(log(1 - p)), rel=1e-12)


def test_the_size_of_the_logits_does_not_matter():
    z, y = simulated(1000, 3, 14)
    for name in ("temperature", "vector", "matrix"):
        small, large = (METHODS[name].fit(z * factor, y, ABOUT) for factor in (1e-4, 1e4))
        assert np.abs(small.apply(z * 1e-4) - large.apply(z * 1e4)).max() < 1e-4


def test_weights_count_rows_as_copies_would():
    z, y = simulated(300, 3, 15)
    times = np.random.default_rng(0).integers(1, 5, 300)
    for name in ("temperature", "vector", "beta"):
        weighted = METHODS[name].fit(z, y, ABOUT, weights=times)
        copied = METHODS[name].fit(np.repeat(z, times, 0), np.repeat(y, times), ABOUT)
        assert np.abs(weighted.apply(z) - copied.apply(z)).max() < 1e-5


def test_case_weights_let_every_case_count_the_same():
    cases = ["a", "b", "b", "b", "c", "c"]
    assert case_weights(cases) == pytest.approx([1 / 3, *[1 / 9] * 3, 1 / 6, 1 / 6])


def test_copies_of_a_case_do_not_make_it_better_known():
    """The standard error counts cases, not rows."""
    z, y = simulated(300, 3, 16)
    once = METHODS["temperature"].fit(z, y, ABOUT)
    names = np.repeat(np.arange(300), 10)
    ten = METHODS["temperature"].fit(np.repeat(z, 10, 0), np.repeat(y, 10), ABOUT, names)
    assert ten.relative_error == pytest.approx(once.relative_error, rel=1e-3)
    alone = METHODS["temperature"].fit(np.repeat(z, 10, 0), np.repeat(y, 10), ABOUT)
    assert alone.relative_error == pytest.approx(once.relative_error / math.sqrt(10), rel=1e-3)


def test_too_few_cases_name_the_number_that_would_do():
    z, y = simulated(60, 3, 17)
    with pytest.warns(CalibrationWarning, match="Too few cases: temperature scaling on 60 cases") as caught:
        few = METHODS["temperature"].fit(z, y, ABOUT)
    needed = int(str(caught[0].message).split("about ")[1].split()[0])
    errors = [METHODS["temperature"].fit(*simulated(needed, 3, 100 + seed), ABOUT).relative_error for seed in range(5)]
    assert np.mean(errors) == pytest.approx(0.10, rel=0.35)
    assert few.record.notes and "10 %" in few.record.notes[0]
    assert temperature_note(SimpleNamespace(case_count=60), math.inf) == [
        "Too few cases: temperature scaling on 60 cases leaves its T open."
    ]
    with pytest.warns(CalibrationWarning, match=r"vector scaling fits 2 parameters a class and wants 20 cases"):
        METHODS["vector"].fit(*simulated(30, 3, 18), ABOUT)
    with pytest.warns(CalibrationWarning, match="1000 cases would do"):
        METHODS["isotonic"].fit(z, y, ABOUT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert METHODS["temperature"].fit(*simulated(2000, 3, 19), ABOUT).record.notes == ()


def test_many_classes_with_bounded_pieces(monkeypatch):
    """Temperature on 200 classes: no more than a piece is turned into float64 at once."""
    from pipeline.calibration import rows

    seen = []
    pieces = rows.Rows.pieces

    def watched(self):
        for item in pieces(self):
            seen.append(item[0].numel())
            yield item

    monkeypatch.setattr(rows.Rows, "pieces", watched)
    z, y = simulated(5000, 200, 20)
    assert METHODS["temperature"].fit(z.astype(np.float32), y, ABOUT).temperature == pytest.approx(2, abs=0.1)
    assert max(seen) <= rows.PIECE_VALUES < z.size
