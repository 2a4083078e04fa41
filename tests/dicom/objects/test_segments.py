"""SEG objects written by highdicom come back voxel by voxel, wherever their frames lie on the grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.uid import JPEGLSLossless, RLELossless

from pipeline.cases import Instance
from pipeline.dicom.headers.header import read_header
from pipeline.dicom.objects.segments import place, read_segmentation
from pipeline.errors import QuarantineError
from pipeline.simulation.dicom import write_series
from pipeline.volumes import affine_of
from tests.dicom.objects.structures import to_lps, write_seg
from tests.phantoms.phantom import position_phantom

SHAPE = (24, 20, 12)
IMAGE = position_phantom(SHAPE)
AFFINE = affine_of(IMAGE)


def blobs() -> dict[str, npt.NDArray[np.bool_]]:
    """Two asymmetric regions that overlap, and stay away from the first slices."""
    one, two = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    one[3:11, 5:9, 3:8] = True
    one[4, 6, 5] = False
    two[9:20, 7:15, 6:11] = True
    return {"liver": one, "spleen": two}


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return write_series(IMAGE, tmp_path / "ct")


def instance(path: Path) -> Instance:
    (found,) = read_header(path).instances
    assert found.fault is None
    return found


def placed(path: Path, *numbers: int, affine: npt.NDArray[Any] = AFFINE) -> npt.NDArray[np.bool_]:
    return place(read_segmentation(instance(path)), numbers, SHAPE, affine)


def test_overlapping_binary_segments_come_back_each(images: list[Path], tmp_path: Path) -> None:
    path = write_seg(tmp_path / "seg", images, blobs())
    assert read_segmentation(instance(path)).labels == {1: "liver", 2: "spleen"}
    one, two = blobs().values()
    np.testing.assert_array_equal(placed(path, 1), one)
    np.testing.assert_array_equal(placed(path, 2), two)
    np.testing.assert_array_equal(placed(path, 1, 2), one | two)


def test_highdicom_reads_the_same(images: list[Path], tmp_path: Path) -> None:
    """Another reader's volume, put onto the grid by its own affine."""
    path = write_seg(tmp_path / "seg", images, blobs())
    volume = hd.seg.segread(path).get_volume(combine_segments=False)
    expected = np.zeros(SHAPE, bool)
    where = np.argwhere(volume.array[..., 1] > 0)
    points = volume.map_indices_to_reference(where)
    voxels = np.linalg.inv(AFFINE) @ np.column_stack([points * [-1, -1, 1], np.ones(len(points))]).T
    expected[tuple(np.rint(voxels[:3]).astype(int))] = True
    np.testing.assert_array_equal(placed(path, 2), expected)


def test_fractions_count_from_one_half_on(images: list[Path], tmp_path: Path) -> None:
    one, _ = blobs().values()
    values = np.where(one, 0.75, 0.25)
    values[5, 6, 4], values[3, 5, 3] = 0.49, 0.503
    path = write_seg(tmp_path / "seg", images, {"liver": values}, "FRACTIONAL")
    expected = one.copy()
    expected[5, 6, 4] = False
    np.testing.assert_array_equal(placed(path, 1), expected)


@pytest.mark.parametrize("syntax", [None, RLELossless, JPEGLSLossless])
def test_label_maps_too_compressed_or_not(images: list[Path], tmp_path: Path, syntax: str | None) -> None:
    one, two = blobs().values()
    masks = {"liver": one & ~two, "spleen": two}
    options = {"transfer_syntax_uid": syntax} if syntax else {}
    path = write_seg(tmp_path / "seg", images, masks, "LABELMAP", **options)
    np.testing.assert_array_equal(placed(path, 1), one & ~two)
    np.testing.assert_array_equal(placed(path, 2), two)


def test_some_slices_in_any_order(images: list[Path], tmp_path: Path) -> None:
    chosen = [7, 3, 9]
    two = blobs()["spleen"]
    path = write_seg(tmp_path / "seg", [images[k] for k in chosen], {"spleen": two[:, :, chosen]})
    expected = np.zeros(SHAPE, bool)
    expected[:, :, chosen] = two[:, :, chosen]
    np.testing.assert_array_equal(placed(path, 1), expected)


def test_frames_in_another_plane_of_the_grid(images: list[Path], tmp_path: Path) -> None:
    """Frames across J, columns along -K and rows along I: every voxel still has one pixel."""
    one = blobs()["liver"]
    axes = AFFINE[:3, :3] * np.array([[-1], [-1], [1]])
    size = np.linalg.norm(axes, axis=0)
    row, column = -axes[:, 2] / size[2], axes[:, 0] / size[0]
    corners = to_lps([(0, j, SHAPE[2] - 1) for j in range(SHAPE[1])], AFFINE)
    frames = one.transpose(1, 0, 2)[:, :, ::-1]  # (J, rows along I, columns along -K)
    path = write_seg(
        tmp_path / "seg",
        images,
        {"liver": frames.transpose(2, 1, 0)},
        pixel_measures=hd.PixelMeasuresSequence((size[0], size[2]), size[1]),
        plane_orientation=hd.PlaneOrientationSequence("PATIENT", [*row, *column]),
        plane_positions=[hd.PlanePositionSequence("PATIENT", [round(v, 6) for v in corner]) for corner in corners],
    )
    np.testing.assert_array_equal(placed(path, 1), one)


def test_another_grid_is_refused(images: list[Path], tmp_path: Path) -> None:
    path = write_seg(tmp_path / "seg", images, blobs())
    half = AFFINE.copy()
    half[:3, 3] += 0.5 * AFFINE[:3, 0]
    finer = AFFINE @ np.diag([0.5, 1, 1, 1])
    beyond = AFFINE.copy()
    beyond[:3, 3] += 5 * AFFINE[:3, 2]
    for affine, words in ((half, "0.5 voxels beside"), (finer, "another size"), (beyond, r"reaches \d voxels? beyond")):
        with pytest.raises(QuarantineError, match=words) as caught:
            placed(path, 1, affine=affine)
        assert caught.value.code == "E_GRID"


def test_a_frame_without_segment_or_place_is_refused(images: list[Path], tmp_path: Path) -> None:
    path = write_seg(tmp_path / "seg", images, blobs())
    for keyword in ("SegmentIdentificationSequence", "PlanePositionSequence"):
        dataset = pydicom.dcmread(path)
        del dataset.PerFrameFunctionalGroupsSequence[2][keyword]
        dataset.save_as(tmp_path / "broken")
        with pytest.raises(QuarantineError) as caught:
            read_segmentation(instance(tmp_path / "broken"))
        assert caught.value.code == "E_MASK"
