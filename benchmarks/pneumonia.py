"""Pneumonia in radiographs of 28 x 28 (`pneumoniamnist`) by the bundle `fuse`: AUROC and accuracy on `val`.

    TANDEM_DATA=… python -m benchmarks.pneumonia OUT [--page docs/benchmarks/streams.md]

The pictures of the official `train` that `val` shows too are left out; three seeds, judged by `val` after the last
epoch. A run that was stopped goes on.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.document import write_section
from benchmarks.segmentation_report import markdown_table
from pipeline.columns import read_rows
from pipeline.commands.table import table
from pipeline.comparison.classification import auroc_of, class_logits, judged_folders, spread
from pipeline.comparison.trials import Protocol, Trial, Variant, read_trial, run_trials, trials_of
from pipeline.console import echo

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks" / "streams.md"
SEEDS = (0, 1, 2)
AUROC, ACCURACY, SECONDS = 0.985, 0.95, 300
RECIPE: dict[str, Any] = {
    "streams": {"picture": {"kind": "image", "size": [28, 28]}},
    "device": "cpu",
    "network_def::mode": "single",
    "network_def::levels": 3,
    "network_def::width": 16,
    "modality_dropout": 0.0,
    "batch": 64,
    "max_epochs": 8,
    "val_interval": 8,
    "warmup": 1,
    "rate": 0.003,
    "translation": 0.07,
    "brightness": 0.2,
    "contrast": 0.2,
}
NOTE = """## Pneumonia in small radiographs

`pneumoniamnist` (Kermany et al., Cell 172, 2018; Yang et al., Sci Data 10, 2023): learned from the official `train`
without the pictures that `val` shows too, judged by `val` after the last epoch. A bundle run a seed, one thread. The
official test set is of other children and was not at hand: these figures are no promise for it."""


def main(out: Path, page: Annotated[Path | None, typer.Option(help="That takes the section.")] = None) -> None:
    """Make the table, train each seed, and say what was reached."""
    torch.set_num_threads(1)
    archive = Path(os.environ["TANDEM_DATA"]) / "pneumoniamnist" / "pneumoniamnist_train_val.npz"
    started = time.process_time()
    if not (out / "data" / "cases.csv").is_file():
        table(archive, out / "data", "medmnist", duplicates="leave_out")
    echo(f"Table: {time.process_time() - started:.0f} s")
    protocol, trials = protocol_of(out), trials_of([Variant("single", ("streams",))], SEEDS, [0])
    run_trials(protocol, trials)
    text = section(protocol, trials, shown_twice(out / "data" / "cases_left_out.csv"))
    echo(text)
    if page is not None:
        write_section(page, "Streams", "pneumonia", text)


def protocol_of(out: Path) -> Protocol:
    """Trainings on the table, judged by `val`, which is its fold 0."""
    return Protocol(out, {"dataset_dir": str(out / "data"), **RECIPE})


def shown_twice(left_out: Path) -> tuple[int, int]:
    """How many pictures of `val` stand in `train` too, and in how many of its files."""
    rows = [row["reason"] for row in read_rows(left_out, ["code", "reason"]) if row["code"] == "E_DUPLICATE"]
    return len(set(rows)), len(rows)


def section(protocol: Protocol, trials: list[Trial], twice: tuple[int, int]) -> str:
    """The figures of all seeds beside the targets, as Markdown."""
    rows, areas, shares, seconds = [], [], [], []
    for trial in trials:
        found = class_logits(judged_folders(protocol, [trial]))
        record = read_trial(protocol, trial)
        areas.append(auroc_of(found))
        shares.append(float(np.mean(found.logits.argmax(1) == found.labels)))
        seconds.append(sum(record["seconds"].values()))
        rows.append((str(trial.seed), f"{areas[-1]:.3f}", f"{shares[-1]:.3f}", f"{seconds[-1]:.0f}"))
    targets = [
        (f"AUROC of every seed at least {AUROC}", min(areas) >= AUROC),
        (f"accuracy of every seed at least {ACCURACY}", min(shares) >= ACCURACY),
        (f"a training within {SECONDS} s of processor time", max(seconds) <= SECONDS),
    ]
    mean = f"Mean and deviation of the seeds: AUROC {spread(areas)}, accuracy {spread(shares)}."
    about = (
        f"{record['parameters']:,} parameters. {twice[0]} pictures of `val` stand in `train` too, as {twice[1]} files, "
        "which were left out. Written by `python -m benchmarks.pneumonia`."
    )
    table_ = markdown_table(("seed", "AUROC", "accuracy", "processor s, judgement included"), rows)
    met = markdown_table(("target", "met"), [(name, "yes" if good else "no") for name, good in targets])
    return "\n\n".join([NOTE, table_, mean, met, about])


if __name__ == "__main__":
    typer.run(main)
