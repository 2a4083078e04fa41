"""What a network is told beside images, and what of a case it has never seen the like of."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.transforms import Transform

from pipeline.errors import CaseError, UsageError
from pipeline.fusion.checkpoint_file import Preparation
from pipeline.fusion.resample import GRID_AFFINE
from pipeline.fusion.table import Standard, read_numbers
from pipeline.geometry import spacing_mm

#: A voxel side that departs by more than this factor from all of the training is another kind of image.
FAR = 1.25

Data = Mapping[Hashable, Any]


class AddTabled(Transform):
    """Add `table` (columns,), a case's further numbers, standardised as in training; an empty cell becomes NaN.

    Args:
        path: a CSV with `case_id` and the columns that the network was trained with; others are not looked at.
        standard: of the network.

    Raises:
        UsageError: E_TABLE when there is none, it cannot be read or lacks a column, or the network takes no table.
        CaseError: E_TABLE when it has no row of the case.
    """

    def __init__(self, path: str, standard: Standard) -> None:
        if not standard.columns:
            raise UsageError("E_TABLE", f"Expected no table: the network was trained without one, got {path}.")
        if not path:
            raise UsageError("E_TABLE", f"Expected a table_file with {', '.join(standard.columns)}, got none.")
        self.standard, self.numbers = standard, read_numbers(Path(path), standard.columns)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Add."""
        name = data["case_id"]
        if name not in self.numbers:
            raise CaseError("E_TABLE", f"Expected a row of {name} in the table of further numbers, got none.")
        return {**data, "table": torch.tensor(self.standard(self.numbers[name]), dtype=torch.float32)}


class FlagOutOfDomaind(Transform):
    """Say in `flags` what the network had to do without, and whether its images were of another kind than it knows.

    Args:
        preparation: of the network.
        sees: the modalities that the network looks at; all when empty.
    """

    def __init__(self, preparation: Preparation, sees: Sequence[str] = ()) -> None:
        self.preparation, self.sees = preparation, tuple(sees or preparation.modalities)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Look."""
        there = zip(self.preparation.modalities, data["available"].tolist(), strict=True)
        missing = [name for name, is_there in there if name in self.sees and not is_there]
        flags = [f"N_NOT_FUSED: {name}: there is no aligned image of it" for name in missing]
        strange = self._strange(spacing_mm(data[GRID_AFFINE].numpy()))
        return {**data, "flags": [*data.get("flags", ()), *flags, *strange]}

    def _strange(self, sides: Any) -> list[str]:
        """Nothing, or a note: voxels too large for what was learned; on their own grid also voxels too small."""
        if not self.preparation.seen_mm:
            return []
        low, high = self.preparation.seen_mm
        fine = not self.preparation.spacing_mm and sides.min() < low / FAR
        if not fine and sides.max() <= high * FAR:
            return []
        got = " × ".join(f"{side:.2f}" for side in sides)
        return [
            f"N_UNSEEN_VOXELS: voxels of {got} mm, but the network has learned from sides of {low:.2f} to {high:.2f}"
        ]
