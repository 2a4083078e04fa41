"""Train a small fusion network on simulated cases with a known posterior, evaluate it, calibrate it: the whole way.

    .venv/bin/python -m benchmarks.train_mechanism OUT [--mechanism exclusive] [--overlay early] [--cases 120]

OUT takes the cases, `model.pt`, the evaluation of the fold that was not learned from, and the calibrations. Prints what
a perfect model would reach beside what the network has reached.
"""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
import typer
from scipy.special import softmax

from pipeline.run.options import workflow
from pipeline.shipped import shipped
from tests.phantoms.mechanism_files import write_mechanism_cases

CONFIGS = shipped("bundles", "fuse", "configs")


def main(
    out: Path,
    mechanism: str = "additive",
    overlay: str = "",
    cases: int = 120,
    epochs: int = 20,
    width: int = 8,
    seed: int = 0,
) -> None:
    """Simulate, train, evaluate, calibrate."""
    truth = write_mechanism_cases(out / "cases", mechanism, cases, seed)  # type: ignore[arg-type]
    settings = {
        "bundle_root": str(CONFIGS.parent),
        "dataset_dir": str(out / "cases"),
        "output_dir": str(out),
        "patch": [16, 16, 16],
        "ct_window": [140, 800],
        "network_def::width": width,
        "network_def::levels": 3,
        "network_def::deep": 1,
        "max_epochs": epochs,
        "warmup": 2,
        "rate": 0.005,
        "batch": 8,
        "folds": 3,
        "cache_rate": 1.0,
        "modality_dropout": 0.1,
        "seed": seed,
    }
    variant = [f"overlays/{overlay}"] if overlay else []
    started = time.perf_counter()
    run(["train", *variant], settings)
    seconds = time.perf_counter() - started
    evaluation = {**settings, "weights": str(out / "model.pt"), "output_dir": str(out / "evaluation")}
    run(["train", *variant, "evaluate"], {**evaluation, "resamples": 200})
    run(["calibrate"], {"output_dir": evaluation["output_dir"]})
    report(out, truth.posterior, seconds)


def run(names: list[str], settings: dict[str, Any]) -> None:
    """Run configurations of the bundle, as `python -m monai.bundle run` does."""
    made = workflow([CONFIGS / f"{name}.yaml" for name in names], settings)
    made.initialize()
    made.run()


def report(out: Path, posterior: np.ndarray, seconds: float) -> None:
    """AUROC of the network and of the true posterior on the cases that were not learned from."""
    folder = out / "evaluation"
    labels, chances = np.load(folder / "class_labels.npy"), softmax(np.load(folder / "class_logits.npy"), 1)[:, 1]
    with (folder / "class_cases.csv").open() as stream:
        best = np.array([posterior[int(row["case_id"].split("-")[1])] for row in csv.DictReader(stream)])
    print(f"{seconds:.0f} s of training. AUROC on {len(labels)} cases: {area(chances, labels):.3f}; ", end="")
    print(f"of the true posterior: {area(best, labels):.3f}.")


def area(scores: np.ndarray, labels: np.ndarray) -> float:
    """AUROC: how often a case of class 1 has the larger score than one of class 0."""
    pairs = scores[labels == 1][:, None] - scores[labels == 0][None]
    return float(((pairs > 0) + 0.5 * (pairs == 0)).mean())


if __name__ == "__main__":
    typer.run(main)
