"""The image fusion network on a volume beside MONAI's sliding window: seconds, and how far the answers are apart.

    .venv/bin/python -m benchmarks.image_fusion_inference OUT [--write]

A network of three dimensions with random weights, on a simulated head that is written into OUT; one thread, unless
given. `--write` puts the section into docs/benchmarks/image-fusion-training.md.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import typer
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn

from benchmarks.document import write_section
from benchmarks.image_fusion_training import PAGE, TITLE
from pipeline.image_fusion.applying import apply_network
from pipeline.image_fusion.data import ReadPaird
from pipeline.image_fusion.network import ImageFusionNet
from pipeline.inference.engine import Engine
from scripts.head_files import write_head_cases

SEED, SPACING_MM = 1718, 2.0
WINDOWS = [[150, 500], [40, 80], [600, 2000]]
#: Voxels a side, and how many tiles Tandem may take at once.
TILES, BATCH = (32, 64), 4
DEFAULT = "MONAI's default: overlap .25, constant weights, a tile at once"
GAUSSIAN = "MONAI, Gaussian weights"
Way = Callable[[], Tensor]


def main(out: Path, repeats: int = 3, threads: int = 1, write: bool = False) -> None:
    """Measure."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network = ImageFusionNet(3).eval()
    nn.init.normal_(network.head.weight, std=0.3)
    write_head_cases(out, "cases.csv", range(1), 1, SEED, SPACING_MM)
    files = {key: next(out.glob(f"*_{key}.nii.gz")) for key in ("ct", "mr")}
    image = ReadPaird(["ct", "mr"], WINDOWS)(files)["image"]
    shown = (image[0] > 0) | (image[-1] > 0)
    shape = " x ".join(map(str, image.shape[1:]))
    lines = [
        f"## On a volume\n\nA simulated head of {shape} voxels of {SPACING_MM:g} mm, {float(shown.float().mean()):.0%} "
        f"of them not black; torch {torch.__version__}, threads: {threads}. Seconds are the clock's. Differences are "
        "the largest where a source shows anything: to MONAI's default, and to it with the Gaussian weights that "
        "Tandem has, too."
    ]
    for tile in TILES:
        lines += [f"\nTiles of {tile}^3:\n", *table(ways_of(network, image, tile), shown, repeats)]
    text = "\n".join(lines)
    print(text)
    if write:
        write_section(PAGE, TITLE, "inference", text)


def table(ways: dict[str, Way], shown: Tensor, repeats: int) -> Iterator[str]:
    """A row a way: medians of interleaved repeats."""
    answers = {name: way() for name, way in ways.items()}  # compiles, too
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    base, *_ = taken = [statistics.median(values) for values in seconds.values()]
    yield "| | s | times MONAI's default | apart from it | apart from Gaussian |\n|---|---|---|---|---|"
    for (name, answer), found in zip(answers.items(), taken, strict=True):
        apart = " | ".join(
            f"{float((answer - answers[other])[shown].abs().max()):.1e}" for other in (DEFAULT, GAUSSIAN)
        )
        yield f"| {name} | {found:.2f} | {base / found:.2f} | {apart} |"


def ways_of(network: ImageFusionNet, image: Tensor, tile: int) -> dict[str, Way]:
    """Name -> what gives the fused volume (I, J, K)."""
    sides = (tile,) * 3

    @torch.inference_mode()
    def monai(count: int, mode: str = "constant") -> Tensor:
        said: Tensor = sliding_window_inference(image[None], sides, count, network, 0.25, mode=mode)
        return said[0, 0]

    def ours(engine: Engine) -> Tensor:
        windows, mr = image[:-1].numpy(), image[-1].numpy()
        return torch.from_numpy(apply_network(network, windows, mr, sides, 0.25, BATCH, engine).fused)

    return {
        DEFAULT: lambda: monai(1),
        GAUSSIAN: lambda: monai(1, "gaussian"),
        f"MONAI, {BATCH} tiles at once": lambda: monai(BATCH),
        "Tandem": lambda: ours("torch"),
        "Tandem, OpenVINO": lambda: ours("openvino"),
    }


if __name__ == "__main__":
    typer.run(main)
