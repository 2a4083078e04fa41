"""Label images judged case by case against the truth, region by region, for one or several models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from monai.data import MetaTensor

from pipeline.cases import Fault
from pipeline.commands.convert import read
from pipeline.errors import CaseError
from pipeline.evaluation.results import Comparison, Estimate, Floats, Settings
from pipeline.evaluation.segmentation import MEASURES, NAN, compare_means, judged, mean_over_cases
from pipeline.geometry import spacing_mm
from pipeline.report.slices import canonical, voxels
from pipeline.volumes import affine_of, require_same_grid

ENDING = ".nii.gz"


@dataclass(frozen=True)
class Regions:
    """What is judged: name -> values in the label images; voxels of `ignored` in the truth are not."""

    values: Mapping[str, tuple[int, ...]]
    ignored: int | None = None

    def masks(self, labels: npt.NDArray[Any], judged_at: npt.NDArray[np.bool_]) -> dict[str, npt.NDArray[np.bool_]]:
        """Name -> mask (I, J, K)."""
        return {name: np.isin(labels, values) & judged_at for name, values in self.values.items()}

    @property
    def known(self) -> list[int]:
        """All values that a label image may hold."""
        return sorted({0, *(value for of in self.values.values() for value in of)})


@dataclass(frozen=True, eq=False)
class SegmentationEvaluation:
    """What an evaluation has found.

    Attributes:
        case_ids: N names, sorted.
        patients: of each case.
        regions: what was judged.
        values: model -> region -> measure -> (N,), NaN where a case does not tell it.
        failed: (model, case) -> why it could not be judged.
        means: (model, region) -> one estimate a measure.
        comparisons: region -> paired differences of the models' Dice and NSD.
    """

    case_ids: tuple[str, ...]
    patients: tuple[str, ...]
    regions: Regions
    values: Mapping[str, Mapping[str, Mapping[str, Floats]]]
    failed: Mapping[tuple[str, str], Fault]
    means: Mapping[tuple[str, str], tuple[Estimate, ...]]
    comparisons: Mapping[str, tuple[Comparison, ...]]


def evaluate_cases(
    folders: Mapping[str, Path],
    files: Mapping[str, Path],
    regions: Regions,
    patients: tuple[str, ...],
    how: tuple[float, Settings],
) -> SegmentationEvaluation:
    """Judge every case of every model, and compare the models.

    Args:
        folders: model -> its predictions.
        files: case -> its truth.
        regions: to judge.
        patients: of each case.
        how: tolerance of NSD in mm, and settings of the bootstrap.
    """
    tolerance, settings = how
    failed: dict[tuple[str, str], Fault] = {}
    values = {
        model: {region: {name: np.full(len(files), NAN) for name in MEASURES} for region in regions.values}
        for model in folders
    }
    for row, (case, path) in enumerate(files.items()):
        for model, folder in folders.items():
            try:
                measured = _judge(folder / path.name, path, regions, tolerance)
            except CaseError as error:
                failed[model, case] = Fault(error.code, error.message, error.remedy)
                continue
            for region, numbers in measured.items():
                for name, value in numbers.items():
                    values[model][region][name][row] = value
    means = {
        (model, region): tuple(
            mean_over_cases(name, values[model][region][name], patients, settings) for name in MEASURES
        )
        for model in folders
        for region in regions.values
    }
    pairs = list(combinations(folders, 2))
    compare = partial(compare_means, pairs=pairs, patients=patients, settings=settings)
    comparisons = {
        region: tuple(
            item for name in ("dice", "nsd") for item in compare(name, {m: values[m][region][name] for m in folders})
        )
        for region in (regions.values if pairs else ())
    }
    return SegmentationEvaluation(tuple(files), patients, regions, values, failed, means, comparisons)


def _judge(predicted: Path, truth: Path, regions: Regions, tolerance: float) -> dict[str, dict[str, float]]:
    """Region -> measures of one case.

    Raises:
        CaseError: E_INPUT when there is no prediction; E_NIFTI, E_GRID, E_LABEL.
    """
    true, given = read_labels(truth), read_labels(predicted)
    require_same_grid(true, given, ("the truth", "the prediction"))
    judged_at = np.ones(true.shape[1:], bool)
    if regions.ignored is not None:
        judged_at = voxels(true) != regions.ignored
    strange = np.setdiff1d(
        np.concatenate([np.unique(voxels(true)[judged_at]), np.unique(voxels(given))]), regions.known
    )
    if strange.size:
        wanted, got = (", ".join(f"{value:g}" for value in part) for part in (regions.known, strange[:5]))
        raise CaseError("E_LABEL", f"Expected the labels {wanted}, got {got} too.")
    sides = spacing_mm(affine_of(true)).tolist()
    pairs = zip(
        regions.masks(voxels(given), judged_at).items(), regions.masks(voxels(true), judged_at).values(), strict=True
    )
    return {region: judged(mask, of_truth, sides, tolerance) for (region, mask), of_truth in pairs}


def read_labels(path: Path) -> MetaTensor:
    """A label image, RAS+."""
    if not path.is_file():
        raise CaseError("E_INPUT", "Expected a prediction of this case, got none.", "Predict it, or check the names.")
    return canonical(read(path)[0])
