"""The image fusion network on a volume beside MONAI's sliding window: seconds, and how far the answers are apart.

    .venv/bin/python -m benchmarks.image_fusion_inference OUT [--write]

A network of three dimensions with random weights, on a simulated head that is written into OUT; one thread. Seconds
are the process's own, medians of interleaved repeats. `--write` puts the section into
docs/benchmarks/image-fusion-training.md.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
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
Way = Callable[[], Tensor]


def main(out: Path, tile: int = 32, batch: int = 4, repeats: int = 3, write: bool = False) -> None:
    """Measure."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = ImageFusionNet(3).eval()
    nn.init.normal_(network.head.weight, std=0.3)
    write_head_cases(out, "cases.csv", range(1), 1, SEED, SPACING_MM)
    files = {key: next(out.glob(f"*_{key}.nii.gz")) for key in ("ct", "mr")}
    image = ReadPaird(["ct", "mr"], WINDOWS)(files)["image"]
    ways = ways_of(network, image, tile, batch)
    answers = {name: way() for name, way in ways.items()}  # compiles, too
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            started = time.process_time()
            way()
            seconds[name].append(time.process_time() - started)
    text = section(image, answers, {name: statistics.median(values) for name, values in seconds.items()}, tile, batch)
    print(text)
    if write:
        write_section(PAGE, TITLE, "inference", text)


def ways_of(network: ImageFusionNet, image: Tensor, tile: int, batch: int) -> dict[str, Way]:
    """Name -> what gives the fused volume (I, J, K)."""
    sides = (tile,) * 3

    @torch.inference_mode()
    def monai(mode: str) -> Tensor:
        said: Tensor = sliding_window_inference(image[None], sides, batch, network, 0.25, mode=mode)
        return said[0, 0]

    def ours(engine: Engine) -> Tensor:
        windows, mr = image[:-1].numpy(), image[-1].numpy()
        return torch.from_numpy(apply_network(network, windows, mr, sides, 0.25, batch, engine).fused)

    return {
        "MONAI, overlap .25, constant (its default)": lambda: monai("constant"),
        "MONAI, overlap .25, gaussian": lambda: monai("gaussian"),
        "Tandem": lambda: ours("torch"),
        "Tandem, OpenVINO": lambda: ours("openvino"),
    }


def section(image: Tensor, answers: dict[str, Tensor], seconds: dict[str, float], tile: int, batch: int) -> str:
    """The table."""
    shape, shown = tuple(image.shape[1:]), (image[0] > 0) | (image[-1] > 0)
    first, alike = (answers[name] for name in list(answers)[:2])
    lines = [
        f"## On a volume\n\nA simulated head of {' x '.join(map(str, shape))} voxels of {SPACING_MM:g} mm, "
        f"{float(shown.float().mean()):.0%} of them not black; tiles of {tile}^3, {batch} at once; one thread, "
        f"torch {torch.__version__}. Differences are the largest where a source shows anything: to MONAI's default, "
        "and to it with the Gaussian weights that Tandem has, too.\n",
        "| | s | times MONAI's default | apart from it | apart from Gaussian |\n|---|---|---|---|---|",
    ]
    base = next(iter(seconds.values()))
    for name, answer in answers.items():
        apart = " | ".join(f"{float((answer - other)[shown].abs().max()):.1e}" for other in (first, alike))
        lines.append(f"| {name} | {seconds[name]:.2f} | {base / seconds[name]:.2f} | {apart} |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
