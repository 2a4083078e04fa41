"""Make the weights that the demo uses: train a small fusion network on simulated heads, calibrate it, judge it.

    .venv/bin/python -m scripts.train_demo_weights OUT [--ship]

OUT takes the cases and what the bundle `fuse` makes of them. Four sets of patients are simulated, none of them of the
demo's own cohort: to learn from, to choose the epoch by, to calibrate on, and to judge by. Prints the figures of
bundles/fuse/models/README.md; `--ship` puts the weights and their calibrations there.
"""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from monai.bundle import ConfigWorkflow
from sklearn.metrics import log_loss, roc_auc_score

from pipeline.calibration.metrics import MEASURES, measures
from pipeline.commands.calibrate import read_calibration
from pipeline.commands.typed import script
from pipeline.learning.checkpoint_file import read_checkpoint, restore
from pipeline.run.options import workflow
from pipeline.shipped import shipped
from scripts.head_files import write_head_cases

Floats = npt.NDArray[np.float64]

CONFIGS = shipped("bundles", "fuse", "configs")
#: The demo's cohort is drawn with the seed 0.
SEED = 2611
#: Numbers of the simulated patients, and how many folds they are dealt out to: fold 0 of the first chooses the epoch.
TABLES = {
    "cases.csv": (range(0, 250), 5),
    "calibration.csv": (range(1000, 1120), 1),
    "test.csv": (range(2000, 2120), 1),
}
#: What reports say beside every probability.
CALIBRATED_ON = "simulated heads of scripts/train_demo_weights.py"
SETTINGS: dict[str, Any] = {
    "bundle_root": str(CONFIGS.parent),
    "device": "cpu",
    "spacing_mm": [4.0],
    "orientation": "LPS",  # as the simulated files have it
    "ct_window": [40, 120],
    "augmentation": False,  # the kind of a lesion is how bright it is: nothing may change that
    "patch": [24, 24, 24],
    "network_def::width": 8,
    "network_def::levels": 4,
    "network_def::deep": 1,
    "modality_dropout": 0.15,
    "val_interval": 2,
    "batch": 4,
    "cache_rate": 1.0,
}
#: First nearly every patch shows a lesion; then most show the rest of the head, which also has dark round places. The
#: second part starts from the last weights of the first; the weights of its lowest validation loss are taken.
PARTS: dict[str, dict[str, Any]] = {
    "first": {"lesion_share": 0.9, "max_epochs": 15, "schedule::t_total": 20, "warmup": 2, "rate": 0.003},
    "second": {"lesion_share": 0.5, "max_epochs": 60, "warmup": 1, "rate": 0.002, "patience": 0},
}


def main(out: Path, ship: bool = False) -> None:
    """Simulate, train, calibrate, judge."""
    for table_name, (numbers, folds) in TABLES.items():
        write_head_cases(out / "cases", table_name, numbers, folds, SEED)
    settings = {**SETTINGS, "dataset_dir": str(out / "cases")}
    started, last = time.process_time(), None
    for name, part in PARTS.items():
        train({**settings, **part, "output_dir": str(out / name)}, last)
        last = out / name / "last.pt"
    weights = out / "second" / "model.pt"
    print(f"{(time.process_time() - started) / 60:.1f} min of processor time for the training.")
    for name in ("calibration", "test"):
        options = {"weights": str(weights), "output_dir": str(out / name), "test_table": f"{name}.csv"}
        run(["train", "evaluate"], {**settings, **options, "report": False})
    run(["calibrate"], {"output_dir": str(out / "calibration"), "data": CALIBRATED_ON})
    for line in judged(out / "test", out / "calibration", out / "cases" / "test.csv"):
        print(line)
    if ship:
        models = shipped("bundles", "fuse", "models")
        for file in ("second/model.pt", "calibration/calibration_classes.json", "calibration/calibration_voxels.json"):
            shutil.copy(out / file, models / f"demo_{Path(file).name}")


def train(settings: dict[str, Any], start: Path | None = None) -> None:
    """Run `train.yaml`, from the weights of another training where there is one."""
    training = made(["train"], settings)
    if start is not None:
        restore(training.parser.get_parsed_content("network_def"), read_checkpoint(start))
    training.run()


def run(names: list[str], settings: dict[str, Any]) -> None:
    """Run configurations of the bundle, as `python -m monai.bundle run` does."""
    made(names, settings).run()


def made(names: list[str], settings: dict[str, Any]) -> ConfigWorkflow:
    """A workflow of the bundle's configurations, ready to run."""
    found = workflow([CONFIGS / f"{name}.yaml" for name in names], settings)
    found.initialize()
    return found


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
    kinds = {"ece": MEASURES["ece"]}
    ece = measures(np.stack([1 - found, found], 1), labels, kinds=kinds)[0]
    yield f"| ECE of the class | {ece.value:.3f} (null {ece.null_low:.3f} to {ece.null_high:.3f}) | |"
    yield f"| mean distance from the true posterior | {np.abs(found - true).mean():.3f} | 0 |"
    with (test / "dice.csv").open(encoding="utf-8") as stream:
        dice = [float(row["dice"]) for row in csv.DictReader(stream) if row["dice"]]
    yield f"| Dice of the lesions, mean (least) | {np.mean(dice):.3f} ({min(dice):.3f}) | 1 |"
    voxels = read_calibration(calibrations / "calibration_voxels.json")
    chances = voxels.apply(np.load(test / "voxel_logits.npy").astype(np.float64))
    truth, cases = np.load(test / "voxel_labels.npy"), np.load(test / "voxel_cases.npy")
    error = measures(chances, truth, cases, kinds=kinds)[0]
    yield f"| ECE of the voxels within 10 mm of a lesion | {error.value:.3f} ({error.low:.3f} to {error.high:.3f}) | |"


def _posteriors(test: Path, table: Path) -> Floats:
    """The true probability of class 1 of the judged cases, in their order."""
    with table.open(encoding="utf-8") as stream:
        known = {row["case_id"]: float(row["posterior"]) for row in csv.DictReader(stream)}
    with (test / "class_cases.csv").open(encoding="utf-8") as stream:
        return np.array([known[row["case_id"]] for row in csv.DictReader(stream)])


if __name__ == "__main__":
    script(main)
