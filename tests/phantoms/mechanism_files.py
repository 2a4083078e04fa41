"""Cases of a mechanism as files and a table, as the fuse bundle reads them: CT in HU, MR in arbitrary units, masks."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.phantoms.mechanisms import Mechanism, MechanismCases, mechanism_cases

#: HU of one standard deviation of the noise, and of its mean; the window (140, 800) then shows -3 to 5 of them.
HU_OF_ONE, HU_OF_ZERO = 100.0, 40.0
#: Oblique and anisotropic, mm.
AFFINE = np.array([[1.2, 0.1, 0, -10], [-0.12, 1.0, 0, 5], [0, 0, 2.0, 7], [0, 0, 0, 1.0]])
COLUMNS = ("case_id", "patient_id", "ct", "mr", "label", "mask")


def write_mechanism_cases(
    folder: Path,
    mechanism: Mechanism,
    count: int,
    seed: int = 0,
    size: int = 16,
    cases_each: int = 2,
    mr_of_zero: float = 1000.0,
) -> MechanismCases:
    """Write cases and their table `cases.csv`.

    Args:
        folder: where to.
        mechanism: see `tests.phantoms.mechanisms`.
        count: how many cases.
        seed: of the chance.
        size: voxels along each side.
        cases_each: how many cases every patient has.
        mr_of_zero: MR value of the mean of the noise; one standard deviation is `HU_OF_ONE` in both images.

    Returns:
        The cases, with the true posterior.
    """
    cases = mechanism_cases(mechanism, count, seed, size)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        name = f"case-{number:03d}"
        arrays = {
            "ct": (HU_OF_ONE * cases.images[number, 0] + HU_OF_ZERO).astype(np.float32),
            "mr": (HU_OF_ONE * cases.images[number, 1] + mr_of_zero).astype(np.float32),
            "mask": cases.masks[number],
        }
        for key, array in arrays.items():
            nib.save(nib.Nifti1Image(array, AFFINE), folder / f"{name}_{key}.nii")
        files = {key: f"{name}_{key}.nii" for key in arrays}
        label = int(cases.labels[number])
        rows.append({"case_id": name, "patient_id": f"patient-{number // cases_each:03d}", "label": label, **files})
    with (folder / "cases.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return cases
