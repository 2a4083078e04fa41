"""What landmarks and bending say about an alignment, beside what `pipeline.registration.quality` measures of a pose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from monai.data import MetaTensor

from pipeline.body import UPTAKE
from pipeline.cases import GRADES
from pipeline.geometry import LPS_RAS, FloatArray, apply
from pipeline.registration.landmarks import Model, left_out_mm
from pipeline.registration.quality import Findings, Pair, QualityLimits
from pipeline.registration.transforms import resample_labels
from pipeline.registration.warp import Warp
from pipeline.volumes import affine_of
from pipeline.words import parted

#: The Jacobian is looked at in as many points of the body.
JACOBIAN_POINTS = 60_000


@dataclass(frozen=True)
class AlignmentLimits(QualityLimits):
    """When an alignment passes or fails, with landmarks and bending; see `QualityLimits` for the rest.

    Attributes:
        landmark_pass_mm: landmarks may lie this far apart (mean) to pass.
        landmark_warn_mm: further apart than this fails.
        jacobian_least: a smaller local change of volume than this is a warning.
        jacobian_most: likewise a larger one.
        folding_most: a map that folds space in more than this fraction of the body is not kept; more than this fraction
            outside the two limits of the Jacobian is the warning.
        label_distance_pass_mm: the centroids of a label that is drawn on both images may lie this far apart to pass.
        bending_gain_least: a B-spline is kept only when it raises the core's NMI, counted from 1, by this fraction.
            Source: benchmarks/bending.py. Where nothing was bent it rose by 0.002 and 0.043 all the same, while the
            target registration error grew from 0 to 3.8 and 2.6 mm; bent by 4 and 6 mm, it rose by 0.39 and 0.59.
    """

    landmark_pass_mm: float = 3.0
    landmark_warn_mm: float = 6.0
    jacobian_least: float = 0.5
    jacobian_most: float = 2.0
    folding_most: float = 0.001
    label_distance_pass_mm: float = 5.0
    bending_gain_least: float = 0.1


def worsen(quality: Mapping[str, Any], numbers: Mapping[str, Any], findings: Findings) -> dict[str, Any]:
    """Add numbers and findings to a quality: the worst finding decides, and a reason that was a pass gives way."""
    verdict = max([quality["verdict"], *(kind for kind, _ in findings)], key=GRADES.index)
    before = [] if quality["verdict"] == "pass" and findings else [quality["reason"]]
    texts = [text for _, text in sorted(findings)]
    return {**quality, **numbers, "verdict": verdict, "reason": " ".join([*before, *texts])}


# ---- landmarks -------------------------------------------------------------------------------------------------------


def landmark_numbers(
    warp: Warp, fixed: FloatArray, moving: FloatArray, fitted: Model | None, used: bool
) -> dict[str, Any]:
    """Measure an alignment by landmarks.

    Args:
        warp: the map.
        fixed: landmarks of the fixed image, (N, 3) RAS mm.
        moving: the same of the moving image.
        fitted: the model that was fitted to them alone, if so.
        used: whether they had a part in finding the map: their residual is then the fiducial, not the target
            registration error.

    Returns:
        `landmarks` (how many), `landmark_fre_mm` or `landmark_tre_mm` (mean), and `landmark_max_mm`; for a fitted model
        `landmark_tre_mm` comes from leaving each one out (null where too few are left).
    """
    errors = np.linalg.norm(warp(fixed) - moving, axis=1)
    kind = "landmark_fre_mm" if used else "landmark_tre_mm"
    numbers: dict[str, Any] = {
        "landmarks": len(fixed),
        kind: float(errors.mean()),
        "landmark_max_mm": float(errors.max()),
    }
    if fitted is not None:
        numbers["landmark_tre_mm"] = left_out_mm(fixed, moving, fitted)
    return numbers


def judge_landmarks(numbers: Mapping[str, Any], limits: AlignmentLimits) -> Findings:
    """Judge by the target registration error, or by the fiducial one where there is no other."""
    apart = numbers.get("landmark_tre_mm")
    apart = numbers["landmark_fre_mm"] if apart is None else apart
    if apart <= limits.landmark_pass_mm:
        return []
    kind, limit = "warn" if apart <= limits.landmark_warn_mm else "fail", limits.landmark_pass_mm
    return [(kind, f"The landmarks lie {parted(apart, limit, 1)} mm apart (limit {limit:g} mm).")]


# ---- bending ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """Which of several maps is kept.

    Attributes:
        name: `rigid`, `affine` or `bspline`.
        warp: the map.
        numbers: what was measured of it.
        findings: why a further map was not kept, and what is doubtful about the one that was.
    """

    name: str
    warp: Warp
    numbers: dict[str, Any]
    findings: Findings


def keep_better(
    pairs: Sequence[Pair], rigid: Warp, refined: Sequence[tuple[str, Warp]], limits: AlignmentLimits
) -> Kept:
    """Go on from the rigid pose as long as nothing gets worse.

    A further map is kept when the interior's NMI does not fall (nor that of its core, where a bending map does its
    harm while the rim improves) and space does not fold. A B-spline can always raise NMI a little, right or wrong: it
    also has to raise it clearly.

    Args:
        pairs: the images by their interior, and by its core.
        rigid: the pose.
        refined: name and map, each made from the one before.
        limits: see `AlignmentLimits`.
    """
    name, warp, findings = "rigid", rigid, []
    for better, candidate in refined:
        reason = _worse(pairs, warp, candidate, limits) or _too_little(pairs[-1], warp, candidate, limits)
        if reason:
            findings.append(("warn", f"The {better} map was not kept, the {name} one stays: {reason}."))
            break
        name, warp = better, candidate
    numbers = {"transform": name, "nmi_rigid": pairs[0].nmi(rigid), "nmi_after": pairs[0].nmi(warp)}
    if name != "rigid":
        numbers |= _jacobian_numbers(pairs[0], warp, limits)
        findings += _judge_jacobian(numbers, limits)
    return Kept(name, warp, numbers, findings)


def judge_unconfirmed(kept: Kept, modalities: tuple[str, str], confirmed: bool) -> Findings:
    """Doubt a B-spline between two kinds of images that no landmarks confirm.

    No measure of the images tells a right one from a wrong one: on heads that were bent by 4 and 6 mm, NMI of the core
    rose by half while the target registration error grew (benchmarks/bending.py).

    Args:
        kept: the map.
        modalities: of the fixed and of the moving image.
        confirmed: whether landmarks judge the map too.
    """
    if kept.name != "bspline" or confirmed or modalities[0] == modalities[1]:
        return []
    return [("warn", f"Bent between {modalities[0]} and {modalities[1]}: NMI cannot tell whether the inside is right.")]


def judge_uptake(quality: Mapping[str, Any], modalities: tuple[str, str], confirmed: bool) -> Findings:
    """Doubt a pose that was found by an image of uptake, and that no landmarks confirm.

    Of PET and CT of one scan, the pose that both starts find lies one to two voxels of the PET beside the scanner's own
    alignment in three of four patients, and no measure of the images tells (benchmarks/real_maps.py).

    Args:
        quality: of the pose.
        modalities: of the fixed and of the moving image.
        confirmed: whether landmarks judge the pose too.
    """
    seen = sorted(UPTAKE & {*modalities})
    if not seen or confirmed or quality["header_kept"]:
        return []
    text = f"{seen[0]} shows uptake, by which a place is sure to one or two of its voxels at best"
    return [("warn", f"{text}: for images of one scan keep the headers' alignment (`transform: headers`).")]


def _worse(pairs: Sequence[Pair], before: Warp, after: Warp, limits: AlignmentLimits) -> str:
    """Why a map is worse than the one before it; empty when it is not."""
    for pair, where in zip(pairs, ("the interior", "the core of the interior"), strict=True):
        old, new = pair.nmi(before), pair.nmi(after)
        if new is None or (old is not None and new < old):
            text = "nothing" if new is None else f"{new:.4f}"
            return f"NMI of {where} fell from {old or 0:.4f} to {text}"
    folding = float((_jacobian(pairs[0], after) <= 0).mean())
    if folding > limits.folding_most:
        most = 100 * limits.folding_most
        return f"it folds space in {parted(100 * folding, most, 2)}% of the body (limit {most:g}%)"
    return ""


def _too_little(core: Pair, before: Warp, after: Warp, limits: AlignmentLimits) -> str:
    """Why a B-spline gains too little to be believed; empty when it does not, and for linear maps."""
    old, new = core.nmi(before), core.nmi(after)
    if after.spline is None or old is None or new is None:
        return ""
    if old <= 1:
        return "the core shows one grey, in which nobody sees whether it is bent rightly"
    gain = (new - 1) / (old - 1) - 1
    if gain >= limits.bending_gain_least:
        return ""
    least = 100 * limits.bending_gain_least
    return f"NMI of the core, counted from 1, rose by only {parted(100 * gain, least, 1)}% (limit {least:g}%)"


def _jacobian(pair: Pair, warp: Warp) -> FloatArray:
    points = pair.points[:: -(-len(pair.points) // JACOBIAN_POINTS)]
    return warp.jacobian(points)


def _jacobian_numbers(pair: Pair, warp: Warp, limits: AlignmentLimits) -> dict[str, Any]:
    change = _jacobian(pair, warp)
    outside = (change < limits.jacobian_least) | (change > limits.jacobian_most)
    return {
        "jacobian_min": float(change.min()),
        "jacobian_max": float(change.max()),
        "jacobian_outside_fraction": float(outside.mean()),
        "folding_fraction": float((change <= 0).mean()),
    }


def _judge_jacobian(numbers: Mapping[str, Any], limits: AlignmentLimits) -> Findings:
    if numbers["jacobian_outside_fraction"] <= limits.folding_most:
        return []
    low, high = numbers["jacobian_min"], numbers["jacobian_max"]
    least, most = limits.jacobian_least, limits.jacobian_most
    text = f"Volumes change locally by factors from {parted(low, least, 2)} to {parted(high, most, 2)}"
    return [("warn", f"{text} (limits {least:g} and {most:g}).")]


#: The centroid of as many points of a region, evenly drawn, is known to a fraction of a voxel.
MOST_POINTS = 2000

#: A region of the fixed image and the same of the moving one, each with its value: (1, I, J, K) on any grid.
Regions = tuple[tuple[MetaTensor, int], tuple[MetaTensor, int]]


def label_numbers(common: Iterable[Regions], transform: sitk.Transform) -> dict[str, Any]:
    """Measure how well labels that were drawn on both images agree.

    Args:
        common: the regions that both images have; those of which one is empty do not count.
        transform: LPS mm, from points of the fixed to points of the moving image.

    Returns:
        `label_distance_mm` (between the centroids, the largest of all regions), `label_distance_before_mm` (of the same
        region, by the headers alone) and `label_dice` (the smallest); empty when there is no region to compare.
    """
    distances, dices = [], []
    for (fixed, fixed_value), (moving, moving_value) in common:
        own, other = fixed.numpy()[0] == fixed_value, moving.numpy()[0] == moving_value
        if own.any() and other.any():
            middle = _centroid(moving, other)
            apart = (_centroid(fixed, own, pose) - middle for pose in (transform, None))
            distances.append(tuple(float(np.linalg.norm(vector)) for vector in apart))
            moved = resample_labels(moving, fixed, transform).numpy()[0] == moving_value
            dices.append(2.0 * float((own & moved).sum()) / float(own.sum() + moved.sum()))
    if not distances:
        return {}
    after_mm, before_mm = max(distances)
    return {"label_distance_mm": after_mm, "label_distance_before_mm": before_mm, "label_dice": min(dices)}


def judge_labels(numbers: dict[str, Any], limits: AlignmentLimits) -> Findings:
    """Labels that lie apart are a warning: whether they or the alignment are wrong they do not say."""
    apart_mm, limit = numbers.get("label_distance_mm", 0.0), limits.label_distance_pass_mm
    before_mm = numbers.get("label_distance_before_mm", 0.0)
    if apart_mm > limit:
        text = f"The same label lies {parted(apart_mm, limit, 1)} mm apart in the two images (limit {limit:g} mm"
        return [("warn", f"{text}; {before_mm:.1f} mm by the headers): either the label or the alignment is wrong.")]
    if apart_mm - before_mm > limit / 2:
        text = f"The same label lies {apart_mm:.1f} mm apart in the two images, by the headers {before_mm:.1f} mm"
        return [("warn", f"{text}: either the label was copied by the headers, or the alignment is wrong.")]
    return []


def _centroid(image: MetaTensor, region: Any, transform: sitk.Transform | None = None) -> FloatArray:
    """The middle of a region where a transform sends it, LPS mm, shape (3,)."""
    index = np.argwhere(region)
    points = apply(LPS_RAS @ affine_of(image), index[:: -(-len(index) // MOST_POINTS)].astype(np.float64))
    if transform is not None:
        points = np.array([transform.TransformPoint(point.tolist()) for point in points])
    return np.asarray(points.mean(axis=0))
