"""The left atrium in late-enhancement MR by the bundle `fuse` with one modality: Dice and IoU on held-out patients.

    TANDEM_DATA=… python -m benchmarks.atrium OUT [--page docs/benchmarks/atrium.md]

40 patients of `la_mr`, resampled to 2.5 mm; one fifth of them is held out and judged once, by the network after the
last epoch. The recipe was chosen on patients within the other four fifths (`--inner`). A run that was stopped goes on.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.document import write_section
from benchmarks.segmentation_report import markdown_table
from pipeline.comparison.trials import DONE, EVALUATION, Protocol, Trial, Variant, run_trial
from pipeline.errors import PipelineError, UsageError
from pipeline.evaluation.results import Estimate, Settings
from pipeline.evaluation.segmentation import mean_over_cases
from pipeline.learning.table import read_table, with_folds

FOLDS, JUDGED = 5, 0
RECIPE: dict[str, Any] = {
    "modalities": ["mr"],
    "ct_modalities": [],
    "classes": 0,
    "spacing_mm": [2.5],
    "patch": [48, 40, 24],
    "batch": 1,
    "max_epochs": 40,
    "val_interval": 40,
    "warmup": 1,
    "rate": 0.005,
    "cache_rate": 1.0,
    "modality_dropout": 0.0,
    "network_def::mode": "single",
    "network_def::levels": 4,
    "network_def::width": 8,
    "network_def::deep": 1,
}
MEASURES = {"dice": "Dice", "iou": "IoU"}
TITLE = "The left atrium in MR"
NOTE = """**The images are cropped round the atrium**: where it lies in a whole chest, no network had to find. That
flatters every figure of this page beside those of whole volumes. Data: 2018 Atrial Segmentation Challenge, Xiong et
al., Med Image Anal 67, 2021.

The held-out patients were judged twice: a shorter training (22 epochs, patches larger than most of the images) had
reached a Dice of 0.766 and an IoU of 0.653. The recipe of this one was chosen on the other patients alone (`--inner`:
Dice 0.865, IoU 0.764)."""


def main(
    out: Path,
    page: Annotated[Path | None, typer.Option(help="That takes the figures.")] = None,
    inner: Annotated[bool, typer.Option(help="Hold patients of the training part out, to choose a recipe.")] = False,
    threads: Annotated[int, typer.Option(help="Of the processor.")] = 2,
) -> None:
    """Train once, judge once, print the figures and write the page."""
    torch.set_num_threads(threads)
    try:
        protocol = protocol_of(out, write_table(Path(os.environ["TANDEM_DATA"]) / "la_mr", out / "data", inner))
        record = run_trial(protocol, Trial(Variant("single")))
    except (PipelineError, KeyError) as error:
        print(f"{error} (TANDEM_DATA names the folder of real images.)")
        raise typer.Exit(2) from error
    if record["status"] != DONE:
        raise typer.Exit(1)
    text = section(protocol.folder(Trial(Variant("single"))) / EVALUATION, record)
    print(text)
    if page is not None and not inner:
        write_section(page, TITLE, "figures", text)


def write_table(data: Path, folder: Path, inner: bool = False) -> Path:
    """The table of all patients with folds; `inner`: of those that fold 0 does not judge, in folds of their own."""
    rows = with_folds(read_table(data / "cases.csv", ["mr"], 0), FOLDS)
    if inner:
        rows = with_folds([replace(row, fold=None) for row in rows if row.fold != JUDGED], FOLDS - 1)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "cases.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        lines = [[row.case_id, row.patient_id, row.images["mr"], row.mask, row.fold] for row in rows]
        csv.writer(stream).writerows([["case_id", "patient_id", "mr", "mask", "fold"], *lines])
    return path


def protocol_of(out: Path, table: Path, recipe: Mapping[str, Any] = RECIPE) -> Protocol:
    """One training, judged on fold 0."""
    return Protocol(out, {"dataset_dir": str(table.parent), **recipe}, {EVALUATION: {"report": False}}, calibration="")


def means(folder: Path) -> tuple[list[dict[str, str]], dict[str, Estimate]]:
    """The cases of an evaluation, and the mean of each measure with its interval over patients.

    Raises:
        UsageError: E_TABLE when there are none.
    """
    with (folder / "dice.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    if not rows:
        raise UsageError("E_TABLE", f"Expected cases in {folder / 'dice.csv'}, got none.")
    patients = [row["case_id"] for row in rows]
    values = {name: np.array([float(row[name]) for row in rows]) for name in MEASURES}
    return rows, {name: mean_over_cases(name, values[name], patients, Settings()) for name in MEASURES}


def section(folder: Path, record: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    rows, found = means(folder)
    worst = {name: min(float(row[name]) for row in rows) for name in MEASURES}
    table = [
        (MEASURES[name], f"{item.value:.3f}", f"{item.low:.3f} to {item.high:.3f}", f"{worst[name]:.3f}")
        for name, item in found.items()
    ]
    seconds = record["seconds"]
    about = (
        f"{len(rows)} held-out patients of 40, voxels of 2.5 mm, {record['parameters']:,} parameters in the mode "
        f"`single`; training {seconds['training']:.0f} s, judgement {seconds[EVALUATION]:.0f} s of processor time. "
        "Intervals: 95 %, over resampled patients. Written by `python -m benchmarks.atrium`."
    )
    return "\n\n".join([NOTE, markdown_table(("Measure", "Mean", "Interval", "Worst patient"), table), about])


if __name__ == "__main__":
    typer.run(main)
