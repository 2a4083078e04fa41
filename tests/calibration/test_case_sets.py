"""Sets of classes of whole cases: coverage of simulated cases, the unit, the file, and what is refused."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from pipeline.calibration import METHODS, About, from_json
from pipeline.calibration.case_sets import FOLDS, check_sets, fit_case_sets, rule_of, sets_of
from pipeline.calibration.record import FitRecord
from pipeline.calibration.rows import Rows
from pipeline.errors import UsageError

ABOUT = About("simulated", "2026-01-02")


def simulated(random, cases, rows=1):
    """Overconfident logits of exchangeable cases; all rows of a case share what makes them hard."""
    hard = np.repeat(random.gamma(2.0, 1.0, cases), rows)[:, None]
    z = 2 * random.normal(size=(cases * rows, 3)) / hard
    p = np.exp(z / 2) / np.exp(z / 2).sum(axis=1, keepdims=True)
    y = (random.random((cases * rows, 1)) > p.cumsum(axis=1)[:, :-1]).sum(axis=1)
    return Rows.of(z, y, np.repeat(np.arange(cases), rows))


@pytest.mark.parametrize("rule", ["lac", "aps", "raps"])
@pytest.mark.parametrize("rows", [1, 3])
def test_new_cases_are_held_as_often_as_promised(rule, rows):
    """200 calibration sets and one new case each: at least 90 % held, less what chance takes in 1 of 1,000 tests."""
    random, held = np.random.default_rng(5), 0
    for _ in range(200):
        fitted = fit_case_sets(simulated(random, 59, rows), 0.1, rule_of(rule))
        new = simulated(random, 1, rows)
        held += bool(sets_of(fitted, new.logits)[np.arange(rows), new.labels.numpy()].all())
    assert held >= binom.ppf(0.001, 200, 0.9)
    assert held < 200  # they do leave classes out


def test_the_threshold_is_that_of_each_case_s_worst_row():
    """Nine cases of two rows: the largest 1 - p of a true class of each; at 0.1 the largest of nine."""
    p = np.linspace(0.5, 0.9, 18)
    rows = Rows.of(np.log(np.stack([1 - p, p], 1)) + 1, np.ones(18, int), np.repeat(np.arange(9), 2))
    fitted = fit_case_sets(rows, 0.2, rule_of("lac"))
    worst = 1 - p[::2]  # the first row of each case is the less probable one
    assert fitted.thresholds["all"] == pytest.approx(np.sort(worst)[7])  # ceil(10 * 0.8) = 8
    assert fitted.counts == {"all": 9}
    inside = math.log(0.6 / 0.4)
    assert sets_of(fitted, np.array([inside, -inside, 5.0])).tolist() == [[False, True], [True, False], [False, True]]


def test_held_out_cases_are_counted_with_wilson_s_interval():
    rows = simulated(np.random.default_rng(1), 150, 2)
    check = check_sets(rows, 0.1, rule_of("lac"))
    share, z = check.covered / 150, 1.959964
    middle = (share + z**2 / 300) / (1 + z**2 / 150)
    half = z / (1 + z**2 / 150) * math.sqrt(share * (1 - share) / 150 + z**2 / (4 * 150**2))
    assert (check.low, check.high) == pytest.approx((middle - half, middle + half), abs=1e-6)
    assert sum(check.sizes) == 300 and len(check.sizes) == 4 and check.low < 0.9 < check.high
    assert FOLDS == 5 and check.cases == 150


def test_the_file_holds_the_sets_and_an_older_one_has_none():
    rows = simulated(np.random.default_rng(2), 80)
    plain = METHODS["temperature"].fit_rows(rows, ABOUT)
    data = plain.to_json()
    assert "sets" not in data and from_json(data) == plain and plain.sets(rows.logits) is None
    record = FitRecord.from_json({**data, "sets": fit_case_sets(rows, 0.1, rule_of("aps")).to_json()})
    fitted = replace(plain, record=record)
    text = json.loads(json.dumps(fitted.to_json(), allow_nan=False))
    assert (
        text["sets"]["alpha"] == 0.1 and text["sets"]["counts"] == {"all": 80} and "n = 80" in text["sets"]["promise"]
    )
    again = from_json(text)
    assert again == fitted
    assert np.array_equal(again.sets(rows.logits), sets_of(fitted.record.sets, rows.logits))
    assert again.record.sets.in_short() == "90 % of cases' sets hold the true class, on average; n = 80"


def test_out_of_fold_logits_promise_less():
    rows = simulated(np.random.default_rng(2), 80)
    sets = fit_case_sets(rows, 0.1, rule_of("lac"))
    for source, words in (("validation", False), ("out_of_fold", True)):
        record = FitRecord(About("simulated", "2026-01-02", source), 80, 80, 3, 1.0, 1.0, (), sets)
        assert ("approximately" in record.promise) == words


@pytest.mark.parametrize(
    ("cases", "alpha", "words"),
    [
        (18, 0.05, "at least 19 cases for sets that miss 0.05, got 18"),
        (60, 0.0, "alpha between 0 and 1, got 0"),
        (60, 1.5, "alpha between 0 and 1, got 1.5"),
    ],
)
def test_what_cannot_be_promised_is_refused(cases, alpha, words):
    rows = simulated(np.random.default_rng(3), cases, 2)
    with pytest.raises(UsageError, match=words) as caught:
        fit_case_sets(rows, alpha, rule_of("lac"))
    assert caught.value.code == "E_CONFORMAL"
    with pytest.raises(UsageError, match="lac, aps or raps"):
        rule_of("top")
