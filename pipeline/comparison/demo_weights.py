"""The figures of the demo's weights: what calibrated probabilities of cases with a known posterior are worth."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.metrics import log_loss, roc_auc_score

from pipeline.calibrate_command import read_calibration
from pipeline.calibration.metrics import measures

Floats = npt.NDArray[np.float64]


def judged(test: Path, calibrations: Path, table: Path) -> Iterator[str]:
    """Judge a network and its calibrations by simulated cases that neither has learned from.

    Args:
        test: what `evaluate.yaml` has made of the cases.
        calibrations: the folder of `calibration_classes.json` and `calibration_voxels.json`.
        table: of the cases; its column `posterior` has the true probability of class 1.

    Returns:
        Lines of Markdown.
    """
    logits, labels = (np.load(test / f"class_{part}.npy") for part in ("logits", "labels"))
    calibration = read_calibration(calibrations / "calibration_classes.json")
    found = calibration.apply(logits.astype(np.float64))[:, 1]
    true = _posteriors(test, table)
    yield f"| {len(labels)} simulated heads | network, calibrated | true posterior |"
    yield "|---|---|---|"
    yield f"| AUROC of the class | {roc_auc_score(labels, found):.3f} | {roc_auc_score(labels, true):.3f} |"
    yield f"| NLL of the class, nats | {log_loss(labels, found):.3f} | {log_loss(labels, true):.3f} |"
    ece = measures(np.stack([1 - found, found], 1), labels, names=("ece",))[0]
    yield f"| ECE of the class | {ece.value:.3f} (null {ece.null_low:.3f} to {ece.null_high:.3f}) | |"
    yield f"| mean distance from the true posterior | {np.abs(found - true).mean():.3f} | 0 |"
    with (test / "dice.csv").open(encoding="utf-8") as stream:
        dice = [float(row["dice"]) for row in csv.DictReader(stream) if row["dice"]]
    yield f"| Dice of the lesions, mean (least) | {np.mean(dice):.3f} ({min(dice):.3f}) | 1 |"
    voxels = read_calibration(calibrations / "calibration_voxels.json")
    chances = voxels.apply(np.load(test / "voxel_logits.npy").astype(np.float64))
    truth, cases = np.load(test / "voxel_labels.npy"), np.load(test / "voxel_cases.npy")
    error = measures(chances, truth, cases, names=("ece",))[0]
    yield f"| ECE of the voxels within 10 mm of a lesion | {error.value:.3f} ({error.low:.3f} to {error.high:.3f}) | |"


def _posteriors(test: Path, table: Path) -> Floats:
    """The true probability of class 1 of the judged cases, in their order."""
    with table.open(encoding="utf-8") as stream:
        known = {row["case_id"]: float(row["posterior"]) for row in csv.DictReader(stream)}
    with (test / "class_cases.csv").open(encoding="utf-8") as stream:
        return np.array([known[row["case_id"]] for row in csv.DictReader(stream)])
