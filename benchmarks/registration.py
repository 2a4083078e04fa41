"""Rigid registration against other libraries: error, success, seconds and memory.

    TANDEM_DATA=... .venv/bin/python -m benchmarks.registration --scratch /tmp/bench [--spacing-mm 2]

Writes docs/benchmarks/registration.md. Every registration runs in a process of its own (`registration_peers.py`). What
was measured is kept in the scratch folder: a second run measures what is missing, and writes the page.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.real_pairs import RealPair, ms_pairs, sts_pairs
from benchmarks.registration_peers import METHODS
from benchmarks.simulated_pairs import SimulatedPair, head, pair_of, target_error_mm
from pipeline.geometry import apply
from pipeline.shipped import shipped
from pipeline.volumes import affine_of

PAGE = shipped("docs", "benchmarks", "registration.md")
SEED = 303
#: Angle about each axis, shift along each axis, what counts as a success (mean target registration error).
MISALIGNED = {"near": (10.0, 15.0, 0.3), "far": (35.0, 50.0, 0.5)}
NAMES = {
    "tandem": "Tandem",
    "elastix_default": "elastix, default rigid map",
    "simpleitk": "SimpleITK ImageRegistrationMethod",
    "ants": "ANTsPy, Rigid",
}
TIMEOUT_S = 600
Row = dict[str, Any]


def main(
    scratch: Annotated[Path, typer.Option(help="Where simulated heads and measurements are kept.")],
    spacing_mm: Annotated[float, typer.Option(min=1, max=6)] = 2.0,
    cases: Annotated[int, typer.Option(min=1, help="Simulated pairs of each misalignment.")] = 8,
    sets: Annotated[str, typer.Option(help="Some of near, far, ms, sts.")] = "near,far,ms,sts",
    data: Annotated[Path | None, typer.Option(envvar="TANDEM_DATA", help="The folder of real images.")] = None,
    only: Annotated[str, typer.Option(help="Methods, such as tandem,ants; all that can run here if not given.")] = "",
    page: Annotated[Path, typer.Option(help="The page to write.")] = PAGE,
) -> None:
    """Measure what is missing, and write the page."""
    scratch.mkdir(parents=True, exist_ok=True)
    wanted = sets.split(",")
    names = [name for name in methods() if not only or name in only.split(",")]
    lines = [*intro(spacing_mm)]
    for name in (name for name in MISALIGNED if name in wanted):
        lines += simulated(scratch, name, names, spacing_mm, cases)
    if data is not None:
        for name, pairs in (("ms", ms_pairs), ("sts", sts_pairs)):
            lines += real(scratch, name, names, pairs(data)) if name in wanted else []
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


def methods() -> list[str]:
    """Those that can run here."""
    return [name for name in METHODS if name != "ants" or importlib.util.find_spec("ants")]


def run(scratch: Path, key: str, name: str, pair: SimulatedPair | RealPair) -> Row:
    """One method on one pair; `failure` in the place of a matrix when it gave none."""
    kept = scratch / "results" / f"{key}_{name}.json"
    if kept.is_file():
        return dict(json.loads(kept.read_text()))
    kept.parent.mkdir(exist_ok=True)
    path = scratch / "pair.npz"
    arrays = {"fixed": pair.fixed.numpy(), "moving": pair.moving.numpy()}
    affines = {"fixed_affine": affine_of(pair.fixed), "moving_affine": affine_of(pair.moving)}
    np.savez(path, **arrays, **affines, modalities=np.array(pair.modalities))
    command = [sys.executable, "-m", "benchmarks.registration_peers", name, str(path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, check=False)
        found = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"failure": done.stderr[-300:]}
    except subprocess.TimeoutExpired:
        found = {"failure": f"more than {TIMEOUT_S} s"}
    kept.write_text(json.dumps(found))
    print(key, name, {key: value for key, value in found.items() if key != "matrix"}, flush=True)
    return dict(found)


# ---- the page --------------------------------------------------------------------------------------------------------


def intro(spacing_mm: float) -> list[str]:
    """What was measured, and with what."""
    packages = ["itk-elastix", "SimpleITK", *(["antspyx"] if "ants" in methods() else [])]
    with_versions = ", ".join(f"{name} {version(name)}" for name in packages)
    absent = [] if "ants" in methods() else ["ANTsPy was not installed.", ""]
    return [
        "# Rigid registration",
        "",
        f"Made by `python -m benchmarks.registration --scratch DIR --spacing-mm {spacing_mm:g}`",
        f"with {with_versions} on {os.cpu_count()} cores. Every registration ran in a process of its own, one at",
        "a time. Seconds are those of the registration: Tandem's with its preparation, its verdict and the resampled",
        "image, the others' alone. The processor time (CPU) beside them counts all threads and Tandem's child; a busy",
        "machine distorts it less. The import of the library stands beside it; Tandem pays it once in a run. Memory",
        "is the peak of the process, Tandem's together with its largest child's. Medians unless it says otherwise.",
        f"The machine's load over the last 15 minutes was {os.getloadavg()[2]:.1f}: on a calm one it is about 1 to 2.",
        "",
        *absent,
    ]


def simulated(scratch: Path, which: str, names: list[str], spacing_mm: float, cases: int) -> list[str]:
    """The table of one misalignment."""
    angle_deg, shift_mm, success_mm = MISALIGNED[which]
    rows: dict[str, list[Row]] = {name: [] for name in names}
    for number in range(cases):
        one = head(scratch / "heads", SEED, number, spacing_mm, angle_deg, shift_mm)
        pair = pair_of(one, one, "ct", "t1")
        for name in rows:
            found = run(scratch, f"{which}_{spacing_mm:g}mm_{number}", name, pair)
            errors = target_error_mm(pair, np.array(found["matrix"])) if "matrix" in found else np.array([np.inf])
            rows[name].append({**found, "mean_mm": float(errors.mean()), "max_mm": float(errors.max())})
    lines = [
        f"## Simulated heads at {spacing_mm:g} mm, CT and T1-weighted MR, ±{angle_deg:g}° and ±{shift_mm:g} mm",
        "",
        f"Target registration error at landmarks of the brain; success: a mean of {success_mm:g} mm at most.",
        "",
        "| method | success | mean (mm) | worst mean (mm) | largest error (mm) | seconds | CPU (s) | import (s) | MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in rows.items():
        success = sum(row["mean_mm"] <= success_mm for row in found)
        means = [row["mean_mm"] for row in found]
        numbers = [float(np.median(means)), max(means), max(row["max_mm"] for row in found)]
        errors = " | ".join("no result" if np.isinf(number) else f"{number:.2f}" for number in numbers)
        lines.append(f"| {NAMES[name]} | {success} of {len(found)} | {errors} | {costs(found)} |")
    if "tandem" not in rows:
        return [*lines, ""]
    verdicts = [row.get("verdict", "refused") for row in rows["tandem"]]
    counts = ", ".join(f"{verdicts.count(kind)} {kind}" for kind in ("pass", "warn", "fail", "refused"))
    return [*lines, "", f"Tandem's own verdicts: {counts}.", *times_the_default(rows), ""]


def times_the_default(rows: dict[str, list[Row]]) -> list[str]:
    """How many times as long as elastix' default map Tandem takes: the medians' ratio."""
    clock, processor = (
        [[row[key] for row in rows.get(name, []) if key in row] for name in ("tandem", "elastix_default")]
        for key in ("seconds", "cpu_s")
    )
    if not all((*clock, *processor)):
        return []
    ratios = (float(np.median(own) / np.median(other)) for own, other in (clock, processor))
    text = "Tandem takes {:.1f} times as long as the default map, {:.1f} times by processor time (wanted: 2 at most)."
    return [text.format(*ratios)]


def real(scratch: Path, which: str, names: list[str], pairs: list[RealPair]) -> list[str]:
    """The tables of real pairs: the distance from a published or clinical alignment."""
    rows: dict[str, list[Row]] = {name: [] for name in names}
    for pair in pairs:
        for name in rows:
            found = run(scratch, f"{which}_{pair.name}", name, pair)
            errors = pair.errors_mm(np.array(found["matrix"])) if "matrix" in found else {}
            rows[name].append({**found, "errors": errors})
    known = {"reference": [{"errors": pair.errors_mm(pair.disturbed @ pair.reference)} for pair in pairs], **rows}
    labels = list(dict.fromkeys(pair.group for pair in pairs))
    measures = pairs[0].measures
    lines = [f"## {pairs[0].title}", "", *pairs[0].about, "", f"| method | pair | {' | '.join(measures)} | seconds |"]
    lines.append("|---|---|" + "---|" * (len(measures) + 1))
    for name, found in known.items():
        for group in labels:
            own = [row for row, pair in zip(found, pairs, strict=True) if pair.group == group]
            cells = " | ".join(cell([row["errors"].get(measure) for row in own]) for measure in measures)
            seconds = "-" if name == "reference" else cell([row.get("seconds") for row in own])
            lines.append(f"| {NAMES.get(name, name)} | {group} | {cells} | {seconds} |")
    return [*lines, "", *(between_starts(pairs, rows["tandem"], labels) if "tandem" in rows else ())]


def between_starts(pairs: list[RealPair], found: list[Row], groups: list[str]) -> list[str]:
    """How far Tandem's poses from different starts lie apart: the mean over the points, of the two furthest."""
    apart = {}
    for group in groups:
        own = [
            (pair, np.array(row["matrix"]))
            for pair, row in zip(pairs, found, strict=True)
            if pair.group == group and "matrix" in row
        ]
        ends = [apply(pair.undisturbed(matrix), next(iter(pair.points.values()))) for pair, matrix in own]
        apart[group] = max((float(np.linalg.norm(a - b, axis=1).mean()) for a in ends for b in ends), default=np.inf)
    if len(pairs) == len(groups):
        return []
    texts = ", ".join(f"{group} {mm:.2f} mm" for group, mm in apart.items())
    return [f"Tandem's starts end apart by at most (mean over the image): {texts}.", ""]


def cell(values: list[float | None]) -> str:
    """One value, or the smallest to the largest."""
    known = [value for value in values if value is not None]
    if not known:
        return "no result"
    if len(known) == 1:
        return f"{known[0]:.2f}"
    return f"{min(known):.2f}-{max(known):.2f}"


def costs(found: list[Row]) -> str:
    """Cells with medians of seconds, processor time, import and memory."""
    cells = []
    for key, digits in (("seconds", 1), ("cpu_s", 1), ("import_s", 1), ("peak_mb", 0)):
        values = [row[key] for row in found if key in row]
        cells.append(f"{np.median(values):.{digits}f}" if values else "-")
    return " | ".join(cells)


if __name__ == "__main__":
    typer.run(main)
