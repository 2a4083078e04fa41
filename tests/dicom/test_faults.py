"""FAULTS: each planted fault is refused with its code or read right; nothing is read wrong without a word.

The oracle is the position phantom: a voxel's value tells where it lies.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pipeline.cases import Series
from pipeline.dicom.gate import judge
from pipeline.dicom.scan import scan
from pipeline.dicom.volume import read_volume
from pipeline.errors import QuarantineError
from pipeline.simulation import faults
from pipeline.simulation.dicom import SeriesHeader, write_series
from pipeline.simulation.phantom import position_error, position_phantom

#: Values are rounded to whole HU when they are written; positions have at most 16 characters.
ROUNDING_HU = 0.51


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_series(position_phantom(), tmp_path / "series", SeriesHeader())
    return tmp_path / "series"


def read(folder: Path) -> list[Series]:
    return [judge(series) for series in scan(folder).series]


def test_the_clean_phantom_is_read_right(folder: Path) -> None:
    (series,) = read(folder)
    volume = read_volume(series)
    assert volume.shape == (1, 32, 28, 20)
    assert position_error(volume) <= ROUNDING_HU
    assert volume.numpy().dtype == "int16"


REFUSED = {
    "1 one slice missing": (faults.missing_slice, "E_GAP", "1 of 20 slices are missing"),
    "1 three slices missing": (partial(faults.missing_slice, count=3), "E_GAP", "3 of 20 slices are missing"),
    "3 same SOP, other bytes": (faults.duplicate_sop, "E_DUP_SOP", "2 different files"),
    "4 same position": (faults.duplicate_position, "E_DUP_POS", "share a position"),
    "7 two patients": (faults.second_patient, "E_UID_COLLISION", "2 patients"),
    "10 gantry tilt": (faults.gantry_tilt, "E_TILT", "12.0 degrees"),
    "11 other orientation": (faults.other_orientation, "E_MIXED_GRID", "orientation"),
    "12 truncated pixels": (faults.truncated_pixels, "E_GAP", "1 of 20 slices were rejected (E_PIXEL_LENGTH)"),
    "12 truncated header": (faults.truncated_header, "E_GAP", "1 of 20"),
    "12 zero bytes": (faults.empty_file, "E_GAP", "1 of 20"),
    "13 short pixels": (faults.short_pixels, "E_GAP", "1 of 20 slices were rejected (E_PIXEL_LENGTH)"),
    "17 one position missing": (faults.missing_geometry, "E_GAP", "1 of 20 slices have no ImagePositionPatient"),
    "17 one orientation missing": (
        partial(faults.missing_geometry, keyword="ImageOrientationPatient"),
        "E_GAP",
        "1 of 20 slices have no ImageOrientationPatient",
    ),
    "17 all positions missing": (
        partial(faults.missing_geometry, everywhere=True),
        "E_NO_GEOMETRY",
        "No slice has ImagePositionPatient",
    ),
    "18 equal positions": (faults.equal_positions, "E_DUP_POS", "20 of 20"),
    "18 NaN position": (faults.nan_position, "E_BAD_DS", "ImagePositionPatient"),
    "18 spacing 0": (faults.zero_spacing, "E_NO_GEOMETRY", "above 0"),
    "19 decimal comma": (faults.comma_decimal, "E_BAD_DS", "PixelSpacing"),
    "20 other matrix": (faults.other_matrix, "E_MIXED_GRID", "image size"),
    "21 skewed axes": (faults.skewed_axes, "E_NO_GEOMETRY", "right angle"),
    "21 shift in plane": (faults.shifted_in_plane, "E_MIXED_GRID", "sideways"),
    "26 MONOCHROME1": (faults.monochrome1, "E_NOT_SCALAR", "MONOCHROME1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_its_code(folder: Path, name: str) -> None:
    plant, code, words = REFUSED[name]
    plant(folder)
    for series in read(folder):
        assert series.fault is not None, "read without a word"
        assert series.fault.code == code
        assert words in series.fault.message
        with pytest.raises(QuarantineError, match=code):
            read_volume(series)


READ_RIGHT: dict[str, tuple[Callable[[Path], list[Path]], tuple[str, ...]]] = {
    "3 same file twice": (faults.duplicate_file, ("N_COPIES_DROPPED",)),
    "14 clutter": (faults.clutter, ()),
    "15 no preamble": (faults.no_preamble, ("N_NO_PREAMBLE",)),
    "22 shuffled numbers": (faults.shuffled_numbers, ()),
    "23 lying thickness": (faults.lying_thickness, ()),
    "24 rescale changes": (faults.changing_rescale, ()),
}


@pytest.mark.parametrize("name", READ_RIGHT)
def test_read_right(folder: Path, name: str) -> None:
    plant, notes = READ_RIGHT[name]
    plant(folder)
    (series,) = (item for item in read(folder) if item.modality == "CT")
    assert series.fault is None
    assert series.notes == notes
    assert len(series.instances) == 20
    assert position_error(read_volume(series)) <= ROUNDING_HU


def test_5_two_series_in_a_folder_are_two_volumes(folder: Path) -> None:
    faults.second_series(folder)
    first, second = sorted((read_volume(series) for series in read(folder)), key=lambda image: float(image.max()))
    assert position_error(first) <= ROUNDING_HU
    assert position_error(second - 100) <= ROUNDING_HU


def test_a_missing_end_slice_leaves_the_rest_in_place(folder: Path) -> None:
    ordered = read(folder)[0].files
    ordered[0].unlink()
    ordered[-1].unlink()
    (series,) = read(folder)
    volume = read_volume(series)
    assert volume.shape[-1] == 18
    assert position_error(volume) <= ROUNDING_HU


def test_irregular_slices_are_refused(tmp_path: Path) -> None:
    """Two blocks of one series with other slice distances."""
    header = SeriesHeader()
    write_series(position_phantom(shape=(16, 14, 6)), tmp_path / "a", header)
    thin = position_phantom(shape=(16, 14, 6), spacing_mm=(0.9, 1.1, 1.7))
    thin.affine[:3, 3] += position_phantom().affine[:3, 2] * 6
    write_series(thin, tmp_path / "b", SeriesHeader(first_instance=7))
    (series,) = read(tmp_path)
    assert series.fault is not None and series.fault.code == "E_IRREGULAR"
