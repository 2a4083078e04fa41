"""Landmarks of a cohort: files that `register.landmarks` names, from the input to the transform."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from pipeline.cases import Record
from pipeline.registration.landmarks import read_landmarks
from pipeline.run import batch
from pipeline.run.stage import scrub
from pipeline.shipped import shipped
from pipeline.simulation.cohort import Cohort, simulate_cohort
from pipeline.store import records
from pipeline.store.pseudonyms import Pseudonyms
from pipeline.volumes import matrix_from_transform

NAME = "DOE_JOHN"
SPEC = """\
name: x
description: x
roles:
  ct: {modality: CT, files: "{case}/ct.nii.gz"}
  mr: {modality: MR, files: "{case}/mr.nii.gz"}
register:
  fixed: ct
  moving: [mr]
  transform: landmarks_rigid
  landmarks: {ct: "{case}/ct.csv", mr: "{case}/mr.m*"}
"""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return simulate_cohort(tmp_path_factory.mktemp("cohort"), cases=1, spacing_mm=6.0, faulty=0, seed=3)


def truth_of(cohort: Cohort) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks of the CT, RAS mm, and the true pose."""
    truth = cohort.truth / cohort.patients[0].patient_id
    points = np.loadtxt(truth / "landmarks.csv", delimiter=",", skiprows=1, usecols=(0, 1, 2))[:6]
    return points, np.array(json.loads((truth / "transform.json").read_text())["matrix"])


def table(points: np.ndarray) -> str:
    return "\n".join(["# convention: RAS", "name,x,y,z", *(f"{NAME} {n},{x},{y},{z}" for n, (x, y, z) in points)])


def write_case(cohort: Cohort, folder: Path) -> None:
    """Both images; the CT's landmarks as a table, the MR's in another order as 3D Slicer has them."""
    folder.mkdir(parents=True)
    truth = cohort.truth / cohort.patients[0].patient_id
    for name in ("ct", "mr"):
        (folder / f"{name}.nii.gz").symlink_to(truth / f"{name}.nii.gz")
    points, matrix = truth_of(cohort)
    (folder / "ct.csv").write_text(table(list(enumerate(points))))
    moved = (points @ matrix[:3, :3].T + matrix[:3, 3]) * [-1, -1, 1]
    control = [{"label": f"{NAME} {n}", "position": list(point)} for n, point in reversed(list(enumerate(moved)))]
    markups = {"markups": [{"coordinateSystem": "LPS", "coordinateUnits": "mm", "controlPoints": control}]}
    (folder / "mr.mrk.json").write_text(json.dumps(markups))


def run(root: Path, folder: Path, spec: str, *stages: str) -> tuple[Path, dict[str, dict[str, Record]]]:
    """The run folder, and the records by the case's own name and stage."""
    (folder / "x.yaml").write_text(spec)
    found = batch.run(batch.Plan(root, folder / "out", folder / "x.yaml", stages))
    ids = {Pseudonyms(folder / "out").of("case", path.name): path.name for path in root.iterdir()}
    return folder / "out", {ids.get(case, case): {item.stage: item for item in done} for case, done in found.items()}


def test_a_cohort_is_aligned_by_its_landmark_files(cohort: Cohort, tmp_path: Path) -> None:
    root = tmp_path / "in"
    for name in (NAME, "incomplete", "ambiguous", "voxels"):
        write_case(cohort, root / name)
    (root / "incomplete" / "mr.mrk.json").unlink()
    (root / "ambiguous" / "mr.marks.csv").write_text("# convention: RAS\nx,y,z\n1,2,3\n")
    (root / "voxels" / "ct.csv").write_text("# convention: RAS\nx,y,z\n1,2,nan\n")
    out, found = run(root, tmp_path, SPEC, "ingest", "register")

    done = found[NAME]["register"]
    (path,) = [item.path for item in done.artifacts if item.key == "mr_transform"]
    pose = matrix_from_transform(sitk.ReadTransform(str(out / path)))
    np.testing.assert_allclose(pose, truth_of(cohort)[1], atol=1e-6)
    assert done.measures["mr_landmark_fre_mm"] < 1e-6
    assert "ct_landmarks" in {item.key for item in done.inputs}
    kept = [path for path in out.rglob("*") if path.is_file() and path.suffix in (".csv", ".json", ".yaml", ".txt")]
    assert not any(NAME in path.read_text() for path in kept)

    assert found["incomplete"]["ingest"].flags == ("N_NO_LANDMARKS: mr: no file fits",)
    for name, stage, code in (
        ("incomplete", "register", "E_LANDMARKS"),
        ("ambiguous", "ingest", "E_AMBIGUOUS"),
        ("voxels", "ingest", "E_LANDMARKS"),
    ):
        error = found[name][stage].error
        assert error is not None and error.code == code, (name, error)


def test_files_of_dicom_patients_are_called_by_the_patient_id(
    cohort: Cohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = cohort.dicom
    patient = cohort.patients[0].patient_id
    points, _ = truth_of(cohort)
    marks = root / "marks"
    marks.mkdir()
    for name in (patient, "NOBODY"):
        for role in ("ct", "mr"):
            (marks / f"{name}_{role}.csv").write_text(table(list(enumerate(points))))
    spec = shipped("data_specs", "ct_mr_head.yaml").read_text()
    spec += "\n  landmarks: {ct: 'marks/{case}_ct.csv', mr: 'marks/{case}_mr.csv'}\n"
    out, _ = run(root, tmp_path, spec, "ingest")
    (case,) = records.FindCases(out, {"ct_landmarks": "document", "mr_landmarks": "document"})()
    stored = read_landmarks(case["ct_landmarks"], None)
    np.testing.assert_array_equal(stored.points, points)
    assert stored.names == tuple("123456")
    assert "2 files of landmarks belong to no case" in capsys.readouterr().err


def test_paths_of_landmark_files_leave_no_trace_in_a_log() -> None:
    path = Path("/scans") / NAME / "ct.csv"
    told = scrub(f"ValueError in {path} ({path.name}) below {path.parent}", {"case_id": "x", "ct_landmarks": path})
    assert told == "ValueError in <input> (<input>) below <input>"
