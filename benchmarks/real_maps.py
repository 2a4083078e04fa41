"""Two parameter maps on real images: PET onto CT of one scan, and the CT of a chest onto itself in another breath.

    TANDEM_DATA=… python -m benchmarks.real_maps --scratch DIR

Writes docs/benchmarks/registration-real.md. What was measured is kept in the scratch folder: a second run goes on where
the first ended.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from monai.data import MetaTensor

from benchmarks.real_pairs import RealPair, off_by, pet_pairs, read_image
from benchmarks.registration import cell
from pipeline.body import body_mask
from pipeline.errors import CaseError
from pipeline.geometry import LPS_RAS, FloatArray, apply, corners
from pipeline.registration import Registration, RegistrationSettings, Side, method, resample_image
from pipeline.registration.landmarks import solve
from pipeline.registration.register import register
from pipeline.registration.warp import Spline, Warp, as_transform
from pipeline.shipped import shipped
from pipeline.volumes import affine_of, volume

PAGE = shipped("docs", "benchmarks", "registration-real.md")
MAPS = shipped("bundles", "register", "configs")
#: How far the lung's base moves in quiet to deep breathing; 0: nothing bends. Source: Keall et al., Med Phys 33(10),
#: 2006 (AAPM TG-76), table I: the diaphragm moves by 7 to 40 mm.
BREATHS_MM = (0.0, 10.0, 20.0)
SEEDS = (1,)
CONTROL_MM, REACH_MM, NOISE_HU, LUNG_HU = 20.0, 50.0, 12.0, -500.0
#: What the table of PET says.
PET_READ_OFF = (
    "The tumour was contoured on CT and brought to PET: how far apart the centroids of both lie is a second reference.",
    "In STS_002, 008 and 031 the scanner's alignment puts them on each other, and the pose that is found lies one to",
    "two voxels of the PET (5 mm) beside it: mutual information leads there from either start, and no measure tells.",
    "So such a pose is a warning at best, and PET and CT of one scan are not to be searched: `transform: headers`",
    "keeps what the scanner knows. In STS_019 the file of the PET lies two slices beside that of the CT, as its",
    "contour says; there the pose that is found is nearer to the contour than the headers are.",
)
Row = dict[str, Any]


def main(
    data: Annotated[Path, typer.Option(envvar="TANDEM_DATA", help="The folder of real images.")],
    scratch: Annotated[Path, typer.Option(help="Where measurements are kept.")],
    most: Annotated[int, typer.Option(help="Measure at most so many new pairs in this run.")] = 1000,
) -> None:
    """Measure what is missing, and write the page."""
    scratch.mkdir(parents=True, exist_ok=True)
    pets = pet_pairs(data)
    chest = read_image(data / "ibsi_ct_phantom" / "nifti" / "image" / "phantom.nii.gz")
    work: dict[str, Callable[[], Row]] = {f"pet_{pair.name}": partial(of_pet, pair) for pair in pets}
    work |= {f"breath_{mm:g}_{seed}": partial(of_breath, chest, mm, seed) for mm in BREATHS_MM for seed in SEEDS}
    files = {name: scratch / f"{name}.json" for name in work}
    for name in [name for name, file in files.items() if not file.is_file()][:most]:
        row = work[name]()
        files[name].write_text(json.dumps(row))
        print(name, row, flush=True)
    if all(files[f"pet_{pair.name}"].is_file() for pair in pets):
        rows = {name: json.loads(file.read_text()) for name, file in files.items() if file.is_file()}
        PAGE.write_text("\n".join(text_of(rows, pets, data)), encoding="utf-8")


def registered(transform: str, fixed: MetaTensor, moving: MetaTensor, modalities: tuple[str, str]) -> Registration:
    """What the register bundle does with its defaults."""
    settings = RegistrationSettings(method(transform, modalities, MAPS))
    return register(Side(fixed, modalities[0]), Side(moving, modalities[1]), settings)


# ---- PET onto CT -----------------------------------------------------------------------------------------------------


def of_pet(pair: RealPair) -> Row:
    """PET, started off the scanner's alignment, brought onto CT."""
    row: Row = {"reference": pair.errors_mm(pair.disturbed @ pair.reference)}
    start = pair.errors_mm(np.eye(4))[pair.measures[0]]
    try:
        found = registered("rigid", pair.fixed, pair.moving, pair.modalities)
    except CaseError as error:
        return {**row, "start_mm": start, "errors": {}, "verdict": error.code, "reason": error.message}
    quality = found.quality
    shown = {name: quality[name] for name in ("verdict", "reason", "start_disagreement_mm")}
    pose = pair.undisturbed(found.warp.matrix)
    return {**row, "start_mm": start, "errors": pair.errors_mm(found.warp.matrix), "pose": pose.tolist(), **shown}


def contours_apart_mm(folder: Path, pose: FloatArray) -> float:
    """How far the tumour's contour on CT lies from that on PET, by their centroids: a second reference."""
    files = (read_image(folder / f"{name}_mask.nii.gz") for name in ("CT", "PET"))
    ct, pet = (apply(affine_of(mask), np.argwhere(mask.numpy()[0] > 0)).mean(axis=0, keepdims=True) for mask in files)
    return float(np.linalg.norm(apply(pose, ct) - pet))


def pet_lines(rows: dict[str, Row], pairs: list[RealPair], data: Path) -> list[str]:
    """The table of PET, a row for each patient: from the smaller to the larger of the two starts."""
    measures = pairs[0].measures
    lines = [f"## {pairs[0].title} (`rigid_pet_ct`)", "", *pairs[0].about, ""]
    lines += [*PET_READ_OFF, ""]
    lines += [f"| pair | {' | '.join(measures)} | contours apart (mm) | between the starts (mm) | verdicts |"]
    lines += ["|---|" + "---|" * (len(measures) + 3)]
    for group in dict.fromkeys(pair.group for pair in pairs):
        own = [(pair, rows[f"pet_{pair.name}"]) for pair in pairs if pair.group == group]
        folder = data / "sts_nifti" / group
        known = [cell([row["reference"].get(measure) for _, row in own[:1]]) for measure in measures]
        lines.append(
            f"| {group}, reference | {' | '.join(known)} | {contours_apart_mm(folder, np.eye(4)):.2f} | - | - |"
        )
        cells = [cell([row["errors"].get(measure) for _, row in own]) for measure in measures]
        told = cell([contours_apart_mm(folder, np.array(row["pose"])) for _, row in own if "pose" in row])
        points = own[0][0].points[measures[0]]
        ends = [apply(np.array(row["pose"]), points) for _, row in own if "pose" in row]
        apart = [max(float(np.linalg.norm(a - b, axis=1).mean()) for a in ends for b in ends)] if len(ends) > 1 else []
        verdicts = ", ".join(row["verdict"] for _, row in own)
        lines.append(f"| {group}, found | {' | '.join(cells)} | {told} | {cell([*apart])} | {verdicts} |")
    return [*lines, ""]


# ---- a chest in another breath ---------------------------------------------------------------------------------------


def breath(ct: MetaTensor, amplitude_mm: float, seed: int) -> Warp:
    """The movement of a breath: most at the lung's base, none at the top of the image and at the body's wall.

    The image in the other breath shows at y what the CT shows at `warp(y)`, which lies above and behind: what is seen
    has moved down, and by a third of that to the front.
    """
    ends = apply(LPS_RAS, corners(ct.shape, affine_of(ct)))
    low, high = ends.min(axis=0), ends.max(axis=0)
    origin = low - 3 * CONTROL_MM
    size = np.ceil((high - low) / CONTROL_MM).astype(int) + 7
    points = origin + CONTROL_MM * np.indices(size[::-1]).reshape(3, -1)[::-1].T
    centre = (low + high)[:2] / 2 + np.random.default_rng(seed).uniform(-25, 25, 2)
    depth = np.clip((high[2] - points[:, 2]) / (high[2] - low[2]), 0, 1)
    near = np.exp(-((points[:, :2] - centre) ** 2).sum(axis=1) / (2 * REACH_MM**2))
    along_z = amplitude_mm * near * (1 - np.cos(np.pi * depth)) / 2
    numbers = np.stack([np.zeros_like(along_z), along_z / 3, along_z])
    fixed = np.array([*size, *origin, *[CONTROL_MM] * 3, *np.eye(3).ravel()])
    return Warp(np.eye(4), Spline(fixed, numbers.ravel()))


def of_breath(ct: MetaTensor, amplitude_mm: float, seed: int) -> Row:
    """The chest, bent and noisy and off by a rigid pose, onto itself: errors where the lungs and where the body is."""
    rng = np.random.default_rng([seed, int(amplitude_mm)])
    warp = breath(ct, amplitude_mm, seed)
    bent = resample_image(ct, ct, as_transform(warp.transforms), -1000.0).numpy()
    off = off_by(rng, corners(ct.shape, affine_of(ct)).mean(axis=0))
    noisy = (bent + rng.normal(0, NOISE_HU, bent.shape)).astype(np.float32)
    moving = volume(noisy, off @ affine_of(ct))
    body = body_mask(ct, "CT").numpy()[0] > 0
    lungs = body & (ct.numpy()[0] < LUNG_HU)
    back = as_transform(warp.inverse(ct))
    row: Row = {"errors": {}}
    try:
        found = registered("bspline", ct, moving, ("CT", "CT"))
    except CaseError as error:
        return {**row, "verdict": error.code, "reason": error.message}
    for where, region in (("lungs", lungs), ("body", body)):
        points = apply(affine_of(ct), np.argwhere(region)[::53].astype(np.float64))
        inside = apply(LPS_RAS, [back.TransformPoint(p.tolist()) for p in apply(LPS_RAS, points)])
        targets = apply(off, inside)
        ways: dict[str, Callable[[FloatArray], FloatArray]] = {
            "rigid": Warp(solve(points, targets, "rigid")),
            "affine": Warp(solve(points, targets, "affine")),
            "found": found.warp,
        }
        row["errors"][where] = {name: summary(way(points) - targets) for name, way in ways.items()}
        row["errors"][where]["moved"] = summary(inside - points)
    names = ("verdict", "reason", "transform", "folding_fraction", "inverse_error_mm", "local_shift_mm")
    return {**row, **{name: found.quality.get(name) for name in names}}


def summary(apart: FloatArray) -> list[float]:
    """Mean and 95th percentile of lengths, mm."""
    lengths = np.linalg.norm(apart, axis=1)
    return [float(lengths.mean()), float(np.percentile(lengths, 95))]


def breath_lines(rows: dict[str, Row]) -> list[str]:
    """The table of breaths."""
    lines = [
        "## A chest in another breath (`bspline_ct_ct_thorax`)",
        "",
        "The CT of half a chest (the IBSI phantom, a patient with a lung tumour) onto itself, bent by a known field:",
        "down, and a third of it to the front, most at the lung's base, dying away to the top and round its middle",
        f"(a bell of {REACH_MM:g} mm); with noise of {NOISE_HU:g} HU of its own, and 5-10 mm and 5-10° off. No pair of",
        "real breaths is at hand: lungs that slide along their wall and change their density are not in this.",
        "Target registration errors in mm, mean and 95th percentile; *best* is the least-squares rigid or affine map",
        "to the true field itself, which no such registration can beat.",
        "",
        "| base moves by (mm), field | where | moved by | best rigid | best affine | found | kept | verdict |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for mm in BREATHS_MM:
        for seed in SEEDS:
            row = rows.get(f"breath_{mm:g}_{seed}", {"errors": {}, "verdict": "not measured"})
            for where, errors in row["errors"].items():
                names = ("moved", "rigid", "affine", "found")
                cells = " | ".join(f"{errors[name][0]:.2f}, {errors[name][1]:.2f}" for name in names)
                lines.append(f"| {mm:g}, {seed} | {where} | {cells} | {row['transform']} | {row['verdict']} |")
            if not row["errors"]:
                lines.append(f"| {mm:g}, {seed} | - | - | - | - | - | - | {row['verdict']} |")
    return [*lines, ""]


def text_of(rows: dict[str, Row], pairs: list[RealPair], data: Path) -> list[str]:
    """The whole page."""
    head = ["# Two parameter maps on real images", "", "Made by `python -m benchmarks.real_maps --scratch DIR`.", ""]
    reasons = [f"- {name}: {row['reason']}" for name, row in rows.items() if row["verdict"] != "pass"]
    told = ["## What the verdicts say that are no pass", "", *reasons, ""] if reasons else []
    return [*head, *pet_lines(rows, pairs, data), *breath_lines(rows), *told]


if __name__ == "__main__":
    typer.run(main)
