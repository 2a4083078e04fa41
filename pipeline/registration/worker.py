"""The child process in which elastix runs: a crash or a hang of it must not take the pipeline along.

`python -m pipeline.registration.worker FOLDER` reads `request.json`, `parameters.txt`, the images `fixed.mha` and
`moving.mha` and the masks `fixed_mask.mha` (with a rim of air) and `moving_mask.mha`, and writes `result.json`.
All matrices are 4 x 4, LPS mm, from fixed to moving points.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from pipeline.registration.starts import CoarsePair, Start, best_starts

FloatArray = npt.NDArray[np.float64]

#: The coarsest level of the pyramid: what is left of a head at it still has some 15 voxels along each axis.
COARSEST_MM = 10.0
#: No level has fewer voxels than this along an axis that has more to begin with.
LEAST_VOXELS = 8
#: The two coarse levels are enough to tell good from bad starts; only the best go through the fine ones.
SEARCH_LEVELS = 2
SEARCH_ITERATIONS = 200
#: Two results further apart than this (mean over the body) lie on a flat optimum: more samples settle them.
FLAT_MM = 0.3
MORE_SAMPLES = 4
#: How far outside the moving image, as a pose shows it, samples are still taken: the pose is going to move.
VIEW_MARGIN_MM = 15.0


def main(folder: Path) -> None:
    """Register the pair that lies in a folder, from several starts, and write `result.json`."""
    request = json.loads((folder / "request.json").read_text())
    names = ("fixed", "moving", "fixed_mask", "moving_mask")
    fixed, moving, fixed_mask, moving_mask = (sitk.ReadImage(str(folder / f"{name}.mha")) for name in names)
    pair = CoarsePair(fixed, moving, fixed_mask, moving_mask)
    starts = best_starts(pair, fixed_mask, moving_mask, request["starts"])
    elastix = Elastix(folder, fixed, moving, fixed_mask)
    searched, failures = attempt(lambda start: elastix.search(start, pair), starts)
    best = sorted(searched, key=lambda start: -start.score)[: request["refined"]]
    results, more = attempt(elastix.refine, best)
    failures += more
    if len(results) > 1 and pair.apart_mm(results[0].matrix, results[1].matrix) > FLAT_MM:
        results, more = attempt(elastix.settle, results)
        failures += more
    mirrored, more = attempt(lambda start: elastix.refine(elastix.search(mirror(start, pair), pair)), results[:1])
    found = {
        "results": [{"start": start.name, "matrix": start.matrix.tolist()} for start in results],
        "mirrored": [start.matrix.tolist() for start in mirrored],
        "starts": len(starts),
        "failures": failures + more,
    }
    (folder / "result.json").write_text(json.dumps(found))


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


class Elastix:
    """Runs elastix on one pair of images.

    Args:
        folder: holds `fixed.mha`, `moving.mha` and `parameters.txt`; takes `elastix.log`.
        fixed: the fixed image.
        moving: the moving image.
        fixed_mask: the fixed body with a rim of air.
    """

    def __init__(self, folder: Path, fixed: sitk.Image, moving: sitk.Image, fixed_mask: sitk.Image) -> None:
        import itk

        self._itk = itk
        self._folder = folder
        self._fixed, self._moving = (itk.imread(str(folder / f"{name}.mha"), itk.F) for name in ("fixed", "moving"))
        self._images = (fixed, moving)
        self._fixed_mask = fixed_mask

    def search(self, start: Start, pair: CoarsePair) -> Start:
        """Take a start through the coarse levels, and score where it ends."""
        parameters = self._parameters(start, 0, SEARCH_LEVELS)
        parameters.SetParameter(0, "MaximumNumberOfIterations", [str(SEARCH_ITERATIONS)])
        matrix = self._run(parameters, start.matrix)
        return replace(start, matrix=matrix, score=pair.score(matrix))

    def refine(self, start: Start) -> Start:
        """Take a searched start through the fine levels."""
        return replace(start, matrix=self._run(self._parameters(start, SEARCH_LEVELS, None), start.matrix))

    def settle(self, start: Start) -> Start:
        """Repeat the finest level with more samples."""
        parameters = self._parameters(start, -1, None)
        samples = int(parameters.GetParameter(0, "NumberOfSpatialSamples")[0])
        parameters.SetParameter(0, "NumberOfSpatialSamples", [str(MORE_SAMPLES * samples)])
        return replace(start, matrix=self._run(parameters, start.matrix))

    def _parameters(self, start: Start, first: int, last: int | None) -> Any:
        """The parameter file with the pyramid that suits the voxels; only its levels from `first` to before `last`."""
        parameters = self._itk.ParameterObject.New()
        parameters.ReadParameterFile(str(self._folder / "parameters.txt"))
        levels = int(parameters.GetParameter(0, "NumberOfResolutions")[0])
        for name, image in zip(("Fixed", "Moving"), self._images, strict=True):
            factors = pyramid(image.GetSpacing(), image.GetSize(), levels)[first:last]
            parameters.SetParameter(0, "NumberOfResolutions", [str(len(factors))])
            schedule = [str(factor) for level in factors for factor in level]
            parameters.SetParameter(0, f"{name}ImagePyramidSchedule", schedule)
        # Starts that drew the same random samples would agree with each other even where the optimum is flat.
        seed = int(parameters.GetParameter(0, "RandomSeed")[0])
        parameters.SetParameter(0, "RandomSeed", [str(seed + start.number)])
        return parameters

    def _run(self, parameters: Any, start: FloatArray) -> FloatArray:
        itk = self._itk
        method = itk.ElastixRegistrationMethod.New(self._fixed, self._moving)
        method.SetFixedMask(self._mask_in_view(start))
        method.SetParameterObject(parameters)
        method.SetExternalInitialTransform(_itk_transform(itk, start))
        method.SetOutputDirectory(str(self._folder))
        method.SetLogFileName("elastix.log")
        method.SetLogToFile(True)
        method.SetLogToConsole(False)
        method.UpdateLargestPossibleRegion()
        return _matrix(method.GetCombinationTransform())

    def _mask_in_view(self, pose: FloatArray) -> Any:
        """The fixed mask where a pose brings it into the moving image or near it: no samples are wasted elsewhere."""
        moving = self._images[1]
        everywhere = sitk.Image(moving.GetSize(), sitk.sitkUInt8) + 1
        everywhere.CopyInformation(moving)
        margin = [round(VIEW_MARGIN_MM / step) for step in moving.GetSpacing()]
        wider = sitk.ConstantPad(everywhere, margin, margin, 1)
        transform = sitk.AffineTransform(3)
        transform.SetMatrix(pose[:3, :3].ravel().tolist())
        transform.SetTranslation(pose[:3, 3].tolist())
        view = sitk.Resample(wider, self._fixed_mask, transform, sitk.sitkNearestNeighbor, 0)
        path = self._folder / "mask_in_view.mha"
        sitk.WriteImage(self._fixed_mask * view, str(path))
        return self._itk.imread(str(path), self._itk.UC)


def pyramid(spacing_mm: Sequence[float], size: Sequence[int], levels: int) -> list[list[int]]:
    """Shrink factors for each level and axis: from about `COARSEST_MM` down to the image's own voxels.

    Args:
        spacing_mm: voxel size along each axis.
        size: voxels along each axis.
        levels: how many levels.

    Returns:
        `levels` lists of a factor for each axis; the last is all ones.
    """
    finest = min(spacing_mm)
    targets = np.geomspace(max(COARSEST_MM, finest), finest, levels)
    return [
        [min(max(1, round(target / s)), max(1, n // LEAST_VOXELS)) for s, n in zip(spacing_mm, size, strict=True)]
        for target in targets
    ]


def mirror(start: Start, pair: CoarsePair) -> Start:
    """The same pose of the fixed head's mirror image: left and right change places about the body's middle."""
    reflection = np.diag([-1.0, 1.0, 1.0, 1.0])
    reflection[0, 3] = 2 * pair.centre[0]
    return replace(start, name=f"{start.name}, mirrored", matrix=start.matrix @ reflection)


def _itk_transform(itk: Any, matrix: FloatArray) -> Any:
    transform = itk.AffineTransform[itk.D, 3].New()
    transform.SetMatrix(itk.matrix_from_array(np.ascontiguousarray(matrix[:3, :3])))
    transform.SetTranslation(matrix[:3, 3].tolist())
    return transform


def _matrix(transform: Any) -> FloatArray:
    """The 4 x 4 matrix of a rigid (or mirrored) ITK transform; its rotation is made orthogonal to the last bit."""
    origin = np.array(transform.TransformPoint([0.0, 0.0, 0.0]))
    axes = np.array([np.array(transform.TransformPoint((100.0 * axis).tolist())) - origin for axis in np.eye(3)])
    left, _, right = np.linalg.svd(axes.T)
    matrix = np.eye(4)
    matrix[:3, :3] = left @ right
    matrix[:3, 3] = origin
    return matrix


if __name__ == "__main__":
    main(Path(sys.argv[1]))
