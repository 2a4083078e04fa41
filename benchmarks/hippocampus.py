"""nnU-Net on the hippocampus pack, from conversion to Dice out of fold, all as a user types it; a MONAI twin beside it.

    TANDEM_DATA=… python -m benchmarks.hippocampus OUT --twin dynunet

80 MR volumes of 80 patients, two labels. Five folds by patient; every case is predicted by a network that has not seen
it. `--cases` and `--iterations` make a quick try of it. One thread each; `--side-by-side` folds are trained at once.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer

from pipeline.console import echo
from pipeline.segmentation.workspace import Workspace, plans_name
from pipeline.shipped import shipped

PACK = ("udacity_hippocampus", "data", "TrainingSet")
CONFIGS = shipped("bundles", "segment", "configs")
#: Chosen on other data; see the page.
RECIPE = {"optimizer": "adamw", "rate": 0.002, "mirror_axes": "[]", "bfloat16": True, "val_iterations": 1}
STEPS_AN_EPOCH = 30


def main(
    out: Path,
    cases: Annotated[int, typer.Option(help="Of the pack; 0: all.")] = 0,
    folds: Annotated[int, typer.Option(help="Of patients.")] = 5,
    iterations: Annotated[int, typer.Option(help="Of each fold's training.")] = 300,
    twin: Annotated[str, typer.Option(help="dynunet or segresnet beside nnU-Net's network; empty: none.")] = "",
    side_by_side: Annotated[int, typer.Option(help="Folds that are trained at once.")] = 2,
) -> None:
    """Convert, plan, train, predict out of fold, and print the Dice with its intervals and what each step took."""
    raw = out / "raw"
    pack = _pack(out, cases)
    arguments = ("--dataset", "501", "--name", "Hippocampus", "--out", raw, "--folds", folds)
    took = {
        "conversion": _timed(
            [sys.executable, "-m", "pipeline.cli", "convert", "nnunet", "--hippocampus", pack, *arguments]
        )
    }
    dataset = raw / "Dataset501_Hippocampus"
    for network in ["unet", *([twin] if twin else [])]:
        common = ("--dataset_dir", dataset, "--output_dir", out / "nnunet", "--preset", "small", "--network", network)
        took[f"{network}: plan"] = _timed(_bundle("plan.yaml", *common, "--configurations", "['3d_fullres']"))
        epochs = max(1, iterations // STEPS_AN_EPOCH)
        length = {"epochs": epochs, "iterations": min(iterations, STEPS_AN_EPOCH), **RECIPE}
        words = [word for key, value in length.items() for word in (f"--{key}", str(value))]
        begun = time.perf_counter()
        with ThreadPoolExecutor(side_by_side) as pool:
            commands = [_bundle("train.yaml", *common, "--folds", f"[{fold}]", *words) for fold in range(folds)]
            list(pool.map(_timed, commands))
        took[f"{network}: {folds} trainings"] = time.perf_counter() - begun
        judged = ("--folds", str(list(range(folds))), "--mirroring", "False")
        took[f"{network}: out of fold"] = _timed(_bundle("evaluate.yaml", *common, *judged))
        model = Workspace(dataset, out / "nnunet").model(plans_name("small", network), "3d_fullres")
        echo(f"{network}:")
        with (model / "evaluation" / "means.csv").open(newline="") as table:
            for row in csv.DictReader(table):
                echo("  " + ", ".join(f"{key} {value}" for key, value in row.items() if value))
    for step, seconds in took.items():
        echo(f"{step}: {seconds:.0f} s")
    echo(f"All: {sum(took.values()):.0f} s")


def _pack(out: Path, cases: int) -> Path:
    """The pack, or the first cases of it as a pack of its own."""
    source = Path(os.environ["TANDEM_DATA"]).joinpath(PACK[0])
    if not cases:
        return source
    for part in ("images", "labels"):
        folder = out.joinpath("pack", *PACK[1:], part)
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(source.joinpath(*PACK[1:], part).glob("*.nii.gz"))[:cases]:
            shutil.copyfile(path, folder / path.name)
    return out / "pack"


def _bundle(config: str, *words: object) -> list[str]:
    return [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(CONFIGS / config), *map(str, words)]


def _timed(command: Sequence[object]) -> float:
    """Run a command in one thread; its seconds on the clock."""
    begun = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.perf_counter() - begun


if __name__ == "__main__":
    typer.run(main)
