"""Simulate a cohort: hospital DICOM of CT and MR heads, and beside it the truth to compare results with."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
from monai.data import MetaTensor
from pydicom import dcmread

from pipeline import geometry, volumes
from pipeline.errors import UsageError
from pipeline.simulation.dicom import SeriesHeader, write_series
from pipeline.simulation.head import load_head_template
from pipeline.simulation.kinds import random_kind, with_kind
from pipeline.simulation.protocol import Examination, examine
from pipeline.simulation.subject import Subject, random_subject
from pipeline.store.plain import write_json

#: The code with which the faulty patients' CT has to be set aside.
FAULT_CODE = "E_GAP"

# A cohort grows in this folder and is moved out of it when it is whole: an interrupted one is never taken for one.
_PARTIAL = ".partial"
_LESIONS = 3
_SPACING_LIMITS_MM = (0.5, 6.0)
_GIVEN_NAMES = ("Ada", "Bela", "Cleo", "Dana", "Emil", "Fadi", "Gita", "Hugo", "Ines", "Jona")


@dataclass(frozen=True)
class Patient:
    """One simulated patient.

    Attributes:
        patient_id: PatientID in the DICOM files, and the name of the folder with the patient's truth.
        faulty: whether a fault was planted.
        expected_code: the error code with which the patient has to be set aside, or None for a sound one.
        ct_folder: where the CT series lies below the cohort's `dicom`.
        mr_folder: where the T1-weighted MR series lies below it.
    """

    patient_id: str
    faulty: bool
    expected_code: str | None
    ct_folder: str
    mr_folder: str


@dataclass(frozen=True)
class Cohort:
    """What was simulated, and where it lies: `dicom` is the pipeline's input, `truth` is kept from it."""

    dicom: Path
    truth: Path
    patients: tuple[Patient, ...]


@dataclass(frozen=True)
class FiducialError:
    """Target registration error over landmarks."""

    mean_mm: float
    max_mm: float


def simulate_cohort(
    out: Path,
    cases: int,
    spacing_mm: float = 3.0,
    seed: int = 0,
    faulty: int = 1,
    max_angle_deg: float = 10.0,
    max_shift_mm: float = 15.0,
    kinds: bool = False,
) -> Cohort:
    """Write a cohort: `out/dicom` as a hospital exports it, `out/truth` to compare with.

    For each patient the truth holds `ct.nii.gz` and `mr.nii.gz` (the values as written to DICOM, with noise, and
    complete for faulty patients too), `label_ct.nii.gz` (0 background, 1 lesion, on the CT's grid), `landmarks.csv`
    (RAS mm in CT and MR world) and `transform.json` (CT world to MR world). `cohort.json` lists the patients. With
    `kinds`, `class.json` has each patient's class, its cues and its true posterior.

    Args:
        out: where to; must not hold a cohort yet.
        cases: how many patients.
        spacing_mm: voxel size of the CT, 0.5 to 6; the MR's is 1.1 x 1.0 x 1.2 times that.
        seed: the same seed gives the same files, bit for bit.
        faulty: this many of the patients, the last ones, miss a slice in the middle of their CT.
        max_angle_deg: the MR head is turned by up to this about each axis against the CT head.
        max_shift_mm: and moved by up to this along each axis.
        kinds: draw a class for each patient, which the lesions show (`pipeline.simulation.kinds`).

    Raises:
        UsageError: E_OUT when `out` holds a cohort, E_CONFIG for numbers out of range, E_EXTRA without nilearn.
    """
    _check(out, cases, spacing_mm, faulty)
    template = load_head_template(resolution_mm=1 if spacing_mm < 2 else 2)
    partial = out / _PARTIAL
    if partial.exists():
        shutil.rmtree(partial)
    patients = []
    for number in range(1, cases + 1):
        rng = np.random.default_rng([seed, number])
        subject = random_subject(template, rng, max_angle_deg, max_shift_mm, _LESIONS)
        kind = random_kind(np.random.default_rng([seed, number, 1])) if kinds else None
        subject = subject if kind is None else with_kind(subject, kind)
        examination = examine(subject, _identity(seed, number), spacing_mm, rng)
        patients.append(_write_patient(partial, subject, examination, faulty=number > cases - faulty))
        if kind is not None:
            write_json(partial / "truth" / patients[-1].patient_id / "class.json", asdict(kind))
    index = {"seed": seed, "spacing_mm": spacing_mm, "patients": [asdict(patient) for patient in patients]}
    write_json(partial / "truth" / "cohort.json", index)
    cohort = Cohort(out / "dicom", out / "truth", tuple(patients))
    (partial / "dicom").rename(cohort.dicom)
    (partial / "truth").rename(cohort.truth)
    partial.rmdir()
    return cohort


def fiducial_error_mm(
    matrix_estimated: npt.ArrayLike, matrix_true: npt.ArrayLike, points: npt.ArrayLike
) -> FiducialError:
    """How far an estimated CT-to-MR transform maps points from where they belong.

    Args:
        matrix_estimated: 4 x 4, CT world to MR world, RAS mm.
        matrix_true: 4 x 4, the same for the truth.
        points: (N, 3) in CT world, RAS mm.

    Source: Fitzpatrick, West and Maurer, IEEE TMI 1998 (target registration error).
    """
    apart = geometry.apply(matrix_estimated, points) - geometry.apply(matrix_true, points)
    distances = np.linalg.norm(apart, axis=1)
    return FiducialError(float(distances.mean()), float(distances.max()))


def _check(out: Path, cases: int, spacing_mm: float, faulty: int) -> None:
    if any((out / name).exists() for name in ("dicom", "truth")):
        raise UsageError("E_OUT", "Expected an output folder without a cohort, got one that holds dicom/ or truth/.")
    if not 0 <= faulty <= cases or cases < 1:
        raise UsageError(
            "E_CONFIG",
            f"Expected at least one case and 0 to {cases} faulty ones, got {cases} and {faulty}.",
            "Choose other numbers.",
        )
    low, high = _SPACING_LIMITS_MM
    if not low <= spacing_mm <= high:
        raise UsageError(
            "E_CONFIG", f"Expected a spacing of {low} to {high} mm, got {spacing_mm:g} mm.", "Choose another spacing."
        )


def _identity(seed: int, number: int) -> SeriesHeader:
    return SeriesHeader(
        seed=f"tandem-cohort-{seed}",
        patient_id=f"SIM-{number:04d}",
        patient_name=f"Simulated^{_GIVEN_NAMES[number % len(_GIVEN_NAMES)]}",
        birth_date=f"{1940 + number * 7 % 50}{number % 12 + 1:02d}{number % 28 + 1:02d}",
        sex="FM"[number % 2],
        date=f"2024{number % 12 + 1:02d}{number * 5 % 28 + 1:02d}",
    )


def _write_patient(out: Path, subject: Subject, examination: Examination, faulty: bool) -> Patient:
    for scan in examination.scans:
        write_series(scan.image, out / "dicom" / _folder(scan.header), scan.header)
    ct, mr = (_folder(scan.header) for scan in (examination.ct, examination.mr))
    if faulty:
        _remove_middle_slice(out / "dicom" / ct)
    patient_id = examination.ct.header.patient_id
    _write_truth(out / "truth" / patient_id, subject, examination)
    return Patient(patient_id, faulty, FAULT_CODE if faulty else None, ct.as_posix(), mr.as_posix())


def _remove_middle_slice(folder: Path) -> None:
    paths = sorted(
        folder.iterdir(), key=lambda path: int(dcmread(path, specific_tags=["InstanceNumber"]).InstanceNumber)
    )
    paths[(len(paths) - 1) // 2].unlink()


def _folder(header: SeriesHeader) -> Path:
    """A nested folder with names that say nothing, as hospital exports have them."""
    levels = (("PA", header.patient_id + header.seed), ("ST", header.study_uid), ("SE", header.series_uid))
    return Path(*(prefix + hashlib.sha256(text.encode()).hexdigest()[:6].upper() for prefix, text in levels))


def _write_truth(folder: Path, subject: Subject, examination: Examination) -> None:
    folder.mkdir(parents=True)
    ct, mr = examination.ct.image, examination.mr.image
    _write_nifti(folder / "ct.nii.gz", ct, np.int16)
    _write_nifti(folder / "mr.nii.gz", mr, np.int16)
    labels = subject.labels_ct(tuple(ct.shape[1:]), volumes.affine_of(ct))
    _write_nifti(folder / "label_ct.nii.gz", labels, np.uint8)
    points = subject.landmarks_ct()
    table = np.hstack([points, geometry.apply(subject.ct_to_mr, points)])
    header = "ct_x,ct_y,ct_z,mr_x,mr_y,mr_z"
    np.savetxt(folder / "landmarks.csv", table, fmt="%.6f", delimiter=",", header=header, comments="")
    transform = {"from": "CT world", "to": "MR world", "convention": "RAS mm", "matrix": subject.ct_to_mr.tolist()}
    write_json(folder / "transform.json", transform)


def _write_nifti(path: Path, image: MetaTensor, kind: npt.DTypeLike) -> None:
    affine = volumes.affine_of(image)
    result = nib.Nifti1Image(np.rint(image.numpy()[0]).astype(kind), affine)
    result.set_qform(affine, code=1)
    result.set_sform(affine, code=1)
    result.header.set_xyzt_units("mm")
    nib.save(result, path)
