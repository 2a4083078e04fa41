from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from pipeline import volumes
from pipeline.body import body_mask
from pipeline.errors import CaseError, UsageError
from pipeline.preprocessing.bias import FIELD_CV_THRESHOLD, N4BiasCorrectiond, n4_bias_correction


def variation(image, inside: np.ndarray) -> float:
    values = image.numpy()[0][inside].astype(np.float64)
    return float(values.std() / values.mean())


def test_a_strong_bias_is_found_and_taken_away(head) -> None:
    """White matter varies by noise only once the field is gone (measured: 0.085 -> 0.031; 0.030 without any bias)."""
    field = head.bias(0.3)
    image = head.scanned(field)
    result = n4_bias_correction(image)
    assert result.applied and result.field_cv > 1.5 * FIELD_CV_THRESHOLD
    assert variation(image, head.white) > 0.08
    assert variation(result.image, head.white) < 0.036
    removed = (image / result.image).numpy()[0]
    assert np.corrcoef(removed[head.body], field[head.body])[0, 1] > 0.95
    inside = body_mask(image, "MR").numpy()[0] > 0
    assert removed[inside & (image.numpy()[0] > 0)].mean() == pytest.approx(1, abs=1e-3)
    np.testing.assert_array_equal(volumes.affine_of(result.image), head.affine)


@pytest.mark.parametrize("strength", [0.0, 0.05])
def test_auto_declines_a_weak_bias_and_leaves_every_voxel(head, strength: float) -> None:
    image = head.scanned(head.bias(strength))
    result = n4_bias_correction(image, mode="auto")
    assert not result.applied and 0 < result.field_cv < FIELD_CV_THRESHOLD
    np.testing.assert_array_equal(result.image.numpy(), image.numpy())


def test_always_corrects_what_auto_declines_and_harms_it(head) -> None:
    """Why there is a gate: with no bias at all, dividing by what N4 finds spreads white matter."""
    image = head.scanned()
    result = n4_bias_correction(image, mode="always")
    assert result.applied
    assert variation(result.image, head.white) > 1.03 * variation(image, head.white)


@pytest.mark.slow
def test_the_number_of_threads_changes_nothing(head) -> None:
    """A cohort is worked on by as many processes as there is room for; each has fewer threads."""
    image, default = head.scanned(head.bias(0.3)), sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    found = []
    for threads in (1, 3):
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
        found.append(n4_bias_correction(image, mode="always").image.numpy())
        assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == threads
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(default)
    np.testing.assert_array_equal(found[0], found[1])


def test_never_estimates_nothing(head) -> None:
    image = head.scanned(head.bias(0.3))
    result = n4_bias_correction(image, mode="never")
    assert result.field_cv is None and not result.applied
    np.testing.assert_array_equal(result.image.numpy(), image.numpy())


@pytest.mark.slow
def test_dictionary_transform_records_what_it_did(head) -> None:
    strong, weak = head.scanned(head.bias(0.3)), head.scanned()
    mask = head.image(head.body)
    case = {"case_id": "c", "t1": strong, "t2": weak, "brain": mask, "measures": {"seconds": 3.0}, "flags": ["N_OLD"]}
    result = N4BiasCorrectiond(["t1", "t2", "flair"], mask_key="brain", allow_missing_keys=True)(case)
    expected = {key: n4_bias_correction(case[key], mask) for key in ("t1", "t2")}
    for key, found in expected.items():
        np.testing.assert_array_equal(result[key].numpy(), found.image.numpy())
        assert result["measures"][f"{key}_bias_field_cv"] == found.field_cv
    assert result["measures"]["seconds"] == 3.0 and len(result["measures"]) == 3
    assert result["flags"][0] == "N_OLD" and len(result["flags"]) == 2
    assert result["flags"][1].startswith("N_BIAS_CORRECTED: t1 ")
    assert case["flags"] == ["N_OLD"] and case["measures"] == {"seconds": 3.0}


def test_what_cannot_be_corrected_is_refused(head) -> None:
    image = head.scanned()
    slice_ = volumes.volume(image.numpy()[:, :, :, 30:31], head.affine)
    blank, empty = head.image(np.full(head.body.shape, 5)), head.image(np.zeros(head.body.shape))
    for arguments, code in (((slice_,), "E_SINGLE_SLICE"), ((blank,), "E_BLANK"), ((image, empty), "E_BLANK")):
        with pytest.raises(CaseError) as caught:
            n4_bias_correction(*arguments)
        assert caught.value.code == code
    with pytest.raises(UsageError, match="E_CONFIG"):
        N4BiasCorrectiond("mr", mode="sometimes")
