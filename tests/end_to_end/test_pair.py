"""`tandem register` on one pair: NIfTI files, DICOM folders, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from pipeline.geometry import matrix_from_transform
from pipeline.simulation.cohort import Cohort, fiducial_error_mm, simulate_cohort
from tests.tandem_process import call

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return simulate_cohort(tmp_path_factory.mktemp("cohort"), cases=1, spacing_mm=6.0, faulty=0, seed=3)


def matrix_of(out: Path) -> np.ndarray:
    return matrix_from_transform(sitk.ReadTransform(str(out / "cases/pair/register/moving_transform.tfm")))


def test_dicom_and_nifti_give_one_answer_and_it_is_right(cohort: Cohort, tmp_path: Path) -> None:
    patient = cohort.patients[0]
    truth = cohort.truth / patient.patient_id
    folders = [cohort.dicom / patient.ct_folder, cohort.dicom / patient.mr_folder]
    files = [truth / "ct.nii.gz", truth / "mr.nii.gz"]
    for name, (fixed, moving) in {"dicom": folders, "nifti": files}.items():
        run = call("register", fixed, moving, "--out", tmp_path / name)
        assert run.code == 0, run.err
        moved = nib.load(tmp_path / name / "cases/pair/register/moving_aligned.nii.gz")
        grid = nib.load(files[0]) if name == "nifti" else nib.as_closest_canonical(nib.load(files[0]))
        assert moved.shape == grid.shape
        np.testing.assert_allclose(moved.affine, grid.affine, atol=1e-3)
    expected = np.array(json.loads((truth / "transform.json").read_text())["matrix"])
    points = np.loadtxt(truth / "landmarks.csv", delimiter=",", skiprows=1, usecols=(0, 1, 2))
    for name in ("dicom", "nifti"):
        assert fiducial_error_mm(matrix_of(tmp_path / name), expected, points).mean_mm < 1.0


def test_what_is_refused(cohort: Cohort, tmp_path: Path) -> None:
    patient = cohort.patients[0]
    ct = cohort.truth / patient.patient_id / "ct.nii.gz"
    missing = call("register", ct, tmp_path / "no.nii.gz", "--out", tmp_path / "out")
    assert (missing.code, missing.err.split(":")[0]) == (2, "E_NIFTI")
    whole_patient = (cohort.dicom / patient.ct_folder).parent.parent
    several = call("register", ct, whole_patient, "--out", tmp_path / "out")
    assert (several.code, several.err.split(":")[0]) == (2, "E_AMBIGUOUS")


def test_a_blank_image_is_a_failed_case(cohort: Cohort, tmp_path: Path) -> None:
    ct = cohort.truth / cohort.patients[0].patient_id / "ct.nii.gz"
    image = nib.load(ct)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.float32), image.affine), tmp_path / "blank.nii.gz")
    run = call("register", ct, tmp_path / "blank.nii.gz", "--out", tmp_path / "out")
    assert run.code == 1
    record = json.loads((tmp_path / "out/cases/pair/register/record.json").read_text())
    assert record["error"]["code"] == "E_BLANK"
