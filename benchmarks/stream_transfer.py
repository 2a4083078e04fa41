"""Radiographs and CT slices by a frozen EfficientNet-Lite0, beside controls and a network that is trained anew.

    TANDEM_DATA=… python -m benchmarks.stream_transfer OUT [--page docs/benchmarks/streams.md] [--no-anew]

`cxr3` and `ct_slices` in five folds by patient. Controls see the same folds; differences are paired over the same
resampled patients. A run that was stopped goes on.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.document import write_section
from benchmarks.segmentation_report import markdown_table
from benchmarks.streams_controls import SETS, judged
from pipeline.comparison.classification import logits_of_seeds, mean_predictions
from pipeline.comparison.stream_report import auroc_of, control_sentences
from pipeline.comparison.trials import Protocol, Variant, read_trial, run_trials, trials_of
from pipeline.console import echo
from pipeline.evaluation.classification import compare, evaluate
from pipeline.evaluation.results import ALL, MACRO
from pipeline.report.classification import interval, number

FOLDS = range(5)
#: Set -> size in which its pictures are looked at.
SIDES = {"cxr3": 224, "ct_slices": 192}
TARGETS = {"cxr3": 0.90, "ct_slices": 0.70}
FROZEN, ANEW = "Lite0, frozen", "trained anew"
EPOCHS = {FROZEN: 40, ANEW: 15}
HEAD = """## Frozen encoders on radiographs and slices

EfficientNet-Lite0 with the weights of ImageNet, frozen; a class head learns from its features. Five folds by patient,
one seed, one thread; every case is judged by the network that has not seen its patient."""
ABOUT_ANEW = """Trained anew: the encoder `unet`, 4 levels of 16 channels and more, pictures of half the sides,
augmented. Differences: AUROC of the first less that of the second, 95 %, paired over the same resampled patients."""
WRITTEN = "Written by `python -m benchmarks.stream_transfer`."


def main(
    out: Path,
    page: Annotated[Path | None, typer.Option(help="That takes the section.")] = None,
    anew: Annotated[bool, typer.Option(help="Train a network anew beside it.")] = True,
) -> None:
    """Train in folds, judge beside the controls, write the section."""
    torch.set_num_threads(1)
    parts = [HEAD]
    for name in SETS:
        parts.append(section(out / name, name, [FROZEN, ANEW] if anew else [FROZEN]))
        echo(parts[-1])
    if page is not None:
        write_section(page, "Streams", "transfer", "\n\n".join([*parts, *([ABOUT_ANEW] if anew else []), WRITTEN]))


def variant(name: str, data: str, out: Path) -> Variant:
    """The frozen encoder, or a network that learns all of its weights."""
    stream, side = SETS[data][0], SIDES[data] if name == FROZEN else SIDES[data] // 2
    settings: dict[str, Any] = {
        "streams": {stream: {"kind": "image", "size": [side, side]}},
        "max_epochs": EPOCHS[name],
        "val_interval": EPOCHS[name],
    }
    if name == FROZEN:
        settings |= {
            "network_def::encoder": "efficientnet_lite0",
            "encoder_weights": {stream: "pretrained"},
            "freeze_epochs": EPOCHS[name],
            "augmentation": False,
            "cache_features": True,
            "feature_dir": str(out / "features"),
        }
    return Variant(name, ("streams",), settings)


def protocol_of(out: Path, data: str) -> Protocol:
    """Folds by patient, as the controls have them."""
    settings: dict[str, Any] = {
        "dataset_dir": str(Path(os.environ["TANDEM_DATA"]) / data),
        "device": "cpu",
        "classes": SETS[data][1],
        "network_def::mode": "single",
        "modality_dropout": 0.0,
        "warmup": 1,
        "rate": 0.001,
    }
    return Protocol(out, settings)


def section(out: Path, data: str, names: list[str]) -> str:
    """Train what is not done, and say what was found beside controls, as Markdown."""
    protocol, variants = protocol_of(out, data), [variant(name, data, out) for name in names]
    run_trials(protocol, trials_of(variants, [0], FOLDS))
    models, seconds = {}, {}
    for item in variants:
        models[item.name] = mean_predictions(item.name, logits_of_seeds(protocol, item, [0], FOLDS))
        done = [read_trial(protocol, trial) for trial in trials_of([item], [0], FOLDS)]
        seconds[item.name] = sum(sum(record["seconds"].values()) for record in done)
    found = {item.model: item for item in evaluate(models)}
    rows = []
    for name, judgement in found.items():
        area, share = auroc_of(judgement), judgement.estimate("accuracy", ALL)
        told = [f"{number(part.value)} ({interval(part.low, part.high)})" for part in (area, share)]
        rows.append((name, *told, f"{seconds[name]:.0f}"))
    reached = auroc_of(found[FROZEN]).value or 0.0
    met = "yes" if reached >= TARGETS[data] else "no"
    said = [f"- {text}" for text in control_sentences(judged(Path(os.environ["TANDEM_DATA"]) / data), reached)]
    paired = [
        f"{item.first} less {item.second}: AUROC {number(item.difference, signed=True)} "
        f"({interval(item.low, item.high)})."
        for item in (compare(models) if len(models) > 1 else ())
        if item.measure == "auroc" and item.method != "DeLong" and (data != "cxr3" or item.of == MACRO)
    ]
    table = markdown_table(("network", "AUROC", "accuracy", "processor s of five folds"), rows)
    target = f"Wanted of the frozen encoder: AUROC {TARGETS[data]:.2f} or more; met: {met}."
    return "\n\n".join([f"### `{data}`", table, *paired, target, "\n".join(said)])


if __name__ == "__main__":
    typer.run(main)
