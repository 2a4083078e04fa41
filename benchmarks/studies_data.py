"""Small studies as DICOM: a CT and an MR of one body in one frame of reference, a drawn lesion; one of ten is faulty.

`FAULTS` takes turns: each is planted in the CT by what the tests' table of faults uses, and has to get its code.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from monai.data import MetaTensor

from pipeline import volumes
from pipeline.simulation.dicom import SeriesHeader, write_series
from tests.dicom.objects.structures import circle, polygon, write_rtstruct
from tests.phantoms import faults

Array = npt.NDArray[np.float64]

#: Voxels of the CT, and of the MR; mm.
SHAPE, SPACING_MM = (32, 28, 12), (5.0, 5.0, 6.0)
FAULTY = 10
SPEC = """\
name: studies
description: Small simulated bodies, CT and MR.
case: patient
roles:
  ct: {modality: CT, unit: HU}
  mr: {modality: MR}
masks:
  lesion: {of: ct, labels: {lesion: lesion}}
ct_windows: {soft: [40, 400]}
register: {fixed: ct, moving: [mr], transform: TRANSFORM}
radiomics:
  images: {ct: ibsi_ct}
  masks: [lesion]
fuse_image: {}
"""


def _no_series(folder: Path) -> None:
    shutil.rmtree(folder)


FAULTS: tuple[tuple[str, str, Callable[[Path], object]], ...] = (
    ("a slice missing", "E_GAP", faults.missing_slice),
    ("two instances of one UID", "E_DUP_SOP", faults.duplicate_sop),
    ("a position taken twice", "E_DUP_POS", faults.duplicate_position),
    ("no positions", "E_NO_GEOMETRY", partial(faults.missing_geometry, everywhere=True)),
    ("NaN in a position", "E_BAD_DS", faults.nan_position),
    ("a slice shifted in its plane", "E_MIXED_GRID", faults.shifted_in_plane),
    ("distances of 2.5 and 10 mm", "E_IRREGULAR", partial(faults.two_distances, far_mm=10.0)),
    ("a tilt of 50 degrees", "E_TILT", partial(faults.gantry_tilt, angle_deg=50.0)),
    ("no rescale", "E_RESCALE", faults.missing_rescale),
    ("inverted grey values", "E_NOT_SCALAR", faults.monochrome1),
    ("text burned in", "E_BURNED_IN", faults.burned_in),
    ("CT and MR in one series", "E_MIXED_MODALITY", faults.mixed_modality),
    ("two persons of one ID", "E_CONTRADICTION", partial(faults.contradicting, PatientName="Other^Person")),
    ("values in another unit", "E_UNIT", partial(faults.in_unit, offset=1000.0, RescaleType="MGML")),
    ("two series that fit", "E_AMBIGUOUS", faults.second_series),
    ("no CT", "E_MISSING_ROLE", _no_series),
    ("a comma for a point", "E_BAD_DS", faults.comma_decimal),
    ("pixels cut", "E_GAP", faults.truncated_pixels),
    ("a header cut", "E_GAP", faults.truncated_header),
    ("an empty file", "E_GAP", faults.empty_file),
)


def patient(number: int) -> str:
    """The PatientID of a study."""
    return f"SIM-{number:05d}"


def fault_of(number: int) -> tuple[str, str]:
    """What is wrong with a study, and the code that it must get; two empty texts for a sound one."""
    return FAULTS[number // FAULTY % len(FAULTS)][:2] if number % FAULTY == FAULTY - 1 else ("", "")


def write_study(tree: Path, number: int) -> None:
    """Write one study; one that is whole already stays."""
    folder, partial_folder = tree / f"PA{number:05d}", tree.with_name("partial")
    if folder.is_dir():
        return
    shutil.rmtree(partial_folder, ignore_errors=True)
    random = np.random.default_rng(number)
    center = random.uniform((0.4, 0.4, 0.4), (0.6, 0.6, 0.6)) * SHAPE
    header = SeriesHeader(seed="studies", patient_id=patient(number), patient_name=f"Simulated^{number}")
    ct, mr = (_body(center, values, random) for values in ((-1000.0, 40.0, 160.0), (0.0, 300.0, 700.0)))
    paths = write_series(ct, partial_folder / "CT", header)
    said = {"modality": "MR", "series_number": 3, "series_description": "t1"}
    write_series(mr, partial_folder / "MR", SeriesHeader(**{**vars(header), **said}))
    affine = volumes.affine_of(ct)
    drawn = [
        polygon(circle(center[:2], (4.0, 4.0), 40), k, affine) for k in range(int(center[2]) - 1, int(center[2]) + 3)
    ]
    write_rtstruct(partial_folder / "drawn", paths, {"lesion": drawn})
    if fault_of(number)[1]:
        FAULTS[number // FAULTY % len(FAULTS)][2](partial_folder / "CT")
    tree.mkdir(parents=True, exist_ok=True)
    partial_folder.rename(folder)


def _body(
    center: npt.NDArray[np.float64], values: tuple[float, float, float], random: np.random.Generator
) -> MetaTensor:
    """An ellipsoid with an uneven inside and a lesion, in air: HU, or arbitrary units."""
    air, tissue, lesion = values
    i, j, k = np.meshgrid(*[np.arange(size, dtype=float) for size in SHAPE], indexing="ij")
    middle, half = (np.asarray(SHAPE) - 1) / 2, np.asarray(SHAPE) * (0.42, 0.40, 0.46)
    inside = sum(((axis - at) / size) ** 2 for axis, at, size in zip((i, j, k), middle, half, strict=True)) < 1
    near = sum(((axis - at) / 4.0) ** 2 for axis, at in zip((i, j, k * 1.2), center * (1, 1, 1.2), strict=True)) < 1
    image = np.where(inside, tissue * (1 + 0.5 * np.sin(i / 3) * np.cos(j / 4 + k / 3)), air)
    image[near & inside] = lesion
    image[inside] += random.normal(0, 0.03 * lesion, int(inside.sum()))
    affine = np.diag([*SPACING_MM, 1.0])
    affine[:3, 3] = -np.asarray(SPACING_MM) * middle
    return volumes.volume(image.astype(np.float32), affine)
