"""Radiographs and CT slices by a frozen EfficientNet-Lite0 in five folds by patient, beside controls on the same folds.

    TANDEM_DATA=… python -m benchmarks.stream_frozen OUT [--page docs/benchmarks/streams.md]

`tandem compare --streams` on `cxr3` and on `ct_slices`, with cached features: only a token and a class head learn.
`OUT/*/report` has curves and confusion matrices. A run that was stopped goes on.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.document import write_section
from benchmarks.segmentation_report import markdown_table
from benchmarks.streams_controls import SETS, TITLE, TITLES
from pipeline.comparison.classification import Findings
from pipeline.comparison.cohort import compare
from pipeline.comparison.stream_report import auroc_of
from pipeline.console import echo
from pipeline.evaluation.results import ALL
from pipeline.report.classification import interval, number

#: Set -> sides of its pictures, and the least AUROC that is wanted.
WANTED = {"cxr3": (224, 0.90), "ct_slices": (192, 0.70)}
EPOCHS, FOLDS = 40, 5
RECIPE: dict[str, Any] = {
    "device": "cpu",
    "network_def::encoder": "efficientnet_lite0",
    "freeze_epochs": EPOCHS,
    "max_epochs": EPOCHS,
    "val_interval": EPOCHS,
    "warmup": 1,
    "rate": 0.001,
    "augmentation": False,
    "cache_features": True,
}
HEAD = """## Frozen encoders beside controls

EfficientNet-Lite0 with the weights of ImageNet, frozen: what it says of a picture is computed once, and a token (mean
and maximum of every level, projected) and a class head learn from it. Five folds by patient, one seed, one thread; each
case is judged by the network that has not seen its patient, after the last epoch. Controls see the same folds. Written
by `python -m benchmarks.stream_frozen`."""


def main(out: Path, page: Annotated[Path | None, typer.Option(help="That takes the section.")] = None) -> None:
    """Compare on both sets and write the section."""
    torch.set_num_threads(1)
    parts = [HEAD]
    for name in WANTED:
        parts.append(section(name, judged(Path(os.environ["TANDEM_DATA"]) / name, out / name)))
        echo(parts[-1])
    if page is not None:
        write_section(page, TITLE, "frozen", "\n\n".join(parts))


def judged(data: Path, out: Path) -> Findings:
    """What is found on a set; trials that are done are not done again."""
    stream, classes, facts = SETS[data.name]
    side = WANTED[data.name][0]
    settings = {**RECIPE, "encoder_weights": {stream: "pretrained"}, "feature_dir": str(out / "features")}
    streams = {stream: {"kind": "image", "size": [side, side]}}
    return compare(
        data / "cases.csv", out, classes=classes, folds=FOLDS, seeds=1, settings=settings, streams=streams, facts=facts
    )


def section(name: str, found: Findings) -> str:
    """The network beside what is wanted of it, and how much of it the controls reach alone; Markdown."""
    network = found.evaluations[0]
    area, share = auroc_of(network), network.estimate("accuracy", ALL)
    told = [f"{number(item.value)} ({interval(item.low, item.high)})" for item in (area, share)]
    side, wanted = WANTED[name]
    met = "yes" if (area.value or 0.0) >= wanted else "no"
    row = (f"{side} × {side}", *told, f"{wanted:.2f}", met, f"{FOLDS * found.variants[0].seconds / 60:.1f}")
    columns = ("pictures", "AUROC", "accuracy", "AUROC wanted", "met", "processor min of all trainings")
    said = "\n".join(f"- {text}" for text in found.said)
    return "\n\n".join([f"### {TITLES[name]}", markdown_table(columns, [row]), said])


if __name__ == "__main__":
    typer.run(main)
