"""Faults of encoding and of placement are read back from the files and found to be what they claim."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import JPEGLosslessSV1, JPEGLSLossless, RLELossless

from pipeline.simulation.dicom import write_series
from tests.phantoms import faults
from tests.phantoms.faults.editing import in_order
from tests.phantoms.faults.files import dataset_offset
from tests.phantoms.phantom import position_phantom

SLICES = 12


@pytest.fixture
def clean(tmp_path: Path) -> list[Path]:
    return write_series(position_phantom((10, 8, SLICES)), tmp_path / "series")


def along(folder: Path) -> np.ndarray:
    """Distances along the first slice's normal, mm, in the order of InstanceNumber."""
    slices = [dcmread(path) for path in in_order(folder)]
    normal = np.cross(*np.asarray(slices[0].ImageOrientationPatient, float).reshape(2, 3))
    return np.array([np.asarray(slice_.ImagePositionPatient, float) @ normal for slice_ in slices])


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLosslessSV1, JPEGLSLossless])
def test_compression_loses_nothing(clean: list[Path], syntax: str) -> None:
    before = [dcmread(path) for path in clean]
    faults.compressed(clean[0].parent, syntax)
    for path, old in zip(clean, before, strict=True):
        new = dcmread(path)
        assert new.file_meta.TransferSyntaxUID == syntax and len(new.PixelData) != len(old.PixelData)
        assert new.SOPInstanceUID == old.SOPInstanceUID
        assert np.array_equal(new.pixel_array, old.pixel_array)


def test_a_declared_syntax_changes_the_declaration_alone(clean: list[Path]) -> None:
    def parts(path: Path) -> tuple[str, bytes]:
        meta = dcmread(path, force=True, stop_before_pixels=True).file_meta
        return str(meta.TransferSyntaxUID), path.read_bytes()[dataset_offset(meta) :]

    before = [parts(path) for path in clean]
    faults.declared_syntax(clean[0].parent, JPEGLSLossless)
    for path, (syntax, rest) in zip(clean, before, strict=True):
        assert parts(path) == (JPEGLSLossless, rest) and syntax != JPEGLSLossless


def test_big_endian_swaps_every_number(clean: list[Path]) -> None:
    before = dcmread(clean[4])
    faults.big_endian(clean[0].parent)
    after = dcmread(clean[4])
    assert not after.file_meta.TransferSyntaxUID.is_little_endian
    assert after.PixelData == np.frombuffer(before.PixelData, "<u2").astype(">u2").tobytes()
    assert (after.Rows, after.ImagePositionPatient) == (before.Rows, before.ImagePositionPatient)


def test_a_deflate_bomb_is_small_and_inflates_to_what_it_says(clean: list[Path]) -> None:
    before = dcmread(clean[SLICES // 2])
    (path,) = faults.deflate_bomb(clean[0].parent, mib=16)
    assert path == clean[SLICES // 2] and path.stat().st_size < 64_000
    start = dataset_offset(dcmread(path, stop_before_pixels=True).file_meta)
    assert 16 << 20 < len(zlib.decompress(path.read_bytes()[start:], -zlib.MAX_WBITS)) < 17 << 20
    assert np.array_equal(dcmread(path).pixel_array, before.pixel_array)


def test_a_nested_bomb_nests_as_deep_as_it_says(clean: list[Path]) -> None:
    (path,) = faults.nested_bomb(clean[0].parent, levels=20)
    level, depth = dcmread(path), 0
    while "LanguageCodeSequence" in level:
        level, depth = level.LanguageCodeSequence[0], depth + 1
    assert depth == 20
    size = path.stat().st_size
    faults.nested_bomb(clean[0].parent, levels=1)
    assert path.stat().st_size - size == 36  # element and item, and their two ends


def test_two_distances_have_their_thickness(clean: list[Path]) -> None:
    faults.two_distances(clean[0].parent)
    assert np.diff(along(clean[0].parent)) == pytest.approx([2.5] * 6 + [5.0] * 5, abs=1e-5)
    thickness = [float(dcmread(path).SliceThickness) for path in in_order(clean[0].parent)]
    assert thickness == [2.5] * 6 + [5.0] * 6


def test_jittered_growing_and_torn_stacks(clean: list[Path]) -> None:
    folder = clean[0].parent
    faults.jittered(folder, 0.4)
    off = along(folder) - along(folder)[0] - 2.5 * np.arange(SLICES)
    assert 0.1 < np.ptp(off) <= 0.8
    faults.growing_distances(folder, 1.03)
    steps = np.diff(along(folder))
    assert steps[1:] / steps[:-1] == pytest.approx([1.03] * (SLICES - 2), abs=1e-4)
    faults.torn_apart(folder, 11.3)
    # the growing stack started where the jittered one did
    assert np.diff(along(folder)) == pytest.approx([2.5] * 5 + [11.3] + [2.5] * 5, abs=1e-5)


def test_missing_ends_and_alternate_slices(clean: list[Path]) -> None:
    folder = clean[0].parent
    assert faults.missing_ends(folder) == [clean[0], clean[-1]]
    assert {int(dcmread(path).ImagesInAcquisition) for path in folder.iterdir()} == {SLICES}
    assert faults.missing_alternate(folder) == [clean[2], clean[4]]
    assert np.diff(along(folder)) == pytest.approx([5.0, 5.0, 2.5, 2.5, 2.5, 2.5, 2.5], abs=1e-5)


def test_several_volumes_share_positions_and_differ_in_one_tag(clean: list[Path]) -> None:
    paths = faults.several_volumes(clean[0].parent, {"EchoTime": ["4.6", "9.2"]})
    slices = [dcmread(path) for path in paths]
    assert len(slices) == 2 * SLICES == len({slice_.SOPInstanceUID for slice_ in slices})
    assert len({slice_.SeriesInstanceUID for slice_ in slices}) == 1
    assert [float(slice_.EchoTime) for slice_ in slices] == [4.6] * SLICES + [9.2] * SLICES
    for low, high in zip(slices[:SLICES], slices[SLICES:], strict=True):
        assert low.ImagePositionPatient == high.ImagePositionPatient
        assert np.all(high.pixel_array.astype(int) - low.pixel_array == 100)


def test_two_uids_tear_one_acquisition_apart(clean: list[Path]) -> None:
    torn = faults.two_uids(clean[0].parent, interleaved=True)
    assert torn == clean[1::2]
    uids = [dcmread(path).SeriesInstanceUID for path in clean]
    assert len(set(uids)) == 2 and uids[::2] == [uids[0]] * 6 and uids[1::2] == [uids[1]] * 6


def test_padding_lies_above_its_plane_and_takes_the_whole_range(clean: list[Path]) -> None:
    folder = clean[0].parent
    before = np.stack([dcmread(path).pixel_array for path in clean])
    edge = 1024 + faults.PADDED_ABOVE_HU
    assert 10 < (before > edge + 1).sum() < before.size / 2
    faults.padded(folder, stored=60000, up_to=63536)
    after = np.stack([dcmread(path).pixel_array for path in clean])
    assert np.array_equal(after[before < edge - 1], before[before < edge - 1])
    assert (after.max(), after[before > edge + 1].min()) == (63536, 60000)
    assert int(dcmread(clean[0]).PixelPaddingRangeLimit) == 63536
