"""Align a moving image with a fixed one: a rigid pose from several starts, and from it, where asked, what bends.

Elastix itself runs in a child process (`pipeline.registration.process`): its crash or hang is one case's error.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from monai.data import MetaTensor

from pipeline.body import UPTAKE
from pipeline.errors import CaseError
from pipeline.geometry import LPS_RAS, FloatArray
from pipeline.registration.elastix import LOG
from pipeline.registration.findings import (
    AlignmentLimits,
    judge_landmarks,
    judge_unconfirmed,
    judge_uptake,
    keep_better,
    landmark_numbers,
    worsen,
)
from pipeline.registration.headers import at_voxel_scale, header_quality
from pipeline.registration.landmarks import Model, match, solve
from pipeline.registration.process import registrar, tail
from pipeline.registration.quality import Pair, against_headers, measure, measure_known, rejudge
from pipeline.registration.request import HEADERS, Method, Prepared, Side, prepare, write_request
from pipeline.registration.transforms import back_and_forth_mm, outside_value, resample_image
from pipeline.registration.warp import Spline, Warp, as_transform
from pipeline.store.files import full_disk_named

#: A bending map does its harm here, while the rim (skin, skull) lets the interior's NMI rise.
CORE_MM = 20.0
#: Of the child process; another number may change a result in the last bits.
THREADS = 2


@dataclass(frozen=True)
class RegistrationSettings:
    """How to register.

    Attributes:
        method: the transform, with its elastix parameter maps.
        starts: how many poses are searched from at about 6 mm.
        refined: how many of them, the best, are refined to the end; two or more confirm each other.
        landmark_weight: of the landmarks' distance (mm) beside the image metric; 0: they are a start and a check.
        timeout_s: the child process is ended after this many seconds.
    """

    method: Method
    starts: int = 4
    refined: int = 2
    landmark_weight: float = 0.0
    timeout_s: float = 900.0


@dataclass(frozen=True)
class Registration:
    """An alignment that was found.

    Attributes:
        warp: from fixed to moving points, RAS mm.
        transforms: LPS mm, from fixed to moving points; of several the last is applied first.
        inverses: the way back, likewise.
        moved: the moving image on the fixed image's grid, (1, I, J, K) float32.
        quality: see `pipeline.registration.quality.measure`; with `transform` (what was kept), `start` (where the
            chosen pose started), `starts_searched`, and what landmarks and bending add.
        log: what elastix did, in short; no paths and no times.
    """

    warp: Warp
    transforms: list[sitk.Transform]
    inverses: list[sitk.Transform]
    moved: MetaTensor
    quality: dict[str, Any]
    log: str

    @property
    def transform(self) -> sitk.Transform:
        """LPS mm, from points of the fixed to points of the moving image, as ITK's resampling takes it."""
        return as_transform(self.transforms)

    @property
    def inverse(self) -> sitk.Transform:
        """LPS mm, from points of the moving to points of the fixed image."""
        return as_transform(self.inverses)


def register(
    fixed: Side,
    moving: Side,
    settings: RegistrationSettings,
    limits: AlignmentLimits | None = None,
    one_frame: bool = False,
) -> Registration:
    """Align a moving image with a fixed one; same input, same transform.

    The rigid pose is never worse than the headers' alignment, and an affine or bending map never worse than the pose:
    each stays when nothing better (by the normalised mutual information of the body's interior) was found. Headers
    that name one frame of reference also stand against a far pose that is little better.

    Args:
        fixed: the image that stays, with what is known of it.
        moving: the image that is moved.
        settings: see `RegistrationSettings`.
        limits: see `AlignmentLimits`.
        one_frame: whether both headers name one frame of reference.

    Returns:
        See `Registration`.

    Raises:
        CaseError: E_BLANK for a constant image or one that is not finite, or an empty mask; E_SINGLE_SLICE; E_GRID
            for a mask on another grid; E_LANDMARKS; E_OVERLAP when no pose brings the bodies together; E_REGISTER when
            elastix gave up; E_CRASH when it crashed or hung.
    """
    limits = limits or AlignmentLimits()
    if settings.method.maps:
        registrar().start()  # it loads while the images are prepared
    prepared = prepare(fixed, moving)
    pair = Pair(*prepared.images, *prepared.masks)
    limits = limits_for(limits, settings.method, prepared.modalities, prepared.images)
    marks = _landmarks(fixed, moving)
    if settings.method.maps:
        warp, quality, log = _by_images(prepared, pair, marks, settings, limits, one_frame)
    else:
        warp, quality, log = _known(prepared, pair, marks, settings.method, limits)
    if marks is not None:
        fitted = _model(settings.method)
        pulled = bool(settings.method.maps) and settings.landmark_weight > 0
        numbers = landmark_numbers(warp, *marks, fitted, used=pulled or fitted is not None)
        quality = worsen(quality, numbers, judge_landmarks(numbers, limits))
    inverses = warp.inverse(fixed.image)
    error_mm = back_and_forth_mm(warp, as_transform(inverses), pair.points, moving.image)
    quality = {**quality, "inverse_error_mm": error_mm}
    outside = outside_value(moving.image, moving.modality)
    moved = resample_image(moving.image, fixed.image, as_transform(warp.transforms), outside)
    return Registration(warp, warp.transforms, inverses, moved, quality, log)


def limits_for(
    limits: AlignmentLimits, method: Method, modalities: tuple[str, str], images: tuple[MetaTensor, MetaTensor]
) -> AlignmentLimits:
    """The limits by which an alignment is judged: wider where the headers are kept, or an image shows uptake.

    Uptake need not follow the anatomy: with CT, parts of a right PET match better up to 9 mm away.
    """
    wide = UPTAKE & {*modalities} or method.transform == HEADERS
    return at_voxel_scale(limits, images) if wide else limits


Marks = tuple[FloatArray, FloatArray] | None
Solution = tuple[Warp, dict[str, Any], str]


def _landmarks(fixed: Side, moving: Side) -> Marks:
    if fixed.landmarks is None or moving.landmarks is None:
        if fixed.landmarks is not moving.landmarks:
            raise CaseError("E_LANDMARKS", "Expected landmarks of both images, got them of one.")
        return None
    return match(fixed.landmarks, moving.landmarks)


def _model(method: Method) -> Model | None:
    """What is fitted to the landmarks alone, if anything."""
    models: dict[str, Model] = {"landmarks_rigid": "rigid", "landmarks_affine": "affine"}
    return models.get(method.transform)


def _known(prepared: Prepared, pair: Pair, marks: Marks, method: Method, limits: AlignmentLimits) -> Solution:
    """An alignment that needs no search: that of the headers or of the landmarks. No second start can confirm it."""
    model = _model(method)
    if model is None:
        return Warp(np.eye(4)), header_quality(pair, prepared.images, limits), f"{HEADERS}: kept\n"
    if marks is None:
        raise CaseError("E_LANDMARKS", f"Expected landmarks of both images for {method.transform}, got none.")
    matrix = solve(*marks, model)
    quality = {**measure_known(pair, matrix, limits), "transform": model}
    return Warp(matrix), quality, f"{method.transform}: {len(marks[0])} landmarks\n"


def _by_images(
    prepared: Prepared,
    pair: Pair,
    marks: Marks,
    settings: RegistrationSettings,
    limits: AlignmentLimits,
    one_frame: bool,
) -> Solution:
    with tempfile.TemporaryDirectory(prefix="tandem-register-") as name, full_disk_named(Path(name)):
        folder = Path(name)
        write_request(folder, prepared, settings.method, marks)
        quality, pose = _search(folder, pair, marks, settings, limits, one_frame)
        warp = Warp(pose)
        if settings.method.refinements:
            refined, failure = refine(folder, pose, settings)
            pairs = pair, Pair(*prepared.images, *prepared.masks, depth_mm=CORE_MM)
            kept = keep_better(pairs, warp, refined, limits)
            if kept.name != "rigid":
                quality = rejudge(quality, pair, kept.warp, limits)
            more = [("warn", f"Elastix gave up on a further map: {tail(failure)}.")] if failure else []
            doubts = judge_unconfirmed(kept, prepared.modalities, confirmed=marks is not None)
            warp, quality = kept.warp, worsen(quality, kept.numbers, [*kept.findings, *doubts, *more])
        quality = worsen(quality, {}, judge_uptake(quality, prepared.modalities, confirmed=marks is not None))
        log = folder / LOG
        return warp, quality, log.read_text() if log.is_file() else ""


def _search(
    folder: Path, pair: Pair, marks: Marks, settings: RegistrationSettings, limits: AlignmentLimits, one_frame: bool
) -> tuple[dict[str, Any], FloatArray]:
    """The rigid pose and its quality."""
    known = None if marks is None else (LPS_RAS @ solve(*marks, "rigid") @ LPS_RAS).tolist()
    request = {"job": "search", "starts": settings.starts, "refined": settings.refined, "landmarks": known}
    found = _run(folder, request, settings)
    if not found["starts"]:
        raise CaseError("E_OVERLAP", "Expected a pose that brings both bodies together, got none.")
    if not found["results"]:
        raise CaseError("E_REGISTER", f"Elastix gave up from every start: {tail(found['failures'][-1])}.")
    names = [item["start"] for item in found["results"]]
    poses = zip(names, _in_ras(item["matrix"] for item in found["results"]), strict=True)
    ranked = sorted(poses, key=lambda item: -(pair.nmi(item[1]) or 0.0))
    headers = against_headers(pair, ranked[0][1], limits, one_frame)
    if headers["header_kept"]:
        ranked.insert(0, ("header", np.eye(4)))
    mirrored = next(iter(_in_ras(found["mirrored"])), None)
    quality = measure(pair, [matrix for _, matrix in ranked[:2]], mirrored, limits, headers)
    more = {"transform": "rigid", "start": ranked[0][0], "starts_searched": found["starts"]}
    return {**quality, **more}, ranked[0][1]


def refine(folder: Path, pose: FloatArray, settings: RegistrationSettings) -> tuple[list[tuple[str, Warp]], str]:
    """The further maps, each from the one before.

    Args:
        folder: what `write_request` has written.
        pose: where to start, 4 x 4 RAS.
        settings: see `RegistrationSettings`.

    Returns:
        Name and map of each, and elastix' message where it gave up, else an empty text.
    """
    start = (LPS_RAS @ pose @ LPS_RAS).tolist()
    found = _run(folder, {"job": "refine", "start": start, "transforms": settings.method.refinements}, settings)
    maps = [("affine", Warp(matrix)) for matrix in _in_ras(found["affine"])]
    spline = folder / "spline.npz"
    if spline.is_file():
        with np.load(spline) as numbers:
            bent = Warp(maps[-1][1].matrix if maps else pose, Spline(numbers["fixed"], numbers["parameters"]))
        maps.append(("bspline", bent))
    return maps, found["failure"]


def _run(folder: Path, request: dict[str, Any], settings: RegistrationSettings) -> dict[str, Any]:
    """Let the child process do a job.

    Raises:
        CaseError: E_CRASH.
    """
    (folder / "request.json").write_text(json.dumps({**request, "landmark_weight": settings.landmark_weight}))
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    registrar().run(folder, THREADS, settings.timeout_s)
    if not result.is_file():
        raise CaseError("E_CRASH", "Elastix' process ended without a result.")
    found: dict[str, Any] = json.loads(result.read_text())
    return found


def _in_ras(matrices: Iterable[Any]) -> list[FloatArray]:
    return [LPS_RAS @ np.array(matrix) @ LPS_RAS for matrix in matrices]
