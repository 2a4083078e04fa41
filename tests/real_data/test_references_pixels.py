"""Stored values of real files, plain and compressed, equal what pydicom makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest

from pipeline.cases import Instance
from pipeline.dicom.headers.encoding import NotDicomError
from pipeline.dicom.headers.header import read_header
from pipeline.dicom.pixels.pixels import stored_values
from pipeline.errors import QuarantineError

#: What no free codec reads: 12-bit lossy JPEG, and a code stream with rubbish in it.
UNDECODABLE = {"JPEG-lossy.dcm", "JPGExtended.dcm", "JPEG2000-embedded-sequence-delimiter.dcm"}
#: pydicom itself stumbles over a header value that has nothing to do with the pixels.
UNREAD_BY_PYDICOM = {"badVR.dcm"}


def images(folder: Path) -> Iterator[tuple[Path, tuple[Instance, ...]]]:
    """The files of grey images, with their frames."""
    for path in sorted(folder.rglob("*")):
        try:
            instances = read_header(path).instances if path.is_file() else ()
        except NotDicomError:
            continue
        pixels = instances[0].pixels if instances else None
        if pixels is not None and instances[0].fault is None and pixels.samples == 1 and pixels.bits_allocated > 1:
            yield path, instances


def as_pydicom_reads(path: Path, syntax: str) -> np.ndarray:
    dataset = pydicom.dcmread(path, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = syntax
    return np.squeeze(dataset.pixel_array)


def test_every_grey_image_has_pydicoms_values(real_images: Path) -> None:
    compared, syntaxes, refused = 0, set(), set()
    for path, instances in images(real_images / "pydicom_test_files"):
        syntax = instances[0].pixels.syntax if instances[0].pixels else ""
        try:
            found = dict(stored_values(instances))
        except QuarantineError as error:
            assert error.code == "E_DECODE"
            refused.add(path.name)
            continue
        if path.name not in UNREAD_BY_PYDICOM:
            ours = np.squeeze(np.stack([found[number] for number in sorted(found)]))
            np.testing.assert_array_equal(ours, as_pydicom_reads(path, syntax), err_msg=path.name)
            compared, syntaxes = compared + 1, syntaxes | {syntax}
    assert refused == UNDECODABLE
    assert compared >= 60 and len(syntaxes) >= 8


@pytest.mark.parametrize(("name", "scaling"), [("rtdose.dcm", 1e-6), ("rtdose_rle.dcm", 1e-6)])
def test_a_dose_grid_lies_where_its_offsets_say(real_images: Path, name: str, scaling: float) -> None:
    """Position, offsets and scaling as they stand in the file: 15 planes, 5 mm apart."""
    instances = read_header(real_images / "pydicom_test_files" / "test_files" / name).instances
    header = pydicom.dcmread(instances[0].path, stop_before_pixels=True)
    assert [item.position[2] for item in instances if item.position] == pytest.approx(
        [header.ImagePositionPatient[2] + offset for offset in header.GridFrameOffsetVector]
    )
    assert {item.slope for item in instances} == {scaling} and len(instances) == header.NumberOfFrames == 15
