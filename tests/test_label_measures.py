"""Sizes and values of regions, against what a sphere, a box and plain numpy say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from pipeline.label_measures import (
    MTV_PART,
    PEAK_RADIUS_MM,
    MeasureRegionsd,
    label_measures,
    long_axis_mm,
    sphere_parts,
    suv_peak,
    value_measures,
)
from pipeline.store.sections import Answer, Display, Regions
from pipeline.volumes import volume

#: Voxel axes run to the back, the left and the head: 2 x 1.5 x 3 mm.
AFFINE = np.array([[0.0, -1.5, 0.0, 20.0], [-2.0, 0.0, 0.0, 9.0], [0.0, 0.0, 3.0, -7.0], [0.0, 0.0, 0.0, 1.0]])
RNG = np.random.default_rng(5)
BOX = (slice(4, 9), slice(3, 11), slice(2, 5))


def box() -> np.ndarray:
    region = np.zeros((14, 16, 9), bool)
    region[BOX] = True
    return region


def test_the_long_axis_lies_in_an_axial_slice() -> None:
    assert long_axis_mm(box(), AFFINE) == pytest.approx(np.hypot(4 * 2.0, 7 * 1.5), abs=1e-3)
    sagittal = AFFINE[:, [2, 1, 0, 3]]  # feet to head along the first axis
    assert long_axis_mm(box(), sagittal) == pytest.approx(np.hypot(7 * 1.5, 2 * 2.0), abs=1e-3)


@pytest.mark.parametrize("points", [1, 2, 3, 40])
def test_the_long_axis_is_the_largest_of_all_distances(points: int) -> None:
    region = np.zeros((14, 16, 9), bool)
    walk = np.cumsum(RNG.integers(-1, 2, (points, 2)), axis=0)  # one piece, whatever its shape
    region[(*(np.clip(walk, -6, 6) + 7).T, 4)] = True
    expected = pdist(np.argwhere(region[:, :, 4]) * [2.0, 1.5])
    assert long_axis_mm(region, AFFINE) == pytest.approx(expected.max() if len(expected) else 0.0, abs=1e-3)


def test_two_lesions_of_one_slice_are_no_long_one() -> None:
    region = np.zeros((14, 16, 9), bool)
    region[1:3, 2:5, 4] = region[9:12, 11:15, 4] = True
    assert long_axis_mm(region, AFFINE) == pytest.approx(np.hypot(2 * 2.0, 3 * 1.5), abs=1e-3)


def test_a_line_of_voxels_has_its_length() -> None:
    region = np.zeros((14, 16, 9), bool)
    region[3, 2:12, 4] = True
    assert long_axis_mm(region, AFFINE) == pytest.approx(9 * 1.5, abs=1e-3)


def test_an_empty_region_has_no_values_and_never_zeros() -> None:
    image = volume(np.ones((14, 16, 9), np.float32), AFFINE)
    nothing = np.zeros((14, 16, 9), bool)
    assert long_axis_mm(nothing, AFFINE) is None
    assert set(value_measures(image, nothing, "HU").values()) == {None}
    assert set(value_measures(image, nothing, "SUVbw").values()) == {None}
    found = label_measures("gtv", volume(nothing.astype(np.uint8), AFFINE), {"gtv": 1}, "SEG")
    assert found["gtv_gtv_volume_ml"] == 0.0 and found["gtv_gtv_long_axis_mm"] is None


def test_values_in_hu_are_numpys() -> None:
    values = RNG.normal(40, 30, (14, 16, 9)).astype(np.float32)
    found = value_measures(volume(values, AFFINE), box(), "HU")
    inside = values[box()].astype(float)
    assert found["mean_hu"] == pytest.approx(inside.mean(), abs=1e-5)
    assert found["sd_hu"] == pytest.approx(inside.std(), abs=1e-5)
    assert found["p95_hu"] == pytest.approx(np.percentile(inside, 95), abs=1e-5)
    assert (found["min_hu"], found["max_hu"]) == pytest.approx((inside.min(), inside.max()), abs=1e-5)


def test_the_sphere_holds_one_millilitre() -> None:
    for sides in ([4.0, 4.0, 4.0], [2.0, 1.5, 3.0], [1.0, 1.0, 1.0]):
        parts = sphere_parts(np.array(sides))
        assert parts.sum() == pytest.approx(1.0)
        whole = parts.max()  # the middle voxel lies wholly inside
        assert np.prod(sides) / whole == pytest.approx(1000.0, rel=0.03)
    reach = np.array(sphere_parts(np.array([1.0, 1.0, 1.0])).shape) // 2
    assert (reach >= PEAK_RADIUS_MM).all()


def test_suv_peak_of_a_slope_is_its_highest_place() -> None:
    """The mean of a linear function over a sphere is its value at the centre."""
    grid = np.meshgrid(*(np.arange(20) for _ in range(3)), indexing="ij")
    values = 0.5 * grid[0] + 0.25 * grid[2]
    region = np.zeros(values.shape, bool)
    region[8:12, 8:12, 8:12] = True
    assert suv_peak(values, region, np.array([3.0, 3.0, 3.0])) == pytest.approx(0.5 * 11 + 0.25 * 11)


def test_suv_peak_of_one_hot_voxel_is_its_share_of_the_sphere() -> None:
    values = np.zeros((15, 15, 15))
    values[7, 7, 7] = 100.0
    region = values > 0
    share = sphere_parts(np.array([4.0, 4.0, 4.0])).max()
    assert suv_peak(values, region, np.array([4.0, 4.0, 4.0])) == pytest.approx(100 * share)
    assert 100 * share == pytest.approx(6.4, rel=0.03)  # 64 of 1000 mm³


def test_a_constant_tumour_at_the_edge_has_its_own_suv() -> None:
    values = np.full((6, 6, 6), 3.0, np.float32)
    region = np.zeros(values.shape, bool)
    region[0, 0, 0] = True
    assert suv_peak(values, region, np.array([4.0, 4.0, 4.0])) == pytest.approx(3.0)


def test_metabolic_volume_and_glycolysis() -> None:
    values = np.zeros((14, 16, 9), np.float32)
    values[BOX] = 2.0
    values[4:6, 3:11, 2:5] = 10.0
    found = value_measures(volume(values, AFFINE), box(), "SUVbw")
    voxel_ml = 2.0 * 1.5 * 3.0 / 1000
    assert MTV_PART * 10 > 2
    assert found["suv_max"] == 10.0
    assert found["mtv_ml"] == pytest.approx(2 * 8 * 3 * voxel_ml)
    assert found["tlg_g"] == pytest.approx(10 * 2 * 8 * 3 * voxel_ml)


def test_a_case_is_measured_and_says_so() -> None:
    label = np.where(box(), 2, 0).astype(np.uint8)
    values = np.full((14, 16, 9), 37.0, np.float32)
    case = {"ct": volume(values, AFFINE), "gtv": volume(label, AFFINE)}
    case["measures"] = label_measures("gtv", case["gtv"], {"core": 1, "rim": 2}, "SEG")
    step = MeasureRegionsd(
        {"gtv": {"core": 1, "rim": 2}}, {"gtv": "ct"}, {"ct": Display("ct", "CT", "HU", (-160, 240))}
    )
    case = step(case)
    assert case["measures"]["gtv_rim_ct_mean_hu"] == 37.0
    assert case["measures"]["gtv_core_ct_mean_hu"] is None
    said = step.sections(case)
    assert said.regions == (Regions("gtv", ("ct",), {1: "GTV: core", 2: "GTV: rim"}),)
    assert said.displays == (Display("ct", "CT", "HU", (-160, 240)),)
    volume_ml = 5 * 8 * 3 * 9 / 1000
    assert said.answers[1] == Answer(
        "GTV: rim", f"{volume_ml:g} mL, long axis (axial) 13.2 mm", "CT 37 ± 0 HU, highest 37 HU"
    )
    (rows,) = (table.rows for section in said.sections for table in section.tables)
    assert rows[0][3:5] == ("–", "not available") and rows[1][4] == "37 ± 0 HU"


def test_without_masks_images_are_shown_and_nothing_is_said() -> None:
    step = MeasureRegionsd({}, {"gtv": "ct"}, {"ct": Display("ct", "CT"), "mr": Display("mr", "MR")})
    case = step({"ct": volume(np.zeros((4, 4, 4), np.float32), AFFINE)})
    said = step.sections(case)
    assert said.displays == (Display("ct", "CT"),) and not said.sections and not said.answers
