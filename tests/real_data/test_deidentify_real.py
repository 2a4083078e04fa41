"""Real scanners' files: the copies say nothing of a person or place, and they are sound."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from pydicom import Dataset, config, dcmread

from pipeline.dicom.confidentiality.options import Options
from pipeline.dicom.confidentiality.tree import deidentify_tree

CHOSEN = (
    "sts_ibsi_validation/dicom/STS_002/CT/image",
    "sts_ibsi_validation/dicom/STS_002/PET/image",
    "sts_ibsi_validation/dicom/STS_002/MR_T1/image",
    "sts_ibsi_validation/dicom/STS_002/PET/mask",
    "dcm_qa_nih/In/20180918GE/mr_0004",
    "dcm_qa_nih/In/20180918Si/mr_0003",
    "dcm_qa_ct/In/Philips/S21610/S2010",
    "dcm_qa_enh/In/Philips",
    "dcm_qa_enh/In/Siemens/XA10",
    "dcm_qa_agfa/Siemens",
    "dcmqi/data/segmentations/23x38x3/seg",
)
#: Of each series so many files are looked at.
FILES = 2
IDENTIFYING = (
    *("PatientName", "PatientID", "OtherPatientIDs", "AccessionNumber", "InstitutionName", "InstitutionAddress"),
    *("ReferringPhysicianName", "OperatorsName", "PerformingPhysicianName", "StationName", "DeviceSerialNumber"),
    *("StudyDescription", "PerformedProcedureStepDescription", "StudyInstanceUID", "SeriesInstanceUID"),
    *("SOPInstanceUID", "FrameOfReferenceUID", "PatientComments", "ImageComments", "ProtocolName"),
)


@pytest.fixture(scope="module")
def tree(real_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Links to a few files of many scanners: the real ones are not touched."""
    root = tmp_path_factory.mktemp("real")
    for number, folder in enumerate(CHOSEN):
        (root / str(number)).mkdir()
        files = [path for path in sorted((real_images / folder).iterdir()) if path.is_file()]
        for path in files[:: max(1, len(files) // FILES)][:FILES]:
            (root / str(number) / path.name).symlink_to(path)
    return root


def pairs(home: Path, out: Path) -> list[tuple[Path, Path]]:
    (table,) = (home / "links").glob("*/deidentified.csv")
    with table.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["verdict"] == "copied"]
    return [(Path(row["source"]), out / row["file"]) for row in rows]


@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(
            shift_dates=True, clean_descriptors=True, retain_patient_characteristics=True, retain_safe_private=True
        ),
    ],
)
def test_the_copies_are_sound_and_say_nothing(tree: Path, tmp_path: Path, tandem_home: Path, options: Options) -> None:
    found = deidentify_tree(tree, tmp_path / "out", options)
    assert found.count("failed") == 0 and found.count("quarantined") == 0
    assert found.count("copied") >= 15
    checked = 0
    for source, copy in pairs(tandem_home, tmp_path / "out"):
        with config.disable_value_validation():
            before, after = dcmread(source), dcmread(copy)
            assert after.get("PixelData") == before.get("PixelData")
            assert not set(_secrets(before)) & set(_values(after))
            for secret in _secrets(before):
                if len(secret) >= 8 and not re.fullmatch(r"[A-Z ]+", secret):
                    assert secret.encode() not in _header(copy)
                    checked += 1
    assert checked > 50


def _secrets(data: Dataset) -> list[str]:
    values = (str(data.get(keyword) or "").strip() for keyword in IDENTIFYING)
    return [value for value in values if len(value) > 3]


def _values(data: Dataset) -> list[str]:
    return [str(element.value) for element in data.iterall() if element.VR not in ("SQ", "OB", "OW", "CS")]


def _header(path: Path) -> bytes:
    content = path.read_bytes()
    return content[: content.rfind(b"\xe0\x7f\x10\x00")] if b"\xe0\x7f\x10\x00" in content else content


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
def test_no_copy_breaks_a_rule_that_its_source_kept(tree: Path, tmp_path: Path, tandem_home: Path) -> None:
    deidentify_tree(tree, tmp_path / "out", Options(shift_dates=True))
    folders = {}
    for source, copy in pairs(tandem_home, tmp_path / "out"):
        folders[source.parent] = (source, copy)
    assert len(folders) == len(CHOSEN)
    for source, copy in folders.values():
        assert errors(copy) <= errors(source), source.parent.name


def errors(path: Path) -> set[str]:
    """The errors, without the values in them, which are others after the identity is gone."""
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, errors="replace", check=False)
    lines = (done.stderr + done.stdout).splitlines()
    return {re.sub(r"<[\d.]*>|\[\d+\]", "", line) for line in lines if line.startswith("Error")}
