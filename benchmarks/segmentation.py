"""`tandem segment` beside nnU-Net's own `nnUNetv2_predict`: the same weights, the same images, whole processes.

    TANDEM_DATA=… python -m benchmarks.segmentation OUT MODEL            # MODEL: of benchmarks.hippocampus
    TANDEM_DATA=… python -m benchmarks.segmentation OUT MODEL --large    # one image of 256^3 voxels, 24 labels

Seconds are those of the processor, of the whole process and all that it starts, on one core; memory is the largest sum
over these processes of what each holds alone and its share of what several hold (Pss). nnU-Net runs at its defaults,
with pools of three processes to preprocess and to export.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import nibabel as nib
import numpy as np
import torch
import typer
from scipy import ndimage

from pipeline.console import echo
from pipeline.segmentation.model import build_network, load_model
from pipeline.segmentation.weights import CHECKPOINT, describe, load_checkpoint, write_lean
from pipeline.segmentation.workspace import TRAINER

PACK = ("udacity_hippocampus", "data", "TrainingSet", "images")
PREDICT = "from nnunetv2.inference.predict_from_raw_data import predict_entry_point_modelfolder as run; run()"
LABELS, SIDE, SPACING_MM = 24, 256, 0.8
WAYS = {
    "torch": (),
    "OpenVINO": ("--engine", "openvino"),
    "OpenVINO, bfloat16": ("--engine", "openvino", "--bfloat16"),
}


@dataclass(frozen=True)
class Cost:
    """Of a process and all that it starts: seconds of the processor and of the clock, and the peak of its memory."""

    processor_s: float
    clock_s: float
    peak_mib: float


def main(
    out: Path,
    model: Annotated[Path, typer.Argument(help="A trained model of one channel.")],
    images: Annotated[int, typer.Option(help="Hippocampi.")] = 20,
    large: Annotated[bool, typer.Option("--large", help="One large image with many labels instead.")] = False,
    mirror: Annotated[bool, typer.Option("--mirror", help="With mirror images, along all axes.")] = False,
    side: Annotated[int, typer.Option(help="Voxels along each side of the large image.")] = SIDE,
) -> None:
    """Print what each way costs, and how many times less than nnU-Net's own."""
    shutil.rmtree(out, ignore_errors=True)
    folder = _images(out / "images", images) if not large else _large(out / "images", side)
    used = _model(model, out / "model", LABELS if large else 0, mirror)
    theirs = ["-i", folder, "-o", out / "nnunet", "-m", used, "-f", "0", "-device", "cpu"]
    flags = [] if mirror else ["--disable_tta"]
    first = measured([sys.executable, "-c", PREDICT, *theirs, *flags])
    echo(f"nnUNetv2_predict: {_words(first)}")
    for name, options in WAYS.items():
        target = out / name.replace(", ", "_")
        command = [sys.executable, "-m", "pipeline.cli", "segment", "-i", folder, "-m", used, "-o", target]
        cost = measured([*command, "--keep-names", "--no-dicom-seg", *([] if mirror else ["--no-mirroring"]), *options])
        ratio = f"{first.processor_s / cost.processor_s:.1f} times, {cost.peak_mib / first.peak_mib:.2f} of the memory"
        echo(f"Tandem, {name}: {_words(cost)}; {ratio}; labels' Dice {_dice(out / 'nnunet', target):.4f}")


def measured(command: Sequence[object]) -> Cost:
    """Run a command on one core, and look at it ten times a second."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    core = min(os.sched_getaffinity(0))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "nnUNet_extTrainer": _trainers()}
    process = subprocess.Popen(
        list(map(str, command)),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    with _watched(process.pid) as peak:
        _, words = process.communicate()
    if process.returncode:
        raise SystemExit(words.decode()[-2000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(used, time.perf_counter() - begun, max(peak) / 1024)


@contextmanager
def _watched(session: int) -> Iterator[list[int]]:
    """The memory of a session's processes (kB), sampled while the block runs."""
    found, ended = [0], threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            found.append(sum(map(_pss_kb, _of_session(session))))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def _of_session(session: int) -> Iterator[Path]:
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if int((path / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                yield path
        except OSError:  # it has ended
            continue


def _pss_kb(process: Path) -> int:
    try:
        lines = (process / "smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    except (OSError, StopIteration):  # it has ended
        return 0


def _trainers() -> str:
    import pipeline.segmentation

    return str(Path(pipeline.segmentation.__file__).parent / "trainers")


def _images(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for path in sorted(Path(os.environ["TANDEM_DATA"]).joinpath(*PACK).glob("*.nii.gz"))[:count]:
        shutil.copyfile(path, folder / path.name.replace(".nii.gz", "_0000.nii.gz"))
    return folder


def _large(folder: Path, side: int) -> Path:
    """Smooth noise from a seed, in voxels of another size than the model's."""
    folder.mkdir(parents=True)
    coarse = np.random.default_rng(0).normal(size=(side // 8,) * 3)
    image = ndimage.zoom(coarse, 8, order=1).astype(np.float32) * 100 + 500
    nib.save(nib.Nifti1Image(image, np.diag([SPACING_MM] * 3 + [1.0])), folder / "large_0000.nii.gz")
    return folder


def _model(source: Path, folder: Path, labels: int, mirror: bool) -> Path:
    """A copy of the model's first fold; with `labels`, of random weights for so many."""
    model, fold = load_model(source), source / "fold_0" / CHECKPOINT
    dataset, found = dict(model.dataset), load_checkpoint(fold)
    if labels:
        dataset["labels"] = {"background": 0, **{f"label_{number}": number for number in range(1, labels + 1)}}
        torch.manual_seed(0)
        network = build_network(model.plans, model.configuration, dataset)
        found["network_weights"] = network.state_dict()
    found |= {"trainer_name": TRAINER, "inference_allowed_mirroring_axes": (0, 1, 2) if mirror else None}
    (folder / "fold_0").mkdir(parents=True)
    write_lean(found, folder / "fold_0" / CHECKPOINT)
    (folder / "dataset.json").write_text(json.dumps(dataset))
    shutil.copyfile(source / "plans.json", folder / "plans.json")
    describe(folder)
    return folder


def _dice(theirs: Path, ours: Path) -> float:
    """Mean over the cases of the Dice of all that is labelled, label by label."""
    scores = []
    for path in sorted(theirs.glob("*.nii.gz")):
        a, b = (np.asarray(nib.load(item).dataobj) for item in (path, ours / path.name))
        scores.append(2 * float(((a == b) & (a > 0)).sum()) / max(1, int((a > 0).sum() + (b > 0).sum())))
    return float(np.mean(scores))


def _words(cost: Cost) -> str:
    return f"{cost.processor_s:.1f} s of the processor, {cost.clock_s:.1f} s of the clock, {cost.peak_mib:.0f} MiB"


if __name__ == "__main__":
    typer.run(main)
