"""The real sarcoma cases: ingested CT and MR equal the published volumes."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline import batch, records
from pipeline.dicom.gate import judge
from pipeline.dicom.scan import scan
from pipeline.dicom.volume import read_volume
from pipeline.geometry import affine_of
from pipeline.shipped import shipped


@pytest.fixture(scope="module")
def ingested(real_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TANDEM_HOME", str(tmp_path_factory.mktemp("home")))
        spec = shipped("data_specs", "sts_ct_mr.yaml")
        batch.run(batch.Plan(real_images / "sts_ibsi_validation" / "dicom", out, spec, stages=("ingest",)))
    return out


@pytest.mark.parametrize("patient", ["STS_002", "STS_008"])
@pytest.mark.parametrize(("role", "name"), [("ct", "CT"), ("mr", "MR_T1")])
def test_voxels_and_affine_equal_the_published_volume(
    real_images: Path, ingested: Path, patient: str, role: str, name: str
) -> None:
    truth = nib.as_closest_canonical(nib.load(real_images / "sts_nifti" / patient / f"{name}_image.nii.gz"))
    images = [nib.load(path) for path in (ingested / "cases").glob(f"*/ingest/{role}.nii.gz")]
    same = [image for image in images if image.shape == truth.shape]
    assert len(same) == 1
    np.testing.assert_array_equal(np.asarray(same[0].dataobj), np.asarray(truth.dataobj))
    np.testing.assert_allclose(same[0].affine, truth.affine, atol=1e-3)


def test_every_case_is_done_and_anonymous(ingested: Path) -> None:
    found = records.of_run(ingested)
    assert [case[0].status for case in found.values()] == ["done", "done"]
    for path in ingested.rglob("*"):
        assert "STS" not in path.name
        if path.suffix in (".csv", ".json", ".yaml"):
            assert "STS_0" not in path.read_text()


def test_a_study_with_a_missing_slice_is_set_aside(real_images: Path) -> None:
    """ProstateX-0000 lacks a slice of one series; its complete twin is read."""
    root = real_images / "picai_prostatex" / "tests" / "input" / "dcm"
    whole = [judge(series) for series in scan(root / "ProstateX").series]
    assert len(whole) >= 5
    (gap,) = (judge(series) for series in scan(root / "ProstateX-missing-slice").series)
    assert gap.fault is not None and gap.fault.code == "E_GAP"
    twin = next(series for series in whole if series.series_uid == gap.series_uid)
    assert twin.fault is None and len(twin.instances) == 19
    volume = read_volume(twin)
    assert volume.shape[-1] == 19 and np.isfinite(affine_of(volume)).all()


def test_the_tilted_ct_is_not_read_straight(real_images: Path) -> None:
    faults = [judge(series).fault for series in scan(real_images / "dcm_qa_ct" / "In").series]
    tilted = [fault for fault in faults if fault is not None and fault.code == "E_TILT"]
    assert tilted and "18.5" in tilted[0].message


def test_every_strange_file_gets_a_verdict(real_images: Path) -> None:
    """188 files of 13 transfer syntaxes, broken ones among them: no crash, nothing is left out of the account."""
    found = scan(real_images / "pydicom_test_files")
    total = sum(path.is_file() for path in (real_images / "pydicom_test_files").rglob("*"))
    instances = [instance for series in found.series for instance in (*series.instances, *series.rejected)]
    assert len(instances) + len(found.rejected) + len(found.unreadable) + len(found.others) == total
    for series in map(judge, found.series):
        assert series.fault is not None or len(series.instances) >= 2
