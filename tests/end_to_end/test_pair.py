"""`tandem register` on one pair: NIfTI files, DICOM folders, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from pipeline.simulation.cohort import Cohort, fiducial_error_mm, simulate_cohort
from pipeline.volumes import matrix_from_transform
from tests.tandem_process import call

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return simulate_cohort(tmp_path_factory.mktemp("cohort"), cases=1, spacing_mm=6.0, faulty=0, seed=3)


def matrix_of(out: Path) -> np.ndarray:
    return matrix_from_transform(sitk.ReadTransform(str(out / "transform.h5")))


def test_dicom_and_nifti_give_one_answer_and_it_is_right(cohort: Cohort, tmp_path: Path) -> None:
    patient = cohort.patients[0]
    truth = cohort.truth / patient.patient_id
    folders = [cohort.dicom / patient.ct_folder, cohort.dicom / patient.mr_folder]
    files = [truth / "ct.nii.gz", truth / "mr.nii.gz"]
    for name, (fixed, moving) in {"dicom": folders, "nifti": files}.items():
        run = call("register", fixed, moving, "--out", tmp_path / name)
        assert run.code == 0, run.err
        assert "\npair, register: verdict pass: Alignment of Moving: Two starts agree within " in run.out
        moved = nib.load(tmp_path / name / "moved.nii.gz")
        grid = nib.load(files[0]) if name == "nifti" else nib.as_closest_canonical(nib.load(files[0]))
        assert moved.shape == grid.shape
        np.testing.assert_allclose(moved.affine, grid.affine, atol=1e-3)
    expected = np.array(json.loads((truth / "transform.json").read_text())["matrix"])
    points = np.loadtxt(truth / "landmarks.csv", delimiter=",", skiprows=1, usecols=(0, 1, 2))
    for name in ("dicom", "nifti"):
        assert fiducial_error_mm(matrix_of(tmp_path / name), expected, points).mean_mm < 1.0
    # axes run another way in the files than ingest turns them: no reason to find another pose
    apart = fiducial_error_mm(matrix_of(tmp_path / "dicom"), matrix_of(tmp_path / "nifti"), points)
    assert apart.max_mm < 0.02


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_second_time_in_one_folder_is_done_already(
    cohort: Cohort, tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk without symbolic links, the plain names are copies."""

    def unknown(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(Path, "symlink_to", unknown)
    truth = cohort.truth / cohort.patients[0].patient_id
    seconds = []
    for _ in range(2):
        run = call("register", truth / "ct.nii.gz", truth / "mr.nii.gz", "--out", tmp_path / "out")
        assert run.code == 0, run.err
        record = json.loads((tmp_path / "out/cases/pair/register/record.json").read_text())
        seconds.append(record["measures"]["seconds"])
        moved = tmp_path / "out/moved.nii.gz"
        assert moved.is_symlink() == links
        assert moved.read_bytes() == (tmp_path / "out/cases/pair/register/moving_aligned.nii.gz").read_bytes()
    assert seconds[0] == seconds[1]  # the record of the first time
    moved.unlink()
    moved.write_bytes(b"a file of my own")
    refused = call("register", truth / "ct.nii.gz", truth / "mr.nii.gz", "--out", tmp_path / "out")
    assert (refused.code, refused.err.split(":")[0], moved.read_bytes()) == (2, "E_OUT", b"a file of my own")


def test_an_output_folder_in_a_dicom_folder_is_refused_before_anything_is_written(cohort: Cohort) -> None:
    folders = [cohort.dicom / name for name in (cohort.patients[0].ct_folder, cohort.patients[0].mr_folder)]
    run = call("register", *folders, "--out", folders[1] / "out")
    assert (run.code, run.err.split(":")[0]) == (2, "E_OUT")
    assert not (folders[1] / "out").exists()


def test_what_is_refused(cohort: Cohort, tmp_path: Path) -> None:
    patient = cohort.patients[0]
    ct = cohort.truth / patient.patient_id / "ct.nii.gz"
    missing = call("register", ct, tmp_path / "no.nii.gz", "--out", tmp_path / "out")
    assert (missing.code, missing.err.split(":")[0]) == (2, "E_INPUT")
    whole_patient = (cohort.dicom / patient.ct_folder).parent.parent
    several = call("register", ct, whole_patient, "--out", tmp_path / "out")
    assert (several.code, several.err.split(":")[0]) == (2, "E_AMBIGUOUS")
    (tmp_path / "empty").mkdir()
    assert call("register", ct, tmp_path / "empty", "--out", tmp_path / "out").err.startswith("E_EMPTY")
    assert not (tmp_path / "out").exists()


def test_why_the_one_volume_of_a_folder_is_set_aside_is_said(cohort: Cohort, tmp_path: Path) -> None:
    patient = cohort.patients[0]
    gap = tmp_path / "gap"
    shutil.copytree(cohort.dicom / patient.ct_folder, gap)
    slices = sorted(gap.iterdir(), key=lambda path: float(pydicom.dcmread(path).ImagePositionPatient[2]))
    slices[len(slices) // 2].unlink()
    run = call("register", gap, cohort.dicom / patient.mr_folder, "--out", tmp_path / "out")
    assert (run.code, run.err.split(":")[0]) == (2, "E_GAP"), run.err


def test_two_patients_are_named_as_such(cohort: Cohort, tmp_path: Path) -> None:
    patient, other = cohort.patients[0], tmp_path / "other"
    shutil.copytree(cohort.dicom / patient.mr_folder, other)
    folders = cohort.dicom / patient.ct_folder, other
    said = "The headers of the two images name two patients"
    assert said not in call("register", *folders, "--out", tmp_path / "one").err
    for path in other.iterdir():
        slice_ = pydicom.dcmread(path)
        slice_.PatientID = "another"
        slice_.save_as(path, enforce_file_format=True)
    assert said in call("register", *folders, "--out", tmp_path / "two").err


def test_landmarks_that_count_the_voxels_of_a_dicom_series_are_refused(cohort: Cohort, tmp_path: Path) -> None:
    """Ingest turns the axes of a series: the numbers would name other voxels."""
    patient = cohort.patients[0]
    folders = cohort.dicom / patient.ct_folder, cohort.dicom / patient.mr_folder
    marks = tmp_path / "marks.txt"
    marks.write_text("index\n3\n1 2 3\n9 2 3\n1 8 3\n")
    options = "--fixed-landmarks", marks, "--moving-landmarks", marks
    run = call("register", *folders, "--out", tmp_path / "out", "--transform", "landmarks_rigid", *options)
    assert (run.code, run.err.split(":")[0]) == (2, "E_LANDMARKS"), run.err
    assert not (tmp_path / "out").exists()


def test_a_blank_image_is_a_failed_case(cohort: Cohort, tmp_path: Path) -> None:
    ct = cohort.truth / cohort.patients[0].patient_id / "ct.nii.gz"
    image = nib.load(ct)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.float32), image.affine), tmp_path / "blank.nii.gz")
    run = call("register", ct, tmp_path / "blank.nii.gz", "--out", tmp_path / "out")
    assert run.code == 1
    record = json.loads((tmp_path / "out/cases/pair/register/record.json").read_text())
    assert record["error"]["code"] == "E_BLANK"


def landmark_files(cohort: Cohort, folder: Path) -> tuple[list[str], np.ndarray]:
    """Options that name the truth's landmarks: the CT's as a table, the MR's as 3D Slicer would have them."""
    truth = cohort.truth / cohort.patients[0].patient_id
    points = np.loadtxt(truth / "landmarks.csv", delimiter=",", skiprows=1, usecols=(0, 1, 2))[:6]
    matrix = np.array(json.loads((truth / "transform.json").read_text())["matrix"])
    table = [f"p{n},{x},{y},{z}" for n, (x, y, z) in enumerate(points)]
    (folder / "ct.csv").write_text("\n".join(["# convention: RAS", "name,x,y,z", *table]))
    moved = (points @ matrix[:3, :3].T + matrix[:3, 3]) * [-1, -1, 1]
    control = [{"label": f"p{n}", "position": list(point)} for n, point in reversed(list(enumerate(moved)))]
    markups = {"markups": [{"coordinateSystem": "LPS", "coordinateUnits": "mm", "controlPoints": control}]}
    (folder / "mr.mrk.json").write_text(json.dumps(markups))
    options = ["--fixed-landmarks", str(folder / "ct.csv"), "--moving-landmarks", str(folder / "mr.mrk.json")]
    return options, matrix


def test_landmarks_masks_and_labels(cohort: Cohort, tmp_path: Path) -> None:
    """By landmarks alone: the plain names, the label on the fixed grid, and the way back."""
    truth = cohort.truth / cohort.patients[0].patient_id
    options, matrix = landmark_files(cohort, tmp_path)
    mr, ct = nib.load(truth / "mr.nii.gz"), nib.load(truth / "ct.nii.gz")
    bright = (mr.get_fdata() > np.percentile(mr.get_fdata(), 90)).astype(np.uint8) * 3
    nib.save(nib.Nifti1Image(bright, mr.affine), tmp_path / "Bright spots.nii.gz")
    nib.save(nib.Nifti1Image(np.ones(ct.shape, np.uint8), ct.affine), tmp_path / "everywhere.nii.gz")
    options += ["--transform", "landmarks_rigid", "--apply-to", str(tmp_path / "Bright spots.nii.gz")]
    options += ["--fixed-mask", str(tmp_path / "everywhere.nii.gz")]
    out = tmp_path / "out"
    run = call("register", truth / "ct.nii.gz", truth / "mr.nii.gz", "--out", out, *options)
    assert run.code in (0, 1), run.err
    np.testing.assert_allclose(matrix_of(out), matrix, atol=1e-6)
    inverse = matrix_from_transform(sitk.ReadTransform(str(out / "inverse.h5")))
    np.testing.assert_allclose(inverse @ matrix, np.eye(4), atol=1e-6)
    quality = json.loads((out / "quality.json").read_text())
    assert quality["landmark_fre_mm"] < 1e-6
    label = nib.load(out / "Bright spots_moved.nii.gz")
    assert label.shape == ct.shape
    assert set(np.unique(np.asarray(label.dataobj))) == {0, 3}
    moved = nib.load(out / "moved.nii.gz").get_fdata()
    inside = np.asarray(label.dataobj) == 3
    assert np.median(moved[inside]) > np.percentile(mr.get_fdata(), 90) > np.median(moved[~inside])
    assert (out / "checkerboard.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "report.html").is_file()
    assert all((out / name).resolve().is_relative_to(out / "cases") for name in ("moved.nii.gz", "transform.h5"))


def balls(like: Path, placed: dict[int, np.ndarray], to_world: np.ndarray, path: Path) -> Path:
    """A label volume on a file's grid: balls of 25 mm about centres in the world that its points are brought to."""
    image = nib.load(like)
    index = np.indices(image.shape).reshape(3, -1).T
    world = nib.affines.apply_affine(to_world @ image.affine, index)
    values = np.zeros(len(world), np.uint8)
    for value, centre in placed.items():
        values[np.linalg.norm(world - centre, axis=1) <= 25] = value
    nib.save(nib.Nifti1Image(values.reshape(image.shape), image.affine), path)
    return path


def test_labels_of_both_images_are_compared(cohort: Cohort, tmp_path: Path) -> None:
    """Two structures that were drawn on both images: one in the same place, the other 8 mm off, which is said."""
    truth = cohort.truth / cohort.patients[0].patient_id
    options, matrix = landmark_files(cohort, tmp_path)
    centre = np.loadtxt(truth / "landmarks.csv", delimiter=",", skiprows=1, usecols=(0, 1, 2)).mean(axis=0)
    aside = np.array([35.0, 0, 0])
    fixed = {1: centre + aside, 3: centre - aside}
    moving = {1: fixed[1], 3: fixed[3] + np.array([0, 8.0, 0])}
    (tmp_path / "mr").mkdir()
    drawn = balls(truth / "ct.nii.gz", fixed, np.eye(4), tmp_path / "parts.nii.gz")
    carried = balls(truth / "mr.nii.gz", moving, np.linalg.inv(matrix), tmp_path / "mr" / "parts.nii.gz")
    options += ["--transform", "landmarks_rigid", "--apply-to", str(carried), "--fixed-label", str(drawn)]
    out = tmp_path / "out"
    run = call("register", truth / "ct.nii.gz", truth / "mr.nii.gz", "--out", out, *options)
    assert run.code in (0, 1), run.err
    quality = json.loads((out / "quality.json").read_text())
    assert quality["label_distance_mm"] == pytest.approx(8.0, abs=1.0)
    apart = 8 / 25
    assert quality["label_dice"] == pytest.approx(1 - 3 / 4 * apart + apart**3 / 16, abs=0.05)
    assert quality["verdict"] != "pass"
    assert "The same label lies" in quality["reason"]
    moved = nib.load(out / "parts_moved.nii.gz")
    assert set(np.unique(np.asarray(moved.dataobj))) == {0, 1, 3}
    said = json.loads((out / "cases/pair/register/sections.json").read_text())["regions"]
    over = {item["key"] for item in said if "fixed" in item["over"]}
    assert over == {"fixed_label_parts", "label_parts_aligned"}  # both are outlined on the fixed image


def test_options_that_are_refused(cohort: Cohort, tmp_path: Path) -> None:
    truth = cohort.truth / cohort.patients[0].patient_id
    pair = ("register", truth / "ct.nii.gz", truth / "mr.nii.gz", "--out", tmp_path / "out")
    label = truth / "label_ct.nii.gz"
    empty = balls(truth / "ct.nii.gz", {}, np.eye(4), tmp_path / "empty.nii.gz")
    for options, code in (
        (["--transform", "elastic"], "E_OPTION"),
        (["--moving-modality", "PET"], "E_OPTION"),
        (["--fixed-modality", "KT"], "E_OPTION"),
        (["--parameters", "nowhere.txt"], "E_CONFIG"),
        (["--fixed-landmarks", tmp_path / "no.csv"], "E_INPUT"),
        (["--apply-to", label, "--apply-to", label], "E_NAMES"),
        (["--fixed-label", label], "E_OPTION"),
        (["--apply-to", label, "--fixed-label", empty], "E_OPTION"),
    ):
        run = call(*pair, *options)
        assert (run.code, run.err.split(":")[0]) == (2, code)
        assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/moved.nii.gz").write_bytes(b"mine")
    run = call(*pair)
    assert (run.code, run.err.split(":")[0]) == (2, "E_OUT")
    assert (tmp_path / "out/moved.nii.gz").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("given", "code"),
    [("a mask on another grid", "E_GRID"), ("an empty mask", "E_BLANK"), ("fewer landmarks", "E_LANDMARKS")],
)
def test_what_is_known_of_the_images_has_to_fit(cohort: Cohort, tmp_path: Path, given: str, code: str) -> None:
    truth = cohort.truth / cohort.patients[0].patient_id
    options, _ = landmark_files(cohort, tmp_path)
    ct = nib.load(truth / "ct.nii.gz")
    mask = np.zeros(ct.shape, np.uint8) if given == "an empty mask" else np.ones((9, 9, 9), np.uint8)
    nib.save(nib.Nifti1Image(mask, ct.affine), tmp_path / "mask.nii.gz")
    if given == "fewer landmarks":
        (tmp_path / "ct.csv").write_text("# convention: RAS\nname,x,y,z\np0,1,2,3\n")
        options += ["--transform", "landmarks_rigid"]
    else:
        options = ["--fixed-mask", str(tmp_path / "mask.nii.gz")]
    run = call("register", truth / "ct.nii.gz", truth / "mr.nii.gz", "--out", tmp_path / "out", *options)
    assert run.code == 1
    record = json.loads((tmp_path / "out/cases/pair/register/record.json").read_text())
    assert record["error"]["code"] == code
    assert not (tmp_path / "out/moved.nii.gz").exists()
