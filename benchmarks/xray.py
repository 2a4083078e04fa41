"""How well a CT is aligned with a radiograph of the same head, and whether the verdict sees what is wrong.

    python -m benchmarks.xray [--voxel-mm 3]

Heads are simulated; a radiograph is projected, with photon noise, from a CT of its own (1.5 mm), by another projector
than the one that aligns; the CT that is aligned is another scan of the head, on another grid. Writes
docs/benchmarks/xray.md.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation

from pipeline.geometry import FloatArray, apply
from pipeline.registration.drr import Detector
from pipeline.registration.xray import View, XrayAlignment, align_radiograph, seen_apart_mm
from pipeline.shipped import shipped
from pipeline.simulation.head import HeadTemplate, load_head_template
from pipeline.simulation.protocol import grid
from pipeline.simulation.subject import Subject, random_subject
from pipeline.volumes import volume
from tests.phantoms.radiograph import attenuation

FINE_MM, FIELD_MM = 2.0, (230.0, 250.0, 220.0)
PIXELS, PIXEL_MM = (110, 110), (3.0, 3.0)
AP = View("AP", PIXEL_MM, 1000.0, 750.0)
LL = replace(AP, name="LL")
POSES, MAX_DEG, MAX_MM = 6, 5.0, 10.0
TRE_MM, SEEN_MM = 3.0, 1.0
PAGE = """# A CT and a radiograph

Written by `{command}`. Simulated heads; radiographs of {pixels}, the source {source};
projected from a CT of {fine_mm:g} mm with cubic interpolation and photon noise, and aligned with another CT of
{voxel_mm:g} mm by the shipped projector (trilinear). Poses within {spread}.
Errors are means over landmarks of the brain: as seen from the source (mm at the patient), and in space, where the depth
along the rays counts, which one radiograph shows only by the magnification. Targets: {met}.

| pose | view | seen, before | seen, after | in space | gradient correlation | starts apart (mm) | verdict | s |
|---|---|---|---|---|---|---|---|---|
{rows}

Mean {seen} as seen from the source, {space} in space. Seconds are wall time on a machine that did other work too.

What must not pass:

| pair | gradient correlation | starts apart (mm) | verdict | s |
|---|---|---|---|---|
{wrong}

One simulated patient and one other, on which the limits of the verdict were chosen: this shows that the method works.
How often the verdict is right, others show: [the verdict](xray-verdict.md). Neither says anything about scatter, beam
hardening, collimators, or a display table that bends the values of real radiographs.
"""


@dataclass(frozen=True)
class Head:
    """One patient: the CT that radiographs are made of, the one that is aligned, and points of the brain (RAS mm)."""

    fine: MetaTensor
    ct: MetaTensor
    points: FloatArray


def head(template: HeadTemplate, seed: int, voxel_mm: float) -> Head:
    """Draw a patient and scan the head twice."""
    rng = np.random.default_rng(seed)
    subject = random_subject(template, rng, 0.0, 0.0, lesions=2)
    fine, ct = (scanned(subject, mm, rng) for mm in (FINE_MM, voxel_mm))
    return Head(fine, ct, subject.landmarks_ct())


def scanned(subject: Subject, voxel_mm: float, rng: np.random.Generator) -> MetaTensor:
    """A CT of the head on a grid that lies a little beside it."""
    shape, affine = grid("axial", FIELD_MM, [voxel_mm] * 3, subject.centre_ct + rng.uniform(-4, 4, 3))
    return subject.scan_ct(shape, affine, rng)


def true_pose(view: View, centre: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A pose within `MAX_DEG` and `MAX_MM` of the nominal one, 4 x 4, RAS to the detector's frame."""
    nominal, middle = view.nominal(centre)
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("xyz", rng.uniform(-MAX_DEG, MAX_DEG, 3), degrees=True).as_matrix()
    pose[:3, 3] = middle - pose[:3, :3] @ middle + rng.uniform(-MAX_MM, MAX_MM, 3)
    return np.asarray(pose @ nominal)


def radiograph(ct: MetaTensor, view: View, pose: FloatArray, seed: int) -> MetaTensor:
    """The radiograph of a CT in a pose, with noise, as ingest gives it: (1, columns, rows, 1)."""
    pixels = Detector.centred(PIXELS, PIXEL_MM, view.source_mm).pixels.numpy().astype(np.float64)
    to_ct = np.linalg.inv(pose)
    ends = apply(to_ct, pixels.reshape(-1, 3)).reshape(pixels.shape)
    source = apply(to_ct, [[0.0, 0.0, view.source_mm]])[0]
    values = attenuation(ct, source, ends, np.random.default_rng(seed))
    return volume(values[:, :, None].astype(np.float32), np.diag([-PIXEL_MM[0], -PIXEL_MM[1], 1.0, 1.0]))


def judged(what: str, image: MetaTensor, ct: MetaTensor, view: View) -> tuple[XrayAlignment, str]:
    """Align; and the cells that every table has."""
    started = time.perf_counter()
    found = align_radiograph(ct, image, view)
    quality = found.quality
    likeness = f"{quality['gradient_correlation_before']:.2f} → {quality['gradient_correlation']:.2f}"
    apart = quality["start_disagreement_mm"]
    cells = f"{likeness} | {apart:.2f} | {quality['verdict']} | {time.perf_counter() - started:.0f}"
    print(what, cells, flush=True)
    return found, cells


def right_pairs(patient: Head) -> tuple[list[str], FloatArray]:
    """A row for each pose; and the errors: before and after seen from the source, and in space (mm)."""
    rng = np.random.default_rng(7)
    rows, errors = [], []
    for number in range(POSES):
        view = (AP, LL)[number % 2]
        pose = true_pose(view, patient.points.mean(axis=0), rng)
        found, cells = judged(f"pose {number}", radiograph(patient.fine, view, pose, number), patient.ct, view)
        nominal, _ = view.nominal(patient.points.mean(axis=0))
        before, after = (seen_apart_mm(matrix, pose, patient.points, view) for matrix in (nominal, found.matrix))
        moved = apply(found.matrix, patient.points) - apply(pose, patient.points)
        space = float(np.linalg.norm(moved, axis=1).mean())
        errors.append((before, after, space))
        rows.append(f"| {number + 1} | {view.name} | {before:.1f} | {after:.2f} | {space:.2f} | {cells} |")
        print(rows[-1], flush=True)
    return rows, np.array(errors)


def wrong_pairs(patient: Head, other: Head) -> list[str]:
    """A row for each pair that must not pass."""
    pose = true_pose(AP, patient.points.mean(axis=0), np.random.default_rng(3))
    image = radiograph(patient.fine, AP, pose, 3)
    noise = np.random.default_rng(4).normal(3, 1, image.shape[1:]).astype(np.float32)
    flipped = volume(np.ascontiguousarray(image.numpy()[0, ::-1]), np.asarray(image.affine))
    cases = {
        "noise in the place of the radiograph": (volume(noise, np.asarray(image.affine)), patient.ct, AP),
        "another patient's CT": (image, other.ct, AP),
        "the radiograph mirrored": (flipped, patient.ct, AP),
        "AP said to be LL": (image, patient.ct, LL),
    }
    return [f"| {name} | {judged(name, *case)[1]} |" for name, case in cases.items()]


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voxel-mm", type=float, default=3.0)
    voxel_mm = parser.parse_args().voxel_mm
    template = load_head_template()
    patient, other = (head(template, seed, voxel_mm) for seed in (1, 2))
    rows, errors = right_pairs(patient)
    wrong = wrong_pairs(patient, other)
    met = int(((errors[:, 1] <= SEEN_MM) & (errors[:, 2] <= TRE_MM)).sum())
    page = PAGE.format(
        command=f"python -m benchmarks.xray --voxel-mm {voxel_mm:g}",
        pixels=f"{PIXELS[0]} x {PIXELS[1]} pixels of {PIXEL_MM[0]:g} mm",
        source=f"{AP.source_to_detector_mm:g} mm from the detector and {AP.source_to_patient_mm:g} mm from the patient",
        fine_mm=FINE_MM,
        voxel_mm=voxel_mm,
        spread=f"±{MAX_DEG:g}° about and ±{MAX_MM:g} mm along each axis",
        rows="\n".join(rows),
        seen=f"{errors[:, 1].mean():.2f} mm (largest {errors[:, 1].max():.2f})",
        space=f"{errors[:, 2].mean():.2f} mm (largest {errors[:, 2].max():.2f})",
        met=f"{met} of {POSES} within {SEEN_MM:g} mm as seen and {TRE_MM:g} mm in space",
        wrong="\n".join(wrong),
    )
    target: Path = shipped("docs", "benchmarks", "xray.md")
    target.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
