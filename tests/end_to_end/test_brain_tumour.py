"""The data spec `brain_tumour`: landmark files give the pose, CT and MR become one picture, the tumour is found."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from pipeline.commands.demo import fusion_errors
from pipeline.run import batch
from pipeline.simulation.cohort import simulate_cohort
from pipeline.volumes import matrix_from_transform


def write_landmarks(folder: Path, patient: str, truth: Path) -> np.ndarray:
    """Six landmarks of a patient in both images; the true pose."""
    points = np.loadtxt(truth / "landmarks.csv", delimiter=",", skiprows=1, usecols=(0, 1, 2))[:6]
    pose = np.array(json.loads((truth / "transform.json").read_text())["matrix"])
    folder.mkdir()
    for role, found in (("ct", points), ("mr", points @ pose[:3, :3].T + pose[:3, 3])):
        rows = "\n".join(f"{number},{x},{y},{z}" for number, (x, y, z) in enumerate(found))
        (folder / f"{patient}_{role}.csv").write_text(f"# convention: RAS\nname,x,y,z\n{rows}\n")
    return pose


@pytest.mark.slow
def test_from_landmarks_by_way_of_one_picture_to_the_tumour(tmp_path: Path) -> None:
    cohort = simulate_cohort(tmp_path / "cohort", cases=1, spacing_mm=4.0, faulty=0, seed=12, kinds=True)
    patient = cohort.patients[0].patient_id
    pose = write_landmarks(cohort.dicom / "landmarks", patient, cohort.truth / patient)
    stages = ("ingest", "register", "fuse_image", "fuse")
    found = batch.run(batch.Plan(cohort.dicom, tmp_path / "out", Path("brain_tumour"), stages))
    (case,) = found.values()
    assert [record.error for record in case] == [None] * len(stages)
    made = {item.key: tmp_path / "out" / item.path for record in case for item in record.artifacts}
    np.testing.assert_allclose(matrix_from_transform(sitk.ReadTransform(str(made["mr_transform"]))), pose, atol=1e-6)
    picture, ct = nib.load(made["fused_image"]), nib.load(made["ct"])
    assert picture.shape == ct.shape and np.array_equal(picture.affine, ct.affine)
    measures = next(record.measures for record in case if record.stage == "fuse_image")
    assert measures["fused_bone"] > 0.9 and measures["fused_soft"] > 0.6 > measures["ct_soft"]
    (error,) = fusion_errors(tmp_path / "cohort", tmp_path / "out").values()
    assert error.dice > 0.4
