"""Contours to masks, against analytic areas, another implementation and refusals by code. Grids are oblique."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from skimage.measure import points_in_poly

from pipeline.dicom.objects.contours import Region, fill, inside, read_regions
from pipeline.errors import QuarantineError
from pipeline.simulation.dicom import write_series
from pipeline.volumes import affine_of
from tests.dicom.objects.structures import circle, polygon, to_lps, write_rtstruct
from tests.phantoms.phantom import position_phantom

SHAPE = (32, 28, 20)
IMAGE = position_phantom(SHAPE)
AFFINE = affine_of(IMAGE)
SQUARE = [(4.5, 5.5), (10.5, 5.5), (10.5, 12.5), (4.5, 12.5)]


def filled(*polygons: tuple[object, float], others: int = 0):  # type: ignore[no-untyped-def]
    return fill(Region("x", tuple(polygon(points, k, AFFINE) for points, k in polygons), others), SHAPE, AFFINE)


def test_a_polygon_holds_the_centres_that_another_implementation_finds() -> None:
    random = np.random.default_rng(7)
    i, j = np.meshgrid(np.arange(40), np.arange(30), indexing="ij")
    for _ in range(20):
        star = random.uniform(-3, 40, size=(int(random.integers(3, 12)), 2))  # crosses itself and leaves the image
        expected = points_in_poly(np.column_stack([i.ravel(), j.ravel()]), star).reshape(i.shape)
        np.testing.assert_array_equal(inside([star], 40, 30), expected)


def test_neighbouring_polygons_share_no_voxel_and_lose_none() -> None:
    """Edges that run exactly through voxel centres belong to one side."""
    left = np.array([(2, 3), (6, 3), (6, 9), (2, 9)], float)
    right = np.array([(6, 3), (11, 3), (11, 9), (6, 9)], float)
    masks = [inside([item], 20, 20) for item in (left, right)]
    assert [int(mask.sum()) for mask in masks] == [4 * 6, 5 * 6]
    assert not (masks[0] & masks[1]).any()


def test_a_cylinder_on_an_oblique_grid_has_the_analytic_voxels() -> None:
    radius = (9.3, 7.4)
    mask = filled(*((circle((15.2, 13.1), radius), k) for k in range(3, 11))).mask
    i, j = np.meshgrid(np.arange(SHAPE[0]), np.arange(SHAPE[1]), indexing="ij")
    expected = ((i - 15.2) / radius[0]) ** 2 + ((j - 13.1) / radius[1]) ** 2 < 1
    assert mask[:, :, 3:11].any() and not mask[:, :, :3].any() and not mask[:, :, 11:].any()
    for k in range(3, 11):
        assert int((mask[:, :, k] ^ expected).sum()) <= 1  # 400 chords instead of the ellipse
    assert mask[:, :, 5].sum() == pytest.approx(np.pi * radius[0] * radius[1], rel=0.02)


@pytest.mark.parametrize("turn", [1, -1])
def test_a_hole_comes_out_however_it_is_written(turn: int) -> None:
    outer, hole = circle((15, 13), (9.4, 9.4)), circle((16, 12), (3.4, 3.4))[::turn]
    keyhole = np.vstack([outer, outer[:1], hole, hole[:1]])
    separate = filled((outer, 4), (hole, 4)).mask
    joined = filled((keyhole, 4)).mask
    np.testing.assert_array_equal(separate, joined)
    assert separate.sum() == filled((outer, 4)).mask.sum() - filled((hole, 4)).mask.sum()
    assert not separate[16, 12, 4] and separate[9, 13, 4]


def test_two_contours_of_a_slice_are_both_filled_and_a_doubled_one_once(tmp_path: Path) -> None:
    far = [(x + 12, y) for x, y in SQUARE]
    assert filled((SQUARE, 2), (far, 2)).mask.sum() == 2 * 6 * 7
    images = write_series(IMAGE, tmp_path / "ct")
    square = polygon(SQUARE, 2, AFFINE)
    (region,) = read_regions(write_rtstruct(tmp_path / "rs", images, {"GTV": [square, square]}))
    assert fill(region, SHAPE, AFFINE).mask.sum() == 6 * 7


def test_what_is_written_is_where_it_is_read(tmp_path: Path) -> None:
    images = write_series(IMAGE, tmp_path / "ct")
    write_rtstruct(tmp_path / "rs", images, {"A": [polygon(SQUARE, 7, AFFINE)], "B": []})
    first, second = read_regions(tmp_path / "rs")
    assert [region.name for region in read_regions(tmp_path / "rs", ["^B", "x"])] == ["B"]
    assert (first.name, second.name, second.closed) == ("A", "B", ())
    expected = np.zeros(SHAPE, bool)
    expected[5:11, 6:13, 7] = True
    np.testing.assert_array_equal(fill(first, SHAPE, AFFINE).mask, expected)


def test_contours_beside_their_slices_go_to_the_nearest_with_a_flag() -> None:
    found = filled(*((SQUARE, k + 0.3) for k in (4, 5, 7)))
    assert sorted(set(np.nonzero(found.mask)[2])) == [4, 5, 7]
    assert [flag.split(":")[0] for flag in found.flags] == ["N_CONTOUR_OFFSET", "N_CONTOUR_GAPS"]
    assert "0.30 slice steps" in found.flags[0] and "1 slices" in found.flags[1]


def test_points_and_open_contours_are_reported(tmp_path: Path) -> None:
    images = write_series(IMAGE, tmp_path / "ct")
    square = polygon(SQUARE, 7, AFFINE)
    contours = [square, ("POINT", square[:1]), ("OPEN_PLANAR", square), square[:2]]
    (region,) = read_regions(write_rtstruct(tmp_path / "rs", images, {"A": contours}))
    found = fill(region, SHAPE, AFFINE)
    assert found.mask.sum() == 42
    assert found.flags == ("N_OPEN_CONTOURS: 3 points and open contours were left out",)


def test_what_reaches_beyond_the_image_is_cut_with_a_flag() -> None:
    found = filled(([(-6.5, 5.5), (3.5, 5.5), (3.5, 9.5), (-6.5, 9.5)], 3))
    assert found.mask.sum() == 4 * 4
    assert [flag.split(":")[0] for flag in found.flags] == ["N_MASK_CUT"]


@pytest.mark.parametrize(
    ("contours", "words"),
    [
        ([to_lps([(4, 5, 3.0), (12, 5, 3.0), (12, 9, 4.5)], AFFINE)], "do not lie in the planes"),
        ([polygon(SQUARE, k, AFFINE) for k in (2, 3.5, 5, 6.5)], "another spacing"),
        ([polygon(SQUARE, k, AFFINE) for k in (18, 19, 20)], "1 of 3 contours lie beyond the ends"),
        ([polygon(SQUARE, -1, AFFINE)], "beyond the ends"),
    ],
)
def test_contours_of_other_planes_are_refused(contours: list[np.ndarray], words: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(QuarantineError, match=words) as caught:
        fill(Region("x", tuple(contours)), SHAPE, AFFINE)
    assert caught.value.code == "E_MASK"


@pytest.mark.parametrize("wrong", [b"1111.2222\\3333", b"11,1\\2222\\3333", b" nan\\2222\\3333"])
def test_numbers_that_are_none_are_refused(tmp_path: Path, wrong: bytes) -> None:
    images = write_series(IMAGE, tmp_path / "ct")
    path = write_rtstruct(tmp_path / "rs", images, {"A": [polygon(SQUARE, 7, AFFINE)]})
    dataset = pydicom.dcmread(path)
    dataset.ROIContourSequence[0].ContourSequence[0].ContourData = ["1111", "2222", "3333"] * 3
    dataset.save_as(path)
    assert len(read_regions(path)[0].closed[0]) == 3
    path.write_bytes(path.read_bytes().replace(b"1111\\2222\\3333", wrong, 1))
    with pytest.raises(QuarantineError) as caught:
        read_regions(path)
    assert caught.value.code == "E_MASK"


@pytest.mark.parametrize("undefined", [False, True])
def test_a_cut_file_is_refused_or_complete(tmp_path: Path, undefined: bool) -> None:
    """No cut gives some of the contours: that would be a smaller tumour."""
    images = write_series(IMAGE, tmp_path / "ct")
    path = write_rtstruct(tmp_path / "rs", images, {"A": [polygon(SQUARE, k, AFFINE) for k in range(4)]})
    dataset = pydicom.dcmread(path)
    for element in dataset.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = undefined
    dataset.save_as(path)
    whole = path.read_bytes()
    refused = 0
    for length in np.linspace(400, len(whole), 150).astype(int):
        path.write_bytes(whole[:length])
        try:
            regions = read_regions(path)
        except QuarantineError as error:
            assert error.code == "E_MASK"
            refused += 1
        else:
            assert [len(region.closed) for region in regions] in ([4], [0], [])
    assert refused > 60
