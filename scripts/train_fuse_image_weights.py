"""Make the weights of image fusion that Tandem ships: learn from axial slices of simulated heads, judge by others.

    .venv/bin/python -m scripts.train_fuse_image_weights OUT [--ship]

OUT takes the heads and what the bundle `fuse_image` makes of them. Two sets of heads are simulated: to learn from (a
fifth of them chooses the epoch), and to judge by. Prints the figures of bundles/fuse_image/models/README.md; `--ship`
puts the weights there.
"""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.commands.typed import script
from pipeline.image_fusion.candidates import CANDIDATES, candidates
from pipeline.image_fusion.data import MiddleOfPaird, ReadPaird
from pipeline.image_fusion.metrics import measure
from pipeline.image_fusion.weights import Trained, load_trained
from pipeline.run.options import workflow
from pipeline.shipped import shipped
from scripts.head_files import write_head_cases

CONFIGS = shipped("bundles", "fuse_image", "configs")
#: Not that of the demo's cohort, nor that of the weights of `fuse`.
SEED = 1717
SPACING_MM = 2.0
#: Numbers of the simulated heads, and how many folds they are dealt out to.
TABLES = {"cases.csv": (range(0, 15), 5), "test.csv": (range(1000, 1004), 1)}
OVERLAYS = ("volumes", "measures")
#: The weights that come with Tandem are older than the overlay's term of SCD, and than its rounded structure.
SETTINGS: dict[str, Any] = {
    "device": "cpu",
    "max_epochs": 14,
    "loss_weights::structure": 0.7,
    "loss_weights::scd": 0.0,
    "ssim_greys": 0,
}
NAME = "heads.pt"
#: Of `pipeline.image_fusion.metrics`.
SHOWN = ("SD", "SF", "MI", "VIF", "Qabf_evaluator", "SSIM_evaluator", "bone", "soft")


def main(out: Path, ship: bool = False) -> None:
    """Simulate, train, judge."""
    for table_name, (numbers, folds) in TABLES.items():
        write_head_cases(out / "cases", table_name, numbers, folds, SEED, SPACING_MM)
    started = time.process_time()
    files = [CONFIGS / "train.yaml", *(CONFIGS / "overlays" / f"{name}.yaml" for name in OVERLAYS)]
    training = workflow(files, {**SETTINGS, "dataset_dir": str(out / "cases"), "output_dir": str(out / "trained")})
    training.initialize()
    training.run()
    print(f"{(time.process_time() - started) / 60:.1f} min of processor time for the training.")
    weights = out / "trained" / "model.pt"
    for line in judged(load_trained(weights), out / "cases" / "test.csv"):
        print(line)
    if ship:
        shutil.copy(weights, shipped("bundles", "fuse_image", "models") / NAME)


def judged(trained: Trained, table: Path) -> Iterator[str]:
    """Judge a network beside the candidates that it mixes, by the axial slice of each head that shows most.

    Returns:
        Lines of Markdown.
    """
    found: dict[str, list[list[float]]] = {}
    read = ReadPaird(trained.preparation.modalities, trained.preparation.windows)
    middle = MiddleOfPaird(trained.preparation.patch)
    with table.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        image = middle(read({key: table.parent / row[key] for key in ("ct", "mr")}))["image"]
        for name, fused in pictures_of(trained, image).items():
            measures = measure(fused, image[0].numpy(), image[-1].numpy(), top=1.0)
            found.setdefault(name, []).append([measures[key] or np.nan for key in SHOWN])
    yield f"| {len(rows)} simulated heads | {' | '.join(SHOWN)} |"
    yield f"|---|{'---|' * len(SHOWN)}"
    for name, values in found.items():
        yield f"| {name} | {' | '.join(f'{value:.3f}' for value in np.nanmean(values, 0))} |"


@torch.no_grad()
def pictures_of(trained: Trained, image: torch.Tensor) -> dict[str, np.ndarray]:
    """Method -> fused picture, 0 to 1: the candidates, and the network's."""
    mixed = candidates(image[None, :1], image[None, -1:])[0]
    fused = trained.network.parts(image[None]).fused[0, 0]
    return {**dict(zip(CANDIDATES, mixed.numpy(), strict=True)), "network": fused.numpy()}


if __name__ == "__main__":
    script(main)
