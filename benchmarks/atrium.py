"""The left atrium in late-enhancement MR by the bundle `fuse` with one modality: Dice and IoU on held-out patients.

    TANDEM_DATA=… python -m benchmarks.atrium OUT [--page docs/benchmarks/atrium.md]

40 patients of `la_mr`, resampled to 2.5 mm, in five folds: each patient is judged once, by a network that has not seen
him, after its last epoch. Two folds are trained at a time, one thread each. The recipe was chosen by folds within four
fifths of the patients (`--inner`). A run that was stopped goes on.
"""

from __future__ import annotations

import csv
import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
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
    # PyTorch takes a slow way where a single small patch is convolved
    "batch": 2,
    "max_epochs": 50,
    "val_interval": 50,
    "warmup": 1,
    "rate": 0.004,
    # patients differ in brightness and contrast by more than the default allows for
    "augmentation_share": 0.5,
    "contrast": 0.3,
    "brightness": 0.3,
    "cache_rate": 1.0,
    "modality_dropout": 0.0,
    "network_def::mode": "single",
    "network_def::levels": 4,
    "network_def::width": 16,
    "network_def::deep": 1,
}
MEASURES = {"dice": "Dice", "iou": "IoU"}
TITLE = "The left atrium in MR"
NOTE = """**The images are cropped round the atrium**: where it lies in a whole chest, no network had to find. That
flatters every figure of this page beside those of whole volumes. Data: 2018 Atrial Segmentation Challenge, Xiong et
al., Med Image Anal 67, 2021.

The recipe was chosen by folds among the patients outside fold 0 (`--inner`: 24 of them judged, mean Dice 0.874). Fold 0
has chosen nothing of it; two weaker recipes, networks of a quarter of the size, had reached 0.766 and 0.770 there."""
VARIANT = Variant("single")
TARGETS = {"dice": 0.85, "iou": 0.74}


def main(
    out: Path,
    page: Annotated[Path | None, typer.Option(help="That takes the figures.")] = None,
    inner: Annotated[bool, typer.Option(help="Leave fold 0 out and fold the others, to choose a recipe.")] = False,
) -> None:
    """Train each fold, judge each patient once, print the figures and write the page."""
    try:
        protocol = protocol_of(out, write_table(Path(os.environ["TANDEM_DATA"]) / "la_mr", out / "data", inner))
    except (PipelineError, KeyError) as error:
        print(f"{error} (TANDEM_DATA names the folder of real images.)")
        raise typer.Exit(2) from error
    begun = time.perf_counter()
    trials = [Trial(VARIANT, fold=fold) for fold in range(FOLDS - inner)]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        records = [task.result() for task in [pool.submit(run_trial, protocol, trial) for trial in trials]]
    if any(record["status"] != DONE for record in records):
        raise typer.Exit(1)
    text = section([protocol.folder(trial) / EVALUATION for trial in trials], records)
    print(text)
    print(f"{(time.perf_counter() - begun) / 60:.1f} min")
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
    """A training a fold, judged on that fold."""
    return Protocol(out, {"dataset_dir": str(table.parent), **recipe}, {EVALUATION: {"report": False}}, calibration="")


def read_cases(folder: Path) -> list[dict[str, str]]:
    """The cases of an evaluation.

    Raises:
        UsageError: E_TABLE when there are none.
    """
    with (folder / "dice.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    if not rows:
        raise UsageError("E_TABLE", f"Expected cases in {folder / 'dice.csv'}, got none.")
    return rows


def means(rows: Sequence[Mapping[str, str]]) -> dict[str, Estimate]:
    """The mean of each measure with its interval over patients."""
    patients = [row["case_id"] for row in rows]
    values = {name: np.array([float(row[name]) for row in rows]) for name in MEASURES}
    return {name: mean_over_cases(name, values[name], patients, Settings()) for name in MEASURES}


def section(folders: Sequence[Path], records: Sequence[Mapping[str, Any]]) -> str:
    """The figures as Markdown, of all folds and of the first alone."""
    folds = [read_cases(folder) for folder in folders]
    table, everyone = [], [row for fold in folds for row in fold]
    for words, rows in ((f"all {len(everyone)}", everyone), (f"the {len(folds[0])} of fold 0", folds[0])):
        for name, item in means(rows).items():
            worst, reached = min(float(row[name]) for row in rows), (item.value or 0) >= TARGETS[name]
            shown = [f"{item.value:.3f}", f"{item.low:.3f} to {item.high:.3f}", f"{worst:.3f}"]
            table.append((words, MEASURES[name], *shown, f"{TARGETS[name]}", "yes" if reached else "no"))
    seconds = [record["seconds"]["training"] for record in records]
    about = (
        f"Voxels of 2.5 mm, {records[0]['parameters']:,} parameters in the mode `single`; a fold is trained in "
        f"{min(seconds):.0f} to {max(seconds):.0f} s of one processor (15 minutes wanted). Intervals: 95 %, over "
        "resampled patients. Written by `python -m benchmarks.atrium`."
    )
    heads = ("Patients", "Measure", "Mean", "Interval", "Worst patient", "Wanted", "Met")
    return "\n\n".join([NOTE, markdown_table(heads, table), about])


if __name__ == "__main__":
    typer.run(main)
