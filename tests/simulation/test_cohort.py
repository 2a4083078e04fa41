from __future__ import annotations

import hashlib
import json
import runpy
from collections import defaultdict
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
import typer
from pydicom import Dataset, dcmread
from scipy import ndimage

from pipeline import geometry
from pipeline.errors import UsageError
from pipeline.simulation.cohort import Cohort, FiducialError, fiducial_error_mm, simulate_cohort

SCRIPT = Path(__file__).parents[2] / "scripts" / "simulate_cohort.py"


def series_of(folder: Path) -> dict[str, list[Dataset]]:
    """Headers below a folder by SeriesDescription, in the order of InstanceNumber."""
    found = defaultdict(list)
    for path in folder.rglob("IM*"):
        found[dcmread(path, stop_before_pixels=True).SeriesDescription].append(dcmread(path, stop_before_pixels=True))
    return {name: sorted(slices, key=lambda slice_: slice_.InstanceNumber) for name, slices in found.items()}


def along_normal(slices: list[Dataset]) -> np.ndarray:
    row, column = np.asarray(slices[0].ImageOrientationPatient, float).reshape(2, 3)
    return np.array([np.asarray(s.ImagePositionPatient, float) @ np.cross(row, column) for s in slices])


def read_dicom(folder: Path) -> sitk.Image:
    paths = sorted(folder.iterdir(), key=lambda path: dcmread(path, stop_before_pixels=True).InstanceNumber)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in paths])
    return reader.Execute()


def truth_of(cohort: Cohort, patient: int) -> tuple[dict[str, nib.Nifti1Image], npt.NDArray[np.float64], np.ndarray]:
    """Images, the true matrix and the landmarks (N, 6) of a patient."""
    folder = cohort.truth / cohort.patients[patient].patient_id
    images = {name: nib.load(folder / f"{name}.nii.gz") for name in ("ct", "mr", "label_ct")}
    matrix = np.array(json.loads((folder / "transform.json").read_text())["matrix"])
    return images, matrix, np.loadtxt(folder / "landmarks.csv", delimiter=",", skiprows=1)


def sample(image: nib.Nifti1Image, points: np.ndarray, order: int = 1) -> np.ndarray:
    index = nib.affines.apply_affine(np.linalg.inv(image.affine), points).T
    return ndimage.map_coordinates(image.get_fdata(), index, order=order, cval=np.nan)


def test_every_patient_has_the_series_of_a_hospital(cohort: Cohort) -> None:
    folders = sorted(cohort.dicom.iterdir())
    assert len(folders) == 3 == len(cohort.patients)
    for folder in folders:
        found = series_of(folder)
        assert {name: len(slices) for name, slices in found.items() if len(slices) < 10} == {
            "Topogram 0.6 T20f": 1,
            "localizer": 3,
        }
        assert set(found) == {"HEAD 4.0 Br38", "Topogram 0.6 T20f", "t1_mprage_sag", "T2 TSE axial", "localizer"}
        ct, t1, t2 = (found[name][0] for name in ("HEAD 4.0 Br38", "t1_mprage_sag", "T2 TSE axial"))
        assert ct.FrameOfReferenceUID != t1.FrameOfReferenceUID == t2.FrameOfReferenceUID
        assert ct.PatientID == t1.PatientID and ct.StudyInstanceUID != t1.StudyInstanceUID
        assert ct.PatientID not in folder.as_posix()
        for name in ("Topogram 0.6 T20f", "localizer"):
            assert all("LOCALIZER" in slice_.ImageType for slice_ in found[name])
        planes = [np.asarray(s.ImageOrientationPatient, float).reshape(2, 3) for s in found["localizer"]]
        normals = [np.cross(*plane) for plane in planes]
        assert np.abs(np.array(normals) @ np.array(normals).T) == pytest.approx(np.eye(3), abs=1e-6)
        # the MR lies oblique, with voxels of 1.1 x 1.0 x 1.2 times the CT's
        assert np.abs(np.asarray(t1.ImageOrientationPatient, float)).min() > 1e-3
        assert [float(value) for value in t1.PixelSpacing] == pytest.approx([4.0, 4.4])
        assert np.diff(along_normal(found["t1_mprage_sag"])) == pytest.approx(4.8, abs=1e-5)


def test_only_the_last_patient_misses_a_slice(cohort: Cohort) -> None:
    index = json.loads((cohort.truth / "cohort.json").read_text())
    assert [p["expected_code"] for p in index["patients"]] == [None, None, "E_GAP"]
    assert [p["faulty"] for p in index["patients"]] == [False, False, True]
    assert (index["seed"], index["spacing_mm"]) == (5, 4.0)
    for patient in cohort.patients:
        slices = [dcmread(path, stop_before_pixels=True) for path in (cohort.dicom / patient.ct_folder).iterdir()]
        steps = np.diff(np.sort(along_normal(slices)))
        assert steps.min() == pytest.approx(4.0, abs=1e-5)
        assert steps.max() == pytest.approx(8.0 if patient.faulty else 4.0, abs=1e-5)
        whole = nib.load(cohort.truth / patient.patient_id / "ct.nii.gz").shape[2]
        assert len(slices) == whole - patient.faulty
        assert {slice_.PatientID for slice_ in slices} == {patient.patient_id}


@pytest.mark.parametrize(("name", "attribute"), [("ct", "ct_folder"), ("mr", "mr_folder")])
def test_truth_holds_the_values_as_written(cohort: Cohort, name: str, attribute: str) -> None:
    patient = cohort.patients[0]
    read = read_dicom(cohort.dicom / getattr(patient, attribute))
    truth = nib.load(cohort.truth / patient.patient_id / f"{name}.nii.gz")
    assert np.array_equal(sitk.GetArrayFromImage(read).transpose(2, 1, 0), np.asarray(truth.dataobj))
    corner = [size - 1 for size in truth.shape]
    x, y, z = read.TransformIndexToPhysicalPoint(corner)
    assert nib.affines.apply_affine(truth.affine, corner) == pytest.approx([-x, -y, z], abs=1e-3)
    assert (truth.header["qform_code"], truth.header["sform_code"]) == (1, 1)
    assert truth.header.get_qform() == pytest.approx(truth.header.get_sform(), abs=1e-3)


def test_the_topogram_shows_the_head_from_the_front(cohort: Cohort) -> None:
    found = series_of(cohort.dicom / cohort.patients[0].ct_folder.split("/")[0])["Topogram 0.6 T20f"][0]
    ct = nib.load(cohort.truth / cohort.patients[0].patient_id / "ct.nii.gz")
    assert (found.Columns, found.Rows) == (ct.shape[0], ct.shape[2])
    top_left = nib.affines.apply_affine(ct.affine, [0, (ct.shape[1] - 1) / 2, ct.shape[2] - 1])
    assert np.asarray(found.ImagePositionPatient, float) * [-1, -1, 1] == pytest.approx(top_left, abs=1e-3)


def outline(bright: np.ndarray, axial: int) -> np.ndarray:
    """Fill what is dark inside the head, plane by axial plane: the skull is a closed ring there."""
    planes = [ndimage.binary_fill_holes(plane) for plane in np.moveaxis(bright, axial, 0)]
    return np.moveaxis(np.array(planes), 0, axial)


@pytest.mark.parametrize("patient", [0, 1])
def test_landmarks_and_head_masks_agree_with_the_transform(cohort: Cohort, patient: int) -> None:
    images, matrix, landmarks = truth_of(cohort, patient)
    assert len(landmarks) >= 30
    assert geometry.apply(matrix, landmarks[:, :3]) == pytest.approx(landmarks[:, 3:], abs=1e-5)
    hu = sample(images["ct"], landmarks[:, :3])
    assert np.nanmin(hu) > -30 and np.nanmax(hu) < 120  # all in the brain
    # the heads' outlines, read from the images alone: half way from air to fat
    head_ct = outline(images["ct"].get_fdata() > -550, axial=2)
    head_mr = outline(images["mr"].get_fdata() > 300, axial=1)
    head_mr = nib.Nifti1Image(head_mr.astype(np.float32), images["mr"].affine)
    points = nib.affines.apply_affine(images["ct"].affine, np.indices(head_ct.shape).reshape(3, -1).T)

    def dice(transform: np.ndarray) -> float:
        seen = sample(head_mr, geometry.apply(transform, points), order=0)
        valid = ~np.isnan(seen)
        a, b = head_ct.ravel()[valid], seen[valid] > 0.5
        return float(2 * (a & b).sum() / (a.sum() + b.sum()))

    assert dice(matrix) > 0.96
    assert dice(matrix) > dice(np.eye(4)) + 0.02
    assert dice(matrix) > dice(np.linalg.inv(matrix)) + 0.04


def mutual_information(ct: np.ndarray, mr: np.ndarray) -> float:
    joint = np.histogram2d(ct, mr, bins=32)[0] / len(ct)
    product = joint.sum(1)[:, None] * joint.sum(0)[None]
    there = joint > 0
    return float((joint[there] * np.log(joint[there] / product[there])).sum())


def test_mutual_information_is_highest_at_the_true_transform(cohort: Cohort) -> None:
    images, matrix, landmarks = truth_of(cohort, 0)
    centre = landmarks[:, :3].mean(axis=0)
    ct = np.clip(images["ct"].get_fdata(), -200, 1000)
    points = nib.affines.apply_affine(images["ct"].affine, np.indices(ct.shape).reshape(3, -1).T)
    near = np.linalg.norm(points - centre, axis=1) < 110

    def score(transform: np.ndarray) -> float:
        seen = sample(images["mr"], geometry.apply(transform, points[near]))
        valid = ~np.isnan(seen)
        return mutual_information(ct.ravel()[near][valid], seen[valid])

    best = score(matrix)
    for axis in range(3):
        for sign in (-1, 1):
            shifted = np.eye(4)
            shifted[axis, 3] = sign * 3.0
            turned = np.eye(4)
            one, two = [other for other in range(3) if other != axis]
            angle = sign * np.radians(3.0)
            turned[[one, one, two, two], [one, two, one, two]] = (
                np.cos(angle),
                -np.sin(angle),
                np.sin(angle),
                np.cos(angle),
            )
            turned[:3, 3] = centre - turned[:3, :3] @ centre
            assert score(matrix @ shifted) < best - 0.01
            assert score(matrix @ turned) < best - 0.005


def test_lesions_are_dark_in_t1_where_the_transform_says(cohort: Cohort) -> None:
    images, matrix, _ = truth_of(cohort, 1)
    label = np.asarray(images["label_ct"].dataobj)
    assert set(np.unique(label)) == {0, 1} and images["label_ct"].get_data_dtype() == np.uint8
    parts, count = ndimage.label(label)
    assert count == 3
    for part in range(1, count + 1):
        core = nib.affines.apply_affine(images["ct"].affine, np.argwhere(parts == part))
        rim = ndimage.binary_dilation(parts == part, iterations=2) & ~ndimage.binary_dilation(parts == part)
        around = nib.affines.apply_affine(images["ct"].affine, np.argwhere(rim))
        lesion, tissue = (sample(images["mr"], geometry.apply(matrix, points)) for points in (core, around))
        assert lesion.mean() < 0.85 * np.percentile(tissue, 75)  # the rim's brighter part is white matter


def digests(folder: Path) -> dict[str, str]:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.mark.slow
def test_same_seed_same_files(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        simulate_cohort(tmp_path / name, cases=1, spacing_mm=6.0, seed=seed, faulty=1)
    first, again, other = (digests(tmp_path / name) for name in "abc")
    assert len(first) > 60 and first == again
    assert not set(first.values()) & set(other.values())


def test_unusable_numbers_and_folders_are_refused(cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="E_OUT"):
        simulate_cohort(cohort.dicom.parent, cases=1)
    for bad in ({"cases": 0, "faulty": 0}, {"cases": 2, "faulty": 3}, {"cases": 1, "spacing_mm": 50.0}):
        with pytest.raises(UsageError, match="E_CONFIG"):
            simulate_cohort(tmp_path, **bad)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_cohort_is_begun_anew(tmp_path: Path) -> None:
    left_over = tmp_path / ".partial" / "dicom" / "half.txt"
    left_over.parent.mkdir(parents=True)
    left_over.write_text("from an earlier run")
    simulate_cohort(tmp_path, cases=1, spacing_mm=6.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dicom", "truth"]
    assert not list(tmp_path.rglob("half.txt"))


def test_fiducial_error() -> None:
    points = np.array([[0.0, 0, 0], [50, 0, 0], [0, 100, 0]])
    shifted = np.eye(4)
    shifted[:3, 3] = [3, 4, 0]
    assert fiducial_error_mm(shifted, np.eye(4), points) == FiducialError(5.0, 5.0)
    turned = np.eye(4)
    turned[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    chord = np.sqrt(2 * (1 - 0.8))  # of a turn with cosine 0.8, for radius 1
    error = fiducial_error_mm(turned, np.eye(4), points)
    assert (error.mean_mm, error.max_mm) == pytest.approx((chord * 50, chord * 100))


def test_script_says_where_things_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(SCRIPT))["main"]
    main(tmp_path / "demo", cases=1, spacing_mm=6.0, seed=1, faulty=1)
    printed = capsys.readouterr().out
    assert str(tmp_path / "demo" / "dicom") in printed and "SIM-0001 has to be set aside with E_GAP" in printed
    with pytest.raises(typer.Exit):
        main(tmp_path / "demo", cases=1)
    assert "E_OUT" in capsys.readouterr().err
