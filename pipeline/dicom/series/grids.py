"""Sort the instances of a series by the grid that they lie on: matrix, spacing, orientation; localizers apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline.cases import Instance
from pipeline.dicom.series.stack import DIRECTION_TOLERANCE

#: Pixel spacings count as equal within this part of them.
SPACING_TOLERANCE = 1e-4


class Grid(NamedTuple):
    """What the slices of one volume share.

    Attributes:
        localizer: ImageType (0008,0008) says LOCALIZER.
        kind: SOPClassUID: a screenshot among slices is no slice.
        orientation: ImageOrientationPatient.
        matrix: rows and columns.
        spacing_mm: PixelSpacing.
    """

    localizer: bool
    kind: str
    orientation: tuple[float, ...]
    matrix: tuple[int, int]
    spacing_mm: tuple[float, ...]

    def differs(self, other: Grid) -> str:
        """What differs between two grids, in a word; empty where they are one."""
        if self.localizer != other.localizer:
            return "localizer"
        if self.kind != other.kind:
            return "kind"
        if np.abs(np.subtract(self.orientation, other.orientation)).max() > DIRECTION_TOLERANCE:
            return "orientation"
        if self.matrix != other.matrix:
            return "matrix"
        apart = np.abs(np.subtract(self.spacing_mm, other.spacing_mm)).max()
        return "spacing" if apart > SPACING_TOLERANCE * min(other.spacing_mm) else ""


def grids_of(instances: Sequence[Instance]) -> list[tuple[Grid, list[Instance]]]:
    """Instances by grid, the largest group first.

    Args:
        instances: all with orientation and spacing.
    """
    groups: list[tuple[Grid, list[Instance]]] = []
    known: dict[Grid, int] = {}
    for instance in instances:
        grid = _grid(instance)
        if grid not in known:
            same = (index for index, (other, _) in enumerate(groups) if not grid.differs(other))
            known[grid] = next(same, len(groups))
            if known[grid] == len(groups):
                groups.append((grid, []))
        groups[known[grid]][1].append(instance)
    return sorted(groups, key=lambda group: (group[0].localizer, -len(group[1]), group[0]))


def name_grids(grids: Sequence[Grid]) -> list[str]:
    """Each grid's name among the others, such as `orientation 2 of 3`; empty where there is one alone."""
    if len(grids) == 1:
        return [""]
    words = {grid.differs(other) for grid in grids for other in grids} - {""}
    word = words.pop() if len(words) == 1 else "grid"
    return [f"{word} {index} of {len(grids)}" for index in range(1, len(grids) + 1)]


def _grid(instance: Instance) -> Grid:
    return Grid(
        "LOCALIZER" in instance.tags.get("ImageType", "").split("\\"),
        instance.tags.get("SOPClassUID", ""),
        instance.orientation or (),
        (instance.rows, instance.columns),
        instance.spacing_mm or (),
    )
