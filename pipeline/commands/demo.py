"""`tandem demo`: a small simulated cohort with known truth, from DICOM to the report, compared with that truth."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.console import echo
from pipeline.run import batch
from pipeline.run.plan import Plan
from pipeline.shipped import shipped
from pipeline.simulation.cohort import FiducialError, fiducial_error_mm, simulate_cohort
from pipeline.store import records
from pipeline.store.files import writable_folder
from pipeline.store.pseudonyms import Pseudonyms

SPEC = ("data_specs", "simulated_head.yaml")
#: The value of the lesions in the labels of the demo's segmentation network (bundles/segment/models/demo_head).
SEGMENTED_LESION = 2


@dataclass(frozen=True)
class FusionError:
    """How far a case's fused results are from the simulated truth.

    Attributes:
        dice: of the lesions' voxels.
        probability: that the network gives class 1.
        posterior: the true one, given what the lesions show.
    """

    dice: float
    probability: float
    posterior: float


def run_demo(out: Path, cases: int, jobs: int, device: str) -> int:
    """Simulate a cohort whose last patient is faulty, run all stages on it, and say where the report is.

    Returns:
        0 when the faulty case, and no other, was quarantined with the expected code; else 1.

    Raises:
        UsageError: E_EXTRA when the extra `demo` is not installed, E_OPTION for a device that there is not, E_OUT,
            E_BUSY.
    """
    plan = Plan(out / "cohort" / "dicom", out / "run", shipped(*SPEC), jobs=jobs, device=device)
    cohort = writable_folder(out) / "cohort"
    if not (cohort / "truth" / "cohort.json").is_file():
        echo(f"Simulating {cases} patients (CT and MR of the head) as DICOM in {cohort / 'dicom'} …")
        simulate_cohort(cohort, cases=cases, faulty=1, kinds=True)
    found = batch.run(plan)
    faults = [record.error.code for case in found.values() for record in case if record.error]
    planted = [patient["expected_code"] for patient in _patients(cohort) if patient["expected_code"]]
    echo(f"{len(found)} cases; set aside: {', '.join(faults) or 'none'} (planted: {', '.join(planted) or 'none'})")
    errors = [error.mean_mm for error in alignment_errors(cohort, out / "run").values()]
    echo(f"Alignment against the simulated truth: mean error {np.mean(errors):.2f} mm over {len(errors)} cases")
    segmented = list(segmentation_dice(cohort, out / "run").values())
    if segmented:
        echo(f"Segmentation against the simulated truth: Dice of the lesions {_mean_and_least(segmented)}")
    fused = list(fusion_errors(cohort, out / "run").values())
    if fused:
        echo(_fusion_in_words(fused))
    echo(f"Report: {(out / 'run' / 'report.html').resolve()}")
    return int(faults != planted)


def alignment_errors(cohort: Path, output_dir: Path, keys: Path | None = None) -> dict[str, FiducialError]:
    """Target registration error of the aligned cases of a simulated cohort, over the anatomical landmarks.

    Args:
        cohort: what `simulate_cohort` has filled.
        output_dir: the run folder.
        keys: the folder of the pseudonym key; the user's own when it is left out.

    Returns:
        Case id -> error in mm, for every case whose registration is done.
    """
    from SimpleITK import ReadTransform

    from pipeline.volumes import matrix_from_transform

    errors = {}
    for case_id, truth, folder in _done(cohort, output_dir, "register", keys):
        expected = np.array(json.loads((truth / "transform.json").read_text())["matrix"])
        points = np.loadtxt(truth / "landmarks.csv", delimiter=",", skiprows=1, usecols=(0, 1, 2))
        found = matrix_from_transform(ReadTransform(str(folder / "mr_transform.h5")))
        errors[case_id] = fiducial_error_mm(found, expected, points)
    return errors


def fusion_errors(cohort: Path, output_dir: Path) -> dict[str, FusionError]:
    """Compare the fused cases of a simulated cohort with its truth: the lesions' voxels, and the class's posterior.

    Folders as of `alignment_errors`; the cohort was made with `kinds`.

    Returns:
        Case id -> errors, for every case that is fused and has a true class.
    """
    errors = {}
    for case_id, truth, folder in _done(cohort, output_dir, "fuse"):
        if not (truth / "class.json").is_file():
            continue
        dice = _lesion_dice(folder / "fused_label.nii.gz", 1, truth)
        chances = list(json.loads((folder / "fused_class.json").read_text())["probabilities"].values())
        posterior = json.loads((truth / "class.json").read_text())["posterior"]
        errors[case_id] = FusionError(dice, chances[1], posterior)
    return errors


def segmentation_dice(cohort: Path, output_dir: Path) -> dict[str, float]:
    """Dice of the lesions in every case of a simulated cohort that is segmented; folders as of `alignment_errors`."""
    return {
        case_id: _lesion_dice(folder / "segment_label.nii.gz", SEGMENTED_LESION, truth)
        for case_id, truth, folder in _done(cohort, output_dir, "segment")
    }


def _lesion_dice(found: Path, value: int, truth: Path) -> float:
    """Dice of a label with the true lesions, whatever the order of the axes of its image."""
    import nibabel as nib
    from nibabel.processing import resample_from_to

    lesions = nib.load(truth / "label_ct.nii.gz")
    labels = resample_from_to(nib.load(found), lesions, order=0)
    one, other = np.asarray(labels.dataobj) == value, np.asarray(lesions.dataobj) > 0
    return 2 * float((one & other).sum()) / max(1.0, float(one.sum() + other.sum()))


def _done(cohort: Path, output_dir: Path, stage: str, keys: Path | None = None) -> Iterator[tuple[str, Path, Path]]:
    """Case id, folder of the truth and folder of the results of every patient whom a stage is done with."""
    names = Pseudonyms(output_dir, keys)
    for patient in _patients(cohort):
        case_id = names.of("case", patient["patient_id"])
        folder = records.case_folder(output_dir, case_id) / stage
        record = records.read(folder)
        if record is not None and record.status == "done":
            yield case_id, cohort / "truth" / patient["patient_id"], folder


def _fusion_in_words(errors: list[FusionError]) -> str:
    dice = [error.dice for error in errors]
    apart = np.mean([abs(error.probability - error.posterior) for error in errors])
    pairs = ", ".join(f"{error.probability:.2f} ({error.posterior:.2f})" for error in errors)
    return (
        f"Fusion against the simulated truth: Dice of the lesions {_mean_and_least(dice)}; "
        f"calibrated probability of the second class (true posterior) {pairs}, {apart:.2f} apart on average"
    )


def _mean_and_least(dice: list[float]) -> str:
    return f"{np.mean(dice):.2f} (least {min(dice):.2f})"


def _patients(cohort: Path) -> list[Mapping[str, Any]]:
    patients: list[Mapping[str, Any]] = json.loads((cohort / "truth" / "cohort.json").read_text())["patients"]
    return patients
