"""What it saves to compute the features of a frozen encoder once: an epoch through it beside one of its features."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Events

from benchmarks.segmentation_report import markdown_table
from pipeline.run.options import workflow
from pipeline.shipped import shipped
from tests.phantoms.streams.cohort import Shown, simulate_streams
from tests.phantoms.streams.files import write_cohort

CASES, SIZE, EPOCHS = 200, (128, 128), 4
CONFIGS = shipped("bundles", "fuse", "configs")


def epoch_seconds(out: Path, cached: bool) -> tuple[float, float]:
    """Processor seconds of an epoch (the median, without the first), and of what comes before the first."""
    settings: dict[str, Any] = {
        "bundle_root": str(CONFIGS.parent),
        "dataset_dir": str(out / "cases"),
        "output_dir": str(out / f"cached-{cached}"),
        "device": "cpu",
        "streams": {"image": {"kind": "image", "size": list(SIZE), "intensity": [3000, 23000]}},
        "network_def::mode": "single",
        "network_def::encoder": "efficientnet_lite0",
        "encoder_weights": {"image": "pretrained"},
        "max_epochs": EPOCHS,
        "freeze_epochs": EPOCHS,
        "val_interval": EPOCHS,
        "augmentation": False,
        "modality_dropout": 0.0,
        "cache_features": cached,
    }
    made, begun = (
        workflow([CONFIGS / "train.yaml", CONFIGS / "overlays" / "streams.yaml"], settings),
        time.process_time(),
    )
    made.initialize()
    trainer = made.parser.get_parsed_content("training").trainer
    starts, ends = [], []
    with trainer.add_event_handler(Events.EPOCH_STARTED, lambda: starts.append(time.process_time())):
        # before the validation of the last one
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: ends.append(time.process_time()))
        made.run()
    steps = len(ends) // EPOCHS
    epochs = [ends[(number + 1) * steps - 1] - start for number, start in enumerate(starts)]
    return float(np.median(epochs[1:])), starts[0] - begun


def write_cases(out: Path) -> None:
    """Simulate the cases that are not there."""
    if not (out / "cases" / "cases.csv").is_file():
        write_cohort(out / "cases", simulate_streams("additive", CASES, 0, {"image": Shown("image", SIZE)}))


def section(out: Path) -> str:
    """Measure, and say it as Markdown."""
    write_cases(out)
    found = {cached: epoch_seconds(out, cached) for cached in (False, True)}
    rows = [
        (name, f"{found[cached][1]:.1f}", f"{found[cached][0]:.3f}")
        for name, cached in (("through the encoder", False), ("of its features", True))
    ]
    ratio = found[False][0] / found[True][0]
    return "\n\n".join(
        [
            "## Frozen encoders",
            f"EfficientNet-Lite0, frozen, on {CASES} pictures of {SIZE[0]} × {SIZE[1]}, four fifths of them learned "
            "from; one thread. Files are read and prepared before the first epoch in both.",
            markdown_table(("an epoch", "before the first, processor s", "each, processor s"), rows),
            f"An epoch of features that are computed once is {ratio:.0f} × as fast.",
        ]
    )
