"""Segmentations judged: overlap against geometry that can be worked out, means and intervals against SciPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats
from sklearn.metrics import f1_score, jaccard_score

from pipeline.errors import UsageError
from pipeline.evaluation.results import Settings
from pipeline.evaluation.segmentation import MEASURES, compare_means, judged, lesion_f1, mean_over_cases, overlap

SETTINGS = Settings(resamples=4000)
SPACING = (4.0, 2.0, 1.0)


def box(low: tuple[int, int, int], high: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
    mask = np.zeros((30, 30, 30), dtype=bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


def test_a_shifted_box() -> None:
    """Moved by two voxels along I, 8 mm: the faces across I are 8 mm apart, the others coincide but at the ends."""
    truth, moved = box((5, 5, 5), (15, 25, 25)), box((7, 5, 5), (17, 25, 25))
    found = overlap(moved, truth, SPACING, 3.0)
    assert found.dice == pytest.approx(2 * 8 / 20)
    assert found.iou == pytest.approx(8 / 12)
    assert found.hd95_mm == pytest.approx(8.0)
    # mm^2: the two faces across I, and what of the others lies within 3 mm of the other box; edges are rounded a little
    across, around = 2 * 40 * 20, 2 * (40 + 20) * 40
    outside = 2 * (40 + 20) * (8 - 3)
    assert found.nsd == pytest.approx((around - outside) / (across + around), abs=0.05)
    assert overlap(moved, truth, SPACING, 8.0).nsd == pytest.approx(1.0)


def test_along_another_axis_the_distance_is_that_axis_spacing() -> None:
    truth, moved = box((5, 5, 5), (15, 25, 25)), box((5, 8, 5), (15, 28, 25))
    assert overlap(moved, truth, SPACING, 1.0).hd95_mm == pytest.approx(6.0)


def test_overlaps_are_scikit_learns() -> None:
    random = np.random.default_rng(2)
    predicted, truth = random.random((2, 9, 8, 7)) < 0.3
    found = overlap(predicted, truth, SPACING, 1.0)
    assert found.iou == pytest.approx(jaccard_score(truth.ravel(), predicted.ravel()))
    assert found.dice == pytest.approx(f1_score(truth.ravel(), predicted.ravel()))


def test_empty_masks() -> None:
    some, none = box((5, 5, 5), (9, 9, 9)), np.zeros((30, 30, 30), dtype=bool)
    both = overlap(none, none, SPACING, 1.0)
    assert np.isnan([both.dice, both.iou, both.nsd, both.hd95_mm]).all()
    for predicted, truth in ((some, none), (none, some)):
        one = overlap(predicted, truth, SPACING, 1.0)
        assert (one.dice, one.iou, one.nsd) == (0, 0, 0)
        assert one.hd95_mm == pytest.approx(30 * np.sqrt(16 + 4 + 1))


def test_masks_of_two_shapes_are_refused() -> None:
    with pytest.raises(UsageError) as error:
        overlap(np.ones((3, 3, 3), bool), np.ones((3, 3, 4), bool), SPACING, 1.0)
    assert error.value.code == "E_ROWS"


def test_the_interval_is_scipys() -> None:
    values = np.random.default_rng(1).beta(4, 2, 33)
    found = mean_over_cases("dice", values, range(33), SETTINGS)
    truth = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(2))
    assert found.value == pytest.approx(values.mean())
    assert found.method == "BCa bootstrap"
    assert [found.low, found.high] == pytest.approx(list(truth.confidence_interval), abs=0.006)


def test_a_patients_cases_count_together() -> None:
    """Every patient twice tells no more than once."""
    values = np.random.default_rng(3).random(20)
    once = mean_over_cases("dice", values, range(20), SETTINGS)
    twice = mean_over_cases("dice", np.repeat(values, 2), np.repeat(np.arange(20), 2).tolist(), SETTINGS)
    assert (twice.value, twice.low, twice.high) == pytest.approx((once.value, once.low, once.high))


def test_cases_that_do_not_tell_are_left_out_and_counted() -> None:
    values = np.array([0.2, 0.4, np.nan, 0.9, np.nan, 0.5, 0.7])
    found = mean_over_cases("dice", values, range(7), SETTINGS)
    assert found.value == pytest.approx(0.54)
    assert found.note.startswith("2 of 7 cases do not tell it")
    none = mean_over_cases("dice", np.full(3, np.nan), range(3), SETTINGS)
    assert none.value is None


def test_paired_differences() -> None:
    """A shared difficulty of the cases does not hide a small, steady difference; p is near the paired t test's."""
    random = np.random.default_rng(4)
    hard = random.random(33) * 0.8
    values = {"one": hard + 0.03 + 0.08 * random.standard_normal(33), "other": hard, "same": hard}
    tests = compare_means(
        "dice", values, [("one", "other"), ("one", "same"), ("other", "same")], range(33), Settings(resamples=20_000)
    )
    first = tests[0]
    expected = stats.ttest_rel(values["one"], values["other"])
    assert first.difference == pytest.approx((values["one"] - values["other"]).mean())
    assert first.p_value == pytest.approx(expected.pvalue, abs=0.02)
    assert [first.low, first.high] == pytest.approx(list(expected.confidence_interval(0.95)), abs=0.004)
    assert first.p_holm == pytest.approx(min(1, 2 * (first.p_value or 0)))
    assert tests[2].p_value is None  # no difference in any resample
    assert "same value" in tests[2].note


def test_only_cases_that_both_tell_are_compared() -> None:
    values = {"a": np.array([0.5, np.nan, 0.7, 0.9]), "b": np.array([0.4, 0.2, np.nan, 0.6])}
    (test,) = compare_means("dice", values, [("a", "b")], range(4), SETTINGS)
    assert test.difference == pytest.approx(0.2)
    assert test.note.startswith("2 cases are not told by both")


def test_volume_errors_are_predicted_less_true() -> None:
    truth, larger = box((5, 5, 5), (15, 15, 15)), box((5, 5, 5), (17, 15, 15))
    found = judged(larger, truth, SPACING, 1.0)
    assert list(found) == list(MEASURES)
    assert found["volume_error_ml"] == pytest.approx(200 * 8 / 1000)
    assert found["volume_error_percent"] == pytest.approx(20)
    assert judged(truth, larger, SPACING, 1.0)["volume_error_ml"] == pytest.approx(-1.6)
    none = np.zeros_like(truth)
    assert np.isnan(judged(truth, none, SPACING, 1.0)["volume_error_percent"])
    assert judged(none, truth, SPACING, 1.0)["volume_error_percent"] == -100
    assert {name: found[name] for name in ("dice", "iou", "nsd", "hd95_mm")} == vars(
        overlap(larger, truth, SPACING, 1.0)
    )


def test_lesions_are_counted_by_pieces() -> None:
    """Four true lesions, of which three are found; two predicted ones of five are none."""
    truth = box((1, 1, 1), (3, 3, 3)) | box((3, 3, 3), (4, 4, 4)) | box((8, 8, 8), (10, 10, 10))
    truth |= box((15, 1, 1), (17, 3, 3)) | box((20, 20, 20), (22, 22, 22))
    predicted = box((2, 2, 2), (3, 3, 3)) | box((9, 9, 9), (12, 12, 12)) | box((15, 1, 1), (16, 2, 2))
    predicted |= box((25, 1, 1), (26, 2, 2)) | box((25, 25, 1), (26, 26, 2))
    assert lesion_f1(predicted, truth) == pytest.approx(2 * (3 / 4) * (3 / 5) / (3 / 4 + 3 / 5))
    none = np.zeros_like(truth)
    assert np.isnan(lesion_f1(none, none))
    assert lesion_f1(predicted, none) == lesion_f1(none, truth) == 0
    assert lesion_f1(box((25, 1, 1), (26, 2, 2)), box((1, 1, 1), (3, 3, 3))) == 0
    assert lesion_f1(truth, truth) == 1
