"""The sliding window of the stage `fuse` beside MONAI's and nnU-Net's, on one network: seconds, memory, labels.

    .venv/bin/python -m benchmarks.inference OUT [--kind trunk] [--device cuda]

Prints the tables of docs/benchmarks/inference.md for one simulated patient (`inference_scenes.py`), whom the network
has not learned from. OUT keeps the network's weights, so that a second call need not train. On a processor the seconds
are one thread's own, and the clock's ratio stands beside; on CUDA they are the clock's. nnU-Net is measured where it is
installed (`pip install nnunetv2`).
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
import typer
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.inference_scenes import GRIDS, Scene, scene, trained_network
from pipeline.fusion.network import FusionNet
from pipeline.fusion.tiles import Grid, TiledInferer
from pipeline.inference.engine import Engine
from pipeline.simulation.head import load_head_template

#: The patient that is measured.
SEED = 100
DEFAULT = "MONAI, overlap .25, constant (its default)"
OPENVINO = "OpenVINO"


class Answer(NamedTuple):
    """Voxel logits (labels, I, J, K) and of how many tiles."""

    logits: Tensor
    tiles: int


Way = Callable[[], Answer]


class Measured(NamedTuple):
    """Of one way: processor (or CUDA) seconds and the clock's of every repeat, tiles, labels in the body (I, J, K)."""

    seconds: list[float]
    clock: list[float]
    tiles: list[int]
    labels: list[Tensor]


def main(  # noqa: PLR0913 - each is an option of the command
    out: Path,
    kind: str = "head",
    width: int = 8,
    levels: int = 4,
    patch: int = 32,
    steps: int = 210,
    batch: int = 4,
    repeats: int = 3,
    device: str = "cpu",
    match: str = "",
    memory: bool = True,
    only: str = "",
) -> None:
    """Measure MONAI's default and the ways that match; `--only` runs one way and says how much memory it took."""
    torch.set_num_threads(1)
    network = trained_network(out / f"model_{width}_{levels}_{patch}.pt", width, levels, patch, steps).to(device)
    kept = out / f"{kind}.pt"
    if not kept.exists():
        torch.save(tuple(scene_of_patient(kind)), kept)
    patient = SceneTensors(*torch.load(kept, weights_only=True))
    ways = ways_of(network, patient, patch, batch, device)
    if only:
        print(f"MiB {peak_mib(ways[only], device):.0f}")
        return
    print(about(kind, patient, patch, batch, device))
    print(f"The network has {sum(item.numel() for item in network.parameters()) / 1e6:.1f} million parameters.\n")
    ways = {name: way for name, way in ways.items() if name == DEFAULT or re.search(match, name)}
    measured = measure(ways, patient, repeats, device)
    mib = {name: memory_of(name, sys.argv[1:]) if memory else "" for name in ways}
    print_ways(measured, mib, patient)
    print_floors(network, patch, device, measured)


class SceneTensors(NamedTuple):
    """Image (1, 2, I, J, K), body mask (1, 1, I, J, K), truth (I, J, K)."""

    image: Tensor
    body: Tensor
    truth: Tensor


def scene_of_patient(kind: str) -> SceneTensors:
    """The patient that is measured."""
    made: Scene = scene(kind, SEED, load_head_template())
    return SceneTensors(made.image, made.body, made.truth)


def about(kind: str, patient: SceneTensors, patch: int, batch: int, device: str) -> str:
    """What is measured, in a sentence."""
    shape = tuple(patient.truth.shape)
    places = patient.body[0, 0].nonzero()
    box = (places.amax(0) - places.amin(0) + 1).tolist()
    return (
        f"{kind}: {' x '.join(map(str, shape))} voxels of {GRIDS[kind][1]:g} mm, tiles of {patch}^3, {batch} at once; "
        f"the body fills {float(patient.body.float().mean()):.0%} of the image, its box ({' x '.join(map(str, box))}) "
        f"{torch.tensor(box).prod() / patient.truth.numel():.0%}. {device}, torch {torch.__version__}.\n"
    )


def ways_of(network: FusionNet, patient: SceneTensors, patch: int, batch: int, device: str) -> dict[str, Way]:
    """What is compared, by name."""
    image, body = patient.image.to(device), patient.body.to(device)

    def monai(overlap: float, mode: str = "gaussian") -> Way:
        @torch.no_grad()
        def look() -> Tensor:
            logits: Tensor = sliding_window_inference(image, (patch,) * 3, batch, network, overlap, mode=mode)[0]
            return logits

        return counted(look, network)

    def ours(overlap: float, grid: Grid = "image", bfloat16: bool = False, engine: Engine = "torch") -> Way:
        inferer = TiledInferer((patch,) * 3, overlap, batch, bfloat16_on_cpu=bfloat16, grid=grid, engine=engine)

        def run() -> Answer:
            found = inferer.tiles(image[0], network, inside=body[0, 0])
            return Answer(found.voxels, len(found.boxes))

        return run

    ways = {
        DEFAULT: monai(0.25, "constant"),
        "MONAI, overlap .25, gaussian": monai(0.25),
        "MONAI, overlap .5, gaussian": monai(0.5),
        "Tandem, overlap .25, body": ours(0.25),
        "Tandem, overlap .25, body, bfloat16": ours(0.25, bfloat16=True),
        "Tandem, overlap .25, body's own grid": ours(0.25, "body"),
        "Tandem, overlap .5, body": ours(0.5),
        "Tandem, overlap .5, body's own grid": ours(0.5, "body"),
    }
    if device == "cpu":
        ways |= {
            f"Tandem, overlap .25, body, {OPENVINO}": ours(0.25, engine="openvino"),
            f"Tandem, overlap .25, body, {OPENVINO}, bfloat16": ours(0.25, bfloat16=True, engine="openvino"),
            f"Tandem, overlap .5, body, {OPENVINO}": ours(0.5, engine="openvino"),
            f"Tandem, overlap .5, body, {OPENVINO}, bfloat16": ours(0.5, bfloat16=True, engine="openvino"),
        }
    if predictor := nnunet(network, patch, device):
        ways["nnU-Net, overlap .5, gaussian (its default), not mirrored"] = counted(
            lambda: predictor(image[0].cpu()).to(device), network
        )
    return ways


def counted(look: Callable[[], Tensor], network: FusionNet) -> Way:
    """A peer's way, whose tiles are counted where they enter the network."""

    def run() -> Answer:
        seen: list[int] = []
        hook = network.encoders[0].register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
        logits = look()
        hook.remove()
        return Answer(logits, sum(seen))

    return run


def nnunet(network: FusionNet, patch: int, device: str) -> Callable[[Tensor], Tensor] | None:
    """nnU-Net's predictor with this network set by hand; None, and a line that says so, where it is not installed."""
    try:
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    except ImportError:
        print("nnU-Net is not installed (pip install nnunetv2): not measured.\n")
        return None
    predictor: Any = nnUNetPredictor(
        use_mirroring=False,
        perform_everything_on_device=device != "cpu",
        device=torch.device(device),
        allow_tqdm=False,
    )
    predictor.network = network
    predictor.configuration_manager = SimpleNamespace(patch_size=(patch,) * 3)
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=network.labels)
    run: Callable[[Tensor], Tensor] = predictor.predict_sliding_window_return_logits
    return run


def measure(ways: dict[str, Way], patient: SceneTensors, repeats: int, device: str) -> dict[str, Measured]:
    """Run every way in turn, so that what else the machine does falls on all of them."""
    measured = {name: Measured([], [], [], []) for name in ways}
    next(iter(ways.values()))()  # the first call of all sets up the kernels
    for name in (name for name in ways if OPENVINO in name):
        started = time.perf_counter()
        ways[name]()
        print(f"{name}: the first image, for which the network is compiled, {time.perf_counter() - started:.1f} s.\n")
    for _ in range(repeats):
        for name, way in ways.items():
            started, clock = own_seconds(device), time.perf_counter()
            answer = way()
            found = measured[name]
            found.seconds.append(own_seconds(device) - started)
            found.clock.append(time.perf_counter() - clock)
            found.tiles[:], found.labels[:] = [answer.tiles], [answer.logits.argmax(0).cpu() * patient.body[0, 0]]
    return measured


def own_seconds(device: str) -> float:
    """The process's own time, which says the same on a busy machine as on an idle one; on CUDA the clock's."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def peak_mib(way: Way, device: str) -> float:
    """How much more memory than before a way takes at its peak: of the process, or of CUDA's allocator."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        way()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
    before_kib = _status_kib("VmRSS")
    way()
    return (_status_kib("VmHWM") - before_kib) / 2**10


def _status_kib(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    if found is None:
        raise RuntimeError(f"Expected {field} in /proc/self/status.")
    return int(found[1])


def memory_of(name: str, arguments: list[str]) -> str:
    """MiB of a way in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.inference", *arguments, "--only", name],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split("MiB ")[1].strip()


def print_ways(measured: dict[str, Measured], mib: dict[str, str], patient: SceneTensors) -> None:
    """The table of ways."""
    print("| way | tiles | seconds | times MONAI's default (clock) | Dice beside MONAI | Dice, truth | peak MiB |")
    print("|---|---|---|---|---|---|---|")
    base = measured[DEFAULT]
    for name, found in measured.items():
        same = measured.get(f"MONAI, overlap {'.5' if 'overlap .5' in name else '.25'}, gaussian", base)
        seconds, ratio, clock = (
            statistics.median(found.seconds),
            statistics.median(base.seconds) / statistics.median(found.seconds),
            statistics.median(base.clock) / statistics.median(found.clock),
        )
        beside, true = (dice(found.labels[0], other) for other in (same.labels[0], patient.truth))
        print(f"| {name} | {found.tiles[0]} | {seconds:.2f} | {ratio:.2f} ({clock:.2f}) ", end="")
        print(f"| {beside:.4f} | {true:.4f} | {mib[name]} |")


def print_floors(network: FusionNet, patch: int, device: str, measured: dict[str, Measured]) -> None:
    """What the device can do at best, measured here, and how near to it each way comes."""
    dtypes = [torch.float32, torch.bfloat16]
    print(f"\n| {device} | matrix product, TFLOP/s | convolution, TFLOP/s | copy, GB/s |")
    print("|---|---|---|---|")
    rates = {dtype: (matmul_rate(device, dtype), convolution_rate(device, dtype)) for dtype in dtypes}
    copied = copy_rate(device)
    for dtype, (product, convolution) in rates.items():
        print(f"| {str(dtype).removeprefix('torch.')} | {product / 1e12:.3f} | {convolution / 1e12:.3f} ", end="")
        print(f"| {copied / 1e9:.1f} |")
    flops, values = work_of(network, patch, device)
    print(f"\nA tile: {flops / 1e9:.2f} GFLOP; its layers read and write {values / 1e6:.0f} million values.\n")
    print("| way | share of the floor: matrix product | convolution | memory |")
    print("|---|---|---|---|")
    for name, found in measured.items():
        short = "bfloat16" in name or (device != "cpu" and not name.startswith("MONAI"))
        product, convolution = rates[torch.bfloat16 if short else torch.float32]
        seconds, tiles = statistics.median(found.seconds), found.tiles[0]
        moved = values * (2 if short else 4) / copied
        print(f"| {name} | {flops * tiles / product / seconds:.0%} ", end="")
        print(f"| {flops * tiles / convolution / seconds:.0%} | {moved * tiles / seconds:.0%} |")


def work_of(network: FusionNet, patch: int, device: str) -> tuple[int, int]:
    """Of a tile: floating point operations, and how many values its layers read and write."""
    moved: list[int] = []

    def count(_: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        moved.append(sum(item.numel() for item in (*given, made) if isinstance(item, Tensor)))

    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(count) for module in leaves]
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, len(network.modalities), patch, patch, patch, device=device))
    for hook in hooks:
        hook.remove()
    return counter.get_total_flops(), sum(moved)


def matmul_rate(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of a product of two square matrices."""
    side = 1024 if device == "cpu" else 8192
    first = torch.ones(side, side, device=device, dtype=dtype)
    return 2 * side**3 / best_seconds(lambda: first @ first, device)


def convolution_rate(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of a 3 x 3 x 3 convolution of 64 channels, channels last."""
    side = 32 if device == "cpu" else 128
    layer = nn.Conv3d(64, 64, 3, padding=1, bias=False, device=device, dtype=dtype)
    layer = layer.to(memory_format=torch.channels_last_3d)
    image = torch.ones(1, 64, side, side, side, device=device, dtype=dtype)
    image = image.contiguous(memory_format=torch.channels_last_3d)
    return 2 * 27 * 64 * 64 * side**3 / best_seconds(lambda: layer(image), device)


def copy_rate(device: str) -> float:
    """Bytes a second, read and written, of a copy that no cache holds."""
    source = torch.ones(2**27 if device == "cpu" else 2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / best_seconds(lambda: target.copy_(source), device)


@torch.inference_mode()
def best_seconds(work: Callable[[], Tensor], device: str, repeats: int = 10) -> float:
    """The least time that some work takes."""
    work()
    times = []
    for _ in range(repeats):
        started = own_seconds(device)
        work()
        times.append(own_seconds(device) - started)
    return min(times)


def dice(first: Tensor, second: Tensor) -> float:
    """Dice of the foreground of two label images."""
    both = int((first > 0).sum()) + int((second > 0).sum())
    return 2 * int(((first > 0) & (second > 0)).sum()) / max(1, both)


if __name__ == "__main__":
    typer.run(main)
