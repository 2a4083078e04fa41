"""A cohort of streams by one command beside a shell loop of bundles, and the memory it takes."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
import yaml

from benchmarks.batch import Taken, by_hand, taken
from benchmarks.segmentation_report import markdown_table
from pipeline.fusion.checkpoint_file import Preparation
from pipeline.fusion.stream_net import StreamNet
from pipeline.learning.checkpoint_file import PREPARATION, TRAINING_CASES, write_checkpoint
from pipeline.run.plan import STREAMS
from pipeline.shipped import shipped
from pipeline.spec.spec import load_spec
from pipeline.spec.streams import plain_streams
from tests.phantoms.streams.files import CLASSES, FOUR_CLASSES, write_four_classes

CASES, LOOP_CASES = 200, 3
SPEC = shipped("data_specs", "ct_cxr_cough.yaml")
STAGES = ("ingest", "fuse")
RATIO, PEAK_MB = 10, 2048


def section(out: Path) -> str:
    """Simulate, run both ways, and say what they took, as Markdown."""
    if out.is_dir():  # a run that is resumed would be no measure
        shutil.rmtree(out)
    os.environ["TANDEM_HOME"] = str(out / "home")
    write_four_classes(out / "cases", (CASES, len(CLASSES), len(CLASSES)), pairing="patient")
    spec = write_spec(out)
    root = out / "cases" / "train"
    command = [sys.executable, "-m", "pipeline.cli", "run", str(root), "--out", str(out / "run"), "--spec", str(spec)]
    whole = taken(CASES, [*command, "--stages", ",".join(STAGES), "--jobs", "1"])
    names = sorted(path.stem for path in (root / next(iter(FOUR_CLASSES))).glob("*/*"))[:LOOP_CASES]
    commands = [
        command
        for name in names
        for command in by_hand(
            alone(root, out / "hand" / name / "in", name), out / "hand" / name / "out", spec, STAGES, {"fuse": STREAMS}
        )
    ]
    loop = taken(LOOP_CASES, *commands)
    return described(whole, loop)


def write_spec(out: Path) -> Path:
    """The shipped spec with a network that has learned nothing: what it says does not matter here."""
    torch.manual_seed(0)
    streams = load_spec(SPEC).streams
    sizes = {name: list(stream.size) for name, stream in streams.items()}
    made = StreamNet(sizes, len(CLASSES)).eval()
    plain = plain_streams(streams)
    preparation = Preparation(list(sizes), [], [40, 400], [sum(map(int, map(np.prod, sizes.values())))], streams=plain)
    write_checkpoint(out / "model.pt", made, {TRAINING_CASES: [], PREPARATION: preparation.to_plain()})
    content = yaml.safe_load(SPEC.read_text(encoding="utf-8"))
    content["fuse"] = {"weights": str(out / "model.pt"), "class_names": [name.lower() for name in CLASSES]}
    path = out / "spec.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def alone(root: Path, folder: Path, name: str) -> Path:
    """A tree with the files of one case."""
    for path in sorted(root.glob(f"*/*/{name}.*")):
        (folder / path.relative_to(root)).parent.mkdir(parents=True)
        shutil.copy(path, folder / path.relative_to(root))
    return folder


def described(whole: Taken, loop: Taken) -> str:
    """The figures as Markdown."""
    ratio = loop.a_case / whole.a_case
    rows = [
        (name, str(item.cases), f"{item.a_case:.2f}", f"{item.on_processors / item.cases:.2f}", f"{item.parent_mb:.0f}")
        for name, item in {"`tandem run --jobs 1`": whole, "shell loop of bundles": loop}.items()
    ]
    targets = [
        (f"{RATIO} times the throughput of the loop", f"{ratio:.0f} ×", "yes" if ratio >= RATIO else "no"),
        ("peak of 2 GB at most", f"{whole.parent_mb:.0f} MB", "yes" if whole.parent_mb <= PEAK_MB else "no"),
    ]
    return "\n\n".join(
        [
            "## A cohort of streams",
            f"{CASES} simulated patients with a slice, a radiograph and a cough through {' and '.join(STAGES)} by one "
            f"command, and {LOOP_CASES} of them by `python -m monai.bundle run` for each case and stage; the network "
            "of `ct_cxr_cough` at its width, which has learned nothing.",
            markdown_table(("way", "cases", "a case, s", "on processors, s", "peak, MB"), rows),
            markdown_table(("target", "figure", "met"), targets),
        ]
    )
