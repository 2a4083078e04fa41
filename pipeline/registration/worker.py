"""What the child process of a registration does: the search for a rigid pose, or the refinement of one that is known.

A request is a folder with `request.json`, the images `fixed.mha` and `moving.mha`, the masks `fixed_mask.mha` (with a
rim of air) and `moving_mask.mha`, and the parameter maps `parameters_<n>.txt`; the answer is `result.json` in it, and a
B-spline as `spline.npz`. All matrices are 4 x 4, LPS mm, from fixed to moving points.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from pipeline.registration.runner import Elastix, FloatArray, linear_matrix, load, rigid_matrix, spline_of
from pipeline.registration.starts import CoarsePair, Start, best_starts

__all__ = ["load", "main"]

#: The two coarse levels are enough to tell good from bad starts; only the best go through the fine ones.
SEARCH_LEVELS = 2
SEARCH_ITERATIONS = 200
#: Two results further apart than this (mean over the body) lie on a flat optimum: more samples settle them.
FLAT_MM = 0.3
MORE_SAMPLES = 4
IMAGES = ("fixed", "moving", "fixed_mask", "moving_mask")
RIGID_MAP = "parameters_0.txt"


def main(folder: Path) -> None:
    """Do what a request asks for, and write `result.json`."""
    request = json.loads((folder / "request.json").read_text())
    images = [sitk.ReadImage(str(folder / f"{name}.mha")) for name in IMAGES]
    fixed, moving, fixed_mask, _ = images
    elastix = Elastix(folder, fixed, moving, fixed_mask, request["landmark_weight"])
    job = Search(elastix, images, request) if request["job"] == "search" else Refinement(elastix, folder, request)
    (folder / "result.json").write_text(json.dumps(job.run()))


class Search:
    """The rigid pose, from several starts.

    Args:
        elastix: the pair.
        images: fixed and moving image, fixed and moving mask.
        request: `starts` (how many poses are tried on the coarse levels), `refined` (how many of them go on),
            `landmarks` (the pose that they give, or None).
    """

    def __init__(self, elastix: Elastix, images: Sequence[sitk.Image], request: dict[str, Any]) -> None:
        self._elastix = elastix
        self._images = images
        self._request = request
        self._pair = CoarsePair(*images)

    def run(self) -> dict[str, Any]:
        """Search, refine and confirm.

        Returns:
            `results` (start and matrix of each refined pose), `mirrored` (the matrix for the mirror image), `starts`
            (how many there were), `failures` (elastix' messages).
        """
        _, _, fixed_mask, moving_mask = self._images
        known = [Start("landmarks", np.array(self._request["landmarks"]))] if self._request["landmarks"] else []
        starts = best_starts(self._pair, fixed_mask, moving_mask, self._request["starts"], known)
        searched, failures = attempt(self._search, starts)
        best = sorted(searched, key=lambda start: -start.score)[: self._request["refined"]]
        results, more = attempt(self._refine, best)
        failures += more
        if len(results) > 1 and self._pair.apart_mm(results[0].matrix, results[1].matrix) > FLAT_MM:
            results, more = attempt(self._settle, results)
            failures += more
        mirrored, more = attempt(lambda start: self._refine(self._search(mirror(start, self._pair))), results[:1])
        return {
            "results": [{"start": start.name, "matrix": start.matrix.tolist()} for start in results],
            "mirrored": [start.matrix.tolist() for start in mirrored],
            "starts": len(starts),
            "failures": failures + more,
        }

    def _search(self, start: Start) -> Start:
        """Take a start through the coarse levels, and score where it ends."""
        parameters = self._elastix.parameters(RIGID_MAP, start.number, 0, SEARCH_LEVELS)
        parameters.SetParameter(0, "MaximumNumberOfIterations", [str(SEARCH_ITERATIONS)])
        moved = self._run("coarse levels", parameters, start)
        return replace(moved, score=self._pair.score(moved.matrix))

    def _refine(self, start: Start) -> Start:
        """Take a searched start through the fine levels."""
        return self._run("fine levels", self._elastix.parameters(RIGID_MAP, start.number, SEARCH_LEVELS), start)

    def _settle(self, start: Start) -> Start:
        """Repeat the finest level with more samples."""
        parameters = self._elastix.parameters(RIGID_MAP, start.number, -1)
        samples = int(parameters.GetParameter(0, "NumberOfSpatialSamples")[0])
        parameters.SetParameter(0, "NumberOfSpatialSamples", [str(MORE_SAMPLES * samples)])
        return self._run("finest level, more samples", parameters, start)

    def _run(self, what: str, parameters: Any, start: Start) -> Start:
        method = self._elastix.run(f"{start.name}: {what}", parameters, start.matrix)
        return replace(start, matrix=rigid_matrix(method.GetCombinationTransform()))


class Refinement:
    """Affine maps and a B-spline, one after the other, from a pose that is known.

    Args:
        elastix: the pair.
        folder: takes `spline.npz`.
        request: `start` (the pose) and `transforms` (`affine` or `bspline`, for each parameter map from the second on).
    """

    def __init__(self, elastix: Elastix, folder: Path, request: dict[str, Any]) -> None:
        self._elastix = elastix
        self._folder = folder
        self._request = request

    def run(self) -> dict[str, Any]:
        """Run each map from where the one before has ended.

        Returns:
            `affine`: the matrices of the affine maps, each with all that is below it; and `failure`, elastix' message
            when it gave up, else an empty text.
        """
        matrix, found = np.array(self._request["start"]), []
        try:
            for number, transform in enumerate(self._request["transforms"], start=1):
                parameters = self._elastix.parameters(f"parameters_{number}.txt")
                if transform == "affine":
                    method = self._elastix.run(transform, parameters, matrix)
                    matrix = linear_matrix(method.GetCombinationTransform())
                    found.append(matrix.tolist())
                else:
                    found_spline = spline_of(self._elastix.bend(transform, parameters, matrix))
                    np.savez(self._folder / "spline.npz", **found_spline)  # type: ignore[arg-type]
        except RuntimeError as error:
            return {"affine": found, "failure": str(error)}
        return {"affine": found, "failure": ""}


def attempt(refine: Callable[[Start], Start], starts: Sequence[Start]) -> tuple[list[Start], list[str]]:
    """Refine every start; elastix gives up on some (it loses the moving image), which must not stop the others.

    Returns:
        The refined starts, and elastix' message for each that it gave up.
    """
    refined, failures = [], []
    for start in starts:
        try:
            refined.append(refine(start))
        except RuntimeError as error:
            failures.append(f"{start.name}: {error}")
    return refined, failures


def mirror(start: Start, pair: CoarsePair) -> Start:
    """The same pose of the fixed head's mirror image: left and right change places about the body's middle."""
    reflection: FloatArray = np.diag([-1.0, 1.0, 1.0, 1.0])
    reflection[0, 3] = 2 * pair.centre[0]
    return replace(start, name=f"{start.name}, mirrored", matrix=start.matrix @ reflection)
