"""The measures of a cohort: which values are unusual, and how the page shows them."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from scipy import stats

from pipeline.report.cohort import cohort_page
from pipeline.report.distributions import FAR, distributions, outliers


@pytest.fixture
def values() -> np.ndarray:
    found = np.random.default_rng(3).normal(50, 4, 400)
    found[[7, 90]] = 120, -30
    return found


def test_outliers_are_those_of_the_modified_z_score(values: np.ndarray) -> None:
    """Beside SciPy's median absolute deviation, scaled to a standard deviation."""
    score = np.abs(values - np.median(values)) / stats.median_abs_deviation(values, scale="normal")
    near = np.abs(score - FAR) < 1e-3  # 0.6745 is rounded
    found = outliers(values)
    assert found[7] and found[90] and 2 <= found.sum() < 10
    np.testing.assert_array_equal(found[~near], (score > FAR)[~near])


def test_a_missing_value_is_no_outlier_and_moves_none(values: np.ndarray) -> None:
    with_gaps = np.append(values, [np.nan] * 50)
    np.testing.assert_array_equal(outliers(with_gaps), np.append(outliers(values), [False] * 50))


def test_without_a_spread_nothing_is_unusual() -> None:
    assert not outliers(np.array([1.0] * 20 + [9.0])).any()


def test_every_case_stands_in_one_bar(values: np.ndarray) -> None:
    (found,) = distributions([{"register_mr_shift_mm": value} for value in values])
    assert sum(bar.cases for bar in found.bars) == 400
    for bar in found.bars:
        low, high = -np.inf if bar.low is None else bar.low, np.inf if bar.high is None else bar.high
        assert bar.cases == ((values >= low) & (values < high)).sum()
    assert found.bars[0].far and found.bars[-1].far and not any(bar.far for bar in found.bars[1:-1])
    assert found.title == "Register MR shift (mm)"
    assert found.note(7) == "Register MR shift 120 mm (high)" and found.note(90).endswith("-30 mm (low)")
    assert f"{found.far.sum()} unusual" in found.summary and "400 cases" in found.summary


def test_few_cases_and_equal_values_have_no_distribution() -> None:
    assert distributions([{"a": float(number)} for number in range(9)]) == []
    assert distributions([{"a": 4.0}] * 30) == []
    assert len(distributions([{"a": float(number)} for number in range(10)])) == 1


def test_times_mark_nobody_and_stand_last() -> None:
    rows = [{"ingest_seconds": float(number % 5), "x": float(number)} for number in range(30)]
    rows[3]["ingest_seconds"] = 900.0
    found = distributions(rows)
    assert [item.column for item in found] == ["x", "ingest_seconds"] and not found[1].far.any()


def test_the_page_marks_the_unusual_and_carries_every_number(values: np.ndarray) -> None:
    rows = [
        {
            "case_id": f"case-{number:03d}",
            "verdict": "done",
            "page": "cases/x.html",
            "measures": {"fuse_volume_ml": value},
        }
        for number, value in enumerate(values)
    ]
    rows[11]["measures"] = {}
    page = cohort_page(rows, {}, "2026-11-29").decode()
    assert "Fuse volume 120 mL (high)" in page and '<h2 id="distributions">' in page
    numbers = [json.loads(text.replace("&#34;", '"')) for text in re.findall(r'data-values="([^"]*)"', page)]
    assert len(numbers) == 400 and numbers[11] == [None]
    assert [item[0][0] for item in numbers if item != [None]] == [
        float(f"{value:.6g}") for number, value in enumerate(values) if number != 11
    ]
    assert numbers[7][0][1] == 1 and "http" not in page.split("<body>")[1]


def test_a_page_without_measures_is_as_plain_as_before() -> None:
    page = cohort_page([{"case_id": "a", "verdict": "done"}], {}, "2026-11-29").decode()
    assert (
        "Unusual" not in page.split("<script>")[0]
        and "distributions" not in page
        and "data-values" not in page.split("<script>")[0]
    )
