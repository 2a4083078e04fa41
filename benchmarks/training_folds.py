"""nnU-Net planned, trained fold by fold and judged out of fold, by `python -m monai.bundle run` as a user types it."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipeline.console import echo
from pipeline.segmentation.workspace import Workspace, plans_name
from pipeline.shipped import shipped

CONFIGS = shipped("bundles", "segment", "configs")
STEPS_AN_EPOCH = 30


@dataclass(frozen=True)
class Course:
    """How the folds are trained.

    Attributes:
        folds: how many, by patient.
        iterations: of each fold's training.
        side_by_side: folds that are trained at once, one thread each.
        recipe: settings of train.yaml.
    """

    folds: int
    iterations: int
    side_by_side: int
    recipe: Mapping[str, object]


def trained_and_judged(dataset: Path, out: Path, network: str, course: Course) -> dict[str, float]:
    """Plan, train and judge; print the Dice with its intervals.

    Args:
        dataset: what `tandem convert nnunet` has written.
        out: takes plans, results and evaluation.
        network: `unet`, or a twin of MONAI's.
        course: how the folds are trained.

    Returns:
        Step -> its seconds on the clock.
    """
    common = ("--dataset_dir", dataset, "--output_dir", out, "--preset", "small", "--network", network)
    took = {f"{network}: plan": timed(_bundle("plan.yaml", *common, "--configurations", "['3d_fullres']"))}
    length = {"epochs": max(1, course.iterations // STEPS_AN_EPOCH)}
    length |= {"iterations": min(course.iterations, STEPS_AN_EPOCH)}
    words = [word for key, value in {**length, **course.recipe}.items() for word in (f"--{key}", str(value))]
    begun = time.perf_counter()
    with ThreadPoolExecutor(course.side_by_side) as pool:
        commands = [_bundle("train.yaml", *common, "--folds", f"[{fold}]", *words) for fold in range(course.folds)]
        list(pool.map(timed, commands))
    took[f"{network}: {course.folds} trainings"] = time.perf_counter() - begun
    judged = ("--folds", str(list(range(course.folds))), "--mirroring", "False")
    took[f"{network}: out of fold"] = timed(_bundle("evaluate.yaml", *common, *judged))
    model = Workspace(dataset, out).model(plans_name("small", network), "3d_fullres")
    echo(f"{network}:")
    with (model / "evaluation" / "means.csv").open(newline="") as table:
        for row in csv.DictReader(table):
            echo("  " + ", ".join(f"{key} {value}" for key, value in row.items() if value))
    return took


def timed(command: Sequence[object]) -> float:
    """Run a command in one thread; its seconds on the clock."""
    begun = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.perf_counter() - begun


def tandem(*words: object) -> list[str]:
    """The command line of `tandem`."""
    return [sys.executable, "-m", "pipeline.cli", *map(str, words)]


def show_times(took: Mapping[str, float]) -> None:
    """Print what each step took."""
    for step, seconds in took.items():
        echo(f"{step}: {seconds:.0f} s")
    echo(f"All: {sum(took.values()):.0f} s")


def _bundle(config: str, *words: object) -> list[str]:
    return [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(CONFIGS / config), *map(str, words)]
