"""The real sarcoma cases: ingested CT and MR equal the published volumes."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.run import batch
from pipeline.shipped import shipped
from pipeline.store import records


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
