"""Rigid registration by elastix, which runs in a child process: its crash or hang is one case's error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from monai.data import MetaTensor

from pipeline.errors import CaseError
from pipeline.foreground import body_mask, finite_values
from pipeline.geometry import LPS_RAS, FloatArray, affine_of, from_sitk, to_sitk, transform_from_matrix, volume
from pipeline.registration.quality import Pair, QualityLimits, measure
from pipeline.registration.transforms import AIR_HU, outside_value, resample_image

WORKER = "pipeline.registration.worker"
#: The metric sees some air around the skin: its edge is the strongest landmark that CT and MR share.
RIM_MM = 10.0
#: Finer voxels are averaged before elastix sees them: they cost time and do not make a rigid pose more exact.
FINEST_MM = 1.0


@dataclass(frozen=True)
class RegistrationSettings:
    """How to register.

    Attributes:
        parameters: text of an elastix parameter file.
        starts: how many poses are refined on the coarse levels.
        refined: how many of them, the best, are refined to the end; two or more confirm each other.
        threads: threads of the child process; another number may change a result in the last bits.
        timeout_s: the child process is ended after this many seconds.
    """

    parameters: str
    starts: int = 4
    refined: int = 2
    threads: int = 2
    timeout_s: float = 900.0


@dataclass(frozen=True)
class Registration:
    """A rigid registration.

    Attributes:
        transform: LPS mm, from points of the fixed to points of the moving image, as ITK's resampling takes it.
        matrix: the same as 4 x 4 RAS mm.
        moved: the moving image on the fixed image's grid, (1, I, J, K) float32.
        quality: see `pipeline.registration.quality.measure`; with `start` (where the chosen pose started) and
            `starts_refined`.
    """

    transform: sitk.Transform
    matrix: FloatArray
    moved: MetaTensor
    quality: dict[str, Any]


def register_rigid(
    fixed: MetaTensor,
    moving: MetaTensor,
    settings: RegistrationSettings,
    modalities: tuple[str, str] = ("CT", "MR"),
    limits: QualityLimits | None = None,
) -> Registration:
    """Find the rigid pose that aligns a moving image with a fixed one; same input, same transform.

    The pose is never worse than the headers' alignment: that one stays when nothing better (by the normalised mutual
    information of the body's interior) was found.

    Args:
        fixed: (1, I, J, K); HU when its modality is CT.
        moving: (1, I, J, K), likewise.
        settings: see `RegistrationSettings`.
        modalities: DICOM Modality of the fixed and of the moving image.
        limits: see `QualityLimits`.

    Returns:
        See `Registration`.

    Raises:
        CaseError: E_BLANK for a constant image or one that is not finite; E_SINGLE_SLICE; E_OVERLAP when no pose brings
            the bodies together; E_REGISTER when elastix gave up; E_CRASH when it crashed or hung.
    """
    limits = limits or QualityLimits()
    for image in (fixed, moving):
        _require_volume(image)
    images = _working_copy(fixed), _working_copy(moving)
    masks = body_mask(images[0], modalities[0]), body_mask(images[1], modalities[1])
    with tempfile.TemporaryDirectory(prefix="tandem-register-") as folder:
        _write_request(Path(folder), images, masks, modalities, settings)
        found = _run_worker(Path(folder), settings)
    pair = Pair(*images, *masks)
    poses = zip(
        [item["start"] for item in found["results"]], _in_ras(i["matrix"] for i in found["results"]), strict=True
    )
    ranked = sorted(poses, key=lambda item: -(pair.nmi(item[1]) or 0.0))
    kept = _header_is_better(pair, ranked[0][1], limits)
    if kept:
        ranked.insert(0, ("header", np.eye(4)))
    mirrored = next(iter(_in_ras(found["mirrored"])), None)
    quality = measure(pair, [matrix for _, matrix in ranked[:2]], mirrored, limits, header_kept=kept)
    transform = transform_from_matrix(ranked[0][1])
    moved = resample_image(moving, fixed, transform, outside_value(moving, modalities[1]))
    more = {"start": ranked[0][0], "starts_refined": found["starts"]}
    return Registration(transform, ranked[0][1], moved, {**quality, **more})


def _require_volume(image: MetaTensor) -> None:
    finite_values(image)
    if min(image.shape[1:]) < 2:
        raise CaseError("E_SINGLE_SLICE", f"Expected a volume, got {tuple(image.shape[1:])} voxels.")


def _working_copy(image: MetaTensor) -> MetaTensor:
    """The image as float32, with voxels finer than `FINEST_MM` averaged."""
    source = sitk.Cast(to_sitk(image), sitk.sitkFloat32)
    return from_sitk(sitk.BinShrink(source, [max(1, round(FINEST_MM / step)) for step in source.GetSpacing()]))


def _header_is_better(pair: Pair, pose: FloatArray, limits: QualityLimits) -> bool:
    before, after = pair.nmi(np.eye(4)), pair.nmi(pose)
    return before is not None and (after is None or after < before - limits.nmi_noise)


def _in_ras(matrices: Iterable[Any]) -> list[FloatArray]:
    return [LPS_RAS @ np.array(matrix) @ LPS_RAS for matrix in matrices]


# ---- the child process -----------------------------------------------------------------------------------------------


def _write_request(
    folder: Path,
    images: tuple[MetaTensor, MetaTensor],
    masks: tuple[MetaTensor, MetaTensor],
    modalities: tuple[str, str],
    settings: RegistrationSettings,
) -> None:
    fixed, moving = (_clipped(*item) for item in zip(images, masks, modalities, strict=True))
    rim = sitk.SignedMaurerDistanceMap(to_sitk(masks[0]), squaredDistance=False, useImageSpacing=True) <= RIM_MM
    box = _box(rim)
    files = {
        "fixed": sitk.RegionOfInterest(fixed, *box),
        "moving": moving,
        "fixed_mask": sitk.RegionOfInterest(rim, *box),
        "moving_mask": to_sitk(masks[1]),
    }
    for name, image in files.items():
        sitk.WriteImage(image, str(folder / f"{name}.mha"))
    (folder / "parameters.txt").write_text(settings.parameters)
    (folder / "request.json").write_text(json.dumps({"starts": settings.starts, "refined": settings.refined}))


def _clipped(image: MetaTensor, mask: MetaTensor, modality: str) -> sitk.Image:
    """The image without the few extreme values (metal, vessels) that would waste the metric's bins."""
    values = image.numpy()
    low = max(AIR_HU, float(values.min())) if modality == "CT" else float(values.min())
    high = float(np.percentile(values[mask.numpy() > 0], 99.9))
    return to_sitk(volume(np.clip(values, low, high), affine_of(image)))


def _box(mask: sitk.Image) -> tuple[list[int], list[int]]:
    """Size and first index of the box around a mask."""
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(mask)
    box = statistics.GetBoundingBox(1)
    return list(box[3:]), list(box[:3])


def _run_worker(folder: Path, settings: RegistrationSettings) -> dict[str, Any]:
    environment = {**os.environ, "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(settings.threads)}
    command = _command(folder)
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=settings.timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CaseError(
            "E_CRASH", f"Expected elastix to end within {settings.timeout_s:g} s; it was stopped."
        ) from error
    result = folder / "result.json"
    if done.returncode != 0 or not result.is_file():
        raise CaseError("E_CRASH", f"Elastix' process ended with code {done.returncode}: {_tail(done.stderr)}.")
    found: dict[str, Any] = json.loads(result.read_text())
    if not found["starts"]:
        raise CaseError("E_OVERLAP", "Expected a pose that brings both bodies together, got none.")
    if not found["results"]:
        raise CaseError("E_REGISTER", f"Elastix gave up from every start: {_tail(found['failures'][-1])}.")
    return found


def _command(folder: Path) -> Sequence[str]:
    return [sys.executable, "-m", WORKER, str(folder)]


def _tail(text: str, lines: int = 3) -> str:
    return " / ".join(line.strip() for line in text.strip().splitlines()[-lines:]) or "no message"
