"""What the child process of a radiograph's alignment does: many poses tried coarsely, the best ones refined.

A request is a folder with `request.json` and `images.npz`; the answer is `result.json`. All matrices are 4 x 4, from
the CT's world (RAS mm) to the detector's frame (`pipeline.registration.drr`). It needs no itk.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch.nn import functional

from pipeline.geometry import FloatArray, spacing_mm
from pipeline.registration.drr import Detector, Projector, gradient_correlation
from pipeline.registration.process import move_in

#: Size of a pixel, as it is in the patient, and of a voxel on each level; a level that changes nothing is left out.
LEVELS_MM = (8.0, 5.0, 3.0)
#: How many poses are refined on each level.
REFINED = (4, 2, 2)
ITERATIONS = 25
#: The coarse search about the nominal pose: turns about each axis, and shifts along the detector's rows and columns.
TURNS_DEG = (-8.0, 0.0, 8.0)
SHIFTS_MM = (-20.0, -10.0, 0.0, 10.0, 20.0)
#: Two starts have to differ by this much (turns in degrees and shifts in mm, together).
APART = 6.0
#: A right pose is a peak: the correlation has to fall with each turn (degrees) and shift (mm) of this size. The depth
#: is left out: a single radiograph hardly shows it.
PERTURBATION = 2.0
#: One step of the search in each number; along the rays a shift changes little.
UNITS = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 5.0])


@dataclass(frozen=True)
class Guess:
    """A pose as six numbers: turns about the detector's axes (degrees, a rotation vector), then shifts (mm)."""

    numbers: FloatArray
    score: float = float("nan")


class Level:
    """Both images at one resolution.

    Args:
        images: `ct` (attenuation relative to water's, (I, J, K)), `affine` (4 x 4), `radiograph` (columns, rows).
        request: `spacing_mm` of the detector's pixels, `source_mm` on the z axis, `magnification`, `nominal` (a matrix)
            and `pivot` (the point of the detector's frame about which the CT turns).
        finest_mm: see `LEVELS_MM`.
    """

    def __init__(self, images: dict[str, Any], request: dict[str, Any], finest_mm: float) -> None:
        voxels, factors = blocks(images, request, finest_mm)
        ct, affine = _shrunk(torch.from_numpy(images["ct"]).float(), images["affine"], voxels)
        radiograph = torch.from_numpy(images["radiograph"]).float()
        self._radiograph = functional.avg_pool2d(radiograph[None, None], factors)[0, 0]
        whole = Detector.centred(radiograph.shape, request["spacing_mm"], request["source_mm"])
        axes = [
            functional.avg_pool1d(axis[None, None], factor)[0, 0]
            for axis, factor in zip((whole.x_mm, whole.y_mm), factors, strict=True)
        ]
        self._projector = Projector(ct, affine, Detector(axes[0], axes[1], request["source_mm"]))
        self._nominal = torch.tensor(request["nominal"], dtype=torch.float64)
        self._pivot = torch.tensor(request["pivot"], dtype=torch.float64)

    def pose(self, numbers: torch.Tensor) -> torch.Tensor:
        """The matrix of a guess: the nominal pose, turned about the pivot, then shifted."""
        x, y, z = torch.deg2rad(numbers[:3])
        zero = torch.zeros_like(x)
        turn = torch.linalg.matrix_exp(torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).reshape(3, 3))
        shift = self._pivot - turn @ self._pivot + numbers[3:]
        upper = torch.cat([turn, shift[:, None]], dim=1)
        return torch.cat([upper, torch.tensor([[0.0, 0.0, 0.0, 1.0]], dtype=upper.dtype)]) @ self._nominal

    def correlation(self, numbers: torch.Tensor) -> torch.Tensor:
        """How well the CT, seen in a pose, looks like the radiograph: see `gradient_correlation`."""
        return gradient_correlation(self._projector(self.pose(numbers).float()), self._radiograph)

    def score(self, guess: Guess) -> Guess:
        """The guess with its score."""
        with torch.no_grad():
            return replace(guess, score=float(self.correlation(torch.from_numpy(guess.numbers))))

    def refine(self, guess: Guess) -> Guess:
        """Climb from a guess (L-BFGS; the slope comes from the projector itself)."""

        def cost(steps: FloatArray) -> tuple[float, FloatArray]:
            numbers = torch.tensor(steps * UNITS, requires_grad=True)
            value = -self.correlation(numbers)
            value.backward()
            assert numbers.grad is not None
            return float(value.detach()), numbers.grad.numpy() * UNITS

        found = minimize(cost, guess.numbers / UNITS, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS})
        return Guess(found.x * UNITS, -float(found.fun))

    def peak(self, guess: Guess) -> float:
        """Which fraction of 10 small turns and shifts lowers the correlation."""
        steps = PERTURBATION * np.vstack([np.eye(6)[:5], -np.eye(6)[:5]])
        best = self.score(guess).score
        return float(np.mean([self.score(Guess(guess.numbers + step)).score < best for step in steps]))


def starts(level: Level) -> list[Guess]:
    """The poses that are worth refining, best first: a lattice about the nominal pose, scored."""
    lattice = itertools.product(TURNS_DEG, TURNS_DEG, TURNS_DEG, SHIFTS_MM, SHIFTS_MM, (0.0,))
    ranked = sorted((level.score(Guess(np.array(numbers))) for numbers in lattice), key=lambda guess: -guess.score)
    return apart(ranked, APART)[: REFINED[0]]


def apart(ranked: Sequence[Guess], least: float) -> list[Guess]:
    """Those that are not close to a better one."""
    kept: list[Guess] = []
    for guess in ranked:
        if all(np.linalg.norm(guess.numbers - other.numbers) >= least for other in kept):
            kept.append(guess)
    return kept


def serve(request: tuple[Path, int]) -> None:
    """Be the child that does a request, given by its folder and how many threads it may use."""
    move_in(*request)
    main(request[0])


def main(folder: Path) -> None:
    """Do what a request asks for, and write `result.json`."""
    request = json.loads((folder / "request.json").read_text())
    with np.load(folder / "images.npz") as stored:
        images = dict(stored)
    sizes = {blocks(images, request, finest_mm): finest_mm for finest_mm in LEVELS_MM}
    levels = [Level(images, request, finest_mm) for finest_mm in sizes.values()]
    guesses = starts(levels[0])
    for level, count in zip(levels, REFINED, strict=False):
        guesses = sorted(map(level.refine, guesses[:count]), key=lambda guess: -guess.score)
    finest = levels[-1]
    results = [finest.pose(torch.from_numpy(guess.numbers)).tolist() for guess in guesses]
    answer = {
        "results": results,
        "correlation": guesses[0].score,
        "correlation_nominal": finest.score(Guess(np.zeros(6))).score,
        "peak_fraction": finest.peak(guesses[0]),
    }
    (folder / "result.json").write_text(json.dumps(answer))


def blocks(images: dict[str, Any], request: dict[str, Any], finest_mm: float) -> tuple[tuple[int, ...], ...]:
    """How many voxels along each axis, and how many pixels, make one of a level."""
    voxels = tuple(max(1, round(finest_mm / step)) for step in spacing_mm(images["affine"]))
    at_detector_mm = finest_mm * request["magnification"]
    return voxels, tuple(max(1, round(at_detector_mm / step)) for step in request["spacing_mm"])


def _shrunk(ct: torch.Tensor, affine: FloatArray, factors: Sequence[int]) -> tuple[torch.Tensor, FloatArray]:
    """Blocks of voxels averaged; and the affine of the blocks' centres."""
    centres = np.diag([*map(float, factors), 1.0])
    centres[:3, 3] = (np.array(factors) - 1) / 2
    return functional.avg_pool3d(ct[None, None], tuple(factors))[0, 0], affine @ centres
