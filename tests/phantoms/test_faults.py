"""Every planted fault is read back from the files and found to be what it claims, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from pipeline import geometry, volumes
from pipeline.errors import CaseError
from pipeline.simulation.dicom import write_series
from tests.phantoms import faults
from tests.phantoms.phantom import expected_values, position_phantom

SLICES = 12
MIDDLE = SLICES // 2


@pytest.fixture
def clean(tmp_path: Path) -> list[Path]:
    return write_series(position_phantom((10, 8, SLICES)), tmp_path / "series")


def headers(folder: Path) -> list[Dataset]:
    """All files of the folder in the order of InstanceNumber."""
    return sorted((dcmread(path) for path in folder.iterdir()), key=lambda slice_: slice_.InstanceNumber)


def values(slice_: Dataset) -> np.ndarray:
    return slice_.pixel_array * float(slice_.RescaleSlope) + float(slice_.RescaleIntercept)


def position(slice_: Dataset) -> np.ndarray:
    return np.asarray(slice_.ImagePositionPatient, float)


def axes(slice_: Dataset) -> np.ndarray:
    return np.asarray(slice_.ImageOrientationPatient, float).reshape(2, 3)


def different(clean: list[Path], before: list[bytes]) -> set[Path]:
    return {path for path, data in zip(clean, before, strict=True) if not path.exists() or path.read_bytes() != data}


def test_missing_slice(clean: list[Path]) -> None:
    folder = clean[0].parent
    normal = np.cross(*axes(dcmread(clean[0])))
    assert faults.missing_slice(folder, 2) == clean[5:7]
    steps = np.diff([position(slice_) @ normal for slice_ in headers(folder)])
    assert steps == pytest.approx([2.5] * 4 + [7.5] + [2.5] * 4)


def test_duplicate_file_is_the_same_bytes(clean: list[Path]) -> None:
    (copy,) = faults.duplicate_file(clean[0].parent)
    assert copy.read_bytes() == clean[MIDDLE].read_bytes() and copy != clean[MIDDLE]


def test_duplicate_sop_has_other_values(clean: list[Path]) -> None:
    (copy,) = faults.duplicate_sop(clean[0].parent)
    one, two = dcmread(clean[MIDDLE]), dcmread(copy)
    assert one.SOPInstanceUID == two.SOPInstanceUID
    assert np.all(values(two) == values(one) + 50)


def test_duplicate_position_has_its_own_uid(clean: list[Path]) -> None:
    (copy,) = faults.duplicate_position(clean[0].parent)
    one, two = dcmread(clean[MIDDLE]), dcmread(copy)
    assert one.SOPInstanceUID != two.SOPInstanceUID == two.file_meta.MediaStorageSOPInstanceUID
    assert np.array_equal(position(one), position(two)) and one.SeriesInstanceUID == two.SeriesInstanceUID


def test_second_series_lies_between_the_first(clean: list[Path]) -> None:
    copies = faults.second_series(clean[0].parent)
    first, second = [dcmread(path) for path in clean], [dcmread(path) for path in copies]
    assert {slice_.SeriesInstanceUID for slice_ in first}.isdisjoint(slice_.SeriesInstanceUID for slice_ in second)
    assert len({slice_.SOPInstanceUID for slice_ in first + second}) == 2 * SLICES
    assert {slice_.StudyInstanceUID for slice_ in first + second} == {first[0].StudyInstanceUID}
    assert np.all(values(second[3]) == values(first[3]) + 100)
    names = sorted(clean[0].parent.iterdir())
    assert [path in copies for path in names] == [False, True] * SLICES


def test_second_patient_shares_the_series(clean: list[Path]) -> None:
    assert faults.second_patient(clean[0].parent) == clean[MIDDLE:]
    found = headers(clean[0].parent)
    assert [slice_.PatientID for slice_ in found] == ["SIM-0001"] * 6 + ["SIM-0001-X"] * 6
    assert len({slice_.SeriesInstanceUID for slice_ in found}) == 1


@pytest.mark.parametrize("angle_deg", [12.0, -18.5])
def test_gantry_tilt_leans_the_slices_while_the_table_moves_level(clean: list[Path], angle_deg: float) -> None:
    row, column = axes(dcmread(clean[0]))
    table = np.cross(row, column)
    before = [position(slice_) for slice_ in headers(clean[0].parent)]
    faults.gantry_tilt(clean[0].parent, angle_deg)
    found = headers(clean[0].parent)
    leaning_row, leaning_column = axes(found[0])
    step = np.diff([position(slice_) for slice_ in found], axis=0).mean(axis=0)
    assert step == pytest.approx(2.5 * table, abs=1e-5)
    assert np.array_equal([position(slice_) for slice_ in found], before)
    assert leaning_row == pytest.approx(row)
    assert np.degrees(np.arcsin(leaning_column @ table)) == pytest.approx(angle_deg, abs=1e-4)
    # the drift in the slices' own frame has the sign of the tilt, as in scans of a real tilted gantry
    drift = np.degrees(np.arctan2(step @ leaning_column, step @ np.cross(leaning_row, leaning_column)))
    assert drift == pytest.approx(angle_deg, abs=1e-4)
    lps = np.eye(4)
    lps[:3, :3] = np.stack([row * 0.9, leaning_column * 1.1, step], axis=1)
    lps[:3, 3] = position(found[0])
    expected = expected_values((10, 8, SLICES), geometry.LPS_RAS @ lps)
    shown = np.stack([values(slice_).T for slice_ in found], axis=-1)
    assert np.abs(shown - expected).max() <= 0.501


def test_other_orientation_turns_one_slice(clean: list[Path]) -> None:
    row, column = axes(dcmread(clean[0]))
    assert faults.other_orientation(clean[0].parent) == [clean[MIDDLE]]
    turned = axes(dcmread(clean[MIDDLE]))
    assert turned[0] == pytest.approx(row) and turned[1] == pytest.approx(np.cross(row, column), abs=1e-6)
    assert axes(dcmread(clean[0])) == pytest.approx(np.stack([row, column]))


def test_skewed_axes_are_not_orthogonal(clean: list[Path]) -> None:
    faults.skewed_axes(clean[0].parent, 1.0)
    for slice_ in headers(clean[0].parent):
        row, column = axes(slice_)
        assert row @ column == pytest.approx(np.sin(np.radians(1.0)), abs=1e-6)
        assert np.linalg.norm(column) == pytest.approx(1.0, abs=1e-6)


def test_shifted_in_plane_moves_one_slice_along_its_rows(clean: list[Path]) -> None:
    before = position(dcmread(clean[MIDDLE]))
    assert faults.shifted_in_plane(clean[0].parent, 3.0) == [clean[MIDDLE]]
    after = dcmread(clean[MIDDLE])
    assert position(after) - before == pytest.approx(3.0 * axes(after)[0], abs=1e-6)


def test_equal_positions(clean: list[Path]) -> None:
    faults.equal_positions(clean[0].parent)
    assert len({tuple(slice_.ImagePositionPatient) for slice_ in headers(clean[0].parent)}) == 1


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient"])
@pytest.mark.parametrize(("everywhere", "expected"), [(False, [MIDDLE]), (True, list(range(SLICES)))])
def test_missing_geometry(clean: list[Path], keyword: str, everywhere: bool, expected: list[int]) -> None:
    faults.missing_geometry(clean[0].parent, keyword, everywhere)
    assert [k for k, path in enumerate(clean) if keyword not in dcmread(path)] == expected


def test_nan_position(clean: list[Path]) -> None:
    y, z = position(dcmread(clean[MIDDLE]))[1:]
    assert faults.nan_position(clean[0].parent) == [clean[MIDDLE]]
    found = position(dcmread(clean[MIDDLE]))
    assert np.isnan(found[0]) and found[1:] == pytest.approx([y, z])


def test_zero_spacing(clean: list[Path]) -> None:
    faults.zero_spacing(clean[0].parent)
    assert all(list(slice_.PixelSpacing) == [0, 0] for slice_ in headers(clean[0].parent))


def test_comma_decimal_is_written_as_it_stands(clean: list[Path]) -> None:
    assert faults.comma_decimal(clean[0].parent) == clean
    assert all(b"1,1\\0,9 " in path.read_bytes() for path in clean)
    assert list(dcmread(clean[0]).PixelSpacing) == ["1,1", "0,9"]


def test_other_matrix_is_a_crop(clean: list[Path]) -> None:
    before = values(dcmread(clean[MIDDLE]))
    assert faults.other_matrix(clean[0].parent, 3) == [clean[MIDDLE]]
    after = dcmread(clean[MIDDLE])
    assert (after.Rows, after.Columns) == (5, 7)
    assert np.array_equal(values(after), before[:-3, :-3])


def test_shuffled_numbers_keep_positions_and_values(clean: list[Path]) -> None:
    def content(folder: Path) -> dict[str, tuple[bytes, tuple[float, ...]]]:
        return {s.SOPInstanceUID: (s.PixelData, tuple(s.ImagePositionPatient)) for s in headers(folder)}

    folder = clean[0].parent
    before = content(folder)
    names = {path.name for path in clean}
    old_names = {dcmread(path).SOPInstanceUID: path.name for path in clean}
    faults.shuffled_numbers(folder)
    assert content(folder) == before and {path.name for path in folder.iterdir()} == names
    assert {dcmread(path).SOPInstanceUID: path.name for path in folder.iterdir()} != old_names
    found = headers(folder)
    assert [slice_.InstanceNumber for slice_ in found] == list(range(1, SLICES + 1))
    along = np.array([position(slice_) for slice_ in found]) @ np.cross(*axes(found[0]))
    assert len(np.unique(np.sign(np.diff(along)))) == 2


def test_lying_thickness(clean: list[Path]) -> None:
    before = [position(slice_) for slice_ in headers(clean[0].parent)]
    faults.lying_thickness(clean[0].parent, 3.0)
    found = headers(clean[0].parent)
    assert all(slice_.SliceThickness == pytest.approx(7.5) for slice_ in found)
    assert np.array_equal([position(slice_) for slice_ in found], before)


def test_truncated_pixels_and_header_and_empty_file(clean: list[Path]) -> None:
    folder, size = clean[0].parent, clean[MIDDLE].stat().st_size
    before = [path.read_bytes() for path in clean]
    assert faults.truncated_pixels(folder) == [clean[MIDDLE]]
    assert clean[MIDDLE].stat().st_size == size - 80  # half of 10 * 8 voxels of 2 bytes
    assert different(clean, before) == {clean[MIDDLE]}
    clean[MIDDLE].write_bytes(before[MIDDLE])
    faults.truncated_header(folder)
    cut = dcmread(clean[MIDDLE], force=True)
    assert "SOPClassUID" in cut.file_meta or len(cut.file_meta) > 0
    assert "ImagePositionPatient" not in cut and "Rows" not in cut
    clean[MIDDLE].write_bytes(before[MIDDLE])
    faults.empty_file(folder)
    assert clean[MIDDLE].stat().st_size == 0
    with pytest.raises((InvalidDicomError, EOFError)):
        dcmread(clean[MIDDLE])


def test_short_pixels_have_a_length_field_that_agrees(clean: list[Path]) -> None:
    assert faults.short_pixels(clean[0].parent) == [clean[MIDDLE]]
    slice_ = dcmread(clean[MIDDLE])
    assert len(slice_.PixelData) == 80 and slice_.Rows * slice_.Columns * 2 == 160


def test_no_preamble(clean: list[Path]) -> None:
    before = dcmread(clean[3])
    faults.no_preamble(clean[0].parent)
    with pytest.raises(InvalidDicomError):
        dcmread(clean[3])
    assert dcmread(clean[3], force=True) == before


def test_changing_rescale_keeps_the_values(clean: list[Path]) -> None:
    before = [values(dcmread(path)) for path in clean]
    faults.changing_rescale(clean[0].parent)
    found = [dcmread(path) for path in clean]
    assert all(np.array_equal(values(slice_), old) for slice_, old in zip(found, before, strict=True))
    assert {float(slice_.RescaleSlope) for slice_ in found} == {1.0, 0.5, 0.25}
    assert len({float(slice_.RescaleIntercept) for slice_ in found}) > 6
    wrong = found[0].RescaleSlope * found[1].pixel_array + found[0].RescaleIntercept
    assert np.abs(wrong - before[1]).max() > 5  # who takes the first slice's rescale for all sees other values


def test_pet_has_a_unit_and_the_values_of_its_positions(clean: list[Path]) -> None:
    before = [values(dcmread(path)) for path in clean]
    faults.pet(clean[0].parent)
    found = [dcmread(path) for path in clean]
    assert {(slice_.Modality, slice_.Units, slice_.SOPClassUID.name) for slice_ in found} == {
        ("PT", "BQML", "Positron Emission Tomography Image Storage")
    }
    assert all(np.abs(values(slice_) - old).max() <= 0.75 for slice_, old in zip(found, before, strict=True))


def test_in_unit_changes_the_values_and_says_so(clean: list[Path]) -> None:
    before = [dcmread(path) for path in clean]
    changed = faults.in_unit(clean[0].parent, 0.003, 7.4, half=True, RescaleType="Z_EFF")
    assert changed == clean[MIDDLE:]
    for path, old in zip(clean, before, strict=True):
        slice_, factor, offset = dcmread(path), *((0.003, 7.4) if path in changed else (1.0, 0.0))
        assert slice_.RescaleType == ("Z_EFF" if path in changed else "HU") and slice_.PixelData == old.PixelData
        assert values(slice_) == pytest.approx(factor * values(old) + offset)
    faults.in_unit(clean[0].parent, RescaleType="")
    assert not any("RescaleType" in slice_ for slice_ in headers(clean[0].parent))


def test_changing_rescale_refuses_what_does_not_fit(tmp_path: Path) -> None:
    image = volumes.volume(np.linspace(-1000, 20000, 4 * 4 * 3).reshape(4, 4, 3), np.eye(4))
    write_series(image, tmp_path)
    with pytest.raises(CaseError, match="E_DTYPE"):
        faults.changing_rescale(tmp_path)


def test_monochrome1(clean: list[Path]) -> None:
    faults.monochrome1(clean[0].parent)
    assert {slice_.PhotometricInterpretation for slice_ in headers(clean[0].parent)} == {"MONOCHROME1"}


def test_clutter_lies_beside_an_untouched_series(clean: list[Path]) -> None:
    before = [path.read_bytes() for path in clean]
    text, picture, thumbs, index = faults.clutter(clean[0].parent)
    assert not different(clean, before)
    assert picture.read_bytes()[:3] == b"\xff\xd8\xff" and thumbs.read_bytes()[:4] == b"\xd0\xcf\x11\xe0"
    assert text.suffix == ".txt" and (thumbs.name, index.name) == ("Thumbs.db", "DICOMDIR")
    assert list(dcmread(index).DirectoryRecordSequence[0].ReferencedFileID) == ["..", "..", "OUTSIDE"]
