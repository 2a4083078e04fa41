from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread

from pipeline import geometry, volumes
from pipeline.errors import CaseError
from pipeline.simulation.dicom import SeriesHeader, make_uid, write_series
from tests.phantoms.phantom import position_phantom


def read_with_simpleitk(paths: list[Path]) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in paths])
    return reader.Execute()


def by_position(image: sitk.Image) -> float:
    """The largest error of a position phantom as SimpleITK places its voxels (LPS)."""
    worst = 0.0
    for index in np.ndindex(*image.GetSize()):
        x, y, z = image.TransformIndexToPhysicalPoint([int(i) for i in index])
        worst = max(worst, abs(image.GetPixel(*map(int, index)) - (x + 2 * y + 4 * z)))
    return worst


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_simpleitk_reads_the_phantom_where_it_is(tmp_path: Path, modality: str) -> None:
    image = position_phantom()
    paths = write_series(image, tmp_path, SeriesHeader(modality=modality))
    read = read_with_simpleitk(paths)
    assert read.GetSize() == tuple(image.shape[1:])
    assert by_position(read) <= 0.501
    origin, spacing, direction = geometry.itk_geometry(volumes.affine_of(image))
    assert read.GetOrigin() == pytest.approx(origin, abs=1e-6)
    assert read.GetSpacing() == pytest.approx(spacing, abs=1e-6)
    assert read.GetDirection() == pytest.approx(direction, abs=1e-6)


def test_header_geometry_is_exact_in_sixteen_characters(tmp_path: Path) -> None:
    image = position_phantom(origin_mm=(-101.123456789, 212.987654321, -1044.123456789))
    affine = volumes.affine_of(image)
    for k, path in enumerate(write_series(image, tmp_path, SeriesHeader(modality="MR"))):
        slice_ = dcmread(path)
        numbers = [*slice_.ImagePositionPatient, *slice_.ImageOrientationPatient, *slice_.PixelSpacing]
        assert max(len(str(number)) for number in numbers) <= 16
        expected = affine[:3, 3] + k * affine[:3, 2]
        assert np.asarray(slice_.ImagePositionPatient, float) == pytest.approx(expected * [-1, -1, 1], abs=1e-6)
        row = affine[:3, 0] / 0.9 * [-1, -1, 1]
        assert np.asarray(slice_.ImageOrientationPatient[:3], float) == pytest.approx(row, abs=1e-6)
        assert [float(value) for value in slice_.PixelSpacing] == pytest.approx([1.1, 0.9], abs=1e-9)
        assert (slice_.Rows, slice_.Columns, slice_.InstanceNumber) == (28, 32, k + 1)


def test_same_seed_same_bytes_and_other_seed_other_uids(tmp_path: Path) -> None:
    image = position_phantom((6, 5, 4))
    first = write_series(image, tmp_path / "a")
    again = write_series(image, tmp_path / "b")
    other = write_series(image, tmp_path / "c", SeriesHeader(seed="other"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert dcmread(first[0])[keyword].value != dcmread(other[0])[keyword].value


def test_uids_are_valid_and_unique(tmp_path: Path) -> None:
    uids = [dcmread(path).SOPInstanceUID for path in write_series(position_phantom((4, 4, 30)), tmp_path)]
    assert len(set(uids)) == 30
    assert all(uid.is_valid and uid.startswith("2.25.") for uid in uids)
    assert make_uid("a", "b") == make_uid("a", "b") != make_uid("ab")


def test_names_say_nothing_of_the_order(tmp_path: Path) -> None:
    paths = write_series(position_phantom((4, 4, 30)), tmp_path)
    assert sorted(path.name for path in paths) == [f"IM{number:04d}" for number in range(1, 31)]
    assert paths != sorted(paths)


def test_ct_is_stored_with_intercept_and_the_right_sign(tmp_path: Path) -> None:
    affine = volumes.affine_of(position_phantom())
    values = np.full((3, 4, 2), -1000.0)
    values[1, 2, 0] = 1300.4
    unsigned = dcmread(write_series(volumes.volume(values, affine), tmp_path / "a")[0])
    assert (unsigned.PixelRepresentation, unsigned.RescaleSlope, unsigned.RescaleIntercept) == (0, 1, -1024)
    assert unsigned.pixel_array[2, 1] == 2324 and unsigned.pixel_array[0, 0] == 24
    signed = dcmread(write_series(volumes.volume(values - 100, affine), tmp_path / "b")[0])
    assert signed.PixelRepresentation == 1 and signed.pixel_array[0, 0] == -76
    mr = dcmread(write_series(volumes.volume(values + 1000, affine), tmp_path / "c", SeriesHeader(modality="MR"))[0])
    assert "RescaleSlope" not in mr and mr.pixel_array[2, 1] == 2300


def test_headers_look_like_a_hospitals(tmp_path: Path) -> None:
    header = SeriesHeader(modality="MR", series_description="t1_mprage_sag", tr_ms=512.5, te_ms=9.75)
    slice_ = dcmread(write_series(position_phantom((4, 4, 2)), tmp_path, header)[0])
    needed = (
        "ImageType SOPClassUID StudyDate Modality PatientName PatientID StudyInstanceUID SeriesInstanceUID "
        "FrameOfReferenceUID ScanningSequence SequenceVariant SamplesPerPixel PhotometricInterpretation BitsAllocated"
    )
    assert all(str(slice_[keyword].value) for keyword in needed.split())
    assert slice_.SOPClassUID.name == "MR Image Storage"
    assert slice_.file_meta.TransferSyntaxUID.name == "Explicit VR Little Endian"
    assert (slice_.SeriesDescription, slice_.RepetitionTime, slice_.EchoTime) == ("t1_mprage_sag", 512.5, 9.75)
    assert slice_.SliceThickness == pytest.approx(2.5)


def test_values_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    affine = volumes.affine_of(position_phantom())
    for bad in (-40000.0, 70000.0, np.nan):
        with pytest.raises(CaseError, match="E_DTYPE"):
            write_series(volumes.volume(np.full((2, 2, 2), bad), affine), tmp_path)
    with pytest.raises(CaseError, match="E_GRID"):
        write_series(volumes.volume(np.zeros((2, 2, 2, 2)), affine), tmp_path)
