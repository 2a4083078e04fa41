"""Sets of classes: hand-computed scores and thresholds, and coverage over 1,000 simulated calibration sets."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import kstest

from benchmarks.statistics import class_set_coverage, site_coverage
from pipeline.calibration.conformal import (
    ClassSets,
    ScoreRule,
    case_uniforms,
    conformal_quantile,
    conformity_scores,
    fewest_cases,
    fit_class_sets,
)
from pipeline.errors import CaseError, UsageError

RULES = [ScoreRule("lac"), ScoreRule("aps"), ScoreRule("aps", randomised=False), ScoreRule("raps", 0.05, 1)]


def test_scores_by_hand():
    table = np.array([[0.2, 0.5, 0.3]])
    assert conformity_scores(table, ScoreRule("lac")) == pytest.approx(np.array([[0.8, 0.5, 0.7]]))
    whole = conformity_scores(table, ScoreRule("aps", randomised=False))
    assert whole == pytest.approx(np.array([[1.0, 0.5, 0.8]]))
    part = conformity_scores(table, ScoreRule("aps"), [0.25])
    assert part == pytest.approx(np.array([[0.8 + 0.05, 0.125, 0.5 + 0.075]]))
    # ranks 3, 1, 2: two, none and one beyond the first
    penalised = conformity_scores(table, ScoreRule("raps", penalty=0.1, free_ranks=1), [0.25])
    assert penalised == pytest.approx(part + np.array([[0.2, 0.0, 0.1]]))


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


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.method}-{rule.randomised}")
def test_marginal_coverage_over_1000_calibration_sets(rule):
    coverage, size = class_set_coverage(rule, splits=1000)
    assert coverage == pytest.approx(0.9, abs=0.01)
    assert 1.5 < size < 3


def test_a_threshold_for_each_site_covers_where_one_for_all_does_not():
    one, each = site_coverage(by_site=False, splits=150), site_coverage(by_site=True, splits=150)
    assert one[0] > 0.92 and one[1] < 0.82
    assert each == pytest.approx((0.9, 0.9), abs=0.015)


def test_too_few_cases_give_the_full_set_and_say_so():
    sets = fit_class_sets([[0.9, 0.05, 0.05]] * 8, [0] * 8, alpha=0.1)
    assert sets.predict([[0.98, 0.01, 0.01]]).tolist() == [[True, True, True]]
    (sentence,) = sets.guarantees()
    assert "at least 9 calibration cases, and there are 8" in sentence and "all classes" in sentence
    enough = fit_class_sets([[0.9, 0.05, 0.05]] * 9, [0] * 9, alpha=0.1)
    assert enough.predict([[0.98, 0.01, 0.01]]).tolist() == [[True, False, False]]
    assert "n = 9" in enough.guarantees()[0] and "at least 90 %" in enough.guarantees()[0]


def test_a_small_site_is_told_apart_from_a_large_one():
    rows, labels = [[0.9, 0.1]] * 25, [0] * 25
    sets = fit_class_sets(rows, labels, 0.1, groups=["A"] * 20 + ["B"] * 5)
    assert sets.counts == {"A": 20, "B": 5}
    assert sets.predict([[0.95, 0.05]] * 2, ["A", "B"]).tolist() == [[True, False], [True, True]]
    assert sets.guarantees()[0].startswith("A: Calibrated on n = 20")
    assert sets.guarantees()[1].startswith("B: No set can leave a class out")
    with pytest.raises(CaseError, match="got C") as caught:
        sets.predict([[0.5, 0.5]], ["C"])
    assert caught.value.code == "E_CONFORMAL"


def test_json_and_back_gives_the_same_sets():
    generator = np.random.default_rng(0)
    table = generator.dirichlet(np.ones(4), 60)
    labels, uniforms = generator.integers(0, 4, 60), generator.random(60)
    groups = ["A"] * 55 + ["B"] * 5
    sets = fit_class_sets(table, labels, 0.15, ScoreRule("raps", 0.02, 2), groups, uniforms)
    text = json.dumps(sets.to_json(), allow_nan=False)
    again = ClassSets.from_json(text)
    assert again == sets and again.thresholds["B"] == math.inf
    assert np.array_equal(again.predict(table, groups, uniforms), sets.predict(table, groups, uniforms))


def test_random_numbers_belong_to_the_case_not_to_the_batch():
    names = [f"case-{index}" for index in range(4000)]
    numbers = case_uniforms(names, seed=3)
    assert case_uniforms(names[::-1], seed=3).tolist() == numbers[::-1].tolist()
    assert case_uniforms(names[:1], seed=4)[0] != numbers[0]
    assert kstest(numbers, "uniform").pvalue > 0.01


@pytest.mark.parametrize(
    "call",
    [
        lambda: fit_class_sets([0.5], [1], alpha=0.0),
        lambda: fit_class_sets([0.5], [1], alpha=1.0),
        lambda: fit_class_sets([0.5], [1], rule=ScoreRule("aps")),
        lambda: fit_class_sets([0.5], [1], uniforms=[0.5]),
        lambda: fit_class_sets([0.5], [1], rule=ScoreRule("aps"), uniforms=[1.0]),
        lambda: fit_class_sets([0.5, 0.5], [1, 0], rule=ScoreRule("aps"), uniforms=[0.5]),
        lambda: ScoreRule("top"),  # type: ignore[arg-type]
        lambda: ScoreRule("raps", penalty=-0.1),
    ],
)
def test_what_cannot_be_calibrated_is_refused(call):
    with pytest.raises(UsageError) as caught:
        call()
    assert caught.value.code == "E_CONFORMAL"
