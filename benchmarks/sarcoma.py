"""nnU-Net on sarcomas in CT, PET and MR: Tandem's cases converted, five folds by patient, Dice out of fold.

    TANDEM_DATA=… python -m benchmarks.sarcoma OUT

33 patients on grids of 4 mm; the images pass through `tandem run` first, as a cohort of one's own would.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.training_folds import Course, show_times, tandem, timed, trained_and_judged

PACK = "sts_fusion_lowres"
RECIPE = {"optimizer": "adamw", "rate": 0.002, "bfloat16": True, "val_iterations": 1}


def main(
    out: Path,
    folds: Annotated[int, typer.Option(help="Of patients.")] = 5,
    iterations: Annotated[int, typer.Option(help="Of each fold's training.")] = 300,
    side_by_side: Annotated[int, typer.Option(help="Folds that are trained at once.")] = 2,
) -> None:
    """Ingest, convert, plan, train, predict out of fold, and print the Dice with its intervals and the times."""
    pack, run, raw = Path(os.environ["TANDEM_DATA"]) / PACK, out / "run", out / "raw"
    took = {"ingest": timed(tandem("run", pack, "--out", run, "--spec", "sarcoma", "--stages", "ingest"))}
    arguments = ("--dataset", "502", "--name", "SarcomaCTPETMR", "--out", raw, "--folds", folds)
    took["conversion"] = timed(tandem("convert", "nnunet", "--cases", run, *arguments))
    course = Course(folds, iterations, side_by_side, RECIPE)
    took |= trained_and_judged(raw / "Dataset502_SarcomaCTPETMR", out / "nnunet", "unet", course)
    show_times(took)


if __name__ == "__main__":
    typer.run(main)
