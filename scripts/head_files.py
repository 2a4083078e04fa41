"""Simulated heads as files and a table, as the fuse bundle reads them: CT, MR brought onto its grid, lesions, class.

Beside them, for networks that segment, the brain (1) and the lesions in it (2).
"""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from monai.data import MetaTensor

from pipeline import volumes
from pipeline.simulation.head import HeadTemplate, load_head_template
from pipeline.simulation.kinds import Kind, random_kind, with_kind
from pipeline.simulation.protocol import scan_pair
from pipeline.simulation.subject import random_rigid, random_subject

#: What an alignment that passes leaves: about each axis, along each axis.
LEFT_OVER_DEG, LEFT_OVER_MM = 0.5, 0.5
LESIONS = 3
#: How the MR head lies to the CT head, as in the demo's cohort.
MAX_ANGLE_DEG, MAX_SHIFT_MM = 10.0, 15.0
COLUMNS = ("case_id", "patient_id", "ct", "mr", "label", "mask", "fold", "posterior")


def write_head_cases(
    folder: Path, table_name: str, numbers: range, folds: int, seed: int, spacing_mm: float = 3.0
) -> None:
    """Write cases and their table.

    Args:
        folder: where to; images of this seed and voxel size that are there already are kept.
        table_name: of the table, such as `cases.csv`. Its column `posterior` has the true probability of class 1.
        numbers: of the cases; the same seed and number give the same case.
        folds: cases are dealt out to this many, in turn.
        seed: of the chance.
        spacing_mm: voxel size of the CT.

    Raises:
        UsageError: E_EXTRA without nilearn.
    """
    template = load_head_template(resolution_mm=1 if spacing_mm < 2 else 2)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in numbers:
        name = f"head-{number:04d}"
        kind = random_kind(np.random.default_rng([seed, number, 1]))
        files = {key: f"{name}_{key}.nii.gz" for key in ("ct", "mr", "mask", "anatomy")}
        origin = f"simulated head, seed {seed}, {spacing_mm:g} mm"
        if not all(_is_of(folder / file, origin) for file in files.values()):
            images = _images(template, kind, np.random.default_rng([seed, number]), spacing_mm)
            for file, image in zip(files.values(), images, strict=True):
                _write(folder / file, image, origin)
        del files["anatomy"]  # not in the table
        about = {"label": str(kind.label), "fold": str(number % folds), "posterior": f"{kind.posterior:.6f}"}
        rows.append({"case_id": name, "patient_id": name, **about, **files})
    with (folder / table_name).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _images(template: HeadTemplate, kind: Kind, rng: np.random.Generator, spacing_mm: float) -> tuple[MetaTensor, ...]:
    """CT, MR on the CT's grid through the true transform but for what an alignment leaves over, lesions, anatomy."""
    subject = with_kind(random_subject(template, rng, MAX_ANGLE_DEG, MAX_SHIFT_MM, LESIONS), kind)
    ct, mr = scan_pair(subject, spacing_mm, rng)
    left_over = random_rigid(rng, subject.centre_ct, LEFT_OVER_DEG, LEFT_OVER_MM)
    to_mr = volumes.transform_from_matrix(subject.ct_to_mr @ left_over)
    moved = sitk.Resample(volumes.to_sitk(mr), volumes.to_sitk(ct), to_mr, sitk.sitkLinear, 0.0)
    anatomy = subject.anatomy_ct(tuple(ct.shape[1:]), volumes.affine_of(ct))
    lesions = volumes.volume((anatomy.numpy() == 2).astype(np.uint8), volumes.affine_of(ct))
    return ct, volumes.from_sitk(moved), lesions, anatomy


def _is_of(path: Path, origin: str) -> bool:
    """Whether a file is there that says of itself where it comes from: another seed's shows another kind."""
    return path.is_file() and str(np.char.decode(nib.load(path).header["descrip"])) == origin


def _write(path: Path, image: MetaTensor, origin: str) -> None:
    values = image.numpy()[0]
    kind = np.uint8 if values.dtype == np.uint8 else np.int16
    file = nib.Nifti1Image(np.rint(values).astype(kind), volumes.affine_of(image))
    file.header["descrip"] = origin
    nib.save(file, path)
