"""The trials of `verdict.py`: pairs with poses that are right or wrong, and registrations that end either way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation

from benchmarks.simulated_pairs import FloatArray, Head, SimulatedPair, head, pair_of, target_error_mm
from pipeline.geometry import apply, orientation_of
from pipeline.registration.landmarks import solve
from pipeline.simulation.head import Ellipsoid
from pipeline.simulation.subject import random_rigid
from pipeline.volumes import affine_of, volume

#: Contrasts of fixed and moving image, in turn.
CONTRASTS = (("ct", "t1"), ("ct", "t2"), ("t1", "t2"))
#: Far off, and further than the search looks.
FAR_DEG, BEYOND_DEG = 35.0, (60.0, 110.0)


@dataclass(frozen=True)
class Trial:
    """One pair to be judged.

    Attributes:
        name: unique in its set.
        kind: what was done to it.
        pair: the images.
        pose: 4 x 4, to be judged; None: registered first.
        starts: how many starts the registration may try.
    """

    name: str
    kind: str
    pair: SimulatedPair
    pose: FloatArray | None = None
    starts: int = 4


def trials(folder: Path, seed: int, subjects: int, whole: int, spacing_mm: float) -> Iterator[Trial]:
    """All trials of a set.

    Args:
        folder: where simulated heads are kept.
        seed: of the set; other seeds give other patients.
        subjects: patients whose poses are judged, each in every way.
        whole: patients whose images are registered, each in one way after the other.
        spacing_mm: voxel size of the CT.
    """
    heads = [head(folder, seed, number, spacing_mm) for number in range(max(subjects, whole) + 1)]
    for number in range(subjects):
        rng = np.random.default_rng([seed, number, 1])
        for trial in _of_poses(heads[number], heads[number + 1], number, rng):
            yield replace(trial, name=f"pose {number} {trial.kind}")
    for number in range(whole):
        rng = np.random.default_rng([seed, number, 2])
        for trial in _to_register(heads[number], heads[number + 1], number, rng):
            yield replace(trial, name=f"whole {number} {trial.kind}")


def _of_poses(one: Head, other: Head, number: int, rng: np.random.Generator) -> Iterator[Trial]:
    fixed, moving = CONTRASTS[number % 3]
    off = _headers_off(rng, 10.0, 15.0) if fixed != "ct" else None
    pair = pair_of(one, one, fixed, moving, off)
    cut = replace(pair, moving=cropped(pair.moving, number % 3, 0.45, bool(number % 2)))
    slab = replace(pair, moving=cropped(pair.moving, number % 3, 0.2, bool(number % 2)))
    assert pair.truth is not None
    yield Trial("", "aligned", pair, near(pair, rng, 0.0, 1.5))
    yield Trial("", "aligned, once more", pair, near(pair, rng, 0.0, 1.5))
    yield Trial("", "aligned, part of the head", cut, near(cut, rng, 0.0, 1.0))
    shift = rng.normal(size=3)
    moved = pair.truth.copy()
    moved[:3, 3] += shift / np.linalg.norm(shift) * rng.uniform(4, 40)
    yield Trial("", "moved by 4-40 mm", pair, moved)
    yield Trial("", "turned by 5-30°", pair, pair.truth @ turn(pair, rng, 5.0, 30.0))
    yield Trial("", "part of the head, 4-15 mm off", cut, near(cut, rng, 4.0, 15.0))
    yield Trial("", "thin slab, 4-30 mm off", slab, near(slab, rng, 4.0, 30.0))
    strangers = pair_of(one, other, fixed, moving, off)
    yield Trial("", "another patient", strangers, best_for_another(one, other, strangers, off))


def _to_register(one: Head, other: Head, number: int, rng: np.random.Generator) -> Iterator[Trial]:
    fixed, moving = CONTRASTS[number % 3]
    near_by, far = _headers_off(rng, 10.0, 15.0), _headers_off(rng, FAR_DEG, 50.0)
    pair = pair_of(one, one, fixed, moving, near_by if fixed != "ct" else None)
    away = pair_of(one, one, fixed, moving, far)
    beyond = pair_of(one, one, fixed, moving, turn(pair, rng, *BEYOND_DEG))
    strangers = pair_of(one, other, fixed, moving, near_by)
    cut = replace(pair, moving=cropped(pair.moving, 2, 0.6, bool(number % 2)))
    yield Trial("", "registered", pair)
    yield Trial("", "registered from ±35°, 50 mm", away)
    yield Trial("", "registered, part of the head", cut)
    yield Trial("", "two starts, headers 60-110° off", beyond, starts=2)
    yield Trial("", "another patient, registered", strangers)
    yield Trial("", "mirrored, registered", replace(pair, moving=mirrored(pair.moving), truth=None))
    yield Trial("", "noise, registered", replace(pair, moving=noise(pair.moving, rng), truth=None))
    yield Trial("", "thigh, registered", replace(pair, moving=thigh(pair.moving, rng), truth=None))


# ---- poses -----------------------------------------------------------------------------------------------------------


def near(pair: SimulatedPair, rng: np.random.Generator, least_mm: float, most_mm: float) -> FloatArray:
    """The true pose, disturbed to a mean target registration error between two values."""
    assert pair.truth is not None
    wanted = rng.uniform(least_mm, most_mm)
    angles, shift = rng.normal(size=3), rng.normal(size=3)
    size = 1.0
    for _ in range(20):
        pose = pair.truth @ _about(pair, size * 0.5 * angles, size * shift)
        size *= wanted / max(1e-6, float(target_error_mm(pair, pose).mean()))
    return pose


def turn(pair: SimulatedPair, rng: np.random.Generator, least_deg: float, most_deg: float) -> FloatArray:
    """A turn about the middle of the landmarks."""
    axis = rng.normal(size=3)
    return _about(pair, axis / np.linalg.norm(axis) * rng.uniform(least_deg, most_deg), np.zeros(3))


def best_for_another(one: Head, other: Head, pair: SimulatedPair, headers_off: FloatArray | None) -> FloatArray:
    """The rigid pose that brings one patient's landmarks nearest to another's: each is the same spot of the anatomy."""
    off = np.eye(4) if headers_off is None else headers_off
    return solve(pair.landmarks, apply(off @ other.ct_to_mr, other.landmarks_ct), "rigid")


def _about(pair: SimulatedPair, rotation_deg: FloatArray, shift_mm: FloatArray) -> FloatArray:
    centre = pair.landmarks.mean(axis=0)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(rotation_deg, degrees=True).as_matrix()
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre + shift_mm
    return matrix


def _headers_off(rng: np.random.Generator, angle_deg: float, shift_mm: float) -> FloatArray:
    return random_rigid(rng, np.zeros(3), angle_deg, shift_mm)


# ---- images ----------------------------------------------------------------------------------------------------------


def cropped(image: MetaTensor, axis: int, share: float, far_end: bool) -> MetaTensor:
    """A share of the image along one of its axes, from either end of its middle nine tenths."""
    size = image.shape[axis + 1]
    first, count = round(0.05 * size), max(4, round(share * 0.9 * size))
    begin = round(0.95 * size) - count if far_end else first
    values = np.take(image.numpy(), range(begin, begin + count), axis=axis + 1)
    affine = affine_of(image).copy()
    affine[:3, 3] += begin * affine[:3, axis]
    return volume(values, affine)


def mirrored(image: MetaTensor) -> MetaTensor:
    """Left and right exchanged under unchanged headers."""
    letters = orientation_of(affine_of(image))
    axis = next(number for number, letter in enumerate(letters) if letter in "LR")
    return volume(np.flip(image.numpy(), axis + 1).copy(), affine_of(image))


def noise(image: MetaTensor, rng: np.random.Generator) -> MetaTensor:
    """A ball of noise, as large as a head, in the place of the image."""
    distance = np.linalg.norm(_points(image), axis=1).reshape(image.shape[1:])
    values = np.abs(rng.normal(0, 20, distance.shape)) + (distance < 85) * np.abs(rng.normal(300, 100, distance.shape))
    return volume(values.astype(np.float32)[None], affine_of(image))


def thigh(image: MetaTensor, rng: np.random.Generator) -> MetaTensor:
    """A thigh, fat bright, in the place of the image."""
    points = _points(image)
    layers = (((0.0, 0, 0), (80, 90), 900.0), ((2.0, -3, 0), (66, 74), 350.0), ((6.0, 9, 0), (15, 17), 60.0))
    values = np.zeros(len(points))
    for centre, (x, y), signal in (*layers, ((6.0, 9.0, 0), (9, 10), 700.0)):
        inside = Ellipsoid(centre, (x, y, 400.0)).distance_mm(points) < 0
        values[inside] = signal
    noisy = np.hypot(values + rng.normal(0, 20, len(points)), rng.normal(0, 20, len(points)))
    return volume(noisy.reshape(image.shape).astype(np.float32), affine_of(image))


def _points(image: MetaTensor) -> FloatArray:
    """Every voxel's place, seen from the middle of the image."""
    points = apply(affine_of(image), np.indices(image.shape[1:]).reshape(3, -1).T.astype(np.float64))
    return np.asarray(points - points.mean(axis=0))
