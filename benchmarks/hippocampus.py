"""nnU-Net on the hippocampus pack, from conversion to Dice out of fold, all as a user types it; a MONAI twin beside it.

    TANDEM_DATA=… python -m benchmarks.hippocampus OUT --twin dynunet

80 MR volumes of 80 patients, two labels. Five folds by patient; every case is predicted by a network that has not seen
it. `--cases` and `--iterations` make a quick try of it. One thread each; `--side-by-side` folds are trained at once.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.training_folds import Course, show_times, tandem, timed, trained_and_judged

PACK = ("udacity_hippocampus", "data", "TrainingSet")
#: Found on other splits of this pack; see the page.
RECIPE = {"optimizer": "adamw", "rate": 0.002, "mirror_axes": "[]", "bfloat16": True, "val_iterations": 1}


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
    arguments = ("--dataset", "501", "--name", "Hippocampus", "--out", raw, "--folds", folds)
    took = {"conversion": timed(tandem("convert", "nnunet", "--hippocampus", _pack(out, cases), *arguments))}
    course = Course(folds, iterations, side_by_side, RECIPE)
    for network in ["unet", *([twin] if twin else [])]:
        took |= trained_and_judged(raw / "Dataset501_Hippocampus", out / "nnunet", network, course)
    show_times(took)


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


if __name__ == "__main__":
    typer.run(main)
