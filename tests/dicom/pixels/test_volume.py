"""What the reader makes of what the gate has marked. The oracle is the position phantom: values tell positions."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pydicom
import pytest
from monai.data import MetaTensor

from pipeline import geometry, volumes
from pipeline.cases import Series
from pipeline.dicom.headers.scan import scan
from pipeline.dicom.pixels.volume import ReadSeriesd, read
from pipeline.dicom.series.gate import candidates
from pipeline.errors import QuarantineError
from pipeline.simulation.dicom import SeriesHeader, write_series
from tests.phantoms import faults
from tests.phantoms.phantom import expected_values, position_phantom

ROUNDING_HU = 0.51


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A phantom with values from -113 to 59 HU."""
    write_series(moved_phantom(), tmp_path)
    return tmp_path


def moved_phantom() -> MetaTensor:
    return position_phantom(shape=(20, 18, 12), origin_mm=(-31.7, 12.3, -10.0))


def only(folder: Path) -> Series:
    (series,) = candidates(scan(folder).series)
    return series


def error_hu(values: np.ndarray, affine: np.ndarray) -> float:
    """The largest error of voxels that are not air."""
    expected = expected_values(values.shape, affine)
    inside = values > -900
    return float(np.abs(values - expected)[inside].max())


@pytest.mark.parametrize("angle_deg", [-18.5, 12.0, 30.0])
def test_a_tilted_stack_is_sheared_upright_and_nothing_is_cut(folder: Path, angle_deg: float) -> None:
    faults.gantry_tilt(folder, angle_deg)
    found = read(only(folder))
    values, affine = found.image.numpy()[0].astype(float), volumes.affine_of(found.image)
    assert error_hu(values, affine) <= ROUNDING_HU
    shift_rows = np.ceil(11 * 2.5 * np.sin(np.radians(abs(angle_deg))) / 1.1)
    assert values.shape == (20, 18 + shift_rows, 12)
    assert np.count_nonzero(values > -900) >= 0.93 * 20 * 18 * 12
    assert (values[values <= -900] == -1000).all()
    assert found.measures == {"tilt_deg": pytest.approx(angle_deg, abs=0.01)}


@pytest.mark.parametrize(
    ("plant", "slices"),
    [
        (partial(faults.jittered, by_mm=0.2), 12),
        (partial(faults.jittered, by_mm=0.7), 25),
        (faults.growing_distances, 14),
    ],
)
def test_uneven_slices_are_put_where_they_lie(folder: Path, plant: partial[list[Path]], slices: int) -> None:
    plant(folder)
    series = only(folder)
    found = read(series)
    assert "N_RESAMPLED" in series.notes
    assert found.image.shape[1:3] == (20, 18)
    step = found.measures["step_mm"]
    assert step == pytest.approx(float(geometry.spacing_mm(volumes.affine_of(found.image))[2]), abs=1e-3)
    assert error_hu(found.image.numpy()[0].astype(float), volumes.affine_of(found.image)) <= ROUNDING_HU
    assert found.image.shape[3] >= len(series.instances)


def test_whole_numbers_stay_whole_and_others_are_kept(folder: Path) -> None:
    assert read(only(folder)).image.numpy().dtype == np.int16
    for path in folder.iterdir():
        slice_ = pydicom.dcmread(path)
        slice_.RescaleSlope, slice_.RescaleIntercept = "40", "-1024"
        slice_.save_as(path, enforce_file_format=True)
    large = read(only(folder)).image.numpy()
    assert large.dtype == np.float32 and large.max() > 32767
    stored = {path: pydicom.dcmread(path) for path in folder.iterdir()}
    assert large.max() == max(float(item.pixel_array.max()) * 40 - 1024 for item in stored.values())


@pytest.mark.parametrize("slope", ["1e38", "1e300"])
def test_values_beyond_any_number_are_refused(folder: Path, slope: str) -> None:
    path = sorted(folder.iterdir())[5]
    slice_ = pydicom.dcmread(path)
    slice_.RescaleSlope = slope
    slice_.save_as(path, enforce_file_format=True)
    with pytest.raises(QuarantineError, match="E_RESCALE: Slice"):
        read(only(folder))


def test_each_slice_has_its_own_rescale(folder: Path) -> None:
    faults.changing_rescale(folder)
    volume = read(only(folder)).image
    assert error_hu(volume.numpy()[0].astype(float), volumes.affine_of(volume)) <= ROUNDING_HU


def test_one_slice_with_a_wrong_intercept_is_found_in_the_pixels(folder: Path) -> None:
    faults.wrong_intercept(folder)
    series = only(folder)
    assert series.fault is None
    with pytest.raises(QuarantineError, match="E_RESCALE: Slice 7 of 12 does not fit its own rescale"):
        read(series)


def test_one_slice_with_a_rescale_of_its_own_that_is_right_passes(folder: Path) -> None:
    path = sorted(folder.iterdir())[5]
    slice_ = pydicom.dcmread(path)
    slice_.PixelData = (slice_.pixel_array + 76).astype("<u2").tobytes()
    slice_.RescaleIntercept = "-1100"
    slice_.save_as(path, enforce_file_format=True)
    volume = read(only(folder)).image
    assert error_hu(volume.numpy()[0].astype(float), volumes.affine_of(volume)) <= ROUNDING_HU


@pytest.mark.parametrize(
    ("stored", "value", "limit"), [(63536, 63536, None), (63000, 63536, 62000), (5000, 4990, 5010)], ids=str
)
def test_padding_becomes_air_and_nothing_else_changes(folder: Path, stored: int, value: int, limit: int | None) -> None:
    before = read(only(folder)).image.numpy()
    for path in folder.iterdir():
        slice_ = pydicom.dcmread(path)
        values = slice_.pixel_array.copy()
        values[:3] = stored
        slice_.PixelData = values.tobytes()
        slice_.add_new("PixelPaddingValue", "US", value)
        if limit is not None:
            slice_.add_new("PixelPaddingRangeLimit", "US", limit)
        slice_.save_as(path, enforce_file_format=True)
    found = read(only(folder))
    after = found.image.numpy()
    assert (after[0, :, :3] == -1000).all()
    np.testing.assert_array_equal(after[0, :, 3:], before[0, :, 3:])
    assert "N_PADDING" in found.notes


def test_padding_of_a_ct_that_is_not_in_hu_becomes_zero(folder: Path) -> None:
    """A map of density has no air of -1000; nor does it lack fat."""
    for path in folder.iterdir():
        slice_ = pydicom.dcmread(path)
        values = slice_.pixel_array.copy()
        values[:3] = 0
        slice_.PixelData, slice_.RescaleType = values.tobytes(), "MGML"
        slice_.add_new("PixelPaddingValue", "US", 0)
        slice_.save_as(path, enforce_file_format=True)
    found = read(only(folder))
    assert (found.image.numpy()[0, :, :3] == 0).all()
    assert found.notes == ("N_PADDING",)


def test_padding_that_would_be_tissue_is_not_trusted(folder: Path) -> None:
    """Water is 0 HU: a header that calls it padding would turn every such voxel to air."""
    before = read(only(folder)).image.numpy()
    for path in folder.iterdir():
        slice_ = pydicom.dcmread(path)
        slice_.add_new("PixelPaddingValue", "US", 1024)
        slice_.save_as(path, enforce_file_format=True)
    found = read(only(folder))
    np.testing.assert_array_equal(found.image.numpy(), before)
    assert "N_PADDING" not in found.notes and (before == 0).any()


def test_a_signed_padding_is_read_as_the_pixels_are(tmp_path: Path) -> None:
    write_series(position_phantom(shape=(8, 7, 4)), tmp_path)
    for path in tmp_path.iterdir():
        slice_ = pydicom.dcmread(path)
        values = slice_.pixel_array.astype("<i2")
        values[-1] = -2000
        slice_.PixelRepresentation, slice_.PixelData = 1, values.tobytes()
        slice_.add_new("PixelPaddingValue", "US", 63536)  # as some writers do, though the pixels are signed
        slice_.save_as(path, enforce_file_format=True)
    assert (read(only(tmp_path)).image.numpy()[0, :, -1] == -1000).all()


def test_a_ct_without_air_and_fat_is_noted(folder: Path) -> None:
    assert read(only(folder)).notes == ()
    for path in folder.iterdir():
        slice_ = pydicom.dcmread(path)
        slice_.RescaleIntercept = "0"
        slice_.save_as(path, enforce_file_format=True)
    assert read(only(folder)).notes == ("N_NO_AIR",)


def test_the_case_gets_the_notes_and_measures(folder: Path) -> None:
    faults.gantry_tilt(folder, 12.0)
    case = {"case_id": "a", "ct": only(folder), "flags": ["ct: N_TILT_CORRECTED"], "fault": None}
    done = ReadSeriesd("ct")(case)
    assert done["flags"][0] == "ct: N_TILT_CORRECTED"
    assert done["measures"] == {"ct_tilt_deg": pytest.approx(12.0, abs=0.01)}


def test_a_file_that_was_cut_since_is_refused(folder: Path) -> None:
    series = only(folder)
    path = series.files[3]
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(QuarantineError, match="E_PIXEL_LENGTH"):
        read(series)


def test_mr_padding_becomes_zero(tmp_path: Path) -> None:
    write_series(position_phantom(shape=(8, 7, 4)) + 500, tmp_path, SeriesHeader(modality="MR"))
    for path in tmp_path.iterdir():
        slice_ = pydicom.dcmread(path)
        values = slice_.pixel_array.copy()
        values[0] = 65535
        slice_.PixelData = values.tobytes()
        slice_.add_new("PixelPaddingValue", "US", 65535)
        slice_.save_as(path, enforce_file_format=True)
    found = read(only(tmp_path))
    assert (found.image.numpy()[0, :, 0] == 0).all() and (found.image.numpy()[0, :, 1:] > 0).all()
    assert found.notes == ("N_PADDING",)
