"""Folds for `splits_final.json`: a patient is in one fold, and every label is spread evenly over them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.errors import UsageError

#: nnU-Net's: its name in the folder of a preprocessed dataset, and how many folds its commands know.
SPLITS, FOLDS = "splits_final.json", 5
#: The fold that holds nothing out.
ALL = "all"


def read_splits(dataset: Path) -> list[dict[str, list[str]]]:
    """The folds of a dataset: each one's `train` and `val`, cases.

    Raises:
        UsageError: E_INPUT when its folder has no `splits_final.json`.
    """
    path = dataset / SPLITS
    if not path.is_file():
        what = f"Expected {SPLITS} in {dataset.name}, got none."
        raise UsageError("E_INPUT", what, "Convert the dataset by `tandem convert nnunet`, and plan it.")
    found: list[dict[str, list[str]]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def asked_folds(splits: Sequence[object], folds: Sequence[int | str] | None) -> list[int | str]:
    """The folds that are asked for, `all` among them; each of a dataset's where none are named.

    Args:
        splits: the dataset's (`read_splits`).
        folds: numbers, or `all`; None for each.

    Raises:
        UsageError: E_FOLD for one that there is not, or for none.
    """
    count = len(splits)
    asked: list[int | str] = [*range(count)] if folds is None else [*folds]
    known = {ALL, *map(str, range(count))}
    for fold in asked:
        if str(fold) not in known:
            what = f"Expected folds from 0 to {count - 1}, or all, got {fold}."
            raise UsageError("E_FOLD", what, f"The dataset has {count} folds: name some of them, or none for each.")
    if not asked:
        raise UsageError("E_FOLD", "Expected a fold, got none.", "Leave folds out for each of the dataset's.")
    return asked


def held_out_folds(splits: Sequence[object], folds: Sequence[int | str] | None) -> list[int]:
    """The folds that are asked for, each of which holds cases out; arguments as of `asked_folds`.

    Raises:
        UsageError: E_FOLD, also for `all`, whose network has seen every case.
    """
    asked = asked_folds(splits, folds)
    if ALL in asked:
        remedy = "Name folds by their numbers; a network of all cases is judged on other data."
        raise UsageError("E_FOLD", f"Expected folds that hold cases out, got {ALL}.", remedy)
    return [int(fold) for fold in asked]


def patient_folds(
    labels: Mapping[str, Sequence[int]], patients: Mapping[str, str], folds: int = FOLDS, seed: int = 0
) -> list[dict[str, list[str]]]:
    """Split cases into folds.

    Args:
        labels: case -> the labels that it shows.
        patients: case -> whose it is; all of a patient's cases are in one fold.
        folds: how many.
        seed: of the chance.

    Returns:
        Of each fold the cases `train` and `val`, sorted: what nnU-Net reads.

    Raises:
        UsageError: E_NO_CASES when there are none, E_FOLD for fewer than two folds or fewer patients than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    cases = sorted(labels)
    if not cases:
        raise UsageError("E_NO_CASES", "Expected cases to be split into folds, got none.", "Check the input.")
    count = len({patients[case] for case in cases})
    if not 2 <= folds <= count:
        remedy = "Use more patients or fewer folds."
        raise UsageError("E_FOLD", f"Expected 2 folds or more, one patient each, got {folds} of {count}.", remedy)
    # a row for the case and one for each of its labels: all of them are spread evenly
    rows = [(case, label) for case in cases for label in (0, *labels[case])]
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # `rare_labels` says so
        parts = list(splitter.split(np.zeros(len(rows)), [label for _, label in rows], [patients[c] for c, _ in rows]))
    found = []
    for _, inside in parts:
        held = {rows[index][0] for index in inside}
        found.append({"train": [c for c in cases if c not in held], "val": [c for c in cases if c in held]})
    return found


def rare_labels(labels: Mapping[str, Sequence[int]], patients: Mapping[str, str], folds: int) -> dict[int, int]:
    """Label -> number of patients who show it, where they are fewer than the folds: a fold does without it."""
    shown: dict[int, set[str]] = {}
    for case, of in labels.items():
        for label in of:
            shown.setdefault(label, set()).add(patients[case])
    return {label: len(whose) for label, whose in sorted(shown.items()) if len(whose) < folds}
