"""Conformal risk control: thresholds of probability maps at which masks keep a stated risk. The case is the unit.

The false-negative rate of a mask falls with the threshold: conformal risk control holds for it as it is. The
false-discovery rate does not: what is controlled is its monotone envelope, the largest rate at this threshold or any
higher one, which bounds the rate itself and makes the threshold conservative.

Source: Angelopoulos, Bates, Fisch, Lei, Schuster 2022, "Conformal risk control", arXiv 2208.02814, theorem 1, and its
section on general losses for those that are not monotone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.calibration.conformal import ALL, Floats, fewest_cases, require_alpha
from pipeline.errors import CaseError, UsageError
from pipeline.probabilities import group_indices

Risk = Literal["false_negative_rate", "false_discovery_rate"]
RISKS: tuple[Risk, ...] = ("false_negative_rate", "false_discovery_rate")
#: No probability reaches it: the mask is empty.
NOTHING = float(np.nextafter(1.0, 2.0))
#: Every voxel reaches it: the mask is everything.
EVERYTHING = 0.0
#: Candidates of the threshold: 0, 0.005 … 1, and the empty mask.
THRESHOLDS: tuple[float, ...] = (*(step / 200 for step in range(201)), NOTHING)


@dataclass(frozen=True)
class RiskControl:
    """Thresholds at which masks keep a risk.

    Attributes:
        risk: what is controlled.
        alpha: the risk that masks may have on average over cases.
        thresholds: group -> a voxel is in the mask where its probability is at least this.
        counts: group -> number of calibration cases for which the risk is defined.
        left_out: group -> number of cases that were left out because they hold nothing to find.
    """

    risk: Risk
    alpha: float
    thresholds: Mapping[str, float]
    counts: Mapping[str, int]
    left_out: Mapping[str, int]

    def mask(self, probability: npt.ArrayLike, group: str = ALL) -> npt.NDArray[np.bool_]:
        """Threshold a probability map.

        Args:
            probability: of any shape, in [0, 1].
            group: the case's group, where the calibration knows groups.

        Returns:
            bool, of the same shape.

        Raises:
            CaseError: E_CONFORMAL when the group was never calibrated.
        """
        if group not in self.thresholds:
            raise CaseError("E_CONFORMAL", f"Expected one of the calibrated groups, got {group}.")
        # A float64 scalar, so that float32 maps are compared as they were when the losses were computed.
        return np.asarray(probability) >= np.float64(self.thresholds[group])

    def guarantees(self) -> tuple[str, ...]:
        """What the masks promise, in words, one sentence a group."""
        return tuple(self._guarantee(group) for group in self.thresholds)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        tables = {name: dict(getattr(self, name)) for name in ("thresholds", "counts", "left_out")}
        return {"risk": self.risk, "alpha": self.alpha, **tables}

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | str) -> RiskControl:
        """Read back what `to_json` gave, or its text.

        Raises:
            KeyError, TypeError: when the data are not a risk control.
        """
        return cls(**(json.loads(data) if isinstance(data, str) else data))

    def _guarantee(self, group: str) -> str:
        where, count = "" if group == ALL else f"{group}: ", self.counts[group]
        words = self.risk.replace("_", " ").replace("false ", "false-")
        mask = {EVERYTHING: "everything", NOTHING: "empty"}.get(self.thresholds[group])
        if count < fewest_cases(self.alpha):
            return (
                f"{where}A {words} of {self.alpha:.3g} takes at least {fewest_cases(self.alpha)} calibration cases, "
                f"and there are {count}. Every mask is {mask}."
            )
        among = " that hold something to find" if self.risk == "false_negative_rate" else ""
        return (
            f"{where}Calibrated on n = {count} cases: for new cases{among}, exchangeable with them, the {words} of the "
            f"mask is at most {self.alpha:.3g}, on average over cases and calibration sets; not for each case."
            + (f" The price is that every mask is {mask}." if mask else "")
        )


def control_risk(
    losses: npt.ArrayLike,
    risk: Risk,
    alpha: float = 0.1,
    groups: Sequence[str] | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
) -> RiskControl:
    """Choose the threshold at which masks keep a risk: the highest for false negatives, the lowest for discoveries.

    Args:
        losses: (cases, thresholds), the rows that `mask_losses` gave; rows of NaN are left out and counted.
        risk: what the losses are.
        alpha: the risk that masks may have on average over cases, in (0, 1).
        groups: the site or scanner of each case: each gets a threshold and a guarantee of its own (Mondrian).
        thresholds: that the losses were computed at, in rising order from 0 to `NOTHING`.

    Raises:
        UsageError: E_ROWS, E_CONFORMAL.
    """
    require_alpha(alpha)
    candidates = _candidates(thresholds)
    table = np.asarray(losses, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != len(candidates) or risk not in RISKS:
        raise UsageError(
            "E_CONFORMAL", f"Expected losses of a known risk at {len(candidates)} thresholds, got {risk} {table.shape}."
        )
    group_indices(groups, len(table))
    names = np.array([ALL] * len(table) if groups is None else [str(name) for name in groups])
    defined = ~np.isnan(table).any(axis=1)
    cuts, counts, left_out = {}, {}, {}
    for name in dict.fromkeys(names.tolist()):
        kept = table[(names == name) & defined]
        cuts[name] = float(candidates[_choose(kept, risk, alpha)])
        counts[name], left_out[name] = len(kept), int(((names == name) & ~defined).sum())
    return RiskControl(risk, alpha, cuts, counts, left_out)


def mask_losses(
    probability: npt.ArrayLike, truth: npt.ArrayLike, risk: Risk, thresholds: Sequence[float] = THRESHOLDS
) -> Floats:
    """The risk of one case's masks at every threshold.

    Args:
        probability: of any shape, in [0, 1].
        truth: of the same shape, true where there is something to find.
        risk: `false_negative_rate`: missed part of the truth, undefined where there is none; `false_discovery_rate`:
            part of the mask that is false, 0 where the mask is empty.
        thresholds: in rising order from 0 to `NOTHING`.

    Returns:
        (thresholds,), in [0, 1]; NaN where the risk is undefined.

    Raises:
        UsageError: E_PROBABILITY when the map is not a probability; E_CONFORMAL when the shapes differ.
    """
    values, found = np.asarray(probability), np.asarray(truth).astype(bool)
    candidates = _candidates(thresholds)
    if values.shape != found.shape or risk not in RISKS:
        raise UsageError(
            "E_CONFORMAL", f"Expected a truth of shape {values.shape} for a known risk, got {found.shape}."
        )
    if not (np.isfinite(values).all() and values.min(initial=0) >= 0 and values.max(initial=0) <= 1):
        raise UsageError("E_PROBABILITY", "Expected a probability map with finite values in [0, 1].")
    hits, marked = _reaching(values[found], candidates), _reaching(values, candidates)
    if risk == "false_negative_rate":
        return 1.0 - hits / hits[0] if found.any() else np.full(len(candidates), np.nan)
    return (marked - hits) / np.maximum(marked, 1)


def _choose(losses: Floats, risk: Risk, alpha: float) -> int:
    """The index of the threshold: theorem 1 with losses of at most 1, (n R + 1) / (n + 1) <= alpha."""
    if risk == "false_discovery_rate":
        losses = np.maximum.accumulate(losses[:, ::-1], axis=1)[:, ::-1]
    fitting = np.flatnonzero((losses.sum(axis=0) + 1.0) / (len(losses) + 1) <= alpha + 1e-12)
    # Where none fits, the mask is everything or nothing, whose loss is 0.
    if risk == "false_negative_rate":
        return int(fitting.max(initial=0))
    return int(fitting.min(initial=losses.shape[1] - 1))


def _reaching(values: npt.NDArray[Any], thresholds: Floats) -> Floats:
    """How many values are at least each threshold, in one pass over the values."""
    below = np.bincount(np.searchsorted(thresholds, values.ravel(), side="right"), minlength=len(thresholds) + 1)
    return below[::-1].cumsum()[::-1][1:].astype(np.float64)


def _candidates(thresholds: Sequence[float]) -> Floats:
    found = np.asarray(thresholds, dtype=np.float64)
    if len(found) < 2 or found[0] != EVERYTHING or found[-1] != NOTHING or not (np.diff(found) > 0).all():
        raise UsageError("E_CONFORMAL", "Expected rising thresholds from 0 to just above 1.")
    return found
