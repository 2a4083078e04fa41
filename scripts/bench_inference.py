"""The sliding window of the stage `fuse` beside MONAI's `sliding_window_inference`: seconds, Dice of the labels.

    .venv/bin/python scripts/train_demo_weights.py OUT && .venv/bin/python scripts/bench_inference.py OUT/model.pt

Prints the table of docs/benchmarks/inference.md. The image is simulated: a body in air, with lesions in it. On a
processor the seconds are the thread's own, with --device cuda the clock's.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import typer
from monai.inferers.utils import sliding_window_inference
from torch import Tensor

from pipeline.fusion.checkpoint import load_trained
from pipeline.fusion.network import FusionNet
from pipeline.fusion.tiles import TiledInferer

#: Half axes of the body as parts of the image's sides: a head in its usual field of view.
BODY = (0.34, 0.40, 0.42)
LESIONS = 12


def main(weights: Path, side: int = 96, patch: int = 32, repeats: int = 3, device: str = "cpu") -> None:
    """Measure."""
    network = load_trained(weights, device).network
    image, body = (item.to(device) for item in scene(side))
    share = float(body.float().mean())
    print(
        f"{side}^3 voxels, patches of {patch}^3, body {share:.0%} of the image, {device}, torch {torch.__version__}.\n"
    )
    # one thread's own time says the same on a busy machine as on an idle one
    torch.set_num_threads(1)
    clock = time.process_time if device == "cpu" else time.perf_counter
    ways = ways_of(network, image, body, patch)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    labels: dict[str, Tensor] = {}
    monai_way(network, image[..., :patch], patch, 0.25)  # the first call of all sets up the kernels
    for _ in range(repeats):
        for name, way in ways.items():  # in turn, so that what else the machine does falls on all of them
            started = clock()
            labels[name] = way().argmax(0).cpu() * body[0, 0].cpu()
            seconds[name].append(clock() - started)
    print("| way | seconds | times MONAI's default | Dice beside MONAI, same overlap, gaussian |")
    print("|---|---|---|---|")
    base = statistics.median(seconds["MONAI, overlap .25, constant (its default)"])
    for name in ways:
        median = statistics.median(seconds[name])
        same = "MONAI, overlap .5, gaussian" if "overlap .5" in name else "MONAI, overlap .25, gaussian"
        print(f"| {name} | {median:.2f} | {base / median:.2f} | {dice(labels[name], labels[same]):.4f} |")


def ways_of(network: FusionNet, image: Tensor, body: Tensor, patch: int) -> dict[str, Callable[[], Tensor]]:
    """What is compared, four tiles at once everywhere: name -> a function that gives voxel logits."""

    def ours(overlap: float, inside: Tensor | None, bfloat16: bool = False) -> Tensor:
        inferer = TiledInferer((patch,) * 3, overlap, bfloat16_on_cpu=bfloat16)
        return inferer(image, network, None, inside)[0, : network.labels]

    return {
        "MONAI, overlap .25, constant (its default)": lambda: monai_way(network, image, patch, 0.25, "constant"),
        "MONAI, overlap .25, gaussian": lambda: monai_way(network, image, patch, 0.25),
        "MONAI, overlap .5, gaussian": lambda: monai_way(network, image, patch, 0.5),
        "Tandem, overlap .5, whole image": lambda: ours(0.5, None),
        "Tandem, overlap .5, body": lambda: ours(0.5, body),
        "Tandem, overlap .25, body": lambda: ours(0.25, body),
        "Tandem, overlap .25, body, bfloat16": lambda: ours(0.25, body, True),
    }


def scene(side: int) -> tuple[Tensor, Tensor]:
    """A prepared image (1, 2, I, J, K) and its body mask (1, 1, I, J, K)."""
    rng = np.random.default_rng(3)
    axes = np.meshgrid(*[np.linspace(-0.5, 0.5, side)] * 3, indexing="ij")
    body = sum((axis / radius) ** 2 for axis, radius in zip(axes, BODY, strict=True)) <= 1
    lesions = np.zeros_like(body)
    for _ in range(LESIONS):
        centre, radius = rng.uniform(-0.2, 0.2, 3), rng.uniform(4, 6) / side
        lesions |= sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)) <= radius**2
    noise = rng.standard_normal((2, side, side, side)) + 2.5 * lesions
    # as prepared: the window (140, 800) of 40 + 100 x is (x + 3) / 8; MR has mean 2.5 and deviation 1 in the foreground
    prepared = np.stack([np.where(body, np.clip((noise[0] + 3) / 8, 0, 1), 0), np.where(body, noise[1] - 2.5, -5)])
    return torch.from_numpy(prepared[None].astype(np.float32)), torch.from_numpy(body[None, None])


def monai_way(network: FusionNet, image: Tensor, patch: int, overlap: float, mode: str = "gaussian") -> Tensor:
    """Voxel logits (labels, I, J, K) as MONAI's function gives them."""
    with torch.no_grad():
        found = sliding_window_inference(image, (patch,) * 3, 4, network, overlap, mode=mode)
    logits: Tensor = found[0, : network.labels]
    return logits


def dice(first: Tensor, second: Tensor) -> float:
    """Dice of the foreground of two label images."""
    both = int((first > 0).sum()) + int((second > 0).sum())
    return 2 * int(((first > 0) & (second > 0)).sum()) / max(1, both)


if __name__ == "__main__":
    typer.run(main)
