"""Stored values in every encoding, against pydicom's own."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from pipeline.cases import Instance, Pixels
from pipeline.dicom.headers.header import read_header
from pipeline.dicom.pixels.decode import read_frame
from pipeline.dicom.pixels.pixels import stored_values
from pipeline.errors import QuarantineError
from pipeline.simulation.dicom import write_series
from tests.phantoms.phantom import position_phantom


def values_of(instances: list[Instance]) -> np.ndarray:
    found = dict(stored_values(instances))
    return np.stack([found[index] for index in range(len(instances))])


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return write_series(position_phantom(shape=(40, 36, 3)), tmp_path)


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("big", [False, True])
def test_native_samples_of_every_size(bits: int, signed: bool, big: bool) -> None:
    kind = np.dtype(f"{'>' if big else '<'}{'i' if signed else 'u'}{bits // 8}")
    limits = np.iinfo(kind)
    truth = np.random.default_rng(bits).integers(limits.min, limits.max, (3, 5, 7), endpoint=True).astype(kind)
    syntax = ExplicitVRBigEndian if big else ExplicitVRLittleEndian
    pixels = Pixels(12, truth.nbytes, syntax, bits, bits, bits - 1, signed, frames=3)
    stream = io.BytesIO(b"\xe0\x7f\x10\x00OB\0\0\0\0\0\0" + truth.tobytes())
    for frame in range(3):
        np.testing.assert_array_equal(read_frame(stream, pixels, 5, 7, frame), truth[frame])


def test_eight_bits_in_big_endian_words_are_swapped() -> None:
    truth = np.arange(3 * 5 * 7, dtype=np.uint8).reshape(3, 5, 7)
    padded = np.append(truth.ravel(), np.uint8(0)).view(">u2").astype("<u2")  # an odd length is padded to words
    stream = io.BytesIO(b"\x7f\xe0\x00\x10OW\0\0\0\0\0\0" + padded.tobytes())
    pixels = Pixels(12, 106, ExplicitVRBigEndian, 8, 8, 7, False, frames=3)
    for frame in range(3):
        np.testing.assert_array_equal(read_frame(stream, pixels, 5, 7, frame), truth[frame])


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("high_bit", [11, 13])
def test_bits_beyond_the_stored_ones_are_ignored(signed: bool, high_bit: int) -> None:
    truth = np.random.default_rng(12).integers(-2048 if signed else 0, 2048 if signed else 4096, (6, 4))
    words = ((truth & 0xFFF) << (high_bit - 11)) | (0xF000 << (high_bit - 11) & 0xFFFF)  # an overlay in the upper bits
    pixels = Pixels(0, 48, ExplicitVRLittleEndian, 16, 12, high_bit, signed)
    stored = read_frame(io.BytesIO(words.astype("<u2").tobytes()), pixels, 6, 4, 0)
    np.testing.assert_array_equal(stored, truth)


@pytest.mark.parametrize("bits", [32, 64])
def test_floats(bits: int) -> None:
    truth = np.random.default_rng(3).normal(size=(6, 4)).astype(f"<f{bits // 8}")
    pixels = Pixels(0, truth.nbytes, ExplicitVRLittleEndian, bits, bits, bits - 1, False, floating=True)
    np.testing.assert_array_equal(read_frame(io.BytesIO(truth.tobytes()), pixels, 6, 4, 0), truth)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_syntaxes_give_the_values_that_were_written(paths: list[Path], syntax: pydicom.uid.UID) -> None:
    truth = np.stack([pydicom.dcmread(path).pixel_array for path in paths])
    for path in paths:
        slice_ = pydicom.dcmread(path)
        if syntax.is_compressed:
            slice_.compress(syntax, generate_instance_uid=False)
            slice_.save_as(path, enforce_file_format=True)
        else:
            slice_.file_meta.TransferSyntaxUID = syntax
            slice_.save_as(path, enforce_file_format=True, implicit_vr=True)
    instances = [read_header(path).instances[0] for path in paths]
    np.testing.assert_array_equal(values_of(instances), truth)


ENCAPSULATED = [RLELossless, JPEGLSLossless, JPEG2000Lossless, JPEG2000]


def stored(path: Path, words: np.ndarray, syntax: pydicom.uid.UID, signed: bool, high_bit: int = 11) -> Instance:
    """A slice of 12 stored bits in cells of 16, whose other bits hold what `words` have there."""
    slice_ = pydicom.dcmread(path)
    slice_.PixelRepresentation, slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit = int(signed), 16, 12, high_bit
    slice_.Rows, slice_.Columns = words.shape
    slice_.PixelPaddingValue = -2000 if signed else 63536
    slice_["PixelPaddingValue"].VR = "SS" if signed else "US"
    slice_.PixelData = words.astype("<u2").tobytes()
    if syntax == DeflatedExplicitVRLittleEndian:
        slice_.file_meta.TransferSyntaxUID = syntax
    elif syntax.is_compressed:  # the codec is told of 16 bits, so that it keeps them
        slice_.BitsStored, slice_.HighBit = 16, 15
        lossy = {"j2k_psnr": [60]} if syntax == JPEG2000 else {}
        slice_.compress(syntax, generate_instance_uid=False, encoding_plugin="", **lossy)
        slice_.BitsStored, slice_.HighBit = 12, high_bit
    slice_.save_as(path, enforce_file_format=True)
    return read_header(path).instances[0]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, *ENCAPSULATED[:3]])
@pytest.mark.parametrize("signed", [False, True])
def test_bits_above_the_stored_ones_are_ignored_in_every_syntax(
    paths: list[Path], syntax: pydicom.uid.UID, signed: bool
) -> None:
    truth = np.random.default_rng(12).integers(-2048 if signed else 0, 2048 if signed else 4096, (40, 36))
    words = truth & 0xFFF
    words[:, ::3] |= 0x8000  # an overlay in bit 15
    words[:, ::5] |= 0x1000  # and one in bit 12
    words[:4, :4] = truth[:4, :4] = -2000 if signed else 63536  # padding, which needs more bits than are stored
    (found,) = values_of([stored(paths[0], words & 0xFFFF, syntax, signed)])
    np.testing.assert_array_equal(found, truth)


def test_rle_keeps_cells_whose_highest_stored_bit_the_header_names(paths: list[Path]) -> None:
    truth = np.random.default_rng(12).integers(0, 4096, (40, 36))
    (found,) = values_of([stored(paths[0], truth << 2 | 0xC001, RLELossless, False, high_bit=13)])
    np.testing.assert_array_equal(found, truth)


@pytest.mark.parametrize(("syntax", "high_bit"), [(JPEG2000, 11), (JPEG2000Lossless, 13), (JPEGLSLossless, 15)])
def test_stored_bits_that_cannot_be_told_from_others_are_refused(
    paths: list[Path], syntax: pydicom.uid.UID, high_bit: int
) -> None:
    words = np.random.default_rng(12).integers(0, 4096, (40, 36)) | 0x8000
    instance = stored(paths[0], words, syntax, False, high_bit)
    with pytest.raises(QuarantineError, match=rf"^E_DECODE: .*12 bits.*HighBit {high_bit}"):
        values_of([instance])


def test_a_stream_that_no_codec_reads_is_refused(paths: list[Path]) -> None:
    slice_ = pydicom.dcmread(paths[0])
    slice_.compress(JPEG2000Lossless, generate_instance_uid=False)
    slice_.save_as(paths[0], enforce_file_format=True)
    instance = read_header(paths[0]).instances[0]
    data = bytearray(paths[0].read_bytes())
    start = data.index(b"\xff\x4f\xff\x51", instance.pixels.offset)  # the code stream's start
    data[start + 4 : start + 60] = bytes(56)
    paths[0].write_bytes(data)
    with pytest.raises(QuarantineError, match=r"E_DECODE: .*JPEG 2000"):
        list(stored_values([instance]))


def test_tiles_of_a_mosaic_are_cut_out(tmp_path: Path) -> None:
    mosaic = np.arange(6 * 8, dtype="<u2").reshape(6, 8)
    path = tmp_path / "mosaic"
    path.write_bytes(mosaic.tobytes())
    pixels = Pixels(0, 96, ExplicitVRLittleEndian, 16, 16, 15, False, tiles=2)
    tiles = [
        Instance(path, "1", None, None, None, 3, 4, None, None, frame=number, pixels=pixels) for number in range(4)
    ]
    found = values_of(tiles)
    np.testing.assert_array_equal(found[1], mosaic[:3, 4:])
    np.testing.assert_array_equal(found[2], mosaic[3:, :4])
