"""All methods side by side on held-out cases, and which one to take."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.calibration.base import Calibration
from pipeline.calibration.binning import FloatArray
from pipeline.calibration.matrix import Dirichlet, Matrix
from pipeline.calibration.metrics import Measure, Resampling, measures
from pipeline.calibration.one_vs_rest import Beta, Isotonic
from pipeline.calibration.optimise import log_softmax
from pipeline.calibration.record import About
from pipeline.calibration.rows import Logits, Rows
from pipeline.calibration.scaling import Platt, Temperature, Vector
from pipeline.errors import PipelineError, UsageError
from pipeline.store.files import require_given

#: The model's own probabilities, as the simplest method of all.
NONE = "none"
FOLDS = 5


@dataclass(frozen=True)
class Candidate:
    """One method on held-out cases.

    Attributes:
        name: of the method; `none` for the model's own probabilities.
        measures: of the held-out probabilities of all folds together; empty when the method could not be fitted.
        excess: mean over cases of its NLL less that of the best method.
        excess_error: standard error of that.
        fault: why it could not be fitted.
    """

    name: str
    measures: tuple[Measure, ...] = ()
    excess: float = float("nan")
    excess_error: float = float("nan")
    fault: str = ""


@dataclass(frozen=True, eq=False)
class Comparison:
    """The methods side by side.

    Attributes:
        candidates: from the simplest to the most flexible.
        best: the method with the lowest held-out NLL.
        recommended: the simplest method within one standard error of it.
        reason: why, in words.
        folds: of the cross-validation.
        cases: how many.
        labels: (N,).
        held_out: method -> its probabilities (N, C), each row by a fit that has not seen the row's case.
    """

    candidates: tuple[Candidate, ...]
    best: str
    recommended: str
    reason: str
    folds: int
    cases: int
    labels: npt.NDArray[np.int64]
    held_out: dict[str, FloatArray]


def compare(
    logits: Logits,
    labels: npt.ArrayLike,
    cases: Sequence[object] | npt.NDArray[Any] | None = None,
    methods: Sequence[str] | None = None,
    folds: int = FOLDS,
    resampling: Resampling = Resampling(),  # noqa: B008 - frozen
) -> Comparison:
    """Cross-validate the methods, grouped by case, and recommend one.

    Args:
        logits: (N, C), or (N,) for the log-odds of class 1 of two.
        labels: (N,).
        cases: (N,) names; the rows of a case stay together. None: every row is a case.
        methods: names of `METHODS`; None: all that take this number of classes. `none` is always among the candidates.
        folds: how many; each class needs as many cases.
        resampling: resamples and seed of the measures; the seed also shuffles the folds.

    Raises:
        UsageError: those of `Calibration.fit`, E_CAL_METHOD.
    """
    from pipeline.calibration.folds import grouped_folds

    rows = Rows.of(logits, labels, cases)
    chosen = [name for name in METHODS if name in (methods or METHODS) and (name != "platt" or rows.classes == 2)]
    for name in methods or ():
        method_of(name)
    splits = grouped_folds(rows, folds, resampling.seed)
    held_out: dict[str, FloatArray] = {NONE: torch.cat([log_softmax(z) for z, _, _ in rows.pieces()]).exp().numpy()}
    faults: dict[str, str] = {}
    for name in chosen:
        try:
            held_out[name] = _held_out(name, rows, splits)
        except PipelineError as error:
            faults[name] = f"{error.code}: {error.message}"
    return _judged(rows, held_out, faults, folds, resampling)


def _held_out(name: str, rows: Rows, splits: Sequence[tuple[npt.NDArray, npt.NDArray]]) -> FloatArray:
    """Each row's probabilities by the fit that has not seen its case, (N, C)."""
    result = np.empty((len(rows.labels), rows.classes))
    # of no consequence: these fits are not kept
    about = About("one fold", "")
    for inside, outside in splits:
        fitted = method_of(name).fit_rows(rows.take(inside), about)
        result[outside] = fitted.apply(rows.logits[outside].double()).numpy()
    return result


def _judged(
    rows: Rows, held_out: dict[str, FloatArray], faults: dict[str, str], folds: int, resampling: Resampling
) -> Comparison:
    truth, cases = rows.labels.numpy(), rows.cases.numpy()
    with np.errstate(divide="ignore"):
        losses = {name: -np.log(table[np.arange(len(truth)), truth]) for name, table in held_out.items()}
    best = min(losses, key=lambda name: float(losses[name].mean()))
    if not np.isfinite(losses[best]).all():
        raise UsageError("E_CAL_NO_FIT", "Expected a finite likelihood of at least one method, got none.")
    candidates = []
    for name in (NONE, *METHODS):
        if name in faults:
            candidates.append(Candidate(name, fault=faults[name]))
        elif name in held_out:
            measured = measures(held_out[name], truth, cases, resampling=resampling)
            candidates.append(Candidate(name, measured, *_paired(losses[name] - losses[best], cases)))
    close = [item.name for item in candidates if not item.fault and item.excess <= item.excess_error]
    chosen = next(item for item in candidates if item.name == close[0])
    reason = _reason(chosen, best, losses)
    return Comparison(tuple(candidates), best, chosen.name, reason, folds, rows.case_count, truth, held_out)


def _paired(difference: FloatArray, cases: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Mean over rows and its standard error with cases as the independent units."""
    if not np.isfinite(difference).all():
        return float("inf"), 0.0
    mean = float(difference.mean())
    by_case = np.bincount(cases, weights=difference - mean)
    count = len(by_case)
    return mean, float(np.sqrt((by_case**2).sum() * count / (count - 1)) / len(difference))


def _reason(chosen: Candidate, best: str, losses: dict[str, FloatArray]) -> str:
    lowest = f"{best.capitalize()} has the lowest held-out NLL ({losses[best].mean():.4f})"
    if chosen.name == best:
        return f"{lowest}, and no simpler method lies within one standard error of it."
    behind = f"{chosen.excess:.4f} behind it, within one standard error of the paired difference"
    close = f"{chosen.name} is the simplest method close to it ({behind}, {chosen.excess_error:.4f})."
    return f"{lowest}; {close}"


METHODS: dict[str, type[Calibration]] = {
    method.name: method for method in (Temperature, Platt, Vector, Beta, Dirichlet, Matrix, Isotonic)
}


def method_of(name: str) -> type[Calibration]:
    """The class of a method.

    Raises:
        UsageError: E_CAL_METHOD.
    """
    if name not in METHODS:
        raise UsageError("E_CAL_METHOD", f"Expected one of {', '.join(METHODS)}, got {name!r}.")
    return METHODS[name]


def from_json(data: Mapping[str, Any]) -> Calibration:
    """Read a calibration of any method back from what its `to_json` gave.

    Raises:
        UsageError: E_CAL_FILE, E_CAL_METHOD, E_CAL_TRAINING.
    """
    if not isinstance(data, Mapping) or "method" not in data:
        raise UsageError("E_CAL_FILE", "Expected a calibration as JSON with a method, got something else.")
    return method_of(str(data["method"])).from_json(data)


def read_calibration(path: Path, output: str = "") -> Calibration:
    """Read a calibration; where `output` says what logits it is for (`About.output`), of those or of unnamed ones.

    Raises:
        UsageError: E_CAL_FILE, E_CAL_METHOD, E_CAL_TRAINING; E_CAL_NETWORK when it was fitted on another output;
            E_INPUT, E_UNREADABLE when it cannot be opened.
    """
    require_given(path, "a calibration")
    try:
        found = from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UsageError("E_CAL_FILE", f"Expected a calibration at {path}, got: {error}.") from error
    fitted = found.record.about.output
    if output and fitted not in ("", output):
        raise UsageError("E_CAL_NETWORK", f"Expected a calibration of {output}, got one of {fitted}.")
    return found
