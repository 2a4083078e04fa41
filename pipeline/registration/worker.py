"""What the child process of a registration does: the search for a rigid pose, or the refinement of one that is known.

A request is a folder with `request.json`, the images `fixed.mha` and `moving.mha`, the masks `fixed_mask.mha` (with a
rim of air) and `moving_mask.mha`, and the parameter maps `parameters_<n>.txt`; the answer is `result.json` in it, and a
B-spline as `spline.npz`. All matrices are 4 x 4, LPS mm, from fixed to moving points.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from pipeline.geometry import FloatArray, matrix_of
from pipeline.registration.coarse import CoarsePair
from pipeline.registration.elastix import Elastix, load, rigid_matrix, spline_of
from pipeline.registration.process import move_in
from pipeline.registration.starts import Start, best_starts

__all__ = ["load", "main", "serve"]

#: The pose that is found at about 6 mm is near: these are enough then, and steps that begin with less than a voxel.
QUICK_ITERATIONS = 150
QUICK_SHARE = 0.5
QUICK = {"NumberOfSamplesForExactGradient": "20000", "MaximumStepLength": "0.5"}
#: Two results further apart than this (mean over the body) lie on a flat or a rugged optimum: these take longer.
FLAT_MM = 0.3
MORE_SAMPLES = 4
#: The mirror image is refined only when its score, counted from 1, comes this near to that of the image itself.
MIRROR_NEAR = 0.85
#: A body that lies turned in its image is mirrored at a plane that is turned as far, about two axes.
PLANE_DEGREES = (-40, -30, -20, -10, 0, 10, 20, 30, 40)
IMAGES = ("fixed", "moving", "fixed_mask", "moving_mask")
RIGID_MAP = "parameters_0.txt"
ITERATIONS, SAMPLES = "MaximumNumberOfIterations", "NumberOfSpatialSamples"


def serve(request: tuple[Path, int]) -> None:
    """Be the child that does a request, given by its folder and how many threads it may use."""
    move_in(*request)
    main(request[0])


def main(folder: Path) -> None:
    """Do what a request asks for, and write `result.json`."""
    request = json.loads((folder / "request.json").read_text())
    images = [sitk.ReadImage(str(folder / f"{name}.mha")) for name in IMAGES]
    fixed, moving, fixed_mask, _ = images
    elastix = Elastix(folder, fixed, moving, fixed_mask, request["landmark_weight"])
    search = request["job"] == "search"
    result = Search(elastix, images, request).run() if search else refine(elastix, folder, request)
    (folder / "result.json").write_text(json.dumps(result))


class Search:
    """The rigid pose, from several starts.

    Args:
        elastix: the pair.
        images: fixed and moving image, fixed and moving mask.
        request: `starts` (how many poses are searched from at about 6 mm), `refined` (how many of them go on),
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
        found = sorted(map(self._search, starts), key=lambda start: -start.score)
        results, failures = attempt(self._refine, found[: self._request["refined"]])
        for thorough in (self._all_levels, self._settle):
            if len(results) > 1 and self._pair.apart_mm(results[0].matrix, results[1].matrix) > FLAT_MM:
                longer, more = attempt(thorough, results)
                # one that is lost here has still found another pose than the other: that must not be forgotten
                results, failures = results if more else longer, failures + more
        mirrored, more = attempt(self._mirrored, results[:1])
        return {
            "results": [{"start": start.name, "matrix": start.matrix.tolist()} for start in results],
            "mirrored": [start.matrix.tolist() for start in mirrored],
            "starts": len(starts),
            "failures": failures + more,
        }

    def _search(self, start: Start) -> Start:
        """Go from a start to the best pose near it at about 6 mm."""
        matrix, score = self._pair.climb(start.matrix)
        texts = (f"NMI {value:.4f}" for value in (self._pair.score(start.matrix), score))
        self._elastix.note(f"{start.name}: search at {self._pair.spacing_mm:.2g} mm", [" -> ".join(texts)])
        return replace(start, matrix=matrix, score=score)

    def _refine(self, start: Start) -> Start:
        """Take a searched start through the finest level of the rigid map, with fewer iterations and samples."""
        parameters = self._elastix.parameters(RIGID_MAP, start.number, -1)
        iterations, samples = (int(parameters.GetParameter(0, name)[0]) for name in (ITERATIONS, SAMPLES))
        few = {ITERATIONS: str(min(QUICK_ITERATIONS, iterations)), SAMPLES: str(round(QUICK_SHARE * samples))}
        for name, value in {**few, **QUICK}.items():
            parameters.SetParameter(0, name, [value])
        return self._run("finest level", parameters, start)

    def _all_levels(self, start: Start) -> Start:
        """Take a start through the whole rigid map."""
        return self._run("all levels", self._elastix.parameters(RIGID_MAP, start.number), start)

    def _mirrored(self, start: Start) -> Start:
        """The best pose of the mirror image; refined only where that might change what is thought of it."""
        found = self._search(mirror(start, self._pair))
        near = found.score - 1 >= MIRROR_NEAR * (self._pair.score(start.matrix) - 1)
        return self._refine(found) if near else found

    def _settle(self, start: Start) -> Start:
        """Repeat the finest level with more samples."""
        parameters = self._elastix.parameters(RIGID_MAP, start.number, -1)
        samples = int(parameters.GetParameter(0, SAMPLES)[0])
        parameters.SetParameter(0, SAMPLES, [str(MORE_SAMPLES * samples)])
        return self._run("finest level, more samples", parameters, start)

    def _run(self, what: str, parameters: Any, start: Start) -> Start:
        method = self._elastix.run(f"{start.name}: {what}", parameters, start.matrix)
        return replace(start, matrix=rigid_matrix(method.GetCombinationTransform()))


def refine(elastix: Elastix, folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Affine maps and a B-spline, one after the other, each from where the one before has ended.

    Args:
        elastix: the pair.
        folder: takes `spline.npz`.
        request: `start` (the pose) and `transforms` (`affine` or `bspline`, for each parameter map from the second on).

    Returns:
        `affine`: the matrices of the affine maps, each with all that is below it; and `failure`, elastix' message when
        it gave up, else an empty text.
    """
    matrix, found = np.array(request["start"]), []
    try:
        for number, transform in enumerate(request["transforms"], start=1):
            parameters = elastix.parameters(f"parameters_{number}.txt")
            if transform == "affine":
                method = elastix.run(transform, parameters, matrix)
                matrix = matrix_of(method.GetCombinationTransform().TransformPoint)
                found.append(matrix.tolist())
            else:
                spline = spline_of(elastix.bend(transform, parameters, matrix))
                np.savez(folder / "spline.npz", **spline)  # type: ignore[arg-type]
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
    """The same pose of the fixed body's mirror image, at the plane through its middle that gives the best score."""
    turns = (Rotation.from_euler("yz", angles, degrees=True) for angles in itertools.product(PLANE_DEGREES, repeat=2))
    poses = (start.matrix @ reflection(pair.centre, turn.as_matrix()[:, 0]) for turn in turns)
    return replace(start, name=f"{start.name}, mirrored", matrix=max(poses, key=pair.score))


def reflection(centre: FloatArray, normal: FloatArray) -> FloatArray:
    """4 x 4: what lies on one side of a plane goes to the other; the normal (3,) has the length 1."""
    matrix = np.eye(4)
    matrix[:3, :3] -= 2 * np.outer(normal, normal)
    matrix[:3, 3] = 2 * (centre @ normal) * normal
    return matrix
