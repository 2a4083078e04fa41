"""The gate's verdicts on stacks made of headers alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.cases import Instance
from pipeline.dicom.series.gate import judge
from pipeline.dicom.series.stack import stack_of
from tests.dicom.stacks import even, series, slice_at, stack


def code_of(instances: list[Instance], **changes: object) -> str:
    fault = judge(series(instances, **changes)).fault
    return fault.code if fault else ""


def notes_of(instances: list[Instance]) -> tuple[str, ...]:
    judged = judge(series(instances))
    assert judged.fault is None, judged.fault
    return judged.notes


def test_slices_are_ordered_along_the_normal_whatever_their_numbers() -> None:
    slices = even()
    judged = judge(series([slices[index] for index in np.random.default_rng(1).permutation(20)]))
    assert judged.instances == tuple(slices)
    assert judged.notes == ()


@pytest.mark.parametrize("angle_deg", [-25.0, -0.6, 0.6, 12.0, 44.0])
def test_a_tilt_is_marked_with_its_angle(angle_deg: float) -> None:
    tangent = np.tan(np.radians(angle_deg))
    slices = [slice_at(along, index, (0.0, along * tangent)) for index, along in enumerate(np.arange(20) * 2.5)]
    judged = judge(series(slices))
    assert judged.notes == ("N_TILT_CORRECTED",)
    assert stack_of(judged.instances).tilt_deg == pytest.approx(angle_deg, abs=1e-6)


def test_no_gantry_leans_that_far() -> None:
    assert (
        code_of([slice_at(along, index, (0.0, along * 1.1)) for index, along in enumerate(np.arange(9) * 2.5)])
        == "E_TILT"
    )


def test_a_stack_that_runs_out_of_its_own_picture_is_no_tilt() -> None:
    """The upright grid would be 200 pictures wide, and fill the memory."""
    slices = [slice_at(along, index, (0.0, 0.9 * along)) for index, along in enumerate(np.arange(9) * 1000.0)]
    assert code_of(slices) == "E_TILT"


def test_positions_with_few_decimals_are_straight() -> None:
    """Rounded to 0.1 mm, slices of 0.6 mm lie up to 0.07 mm beside one another: no tilt, no irregular steps."""
    slices = [replace(item, position=tuple(np.round(item.position, 2))) for item in even(60, 0.6)]
    assert notes_of(slices) == ()


def test_one_slice_beside_the_others_is_refused() -> None:
    slices = even()
    for where in (0, 9, 19):
        shifted = [
            slice_at(where * 2.5, where + 1, (0.6, 0.0)) if n == where else item for n, item in enumerate(slices)
        ]
        assert code_of(shifted) == "E_MIXED_GRID"
        near = [slice_at(where * 2.5, where + 1, (0.3, 0.0)) if n == where else item for n, item in enumerate(slices)]
        assert notes_of(near) == ()


@pytest.mark.parametrize("missing", [[9], [8, 9, 10]])
def test_a_gap_is_where_slices_are_missing(missing: list[int]) -> None:
    slices = stack(np.arange(20) * 2.5)
    heights_mm = [slices[number].position[2] for number in missing]
    judged = judge(series([item for number, item in enumerate(slices) if number not in missing]))
    assert judged.fault is not None
    assert judged.fault.message.endswith(f"are missing near z = {np.mean(heights_mm):.1f} mm.")


@pytest.mark.parametrize(
    ("along_mm", "message"),
    [
        (np.delete(np.arange(20), [9]) * 2.5, "1 of 20 slices are missing near z"),
        (np.delete(np.arange(20), [8, 9, 10]) * 2.5, "3 of 20 slices are missing near z"),
        (np.delete(np.arange(20) * 2.5 + np.tile([0.0, 0.2], 10), [9]), "1 of 20 slices are missing near z"),
        (np.concatenate([np.arange(5) * 2.5, 10 + np.arange(1, 6) * 5.0]), "5 of 15 slices are missing"),
    ],
)
def test_a_gap_is_counted(along_mm: np.ndarray, message: str) -> None:
    judged = judge(series(stack(along_mm)))
    assert judged.fault is not None and judged.fault.code == "E_GAP"
    assert judged.fault.message.startswith(message)


def test_steps_that_change_with_the_thickness_are_evened_out() -> None:
    thin, thick = even(6, 5.0, SliceThickness=5), stack(np.arange(1, 7) * 10.0 + 25, 7, SliceThickness=10)
    assert notes_of([*thin, *thick]) == ("N_RESAMPLED",)
    del thick[2]
    assert code_of([*thin, *thick]) == "E_GAP"


def test_uneven_steps_are_evened_out_within_reason() -> None:
    assert notes_of(stack(np.cumsum(np.linspace(2.0, 3.4, 20)))) == ("N_RESAMPLED",)
    assert notes_of(stack(np.arange(20) * 2.5 + np.tile([0.0, 0.02], 10))) == ()
    far = [*even(6, 1.0, SliceThickness=1), *stack(5 + np.arange(1, 4) * 6.0, 7, SliceThickness=6)]
    assert code_of(far) == "E_IRREGULAR"


def test_missing_ends_are_noted_where_the_acquisition_was_counted() -> None:
    assert notes_of(even(18, ImagesInAcquisition=20)) == ("N_ENDS_MISSING",)
    assert notes_of(even(20, ImagesInAcquisition=20)) == ()
    assert notes_of([*even(10, ImagesInAcquisition=20, AcquisitionNumber=1)]) == ("N_ENDS_MISSING",)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"slope": None}, "E_RESCALE"),
        ({"intercept": None}, "E_RESCALE"),
        ({"slope": 0.0}, "E_RESCALE"),
        ({"position": None}, "E_GAP"),
        ({"rows": 0}, "E_NOT_IMAGE"),
        ({"rows": 27}, "E_MIXED_GRID"),
    ],
)
def test_one_slice_spoils_a_series(changes: dict[str, object], code: str) -> None:
    slices = even()
    slices[4] = replace(slices[4], **changes)  # type: ignore[arg-type]
    assert code_of(slices) == code


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ({"BurnedInAnnotation": "YES"}, "E_BURNED_IN"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "E_SCREENSHOT"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.2"}, "E_SCREENSHOT"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "E_NOT_SCALAR"),
        ({"PhotometricInterpretation": "YBR_FULL_422"}, "E_NOT_SCALAR"),
        ({"SamplesPerPixel": "3"}, "E_NOT_SCALAR"),
        ({"NumberOfFrames": "30"}, "E_MULTIFRAME"),
    ],
)
def test_pictures_that_are_no_measurement_are_set_aside(tags: dict[str, object], code: str) -> None:
    assert code_of(even(**tags)) == code


def test_an_mr_needs_no_rescale() -> None:
    assert code_of([replace(item, slope=None, intercept=None) for item in even()], modality="MR") == ""


def test_a_segmentation_is_no_image_and_nothing_is_wrong_with_it() -> None:
    assert code_of(even(), modality="SEG") == "E_NOT_IMAGE"


def test_a_step_that_is_rounded_moves_no_slice_and_many_that_are_a_little_long_do() -> None:
    """A PET's bed positions: one step of 3.35 mm among 3.27; and a stack whose steps grow by 1.5 % half way."""
    bed = np.full(60, 3.27)
    bed[[10, 30, 50]] = 3.25, 3.35, 3.25
    assert notes_of(stack(np.cumsum(bed))) == ()
    assert notes_of(stack(np.cumsum(np.repeat([1.0, 1.015], 60)))) == ("N_RESAMPLED",)
