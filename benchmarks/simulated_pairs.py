"""Simulated heads with known poses for benchmarks: a CT, a T1- and a T2-weighted MR of each patient, kept in a folder.

Points and matrices are RAS mm; a pair's truth maps points of its fixed image to points of its moving image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from monai.data import MetaTensor

from pipeline.geometry import apply
from pipeline.simulation.dicom import SeriesHeader
from pipeline.simulation.head import HeadTemplate, load_head_template
from pipeline.simulation.protocol import examine
from pipeline.simulation.subject import random_subject
from pipeline.volumes import affine_of, volume

FloatArray = npt.NDArray[np.float64]
MODALITY = {"ct": "CT", "t1": "MR", "t2": "MR"}
HEADER = SeriesHeader(
    seed="pairs", patient_id="SIM", patient_name="Simulated", birth_date="19700101", sex="F", date="20240101"
)


@dataclass(frozen=True)
class Head:
    """One patient: `ct`, `t1`, `t2`, each (1, I, J, K); MR world lies turned and moved against CT world."""

    images: dict[str, MetaTensor]
    ct_to_mr: FloatArray
    landmarks_ct: FloatArray


@dataclass(frozen=True)
class SimulatedPair:
    """Two images, and what is true of them.

    Attributes:
        fixed: (1, I, J, K).
        moving: (1, I, J, K).
        modalities: DICOM Modality of both.
        truth: 4 x 4, fixed to moving points; None where no pose is right.
        landmarks: (N, 3) in the fixed image.
    """

    fixed: MetaTensor
    moving: MetaTensor
    modalities: tuple[str, str]
    truth: FloatArray | None
    landmarks: FloatArray


def head(folder: Path, seed: int, number: int, spacing_mm: float, angle_deg: float = 10, shift_mm: float = 15) -> Head:
    """A patient, simulated when the folder does not hold it yet."""
    path = folder / f"head_{seed}_{number}_{spacing_mm:g}mm_{angle_deg:g}deg_{shift_mm:g}mm.npz"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([seed, number])
        subject = random_subject(_template(1 if spacing_mm < 2 else 2), rng, angle_deg, shift_mm, lesions=3)
        scans = examine(subject, HEADER, spacing_mm, rng)
        images = {"ct": scans.ct.image, "t1": scans.mr.image, "t2": scans.others[1].image}
        arrays = {name: image.numpy()[0].astype(np.float32) for name, image in images.items()}
        affines = {f"{name}_affine": affine_of(image) for name, image in images.items()}
        np.savez(path, **arrays, **affines, ct_to_mr=subject.ct_to_mr, landmarks=subject.landmarks_ct())
    with np.load(path) as kept:
        images = {name: volume(kept[name], kept[f"{name}_affine"]) for name in MODALITY}
        return Head(images, kept["ct_to_mr"], kept["landmarks"])


def pair_of(one: Head, other: Head, fixed: str, moving: str, headers_off: FloatArray | None = None) -> SimulatedPair:
    """Two images of one patient, or of two.

    Args:
        one: whose image is fixed.
        other: whose image is moved; another patient's pair has no true pose.
        fixed: key of `MODALITY`.
        moving: likewise.
        headers_off: moves the moving image's world, as if its headers said something else.
    """
    off = np.eye(4) if headers_off is None else headers_off
    to_mr = one.ct_to_mr
    truth = off @ (to_mr if fixed == "ct" else np.eye(4)) if one is other else None
    marks = one.landmarks_ct if fixed == "ct" else apply(to_mr, one.landmarks_ct)
    image = other.images[moving]
    moved = volume(image.numpy(), off @ affine_of(image))
    return SimulatedPair(one.images[fixed], moved, (MODALITY[fixed], MODALITY[moving]), truth, marks)


def target_error_mm(pair: SimulatedPair, pose: FloatArray) -> FloatArray:
    """Target registration error (mm) at the landmarks that the moving image shows; at all where it shows none."""
    assert pair.truth is not None
    right = apply(pair.truth, pair.landmarks)
    index = apply(np.linalg.inv(affine_of(pair.moving)), right)
    seen = ((index >= 0) & (index <= np.array(pair.moving.shape[1:]) - 1)).all(axis=1)
    errors = np.linalg.norm(apply(pose, pair.landmarks) - right, axis=1)
    return np.asarray(errors[seen] if seen.any() else errors)


@cache
def _template(resolution_mm: int) -> HeadTemplate:
    return load_head_template(resolution_mm)
