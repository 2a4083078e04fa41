"""A label image as a DICOM SEG: Tandem's own reader, which shares no code with the writer, finds every voxel."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest

from pipeline.dicom.headers.header import read_header
from pipeline.dicom.objects.segments import place, read_segmentation
from pipeline.dicom.objects.write_segments import WriteSegd, segmentation
from pipeline.volumes import volume

OBLIQUE = np.array([[0.9, -0.2, 0.1, -31], [0.2, 1.1, -0.5, 12], [0.0, 0.6, 2.2, 7], [0, 0, 0, 1.0]])
NAMES = {"head": 1, "tail": 3}


def oblique() -> np.ndarray:
    """Orthogonal axes of three lengths, one of them turned round."""
    q, _ = np.linalg.qr(OBLIQUE[:3, :3])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = q * [0.9, -1.3, 2.2], OBLIQUE[:3, 3]
    return affine


@pytest.mark.parametrize("affine", [np.diag([1.0, 2.0, 3.0, 1.0]), np.diag([-1.0, -1.0, 3.0, 1.0]), oblique()])
def test_every_voxel_is_found_again(affine: np.ndarray, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4, (5, 4, 6)).astype(np.uint8)
    image = volume(values, affine)
    segmentation(image, NAMES, "case_1").save_as(tmp_path / "seg.dcm")
    (instance,) = read_header(tmp_path / "seg.dcm").instances
    found = read_segmentation(instance)
    assert found.kind == "BINARY" and found.labels == {1: "head", 2: "tail"}
    for number, value in enumerate(NAMES.values(), start=1):
        assert np.array_equal(place(found, [number], values.shape, affine), values == value)


def test_no_patient_is_named_and_an_empty_case_has_none() -> None:
    write = WriteSegd("label", "seg", NAMES, "MR", "nnU-Net")
    image = volume(np.ones((3, 3, 3), np.uint8), np.eye(4))
    document = write({"case_id": "case_7", "label": image})["seg"]
    header = pydicom.dcmread(io.BytesIO(document.data))
    assert (header.PatientID, str(header.PatientName), header.Modality) == ("case_7", "", "SEG")
    assert "seg" not in write({"case_id": "case_7", "label": volume(np.zeros((3, 3, 3), np.uint8), np.eye(4))})
    assert write.writes() == {"seg": "document?"}
