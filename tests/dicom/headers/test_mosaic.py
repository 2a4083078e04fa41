from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest

from pipeline.dicom.headers.header import read_header
from pipeline.simulation.dicom import SeriesHeader, write_series
from tests.phantoms.phantom import position_phantom

SHAPE = (12, 10, 5)  # in 3 x 3 tiles, of which four are empty


def csa(**tags: list[str]) -> bytes:
    """A Siemens CSA2 header. Source: nipy.org/nibabel/dicom/siemens_csa.html."""
    data = b"SV10\x04\x03\x02\x01" + struct.pack("<2L", len(tags), 77)
    for name, items in tags.items():
        data += struct.pack("<64si4s3i", name.encode(), len(items), b"FD\0\0", 4, len(items), 77)
        for item in items:
            text = item.encode() + b"\0"
            data += struct.pack("<4i", len(text), len(text), 77, len(text)) + text + bytes(-len(text) % 4)
    return data


@pytest.fixture
def mosaic(tmp_path: Path) -> tuple[Path, pydicom.Dataset]:
    """A position phantom as a mosaic, made from its single slices by the rule of nibabel's documentation."""
    header = SeriesHeader(modality="MR")
    slices = [pydicom.dcmread(p) for p in write_series(position_phantom(shape=SHAPE) + 1000, tmp_path / "s", header)]
    file = slices[0]
    axes = np.asarray(file.ImageOrientationPatient, float).reshape(2, 3)
    rows_mm, columns_mm = map(float, file.PixelSpacing)
    picture = np.zeros((3, 10, 3, 12), np.uint16)
    for k, slice_ in enumerate(slices):
        picture[k // 3, :, k % 3] = slice_.pixel_array
    steps = np.subtract(slices[1].ImagePositionPatient, file.ImagePositionPatient).astype(float)
    corner = np.asarray(file.ImagePositionPatient, float)
    corner = corner - axes[0] * columns_mm * (36 - 12) / 2 - axes[1] * rows_mm * (30 - 10) / 2
    file.ImagePositionPatient = [f"{value:.9f}"[:16] for value in corner]
    file.ImageType = ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]
    file.Rows, file.Columns, file.PixelData = 30, 36, picture.tobytes()
    file.SpacingBetweenSlices = "2.5"
    normal = steps / np.linalg.norm(steps)
    private = file.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    words = [f"{value:.8f}" for value in normal]
    private.add_new(0x10, "OB", csa(NumberOfImagesInMosaic=["5"], SliceNormalVector=words))
    path = tmp_path / "mosaic.dcm"
    file.save_as(path, enforce_file_format=True)
    return path, file


def test_every_tile_is_a_slice_in_its_place(mosaic: tuple[Path, pydicom.Dataset]) -> None:
    path, file = mosaic
    tiles = read_header(path).instances
    assert [tile.fault for tile in tiles] == [None] * 5
    assert [(tile.frame, tile.rows, tile.columns, tile.pixels.tiles) for tile in tiles if tile.pixels] == [
        (k, 10, 12, 3) for k in range(5)
    ]
    for tile in tiles:
        down, right = divmod(tile.frame, 3)
        stored = file.pixel_array[down * 10 : down * 10 + 10, right * 12 : right * 12 + 12]
        axes, (rows_mm, columns_mm) = np.asarray(tile.orientation).reshape(2, 3), tile.spacing_mm or (0.0, 0.0)
        i, j = np.meshgrid(np.arange(12), np.arange(10))
        places = tile.position + i[..., None] * axes[0] * columns_mm + j[..., None] * axes[1] * rows_mm
        assert np.abs(stored - 1000.0 - places @ [1.0, 2.0, 4.0]).max() <= 0.51


def refused(path: Path, file: pydicom.Dataset) -> str:
    file.save_as(path, enforce_file_format=True)
    (instance,) = read_header(path).instances
    assert instance.fault is not None and instance.fault.code == "E_MOSAIC"
    return instance.fault.message


def test_the_slices_follow_the_named_normal(mosaic: tuple[Path, pydicom.Dataset]) -> None:
    path, file = mosaic
    first = [np.asarray(tile.position) for tile in read_header(path).instances]
    block = file.private_block(0x0029, "SIEMENS CSA HEADER")
    words = [f"{-value:.8f}" for value in (first[1] - first[0]) / 2.5]
    block[0x10].value = csa(NumberOfImagesInMosaic=["5"], SliceNormalVector=words)
    file.save_as(path, enforce_file_format=True)
    second = [np.asarray(tile.position) for tile in read_header(path).instances]
    assert np.allclose(second[0], first[0])
    assert np.allclose(second[4] - second[0], first[0] - first[4], atol=1e-6)


def test_what_is_not_certain_is_refused(mosaic: tuple[Path, pydicom.Dataset]) -> None:
    path, file = mosaic
    block = file.private_block(0x0029, "SIEMENS CSA HEADER")
    right = block[0x10].value
    for words, content in (
        ("number of its slices", csa(SliceNormalVector=["0", "0", "1"])),
        ("direction of its slices is not named", csa(NumberOfImagesInMosaic=["5"])),
        ("not normal", csa(NumberOfImagesInMosaic=["5"], SliceNormalVector=["1", "0", "0"])),
        ("does not divide", csa(NumberOfImagesInMosaic=["17"], SliceNormalVector=["0", "0", "1"])),
        ("private header", right[:100]),
    ):
        block[0x10].value = content
        assert words in refused(path, file)
    block[0x10].value = right
    file.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", 6)
    assert "number of its slices" in refused(path, file)
    del file[0x0019100A], file.SpacingBetweenSlices
    assert "distance" in refused(path, file)
