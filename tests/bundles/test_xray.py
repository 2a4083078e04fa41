"""The overlay for radiographs, on DICOM: ingest reads how the radiograph was taken, the alignment finds its pose."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from monai.bundle import ConfigParser
from pydicom.uid import DigitalXRayImageStorageForPresentation

from pipeline.geometry import apply
from pipeline.registration.xray import seen_apart_mm
from pipeline.run import batch
from pipeline.shipped import shipped
from pipeline.simulation.dicom import SeriesHeader, make_uid, write_series
from pipeline.store import records
from tests.registration import test_xray as small

SPEC = """
name: head_xray
description: A CT and a radiograph of one head.
roles:
  ct: {modality: CT}
  xray: {modality: DX, dimensions: 2}
"""


def write_radiograph(folder: Path) -> None:
    """The simulated radiograph as a DX image, 12 bits, as a detector of 9 x 8 mm pixels would write it."""
    values = small.shadow(small.head(), small.VIEW, small.pose()).numpy()[0, :, :, 0].T
    path, *others = write_series(small.head(), folder, SeriesHeader(series_number=2, modality="CT"))
    for other in others:
        other.unlink()
    image = pydicom.dcmread(path)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope"):
        delattr(image, keyword)
    del image.RescaleIntercept, image.WindowCenter, image.WindowWidth, image.RescaleType
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    image.Modality, image.ViewPosition, image.SeriesInstanceUID = "DX", "AP", make_uid("xray")
    image.ImagerPixelSpacing = ["8", "9"]
    image.DistanceSourceToDetector, image.DistanceSourceToPatient = "1000", "750"
    image.Rows, image.Columns = values.shape
    image.PixelRepresentation, image.BitsStored, image.HighBit = 0, 12, 11
    image.PixelData = np.clip(np.rint(values * 500), 0, 4095).astype("<u2").tobytes()
    image.save_as(path, enforce_file_format=True)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("xray")
    write_series(small.head(), folder / "in" / "ct", SeriesHeader(modality="CT"))
    write_radiograph(folder / "in" / "xray")
    (folder / "spec.yaml").write_text(SPEC)
    found = batch.run(batch.Plan(folder / "in", folder / "out", folder / "spec.yaml", stages=("ingest",)))
    assert [record.error for case in found.values() for record in case] == [None]
    return folder / "out"


def run(out: Path, **more: object) -> records.Record:
    parser = ConfigParser()
    configs = shipped("bundles", "register", "configs")
    parser.read_config([str(configs / name) for name in ("inference.yaml", "overlays/xray_ct.yaml")])
    for key, value in {"dataset_dir": str(out), "output_dir": str(out), **more}.items():
        parser[key] = value
    (record,) = parser.get_parsed_content("stage").run(parser.get_parsed_content("cases")())
    return record


def test_the_overlay_finds_the_pose(out: Path) -> None:
    (folder,) = (out / "cases").iterdir()
    said = json.loads((folder / "ingest" / "xray_projection.json").read_text())
    assert said == {
        "detector_spacing_mm": [9.0, 8.0],
        "source_to_detector_mm": 1000.0,
        "source_to_patient_mm": 750.0,
        "view": "AP",
    }
    record = run(out)
    assert record.status == "done", record.error
    assert record.stage == "register_xray"
    assert record.verdict is not None and record.verdict.grade == "pass", record.verdict
    transform = sitk.ReadTransform(str(folder / "register_xray" / "xray_transform.h5"))
    probes = np.vstack([np.zeros(3), np.eye(3) * 100])
    moved = np.array([transform.TransformPoint((p * [-1, -1, 1]).tolist()) for p in probes])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = (moved[1:] - moved[0]).T / 100, moved[0]
    body = small.points(small.head())
    assert seen_apart_mm(matrix, small.pose(), body, small.VIEW) < 1.0
    assert np.linalg.norm(apply(matrix, body) - apply(small.pose(), body), axis=1).mean() < 3.0
