"""The image fusion network, learned: each phase, and published weights against training anew; judged on other patients.

    TANDEM_DATA=… .venv/bin/python -m benchmarks.image_fusion_training OUT [--rows small] [--lite0 FILE] [--judge]

Learns from `harvard_fusion_train` (five patients; fold 0 is held out and chooses the epoch) and `visible_infrared`.
Without `--judge` the rows are judged on the patient held out; with it on the 21 pairs of `harvard_fusion_2d`, two other
patients, which are to be looked at once. OUT keeps the weights: they are not to be published, nor are the pictures.
"""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer

from pipeline.image_fusion.candidates import CANDIDATES, candidates
from pipeline.image_fusion.data import ReadPaird
from pipeline.image_fusion.metrics import measure
from pipeline.image_fusion.weights import Trained, load_trained
from pipeline.run.options import workflow
from pipeline.shipped import shipped

CONFIGS = shipped("bundles", "fuse_image", "configs")
SHOWN = ("SD", "SF", "MI", "SCD", "VIF", "Qabf_evaluator", "SSIM_evaluator", "bone", "soft")
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
HELD_OUT = 0
NATURAL, MEDICAL = "visible_infrared", "harvard_fusion_train"
#: Row -> phases: data, overlays, settings. A phase starts from the weights of the one before.
Phase = tuple[str, tuple[str, ...], dict[str, Any]]
ANEW: Phase = (MEDICAL, ("measures",), {})
FIRST: Phase = (NATURAL, ("measures", "pretrain"), {})
SECOND: Phase = (MEDICAL, ("measures", "finetune"), {})
LITE0: dict[str, Any] = {"encoder": "efficientnet_lite0", "rate": 0.001}
ROWS: dict[str, tuple[Phase, ...]] = {
    "small": (ANEW,),
    "small, natural pairs": (FIRST,),
    "small, natural pairs, then medical": (FIRST, SECOND),
    "lite0": ((MEDICAL, ("measures",), LITE0),),
    "lite0 from ImageNet": ((MEDICAL, ("measures",), {**LITE0, "freeze_epochs": 5, "encoder_sha256": LITE0_SHA256}),),
}


def main(out: Path, rows: str = "small", lite0: str = "", epochs: int = 60, judge: bool = False) -> None:
    """Train the rows, named with `;` between them, and print their table."""
    data = Path(os.environ["TANDEM_DATA"])
    pairs = list(pairs_of(data, judge))
    print(f"| {len(pairs)} pairs | s | {' | '.join(SHOWN)} |\n|---|{'---|' * (1 + len(SHOWN))}")
    for number, name in enumerate(CANDIDATES):
        print(line(name, None, [candidates(ct, mr)[0, number] for ct, mr in pairs], pairs))
    for row in rows.split(";"):
        started = time.process_time()
        trained = learned(row.strip(), data, out, epochs, lite0)
        seconds = time.process_time() - started
        print(line(row.strip(), seconds, [fused(trained, ct, mr) for ct, mr in pairs], pairs), flush=True)


def learned(row: str, data: Path, out: Path, epochs: int, lite0: str) -> Trained:
    """Train a row's phases."""
    weights = ""
    for number, (table, overlays, settings) in enumerate(ROWS[row]):
        folder = out / row.replace(", ", "-").replace(" ", "_") / str(number)
        files = [CONFIGS / "train.yaml", *(CONFIGS / "overlays" / f"{name}.yaml" for name in overlays)]
        given = {"dataset_dir": str(data / table), "output_dir": str(folder), "max_epochs": epochs, "weights": weights}
        if "encoder_sha256" in settings:
            given["encoder_weights"] = lite0
        made = workflow(files, {"device": "cpu", "fold": HELD_OUT, **given, **settings})
        made.initialize()
        made.run()
        weights = str(folder / "model.pt")
    return load_trained(weights)


def pairs_of(data: Path, judge: bool) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """CT and MR (1, 1, rows, columns), 0 to 1: those to judge by."""
    read = ReadPaird(["ct", "mr"], [[0.5, 1.0]])
    for files in _files(data, judge):
        image = read(files)["image"]
        yield image[None, :1], image[None, 1:]


def _files(data: Path, judge: bool) -> list[dict[str, Path]]:
    if judge:
        folder = data / "harvard_fusion_2d" / "test_img" / "MRI_CT"
        return [{"ct": path, "mr": folder / "MRI" / path.name} for path in sorted((folder / "CT").glob("*.png"))]
    with (data / MEDICAL / "cases.csv").open(encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["patient_id"] == "p32"]  # fold 0 of five
    return [{key: data / MEDICAL / row[key] for key in ("ct", "mr")} for row in rows]


@torch.no_grad()
def fused(trained: Trained, ct: torch.Tensor, mr: torch.Tensor) -> torch.Tensor:
    """The network's picture (rows, columns)."""
    windows = [((ct - level) / width + 0.5).clamp(0, 1) for level, width in trained.preparation.windows]
    return trained.network.parts(torch.cat([*windows, mr], 1)).fused[0, 0]


def line(name: str, seconds: float | None, pictures: list[torch.Tensor], pairs: list[Any]) -> str:
    """A row of the table; pictures as they are saved, in 256 greys."""
    values = []
    for picture, (ct, mr) in zip(pictures, pairs, strict=True):
        eight_bit = np.rint(255 * picture.numpy().astype(np.float64))
        found = measure(eight_bit, 255 * ct[0, 0].numpy(), 255 * mr[0, 0].numpy())
        values.append([np.nan if found[key] is None else found[key] for key in SHOWN])
    means = " | ".join(f"{value:.3f}" for value in np.nanmean(np.asarray(values, dtype=np.float64), 0))
    return f"| {name} | {'' if seconds is None else f'{seconds:.0f}'} | {means} |"


if __name__ == "__main__":
    typer.run(main)
