from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from pipeline.cases import Instance
from pipeline.dicom.headers import encoding
from pipeline.dicom.headers.encoding import NotDicomError, open_dataset
from pipeline.dicom.headers.header import BASE_TAGS, read_header
from pipeline.simulation.dicom import SeriesHeader, write_series
from tests.phantoms import faults
from tests.phantoms.phantom import position_phantom


def inflate(path: Path) -> bytes:
    """The inflated data set of a deflated file."""
    with path.open("rb") as file:
        return open_dataset(file).stream.read()


NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
COMPRESSED = (RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """One CT slice of 34 rows and 36 columns."""
    return write_series(position_phantom(shape=(36, 34, 1)), tmp_path / "series", SeriesHeader(seed="header"))[0]


def write_as(path: Path, syntax: UID) -> None:
    folder = path.parent
    if syntax in COMPRESSED:
        faults.compressed(folder, syntax)
    elif syntax != ExplicitVRLittleEndian:
        writers = {ImplicitVRLittleEndian: faults.implicit, ExplicitVRBigEndian: faults.big_endian}
        writers.get(syntax, faults.deflated)(folder)


def edited(path: Path, **values: object) -> Instance:
    slice_ = pydicom.dcmread(path)
    for keyword, value in values.items():
        setattr(slice_, keyword, value)
    slice_.save_as(path, enforce_file_format=True)
    (instance,) = read_header(path).instances
    return instance


def code_of(instance: Instance) -> str:
    return instance.fault.code if instance.fault else ""


@pytest.mark.parametrize("syntax", [*NATIVE, *COMPRESSED])
def test_the_pixels_are_found_and_named(path: Path, syntax: UID) -> None:
    expected = pydicom.dcmread(path).pixel_array
    write_as(path, syntax)
    (instance,) = read_header(path).instances
    pixels = instance.pixels
    assert instance.fault is None and pixels is not None
    assert (instance.notes, pixels.syntax, instance.tags["TransferSyntaxUID"]) == ((), syntax, syntax)
    assert (pixels.bits_allocated, pixels.bits_stored, pixels.high_bit) == (16, 12, 11)
    assert (pixels.signed, pixels.samples, pixels.frames, pixels.tiles) == (False, 1, 1, 1)
    assert (pixels.photometric, pixels.floating) == ("MONOCHROME2", False)
    data = inflate(path) if syntax == DeflatedExplicitVRLittleEndian else path.read_bytes()
    if syntax in NATIVE:
        kind = ">u2" if syntax == ExplicitVRBigEndian else "<u2"
        assert pixels.length == expected.nbytes
        assert np.array_equal(np.frombuffer(data, kind, expected.size, pixels.offset).reshape(34, 36), expected)
    else:
        assert pixels.length is None
        assert data[pixels.offset :][:4] == b"\xfe\xff\x00\xe0"


@pytest.mark.parametrize("declared", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless])
@pytest.mark.parametrize("syntax", [*NATIVE[:2], *COMPRESSED])
def test_a_wrong_transfer_syntax_is_seen_through(path: Path, syntax: UID, declared: UID) -> None:
    write_as(path, syntax)
    faults.declared_syntax(path.parent, declared)
    (instance,) = read_header(path).instances
    assert instance.fault is None and instance.pixels is not None
    assert instance.pixels.syntax == syntax
    assert instance.notes == (() if syntax == declared else ("N_WRONG_SYNTAX",))


@pytest.mark.parametrize(("syntax", "declared"), [(NATIVE[1], NATIVE[2]), (NATIVE[2], NATIVE[1]), NATIVE[1:4:2]])
def test_a_wrong_byte_order_or_deflation_is_seen_through(path: Path, syntax: UID, declared: UID) -> None:
    write_as(path, syntax)
    faults.declared_syntax(path.parent, declared)
    (instance,) = read_header(path).instances
    assert instance.fault is None and instance.pixels is not None
    assert instance.pixels.syntax == syntax
    assert instance.notes == ("N_WRONG_SYNTAX",)


def test_a_transfer_syntax_that_nobody_knows_is_not_guessed(path: Path) -> None:
    """GE's private one has its pixels, and only them, in the other byte order."""
    faults.declared_syntax(path.parent, "1.2.840.113619.5.2")
    (instance,) = read_header(path).instances
    assert code_of(instance) == "E_DECODE"
    assert instance.fault is not None and "1.2.840.113619.5.2" in instance.fault.message


@pytest.mark.parametrize("syntax", COMPRESSED)
def test_cut_compressed_pixels_are_rejected(path: Path, syntax: UID) -> None:
    write_as(path, syntax)
    path.write_bytes(path.read_bytes()[:-30])
    (instance,) = read_header(path).instances
    assert code_of(instance) == "E_PIXEL_LENGTH"


def test_pixels_that_are_one_byte_short_are_rejected(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])
    (instance,) = read_header(path).instances
    assert code_of(instance) == "E_PIXEL_LENGTH"
    assert instance.fault is not None and instance.fault.message == "Expected 2448 bytes of pixel data, got 2447."


def test_an_image_of_impossible_size_is_rejected_before_anything_else(path: Path) -> None:
    assert code_of(edited(path, Rows=60000, Columns=60000)) == "E_SIZE"


@pytest.mark.parametrize(
    "bits", [{"BitsAllocated": 12}, {"BitsStored": 17}, {"HighBit": 16}, {"BitsStored": 12, "HighBit": 10}]
)
def test_bits_that_do_not_fit_are_rejected(path: Path, bits: dict[str, int]) -> None:
    assert code_of(edited(path, **bits)) == "E_HEADER"


def test_twelve_bits_at_the_top_of_sixteen_fit(path: Path) -> None:
    pixels = edited(path, BitsStored=12, HighBit=15, PixelRepresentation=1).pixels
    assert pixels is not None
    assert (pixels.bits_allocated, pixels.bits_stored, pixels.high_bit, pixels.signed) == (16, 12, 15, True)


@pytest.mark.parametrize(
    ("keyword", "kind", "bits"), [("FloatPixelData", "<f4", 32), ("DoubleFloatPixelData", "<f8", 64)]
)
def test_floating_point_pixels(path: Path, keyword: str, kind: str, bits: int) -> None:
    slice_ = pydicom.dcmread(path)
    values = np.linspace(-1.5, 2.5, 34 * 36).astype(kind)
    for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(slice_, name)
    slice_.BitsAllocated = bits
    setattr(slice_, keyword, values.tobytes())
    slice_.save_as(path, enforce_file_format=True)
    (instance,) = read_header(path).instances
    pixels = instance.pixels
    assert instance.fault is None and pixels is not None
    assert (pixels.floating, pixels.bits_allocated, pixels.length) == (True, bits, values.nbytes)
    assert np.array_equal(np.frombuffer(path.read_bytes(), kind, values.size, pixels.offset), values)


def test_an_object_without_an_image_is_no_fault(path: Path) -> None:
    slice_ = pydicom.dcmread(path)
    slice_.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"  # RT Structure Set
    for name in ("Rows", "Columns", "BitsAllocated", "PixelData"):
        delattr(slice_, name)
    slice_.save_as(path, enforce_file_format=True)
    (instance,) = read_header(path).instances
    assert (instance.fault, instance.pixels, instance.rows) == (None, None, 0)


def test_an_image_whose_header_ends_early_is_rejected(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"\x28\x00\x02\x00US")])
    (instance,) = read_header(path).instances
    assert code_of(instance) == "E_HEADER"


def test_a_dicomdir_is_not_looked_into(path: Path) -> None:
    faults.clutter(path.parent)
    with pytest.raises(NotDicomError):
        read_header(path.parent / "DICOMDIR")


def test_a_deflated_file_is_not_inflated_without_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_as(path, DeflatedExplicitVRLittleEndian)
    inflated = len(inflate(path))
    monkeypatch.setattr(encoding, "INFLATED_BYTES", inflated)
    assert code_of(read_header(path).instances[0]) == ""
    monkeypatch.setattr(encoding, "INFLATED_BYTES", inflated - 1)
    assert code_of(read_header(path).instances[0]) == "E_LIMIT"


def test_a_deflate_bomb_stops_at_the_limit(path: Path) -> None:
    """512 MiB of zeros in half a MiB."""
    faults.deflate_bomb(path.parent, mib=512)
    assert path.stat().st_size < 2**20
    assert code_of(read_header(path).instances[0]) == "E_LIMIT"


@pytest.mark.parametrize("depth", [100, 20_000])
def test_nested_sequences_are_read_or_rejected(path: Path, depth: int) -> None:
    faults.nested_bomb(path.parent, depth)
    (instance,) = read_header(path).instances
    assert code_of(instance) == ("" if depth == 100 else "E_HEADER")


def test_an_element_that_claims_four_gigabytes_does_not_get_them(path: Path) -> None:
    data = path.read_bytes()
    start = data.index(b"\x08\x00\x08\x00CS")
    element = struct.pack("<HH2sHL", 0x0008, 0x0008, b"UN", 0, 0xFFFFFFF0)
    path.write_bytes(data[:start] + element + data[start:])
    (instance,) = read_header(path).instances
    assert code_of(instance) == "E_HEADER"


def test_all_base_tags_are_there_as_they_stand_in_the_file(path: Path) -> None:
    values = {
        "EchoTime": "4.60",
        "AcquisitionDateTime": "20240115101500.123",
        "DiffusionBValue": 1000.0,
        "ImagesInAcquisition": "20",
        "BurnedInAnnotation": "NO",
        "ViewPosition": "PA",
        "ImagerPixelSpacing": ["0.14", "0.15"],
        "PixelPaddingValue": 63536,
        "TemporalPositionIdentifier": "3",
        "SeriesDescription": "Schädel",
        "SpecificCharacterSet": "ISO_IR 100",
    }
    instance = edited(path, **values)
    assert set(BASE_TAGS) <= set(instance.tags)
    for keyword, value in values.items():
        if keyword != "SpecificCharacterSet":
            expected = "\\".join(value) if isinstance(value, list) else str(value)
            assert instance.tags[keyword] == expected, keyword
    assert instance.tags["InversionTime"] == ""


def test_a_signed_padding_value_is_signed(path: Path) -> None:
    faults.padded(path.parent, -2000, -2100)
    (instance,) = read_header(path).instances
    assert (instance.tags["PixelPaddingValue"], instance.tags["PixelPaddingRangeLimit"]) == ("-2000", "-2100")
    faults.implicit(path.parent)
    (instance,) = read_header(path).instances
    assert (instance.tags["PixelPaddingValue"], instance.tags["PixelPaddingRangeLimit"]) == ("-2000", "-2100")
