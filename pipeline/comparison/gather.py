"""What the trials of a comparison have found, put together over folds: logits of classes and voxels, Dice, curves."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.comparison.trials import DONE, EVALUATION, Protocol, Trial, read_trial
from pipeline.errors import UsageError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ClassLogits:
    """Class logits of cases that the networks have not learned from, each case once, by case id.

    Attributes:
        case_ids: N names.
        patient_ids: N names.
        labels: (N,) true classes.
        logits: (N, K).
    """

    case_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    labels: Ints
    logits: Floats


def judged_folders(protocol: Protocol, trials: Sequence[Trial], judgement: str = EVALUATION) -> list[Path]:
    """The folders of a judgement.

    Raises:
        UsageError: E_NO_CASES when a trial is not done.
    """
    undone = [trial.name for trial in trials if read_trial(protocol, trial).get("status") != DONE]
    if undone or not trials:
        got = undone[0] if undone else "no trial"
        raise UsageError("E_NO_CASES", f"Expected trials that are done, got {got}.", "See its trial.json.")
    return [protocol.folder(trial) / judgement for trial in trials]


def class_logits(folders: Sequence[Path], transform: Callable[[Path, Floats], Floats] | None = None) -> ClassLogits:
    """Put the class logits of several folds together.

    Args:
        folders: of the folds' judgements.
        transform: makes of a folder and its logits (n, K) what is taken in their place, such as calibrated
            log-probabilities.

    Raises:
        UsageError: E_ROWS when a case comes twice; E_TABLE when there are no classes.
    """
    names: list[tuple[str, str]] = []
    logits, labels = [], []
    for folder in folders:
        found = load(folder / "class_logits.npy").astype(np.float64)
        logits.append(found if transform is None else transform(folder, found))
        labels.append(load(folder / "class_labels.npy").astype(np.int64))
        with (folder / "class_cases.csv").open(newline="", encoding="utf-8") as stream:
            names += [(row["case_id"], row["patient_id"]) for row in csv.DictReader(stream)]
    require_once([case for case, _ in names])
    order = np.argsort([case for case, _ in names], kind="stable")
    cases, patients = ([names[i][part] for i in order] for part in (0, 1))
    return ClassLogits(tuple(cases), tuple(patients), np.concatenate(labels)[order], np.concatenate(logits)[order])


def curve_rows(protocol: Protocol, trial: Trial) -> list[dict[str, float]]:
    """The curves of a training: epoch, training_loss, validation_loss, learning_rate, seconds.

    Raises:
        UsageError: E_TABLE.
    """
    with _there(protocol.folder(trial) / "curves.csv").open(newline="", encoding="utf-8") as stream:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]


def load(path: Path) -> npt.NDArray[Any]:
    """An array of an evaluation; E_TABLE (UsageError) when it is not there."""
    return np.asarray(np.load(_there(path), allow_pickle=False))


def _there(path: Path) -> Path:
    if not path.is_file():
        raise UsageError("E_TABLE", f"Expected {path.name} of an evaluation in {path.parent}, got none.")
    return path


def require_once(names: Sequence[str]) -> None:
    """Refuse a case that comes twice: E_ROWS (UsageError)."""
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError("E_ROWS", f"Expected every case in one fold, got {twice} twice.")
