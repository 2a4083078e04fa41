"""What a CT-MR B-spline does to simulated heads that are rigid, and to heads that really are bent.

    python -m benchmarks.bending SCRATCH_FOLDER

For each head: the target registration error of the true rigid pose and of the B-spline from it, and the NMI of the
interior and of its core under both. `AlignmentLimits.bending_gain_least` was chosen by these numbers.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import typer

from pipeline.geometry import LPS_RAS, apply
from pipeline.registration import RegistrationSettings, Side, method, resample_image
from pipeline.registration.landmarks import solve
from pipeline.registration.quality import INTERIOR_MM, Pair
from pipeline.registration.register import CORE_MM, refine
from pipeline.registration.request import prepare, write_request
from pipeline.registration.warp import Spline, Warp, as_transform
from pipeline.shipped import shipped
from pipeline.simulation.cohort import simulate_cohort
from pipeline.volumes import volume

SEEDS_AND_BENDING_MM = ((8, 0.0), (8, 4.0), (9, 0.0), (9, 6.0))
SPACING_MM, WAVE_MM, CONTROL_MM = 4.0, 150.0, 30.0


def bent(amplitude_mm: float) -> Warp:
    """A smooth wave of displacements around the head."""
    size = np.array([13, 14, 13])
    origin = -CONTROL_MM * (size - 1) / 2
    points = origin + CONTROL_MM * np.indices(size[::-1]).reshape(3, -1)[::-1].T
    numbers = amplitude_mm * np.sin(2 * np.pi * points[:, [1, 2, 0]] / WAVE_MM + [0.4, 1.3, 2.2])
    return Warp(np.eye(4), Spline(np.array([*size, *origin, *[CONTROL_MM] * 3, *np.eye(3).ravel()]), numbers.T.ravel()))


def check(folder: Path, seed: int, amplitude_mm: float) -> str:
    """One line on one head."""
    cohort = simulate_cohort(folder, cases=1, spacing_mm=SPACING_MM, faulty=0, seed=seed)
    truth = cohort.truth / cohort.patients[0].patient_id
    files = [nib.load(truth / f"{name}.nii.gz") for name in ("ct", "mr")]
    ct, mr = (volume(file.get_fdata().astype(np.float32), file.affine) for file in files)
    matrix = np.array(json.loads((truth / "transform.json").read_text())["matrix"])
    points = np.loadtxt(truth / "landmarks.csv", delimiter=",", skiprows=1, usecols=(0, 1, 2))
    warp = bent(amplitude_mm)
    # the bent MR shows at y what the MR shows at warp(y)
    back = as_transform(warp.inverse(mr))
    targets = np.array([back.TransformPoint(p.tolist()) for p in apply(LPS_RAS @ matrix, points)])
    targets = apply(LPS_RAS, targets)
    moving = resample_image(mr, mr, as_transform(warp.transforms), 0.0)
    prepared = prepare(Side(ct, "CT"), Side(moving, "MR"))
    chosen = method("bspline", ("CT", "MR"), shipped("bundles", "register", "configs"))
    rigid = Warp(solve(points, targets, "rigid"))
    with tempfile.TemporaryDirectory() as name:
        write_request(Path(name), prepared, chosen, None)
        found, failure = refine(Path(name), rigid.matrix, RegistrationSettings(chosen))
    if not found:
        return f"seed {seed}, bent by {amplitude_mm:g} mm: elastix gave up: {failure}"
    errors = [np.linalg.norm(way(points) - targets, axis=1).mean() for way in (rigid, found[-1][1])]
    text = f"seed {seed}, bent by {amplitude_mm:g} mm: TRE {errors[0]:.2f} mm rigid, {errors[1]:.2f} mm B-spline"
    for depth_mm, part in ((INTERIOR_MM, "interior"), (CORE_MM, "core")):
        pair = Pair(*prepared.images, *prepared.masks, depth_mm=depth_mm)
        before, after = (pair.nmi(way) or 1.0 for way in (rigid, found[-1][1]))
        text += f"; {part} NMI {before:.4f} -> {after:.4f} ({(after - 1) / (before - 1) - 1:+.1%})"
    return text


def main(scratch: Path) -> None:
    """Print a line for each head."""
    for number, (seed, amplitude_mm) in enumerate(SEEDS_AND_BENDING_MM):
        print(check(scratch / str(number), seed, amplitude_mm), flush=True)


if __name__ == "__main__":
    typer.run(main)
