"""Sets of classes of whole cases: coverage of simulated cases, the unit, the file, and what is refused."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks.statistics import class_set_coverage
from pipeline.calibration import METHODS, About, from_json
from pipeline.calibration.conformal import (
    FOLDS,
    ScoreRule,
    check_sets,
    conformal_quantile,
    conformity_scores,
    fewest_cases,
    fit_sets,
)
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
        fitted = fit_sets(simulated(random, 59, rows), 0.1, ScoreRule(rule))
        new = simulated(random, 1, rows)
        held += bool(fitted.predict(new.logits)[np.arange(rows), new.labels.numpy()].all())
    assert held >= binom.ppf(0.001, 200, 0.9)
    assert held < 200  # they do leave classes out


def test_the_threshold_is_that_of_each_case_s_worst_row():
    """Nine cases of two rows: the largest 1 - p of a true class of each; at 0.1 the largest of nine."""
    p = np.linspace(0.5, 0.9, 18)
    rows = Rows.of(np.log(np.stack([1 - p, p], 1)) + 1, np.ones(18, int), np.repeat(np.arange(9), 2))
    fitted = fit_sets(rows, 0.2, ScoreRule("lac"))
    worst = 1 - p[::2]  # the first row of each case is the less probable one
    assert fitted.threshold == pytest.approx(np.sort(worst)[7])  # ceil(10 * 0.8) = 8
    assert fitted.cases == 9
    inside = math.log(0.6 / 0.4)
    assert fitted.predict(np.array([inside, -inside, 5.0])).tolist() == [[False, True], [True, False], [False, True]]


def test_held_out_cases_are_counted_with_wilson_s_interval():
    rows = simulated(np.random.default_rng(1), 150, 2)
    check = check_sets(rows, 0.1, ScoreRule("lac"))
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
    record = FitRecord.from_json({**data, "sets": fit_sets(rows, 0.1, ScoreRule("aps")).to_json()})
    fitted = replace(plain, record=record)
    text = json.loads(json.dumps(fitted.to_json(), allow_nan=False))
    assert text["sets"]["alpha"] == 0.1 and text["sets"]["cases"] == 80 and "n = 80" in text["sets"]["promise"]
    again = from_json(text)
    assert again == fitted
    assert np.array_equal(again.sets(rows.logits), fitted.record.sets.predict(rows.logits))
    assert again.record.sets.in_short() == "90 % of cases' sets hold the true class, on average; n = 80"


def test_out_of_fold_logits_promise_less():
    rows = simulated(np.random.default_rng(2), 80)
    sets = fit_sets(rows, 0.1, ScoreRule("lac"))
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
        fit_sets(rows, alpha, ScoreRule("lac"))
    assert caught.value.code == "E_CONFORMAL"
    with pytest.raises(UsageError, match="lac, aps or raps"):
        ScoreRule("top")
    with pytest.raises(UsageError, match="not negative"):
        ScoreRule("raps", penalty=-0.1)


def test_scores_by_hand():
    table = np.array([[0.2, 0.5, 0.3]])
    assert conformity_scores(table, ScoreRule("lac")) == pytest.approx(np.array([[0.8, 0.5, 0.7]]))
    whole = conformity_scores(table, ScoreRule("aps"))
    assert whole == pytest.approx(np.array([[1.0, 0.5, 0.8]]))
    # ranks 3, 1, 2: two, none and one beyond the first
    penalised = conformity_scores(table, ScoreRule("raps", penalty=0.1, free_ranks=1))
    assert penalised == pytest.approx(whole + np.array([[0.2, 0.0, 0.1]]))


def test_the_quantile_is_the_right_order_statistic():
    scores = np.arange(1.0, 20.0)[::-1]  # n = 19
    assert conformal_quantile(scores, 0.1) == 18  # ceil(20 * 0.9)
    assert conformal_quantile(scores, 0.05) == 19  # exactly 19, whatever 20 * 0.95 rounds to
    assert conformal_quantile(scores, 0.04) == math.inf
    assert conformal_quantile(scores[:9], 0.1) == scores[:9].max()
    assert conformal_quantile(scores[:8], 0.1) == math.inf


@pytest.mark.parametrize(("alpha", "count"), [(0.1, 9), (0.05, 19), (0.2, 4), (0.3, 3)])
def test_fewest_cases(alpha, count):
    assert fewest_cases(alpha) == count
    assert math.isfinite(conformal_quantile(np.zeros(count), alpha))
    assert math.isinf(conformal_quantile(np.zeros(count - 1), alpha))


@pytest.mark.parametrize("rule", ["lac", "aps", "raps"])
def test_marginal_coverage_over_1000_calibration_sets(rule):
    """Scores without chance can cover more than asked for where classes tie at the edge, and never less."""
    coverage, size = class_set_coverage(ScoreRule(rule), splits=1000)
    assert 0.89 <= coverage <= 0.92
    assert 1.5 < size < 3
