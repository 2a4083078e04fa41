"""Logits with their true classes: checked once, at the door, and walked over in pieces of bounded size."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from scipy.ndimage import distance_transform_edt, find_objects
from sklearn.model_selection import StratifiedGroupKFold

from pipeline.calibration.optimise import log_softmax
from pipeline.errors import UsageError
from pipeline.geometry import spacing_mm
from pipeline.probabilities import SUM_TOLERANCE, class_labels, group_indices
from pipeline.volumes import affine_of

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


def case_weights(cases: Sequence[object] | npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Weights with which every case counts the same, however many rows (voxels) it has.

    Args:
        cases: (N,) names.

    Returns:
        (N,) with the sum 1.
    """
    numbers = group_indices(cases, len(cases))
    counts = np.bincount(numbers)
    return np.asarray(1.0 / (counts[numbers] * len(counts)))


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


Indices = npt.NDArray[np.int64]


def grouped_folds(rows: Rows, folds: int, seed: int) -> list[tuple[Indices, Indices]]:
    """Split rows for cross-validation.

    Args:
        rows: what to split.
        folds: how many.
        seed: of the shuffling.

    Returns:
        For each fold, row numbers to fit on and row numbers held out; a case is on one side only,
        and the classes are spread evenly.

    Raises:
        UsageError: E_CAL_TOO_FEW when a class has fewer cases than there are folds.
    """
    rarest = int(rows.cases_of_class().min())
    if rarest < folds:
        raise UsageError("E_CAL_TOO_FEW", f"Expected {folds} cases of each class for {folds} folds, got {rarest}.")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # it warns by counts of rows where the check above has counted cases
        warnings.simplefilter("ignore", UserWarning)
        return list(splitter.split(np.zeros(len(rows.labels)), rows.labels.numpy(), rows.cases.numpy()))


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
    spacing = spacing_mm(affine_of(labels))
    reach = np.ceil(margin_mm / spacing).astype(int)
    (box,) = find_objects(inside.astype(np.uint8))
    # a distance is only needed in the foreground's box and the margin around it
    around = tuple(
        slice(max(0, part.start - grow), part.stop + grow) for part, grow in zip(box, reach.tolist(), strict=True)
    )
    mask[around] = distance_transform_edt(~inside[around], sampling=spacing) <= margin_mm
    return mask


#: A temperature is known well enough when its standard error is a tenth of it.
RELATIVE_ERROR = 0.10
#: Cases of the rarest class for each parameter that is fitted for a class. Source: Peduzzi et al. 1996, "A simulation
#: study of the number of events per variable in logistic regression analysis" (two classes); de Jong et al. 2019,
#: "Sample size considerations and predictive performance of multinomial logistic prediction models" (several).
EVENTS_PER_PARAMETER = 10
#: Cases below which isotonic regression fits noise. Source: Niculescu-Mizil, Caruana 2005, "Predicting good
#: probabilities with supervised learning", section 5 and figure 7.
ISOTONIC_CASES = 1000


def temperature_error(rows: Rows, inverse: float) -> float:
    """Standard error of ln T, asymptotic, with the case as the unit that is independent.

    With s = -ln T and u_i = d nll_i / ds: sqrt(sum over cases of (sum of w_i u_i)^2) / sum of w_i d^2 nll_i / ds^2.

    Args:
        rows: what T was fitted on.
        inverse: 1 / T.

    Returns:
        The standard error of T over T.

    Source: White 1982, "Maximum likelihood estimation of misspecified models"; Liang, Zeger 1986 (clusters).
    """
    scores = torch.empty(len(rows.labels), dtype=torch.float64)
    curvature, start = 0.0, 0
    for logits, labels, weights in rows.pieces():
        scaled = logits * inverse
        shares = log_softmax(scaled).exp()
        mean = (shares * scaled).sum(dim=1)
        true = scaled.gather(1, labels[:, None])[:, 0]
        scores[start : start + len(labels)] = weights * (mean - true)
        # the second derivative by s is the variance, plus the first derivative, whose sum is 0 at the optimum
        curvature += float((weights * (shares * (scaled - mean[:, None]) ** 2).sum(dim=1)).sum())
        start += len(labels)
    by_case = np.bincount(rows.cases.numpy(), weights=scores.numpy())
    return float(np.sqrt((by_case**2).sum()) / curvature) if curvature > 0 else math.inf


def temperature_note(rows: Rows, relative_error: float) -> list[str]:
    """The sentence when T is known to less than a tenth; its error falls with the root of the number of cases."""
    if relative_error <= RELATIVE_ERROR:
        return []
    # an outcome without any curvature leaves no number to name
    needed = f"about {math.ceil(rows.case_count * (relative_error / RELATIVE_ERROR) ** 2)}"
    return [
        f"Too few cases: temperature scaling on {rows.case_count} cases knows T to {100 * relative_error:.0f} % only; "
        f"{needed if math.isfinite(relative_error) else 'more'} cases would bring that to {100 * RELATIVE_ERROR:.0f} %."
    ]


def events_note(rows: Rows, name: str, parameters: int) -> list[str]:
    """The sentence when the rarest class has fewer than ten cases for each parameter of a class."""
    counts = rows.cases_of_class()
    rarest, needed = int(counts.min()), EVENTS_PER_PARAMETER * parameters
    if rarest >= needed:
        return []
    total = math.ceil(rows.case_count * needed / rarest)
    return [
        f"Too few cases: {name} scaling fits {parameters} parameters a class and wants {needed} cases of each class, "
        f"but class {int(counts.argmin())} has {rarest}; about {total} cases of the same mix would do."
    ]


def isotonic_note(rows: Rows) -> list[str]:
    """The sentence when there are fewer cases than isotonic regression needs."""
    if rows.case_count >= ISOTONIC_CASES:
        return []
    return [
        f"Too few cases: isotonic regression on {rows.case_count} cases fits noise; {ISOTONIC_CASES} cases would do."
    ]
