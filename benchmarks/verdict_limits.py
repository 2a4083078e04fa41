"""On what some limits of the verdict were set: bodies in PET, headers against images, slices reversed or mirrored.

    TANDEM_DATA=… python -m benchmarks.verdict_limits --scratch DIR

Writes docs/benchmarks/verdict-limits.md. What was measured is kept in the scratch folder: a second run goes on where
the first ended.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from monai.data import MetaTensor

from benchmarks.real_pairs import read_image
from benchmarks.simulated_pairs import SimulatedPair, head, pair_of
from benchmarks.verdict import share
from benchmarks.verdict_trials import near
from pipeline.body import body_mask
from pipeline.registration import RegistrationSettings, Side, method
from pipeline.registration.findings import AlignmentLimits
from pipeline.registration.quality import Pair
from pipeline.registration.register import register
from pipeline.shipped import shipped
from pipeline.volumes import affine_of, volume

PAGE = shipped("docs", "benchmarks", "verdict-limits.md")
LIMITS = AlignmentLimits()
#: Seeds and numbers of the heads; the limit was set on the first two.
HEADS = ((101, 0), (101, 1), (101, 3), (202, 0))
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
CONTRASTS = (("ct", "ct"), ("ct", "t1"), ("t1", "t2"), ("ct", "t2"))
Row = dict[str, Any]


def main(
    scratch: Annotated[Path, typer.Option(help="Where simulated heads and measurements are kept.")],
    page: Annotated[Path, typer.Option(help="The page to write.")] = PAGE,
) -> None:
    """Measure, and write the page."""
    scratch.mkdir(parents=True, exist_ok=True)
    data = Path(os.environ["TANDEM_DATA"])
    parts = [
        text_of_bodies(kept(scratch / "bodies.jsonl", bodies(data / "sts_fusion_lowres"))),
        text_of_headers(kept(scratch / "headers.jsonl", headers(data / "sts_nifti"))),
        text_of_slices(kept(scratch / "slices.jsonl", slices(scratch / "heads"))),
    ]
    made = "Made by `python -m benchmarks.verdict_limits --scratch DIR`."
    page.write_text("\n\n".join(["# Limits of the verdict", made, *parts]) + "\n", encoding="utf-8")


Jobs = Iterator[tuple[str, Callable[[], Row]]]


def kept(path: Path, jobs: Jobs) -> list[Row]:
    """What the jobs measure, by name; what the file holds is not measured again."""
    known = {row["name"]: row for row in map(json.loads, path.read_text().splitlines())} if path.is_file() else {}
    found = []
    for name, job in jobs:
        if name not in known:
            known[name] = {"name": name, **job()}
            with path.open("a") as file:
                file.write(json.dumps(known[name]) + "\n")
            print(known[name], flush=True)
        found.append(known[name])
    return found


# ---- bodies in PET ---------------------------------------------------------------------------------------------------


def bodies(folder: Path) -> Jobs:
    """Of each patient: Dice of the bodies that PET and CT of one scan show, and SUVmax."""

    def job(case: Path) -> Row:
        ct, pet = read_image(case / "CT.nii.gz"), read_image(case / "PET_SUVx100.nii.gz")
        one, two = (body_mask(image, name).numpy()[0] > 0 for image, name in ((ct, "CT"), (pet, "PT")))
        return {"dice": float(2 * (one & two).sum() / (one.sum() + two.sum())), "suv_max": float(pet.max()) / 100}

    for case in sorted(path for path in folder.iterdir() if path.is_dir()):
        yield case.name, partial(job, case)


def text_of_bodies(rows: list[Row]) -> str:
    """How near the PET's body is to the CT's."""
    dice = np.array([row["dice"] for row in rows])
    low = ", ".join(f"{row['name']} {row['dice']:.2f}" for row in sorted(rows, key=lambda row: row["dice"])[:3])
    suv = [row["suv_max"] for row in rows]
    return "\n".join(
        [
            "## The body in PET\n",
            f"PET and CT of one scan, {len(rows)} sarcoma patients at 4 mm, SUVmax {min(suv):.0f} to {max(suv):.0f}.",
            "The body in PET is what exceeds a third of the usual uptake (the median of what stands out of the air on",
            "a logarithmic scale); the body in CT what exceeds -300 HU.\n",
            f"Dice of both: smallest {dice.min():.2f}, tenth percentile {np.percentile(dice, 10):.2f}, median",
            f"{np.median(dice):.2f}. Lowest: {low}. (STS_019's PET lies two slices beside its CT.)",
            f"To pass, {LIMITS.overlap_dice_pass:g} are asked; below {LIMITS.overlap_dice_warn:g} the alignment fails.",
        ]
    )


# ---- headers against images ------------------------------------------------------------------------------------------


def headers(folder: Path) -> Jobs:
    """Of each patient: what a search says against headers that name one frame of reference."""

    def job(case: Path, modality: str, name: str) -> Row:
        ct, moving = read_image(case / "CT_image.nii.gz"), read_image(case / name)
        settings = RegistrationSettings(method("rigid", ("CT", modality), shipped("bundles", "register", "configs")))
        quality = register(Side(ct, "CT"), Side(moving, modality), settings, one_frame=True).quality
        keys = ("nmi_before", "header_conflict_mm", "header_conflict_nmi", "header_kept", "verdict")
        return {key: quality[key] for key in keys}

    for case in sorted(folder.glob("STS_*")):
        for modality, name in (("MR", "MR_T1_image.nii.gz"), ("PT", "PET_image.nii.gz")):
            yield f"{case.name} {modality}", partial(job, case, modality, name)


def text_of_headers(rows: list[Row]) -> str:
    """A row a pair."""
    lines = [
        "## Headers against images\n",
        "Sarcoma of the limbs, CT with the MR that the clinic aligned with it, and with PET of the same scan, on the",
        "headers of one frame of reference. *Gain* is the rise of NMI, counted from 1, from the headers to the pose",
        f"that the images like best; from {LIMITS.headers_gain:g} on the images are believed. Limbs lie otherwise in",
        "the MR than in the CT.\n",
        "| pair | images match best away (mm) | NMI by headers | NMI there | gain | believed | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        before, after = row["nmi_before"], row["header_conflict_nmi"]
        away = "no contradiction | " + f"{before:.4f} | - | -"
        if after is not None:
            gain = (after - 1) / (before - 1) - 1
            away = f"{row['header_conflict_mm']:.1f} | {before:.4f} | {after:.4f} | {gain:.2f}"
        lines.append(f"| {row['name']} | {away} | {'headers' if row['header_kept'] else 'images'} | {row['verdict']} |")
    return "\n".join(lines)


# ---- slices reversed or mirrored -------------------------------------------------------------------------------------


def in_part(image: MetaTensor, how: str, part: float, rng: np.random.Generator) -> MetaTensor:
    """A part of the slices (K) of a head in reversed order, or mirrored (I)."""
    values = image.numpy()[0].copy()
    shown = np.flatnonzero((values > np.percentile(values, 50) + 0.05 * np.ptp(values)).sum(axis=(0, 1)) > 50)
    first, count = int(shown[0]), int(np.ptp(shown)) + 1
    size = max(2, round(part * count))
    low = first + int(rng.integers(0, count - size + 1))
    block = values[:, :, low : low + size].copy()
    values[:, :, low : low + size] = block[:, :, ::-1] if how == "reversed" else block[::-1]
    return volume(values[None], affine_of(image))


def slices(folder: Path) -> Jobs:
    """Heads whose slices are as they were, or in part reversed or mirrored, in a pose within 1 mm of the truth."""

    def job(name: str, pair: SimulatedPair, how: str, part: float) -> Row:
        rng = np.random.default_rng(list(name.encode()))
        made = pair if how == "right" else replace(pair, moving=in_part(pair.moving, how, part, rng))
        images = zip((made.fixed, made.moving), made.modalities, strict=True)
        measured = Pair(made.fixed, made.moving, *(body_mask(image, name) for image, name in images))
        return {"how": how, "part": part, "astray": measured.astray_fraction(near(made, rng, 0.0, 1.0))}

    for seed, number in HEADS:
        for one, other in CONTRASTS:
            for how, part in (("right", 0.0), *((how, part) for how in ("reversed", "mirrored") for part in SHARES)):
                name = f"{seed} {number} {one}-{other} {how} {part:g}"
                pair = _pair(folder, seed, number, one, other)
                yield name, partial(job, name, pair, how, part)


def _pair(folder: Path, seed: int, number: int, one: str, other: str) -> SimulatedPair:
    subject = head(folder, seed, number, 3.0)
    if one != other:
        return pair_of(subject, subject, one, other)
    noise = np.random.default_rng([seed, number]).normal(0, 12, subject.images[one].shape)
    again = volume((subject.images[one].numpy() + noise).astype(np.float32), affine_of(subject.images[one]))
    made = pair_of(subject, subject, one, "t1")
    return replace(made, moving=again, modalities=("CT", "CT"), truth=np.eye(4))


def text_of_slices(rows: list[Row]) -> str:
    """How many are seen, by how many slices are astray."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["how"], row["part"]].append(row["astray"])
    seen = [astray > LIMITS.astray_pass for (_, part), found in groups.items() if part >= 0.2 for astray in found]
    lines = [
        "## Slices in reversed order, or mirrored\n",
        f"{len(HEADS)} simulated heads (CT with CT, T1 and T2; T1 with T2) in the right pose within 1 mm, with a part",
        "of the slices in reversed order or mirrored. `astray_fraction` above",
        f"{LIMITS.astray_pass:g} is a warning. Seen from a fifth on: {share(sum(seen), len(seen))}.\n",
        "| slices | part of them | pairs | warned of | `astray_fraction`: smallest, median, largest |",
        "|---|---|---|---|---|",
    ]
    for (how, part), found in groups.items():
        warned = sum(astray > LIMITS.astray_pass for astray in found)
        span = ", ".join(f"{value:.2f}" for value in (min(found), float(np.median(found)), max(found)))
        lines.append(f"| {how} | {part:.0%} | {len(found)} | {warned} | {span} |")
    more = "Both legs, and a limb along itself, look much alike: some right pairs of limbs are warned of; none fails."
    return "\n".join([*lines, "", more])


if __name__ == "__main__":
    typer.run(main)
