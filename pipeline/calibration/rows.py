"""Logits with their true classes: checked once, at the door, and walked over in pieces of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import distance_transform_edt, find_objects

from pipeline.errors import UsageError
from pipeline.geometry import spacing_mm
from pipeline.probabilities import SUM_TOLERANCE, class_labels, group_indices

if TYPE_CHECKING:
    from monai.data import MetaTensor

Logits: TypeAlias = torch.Tensor | npt.NDArray[Any] | Sequence[Any]

#: Values that are worked on at once in float64: 2 MB, which stays in a core's cache.
PIECE_VALUES = 1 << 18
#: A single column of fewer rows than this may lie in [0, 1] by chance.
COLUMN_ROWS = 8


@dataclass(frozen=True, eq=False)
class Rows:
    """What a calibration is fitted on.

    Attributes:
        logits: (N, C) in the type in which they came; every piece is turned into float64 when its turn comes, so that
            the answer does not depend on the type and memory stays bounded.
        labels: (N,) int64, 0 … C - 1.
        cases: (N,) int64, the case that each row belongs to, 0 … number of cases - 1.
        weights: (N,) float64 with the sum 1.
    """

    logits: torch.Tensor
    labels: torch.Tensor
    cases: torch.Tensor
    weights: torch.Tensor

    @classmethod
    def of(
        cls,
        logits: Logits,
        labels: npt.ArrayLike | torch.Tensor,
        cases: Sequence[object] | npt.NDArray[Any] | None = None,
        weights: npt.ArrayLike | None = None,
    ) -> Rows:
        """Check and gather.

        Args:
            logits: (N, C), or (N,) and (N, 1) for the log-odds of class 1 of two.
            labels: (N,) whole numbers.
            cases: (N,) names; None where every row is a case of its own.
            weights: (N,) positive; None where every row counts the same.

        Raises:
            UsageError: E_ROWS, E_LABEL, E_CAL_NONFINITE, E_CAL_PROBABILITIES.
        """
        table = table_of(logits)
        truth = class_labels(labels.cpu().numpy() if isinstance(labels, torch.Tensor) else labels, tuple(table.shape))
        numbers = group_indices(cases, len(truth))
        share = np.ones(len(truth)) if weights is None else np.asarray(weights, dtype=np.float64)
        if share.shape != truth.shape or not (np.isfinite(share).all() and (share > 0).all()):
            raise UsageError("E_ROWS", f"Expected {len(truth)} positive weights, got shape {share.shape}.")
        return cls(table, torch.from_numpy(truth), torch.from_numpy(numbers), torch.from_numpy(share / share.sum()))

    @property
    def classes(self) -> int:
        """Number of classes, C."""
        return int(self.logits.shape[1])

    @property
    def case_count(self) -> int:
        """Number of cases."""
        return int(torch.unique(self.cases).numel())

    def take(self, index: npt.NDArray[np.int64]) -> Rows:
        """Some of the rows; their weights have the sum 1 again."""
        chosen = torch.from_numpy(index)
        weights = self.weights[chosen]
        return Rows(self.logits[chosen], self.labels[chosen], self.cases[chosen], weights / weights.sum())

    def pieces(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Logits (n, C) float64, labels (n,) and weights (n,) of so many rows as are worked on at once."""
        size = max(1, PIECE_VALUES // self.classes)
        for start in range(0, len(self.labels), size):
            part = slice(start, start + size)
            yield self.logits[part].double(), self.labels[part], self.weights[part]

    def cases_of_class(self) -> npt.NDArray[np.int64]:
        """For each class, the number of cases that hold it, (C,)."""
        pairs = torch.unique(torch.stack([self.labels, self.cases]), dim=1)[0]
        return np.bincount(pairs.numpy(), minlength=self.classes)


def table_of(logits: Logits) -> torch.Tensor:
    """Logits as (N, C), C >= 2, in their own type.

    Raises:
        UsageError: E_ROWS, E_CAL_NONFINITE, E_CAL_PROBABILITIES.
    """
    tensor = as_tensor(logits)
    if tensor.ndim not in (1, 2) or tensor.numel() == 0:
        raise UsageError("E_ROWS", f"Expected logits of shape (N, C) or (N,), got {tuple(tensor.shape)}.")
    table = tensor.reshape(len(tensor), -1)
    for start in range(0, len(table), step := max(1, PIECE_VALUES // table.shape[1])):
        require_finite(table[start : start + step])
    # a column of log-odds is half of a table of logits: softmax(0, z) = sigmoid(z)
    paired = table if table.shape[1] > 1 else torch.cat([torch.zeros_like(table), table], dim=1)
    if (table.shape[1] > 1 or len(table) >= COLUMN_ROWS) and look_like_probabilities(table):
        refuse_probabilities()
    return paired


def as_tensor(values: Logits) -> torch.Tensor:
    """A tensor on the processor that shares its memory with what came in where it can; integers become float64."""
    if isinstance(values, torch.Tensor):
        tensor = values.detach().as_subclass(torch.Tensor).cpu()
    else:
        array = np.asarray(values)
        if array.dtype.kind not in "iufb":
            raise UsageError("E_ROWS", f"Expected numbers as logits, got values of type {array.dtype}.")
        tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
    return tensor if tensor.is_floating_point() else tensor.double()


def require_finite(piece: torch.Tensor) -> None:
    """Refuse NaN and infinity.

    Raises:
        UsageError: E_CAL_NONFINITE.
    """
    finite = torch.isfinite(piece)
    if not bool(finite.all()):
        count = int((~finite).sum())
        raise UsageError("E_CAL_NONFINITE", f"Expected finite logits, got NaN or infinity {count} times.")


def look_like_probabilities(table: torch.Tensor) -> bool:
    """Whether values (N, C) lie in [0, 1] and, where there are several columns, each row has the sum 1."""
    low, high = table.aminmax()
    if low < 0 or high > 1:
        return False
    sums = table.double().sum(dim=1)
    return table.shape[1] == 1 or bool((sums - 1).abs().max() <= SUM_TOLERANCE)


def refuse_probabilities() -> None:
    """Say that what came are no logits.

    Raises:
        UsageError: E_CAL_PROBABILITIES.
    """
    raise UsageError("E_CAL_PROBABILITIES", "Expected logits, got values in [0, 1] that look like probabilities.")


Mask = npt.NDArray[np.bool_]

#: Far background is right and sure of it, and there is so much of it that it would drown what matters.
MARGIN_MM = 10.0


def dilated_foreground(labels: MetaTensor, margin_mm: float = MARGIN_MM) -> Mask:
    """The voxels that lie within a distance of the foreground (labels above 0).

    Args:
        labels: (1, I, J, K).
        margin_mm: distance between voxel centres.

    Returns:
        (I, J, K); empty where there is no foreground.
    """
    inside = np.asarray(labels[0].numpy()) > 0
    mask = np.zeros(inside.shape, dtype=bool)
    if not inside.any():
        return mask
    from pipeline.volumes import affine_of

    spacing = spacing_mm(affine_of(labels))
    reach = np.ceil(margin_mm / spacing).astype(int)
    (box,) = find_objects(inside.astype(np.uint8))
    # a distance is only needed in the foreground's box and the margin around it
    around = tuple(
        slice(max(0, part.start - grow), part.stop + grow) for part, grow in zip(box, reach.tolist(), strict=True)
    )
    mask[around] = distance_transform_edt(~inside[around], sampling=spacing) <= margin_mm
    return mask
