"""Make the weights that the demo uses: train a small fusion network on simulated heads, calibrate it, judge it.

    .venv/bin/python scripts/train_demo_weights.py OUT [--ship]

OUT takes the cases and what the bundle `fuse` makes of them. Four sets of patients are simulated, none of them of the
demo's own cohort: to learn from, to choose the epoch by, to calibrate on, and to judge by. Prints the figures of
bundles/fuse/models/README.md; `--ship` puts the weights and their calibrations there.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import typer
from monai.bundle import ConfigWorkflow

from pipeline.comparison.demo_weights import judged
from pipeline.fusion.checkpoint import read_checkpoint, restore
from pipeline.shipped import shipped
from pipeline.simulation.head_files import write_head_cases

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
    workflow = made(["train"], settings)
    if start is not None:
        restore(workflow.parser.get_parsed_content("network_def"), read_checkpoint(start))
    workflow.run()


def run(names: list[str], settings: dict[str, Any]) -> None:
    """Run configurations of the bundle, as `python -m monai.bundle run` does."""
    made(names, settings).run()


def made(names: list[str], settings: dict[str, Any]) -> ConfigWorkflow:
    """A workflow of the bundle's configurations, ready to run."""
    files = [str(CONFIGS / f"{name}.yaml") for name in names]
    workflow = ConfigWorkflow(files, str(CONFIGS / "metadata.json"), False, workflow_type=None, **settings)
    workflow.initialize()
    return workflow


if __name__ == "__main__":
    typer.run(main)
