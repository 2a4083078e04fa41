"""Is a registration right? A verdict without knowing the truth: numbers, limits, and the reason in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import SimpleITK as sitk
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation

from pipeline.geometry import FloatArray, apply
from pipeline.registration.local import astray_fraction, local_shift_mm
from pipeline.registration.similarity import Pose, SampledPair, robust_limits
from pipeline.volumes import affine_of, to_sitk, transform_from_matrix
from pipeline.words import parted

#: Skin is left out of the interior: it would say that heads match even where brains do not.
INTERIOR_MM = 5.0
#: As many points give the mutual information to about 0.001.
MAX_POINTS = 60_000
LOCAL_POINTS = 30_000
#: With a smaller part of the interior in view, mutual information says nothing.
LEAST_IN_VIEW = 0.05
#: A right pose is a peak: NMI has to fall when it is moved or turned by this much.
PERTURBATION_MM = 2.0
PERTURBATION_DEGREES = 2.0
PERTURBATION = (PERTURBATION_MM, PERTURBATION_DEGREES)


@dataclass(frozen=True)
class QualityLimits:
    """When a registration passes, or fails; what lies between is a warning.

    Attributes:
        start_disagreement_pass_mm: two independent starts must end at most this far apart to pass.
        start_disagreement_warn_mm: further apart than this fails, unless `start_clear_gain` is reached.
        start_clear_gain: the better of two starts is believed, with a warning, where its NMI, counted from 1, is so
            many times the other's and nothing else speaks against it. Source: benchmarks/verdict.py.
        nmi_noise: two NMI that differ by this much or less count as equal.
        nmi_least: an interior NMI below this says that the images have nothing to do with each other.
        overlap_dice_pass: Dice of the two bodies, within what both images show, to pass.
        overlap_dice_warn: a lower Dice than this fails.
        peak_pass: which fraction of small perturbations must lower NMI to pass.
        local_shift_pass_mm: parts of the body may match better this far away (see `local_shift_mm`) to pass.
        local_shift_warn_mm: further away than this fails.
        astray_pass: this fraction of the body may fit better mirrored or in reversed order to pass; more is a warning,
            as both legs, and a limb along itself, look much alike.
        headers_apart_mm: headers that name one frame of reference and images that match best further than this (mean
            over the body) from there contradict each other: a warning.
        headers_gain: the images are then believed when they raise NMI, counted from 1, by this fraction; else the
            headers are. Source: benchmarks/verdict_limits.py.
    """

    start_disagreement_pass_mm: float = 1.0
    start_disagreement_warn_mm: float = 3.0
    start_clear_gain: float = 2.0
    nmi_noise: float = 0.002
    nmi_least: float = 1.01
    overlap_dice_pass: float = 0.65
    overlap_dice_warn: float = 0.5
    peak_pass: float = 0.75
    local_shift_pass_mm: float = 2.5
    local_shift_warn_mm: float = 3.5
    astray_pass: float = 0.08
    headers_apart_mm: float = 3.0
    headers_gain: float = 0.25


#: Nothing is known against the headers.
NO_HEADERS: Mapping[str, Any] = {"header_kept": False, "header_conflict_mm": None, "header_conflict_nmi": None}


class Pair:
    """A fixed and a moving image with their bodies, to be measured for any pose (RAS, fixed to moving points).

    Args:
        fixed: (1, I, J, K).
        moving: (1, I, J, K) on any grid.
        fixed_mask: the fixed image's body, on its grid.
        moving_mask: the moving image's body, on its grid.
        depth_mm: how much of the body's rim does not belong to the interior.
    """

    def __init__(
        self,
        fixed: MetaTensor,
        moving: MetaTensor,
        fixed_mask: MetaTensor,
        moving_mask: MetaTensor,
        depth_mm: float = INTERIOR_MM,
    ) -> None:
        self._masks = to_sitk(fixed_mask), to_sitk(moving_mask)
        inside = np.flatnonzero(_interior(fixed_mask, depth_mm))
        index = np.column_stack(np.unravel_index(inside[:: -(-len(inside) // MAX_POINTS)], fixed.shape[1:]))
        self.points = apply(affine_of(fixed), index)
        values = np.asarray(moving.numpy()[0], np.float32)
        limits = robust_limits(values[moving_mask.numpy()[0] > 0])
        fixed_values = np.asarray(fixed.numpy()[0][tuple(index.T)], np.float64)
        self._pair = SampledPair(self.points, fixed_values, values, affine_of(moving), limits)
        step = -(-len(index) // LOCAL_POINTS)
        self._sparse = SampledPair(self.points[::step], fixed_values[::step], values, affine_of(moving), limits)

    def nmi(self, pose: Pose) -> float | None:
        """Normalised mutual information over the interior; None where the moving image shows too little of it."""
        return self._pair.score(pose, LEAST_IN_VIEW * len(self.points))

    def in_view(self, matrix: FloatArray) -> FloatArray:
        """The points (N, 3) of the interior that a pose brings into the moving image; all where it brings none."""
        seen = self.points[self._pair.inside(matrix)]
        return seen if len(seen) else self.points

    def peak(self, matrix: FloatArray, steps: tuple[float, float] = PERTURBATION) -> float | None:
        """Which fraction of 12 small steps lowers NMI: 6 shifts (mm), and 6 turns (degrees) about the body's centre."""
        best = self.nmi(matrix)
        if best is None:
            return None
        scores = [self.nmi(matrix @ step) for step in _perturbations(self.points.mean(axis=0), *steps)]
        return float(np.mean([score is None or score < best for score in scores]))

    def local_shift_mm(self, pose: Pose) -> float | None:
        """See `pipeline.registration.local.local_shift_mm`."""
        return local_shift_mm(self._sparse, pose)

    def astray_fraction(self, matrix: FloatArray) -> float:
        """See `pipeline.registration.local.astray_fraction`."""
        return astray_fraction(self._sparse, matrix)

    def overlap_dice(self, matrix: FloatArray) -> float | None:
        """Dice of both bodies within the moving image's field of view; None when it does not meet the fixed image."""
        fixed, moving = self._masks
        transform = transform_from_matrix(matrix)
        body, view = (
            sitk.GetArrayFromImage(sitk.Resample(mask, fixed, transform, sitk.sitkNearestNeighbor, 0)) > 0
            for mask in (moving, moving * 0 + 1)
        )
        own = (sitk.GetArrayViewFromImage(fixed) > 0) & view
        size = int(own.sum() + body.sum())
        return 2.0 * float((own & body).sum()) / size if size else None


def against_headers(pair: Pair, pose: FloatArray, limits: QualityLimits, one_frame: bool) -> dict[str, Any]:
    """What the images' best pose says against the headers' alignment, and which of the two is believed.

    Args:
        pair: the images.
        pose: the best that was found, 4 x 4.
        limits: `headers_apart_mm` and `headers_gain`.
        one_frame: whether both headers name one frame of reference.

    Returns:
        `header_kept`; and where both contradict each other `header_conflict_mm` (mean over the body) and
        `header_conflict_nmi`, the NMI of the pose.
    """
    before, after = pair.nmi(np.eye(4)), pair.nmi(pose)
    if before is None:
        return {**NO_HEADERS}
    apart_mm = float(np.linalg.norm(apply(pose, pair.points) - pair.points, axis=1).mean())
    kept = after is None or after < before
    if after is None or not one_frame or apart_mm <= limits.headers_apart_mm:
        return {**NO_HEADERS, "header_kept": kept}
    kept = after - 1 < (1 + limits.headers_gain) * (before - 1)
    return {"header_kept": kept, "header_conflict_mm": apart_mm, "header_conflict_nmi": after}


def distance_mm(a: FloatArray, b: FloatArray, points: FloatArray) -> float:
    """Largest distance (mm) over the points, shape (N, 3), between where two 4 x 4 matrices send them."""
    return float(np.linalg.norm(apply(a, points) - apply(b, points), axis=1).max())


def measure(
    pair: Pair,
    poses: Sequence[FloatArray],
    mirrored: FloatArray | None,
    limits: QualityLimits,
    headers: Mapping[str, Any] = NO_HEADERS,
) -> dict[str, Any]:
    """Measure and judge a registration.

    Args:
        pair: the images.
        poses: the chosen pose first, then the next best that another start found, if any.
        mirrored: the best pose of the mirrored fixed image, if there is one: left and right exchanged, 4 x 4.
        limits: see `QualityLimits`.
        headers: see `against_headers`.

    Returns:
        Plain JSON types: the measures with the unit in the name (null where one cannot be measured), `verdict` (`pass`,
        `warn`, `fail`) and `reason`.
    """
    pose = poses[0]
    starts: dict[str, Any] = {"start_disagreement_mm": None, "nmi_other_start": None}
    if len(poses) > 1:
        apart_mm = distance_mm(pose, poses[1], pair.in_view(pose))
        starts = {"start_disagreement_mm": apart_mm, "nmi_other_start": pair.nmi(poses[1])}
    numbers = _numbers(pair, pose, mirrored, PERTURBATION)
    return _judged({**starts, **numbers, **headers}, limits)


def measure_known(
    pair: Pair, pose: FloatArray, limits: QualityLimits, steps: tuple[float, float] = PERTURBATION
) -> dict[str, Any]:
    """Measure and judge a pose that no search has found, so that no second start can confirm it: that is no finding.

    Args:
        pair: the images.
        pose: 4 x 4.
        limits: see `QualityLimits`.
        steps: the shift (mm) and the turn (degrees) by which NMI has to fall.

    Returns:
        As `measure`, without `start_disagreement_mm` and `nmi_other_start`.
    """
    return _judged({**_numbers(pair, pose, None, steps), **NO_HEADERS}, limits)


def _numbers(pair: Pair, pose: FloatArray, mirrored: FloatArray | None, steps: tuple[float, float]) -> dict[str, Any]:
    centre, identity = pair.points.mean(axis=0), np.eye(4)
    return {
        "nmi_before": pair.nmi(identity),
        "nmi_after": pair.nmi(pose),
        "nmi_mirrored": None if mirrored is None else pair.nmi(mirrored),
        "nmi_peak_fraction": pair.peak(pose, steps),
        "local_shift_mm": pair.local_shift_mm(pose),
        "astray_fraction": pair.astray_fraction(pose),
        "overlap_dice_before": pair.overlap_dice(identity),
        "overlap_dice_after": pair.overlap_dice(pose),
        "rotation_deg": float(np.degrees(Rotation.from_matrix(pose[:3, :3]).magnitude())),
        "translation_mm": float(np.linalg.norm(apply(pose, centre[None])[0] - centre)),
    }


def _judged(numbers: Mapping[str, Any], limits: QualityLimits) -> dict[str, Any]:
    verdict, reasons = judge(numbers, limits)
    return {**numbers, "verdict": verdict, "reason": " ".join(reasons)}


def rejudge(quality: Mapping[str, Any], pair: Pair, pose: Pose, limits: QualityLimits) -> dict[str, Any]:
    """The quality of a rigid pose, judged again after a freer map has taken the pose's place.

    Args:
        quality: what `measure` gave.
        pair: the images.
        pose: the freer map.
        limits: see `QualityLimits`.
    """
    return _judged({**quality, "local_shift_mm": pair.local_shift_mm(pose)}, limits)


def judge(numbers: Mapping[str, Any], limits: QualityLimits) -> tuple[str, list[str]]:
    """Judge measured numbers: the worst single finding decides.

    Args:
        numbers: the measures that `measure` gives; without those of starts where there were none.
        limits: see `QualityLimits`.

    Returns:
        `pass`, `warn` or `fail`, and one sentence for each finding; for `pass` one on what was found.
    """
    started = "start_disagreement_mm" in numbers
    conflict = _judge_headers(numbers)
    if conflict and numbers["header_kept"]:  # no start confirms headers, and that parts match elsewhere is the conflict
        started, limits = False, replace(limits, local_shift_warn_mm=math.inf)
    findings = [
        *_judge_nmi(numbers["nmi_before"], numbers["nmi_after"], limits),
        *_judge_mirror(numbers["nmi_mirrored"], numbers["nmi_after"], limits),
        *_judge_peak(numbers["nmi_peak_fraction"], limits),
        *_judge_overlap(numbers["overlap_dice_after"], limits),
        *_judge_parts(numbers["local_shift_mm"], limits),
        *_judge_slices(numbers["astray_fraction"], limits),
    ]
    findings += _judge_starts(numbers, bool(findings), limits) if started else []
    for verdict in ("fail", "warn"):
        if any(kind == verdict for kind, _ in (*conflict, *findings)):
            return verdict, [text for _, text in (*conflict, *sorted(findings))]
    return "pass", [_agreement(numbers, limits)]


Findings = list[tuple[str, str]]


def _judge_headers(numbers: Mapping[str, Any]) -> Findings:
    """The contradiction of headers and images, with both numbers."""
    if numbers.get("header_conflict_mm") is None:
        return []
    apart_mm, nmi = numbers["header_conflict_mm"], numbers["header_conflict_nmi"]
    believed = "headers" if numbers["header_kept"] else "images"
    best = "images match best" if nmi > numbers["nmi_before"] else "search for the best match ends"
    text = f"The headers name one frame of reference, but the {best}"
    text += f" {apart_mm:.1f} mm away from there (NMI {nmi:.4f}, by the headers {numbers['nmi_before']:.4f})"
    return [("warn", f"{text}: the {believed} were believed.")]


def _judge_starts(numbers: Mapping[str, Any], doubted: bool, limits: QualityLimits) -> Findings:
    apart_mm, after, other = (numbers[key] for key in ("start_disagreement_mm", "nmi_after", "nmi_other_start"))
    if apart_mm is None:
        return [("warn", "Only one start gave a result, so nothing confirms it.")]
    if apart_mm <= limits.start_disagreement_pass_mm:
        return []
    if numbers["header_kept"]:
        text = f"The headers' alignment was kept: the best start ends {apart_mm:.1f} mm from it, with a lower NMI."
        return [("warn", text)]
    limit = limits.start_disagreement_pass_mm
    text = f"Two starts end {parted(apart_mm, limit, 1)} mm apart (limit {limit:g} mm)"
    if apart_mm <= limits.start_disagreement_warn_mm:
        return [("warn", f"{text}.")]
    other = other or 1.0  # where the images do not meet, they share nothing
    if doubted or after is None or after - 1 < limits.start_clear_gain * (other - 1):
        return [("fail", f"{text}.")]
    return [("warn", f"{text}, of which one is clearly better (NMI {after:.3f}, not {other:.3f}).")]


def _judge_nmi(before: float | None, after: float | None, limits: QualityLimits) -> Findings:
    if after is None:
        return [("fail", "The moving image shows too little of the fixed image's body.")]
    findings = []
    if after < limits.nmi_least:
        nmi = f"NMI {parted(after, limits.nmi_least, 3)} (limit {limits.nmi_least:g})"
        findings.append(("fail", f"The interiors do not match: {nmi}."))
    if before is not None and after < before - limits.nmi_noise:
        findings.append(("fail", f"NMI fell from {before:.3f} to {after:.3f}: the headers' alignment was better."))
    return findings


def _judge_mirror(mirrored: float | None, after: float | None, limits: QualityLimits) -> Findings:
    if mirrored is None or after is None or mirrored <= after + limits.nmi_noise:
        return []
    text = f"The mirror image matches better (NMI {mirrored:.3f}, not {after:.3f}): left and right may be exchanged."
    return [("fail", text)]


def _judge_peak(fraction: float | None, limits: QualityLimits) -> Findings:
    if fraction is None or fraction >= limits.peak_pass:
        return []
    return [("warn", f"NMI falls for only {fraction:.0%} of small shifts and turns: the match is not sharp.")]


def _judge_overlap(dice: float | None, limits: QualityLimits) -> Findings:
    least = limits.overlap_dice_pass
    if dice is None:
        return [("fail", "The two images do not meet.")]
    if dice >= least:
        return []
    text = f"The bodies overlap with a Dice of {parted(dice, least, 2)} (limit {least:g}): the pose is wrong, or one "
    return [("warn" if dice >= limits.overlap_dice_warn else "fail", f"{text}image shows parts of the body too dark.")]


def _judge_parts(apart_mm: float | None, limits: QualityLimits) -> Findings:
    if apart_mm is None:
        return [("warn", "Too little is in view to see whether the parts of the body fit.")]
    if apart_mm <= limits.local_shift_pass_mm:
        return []
    kind, limit = "warn" if apart_mm <= limits.local_shift_warn_mm else "fail", limits.local_shift_pass_mm
    text = f"Parts of the body match better {parted(apart_mm, limit, 1)} mm away (limit {limit:g} mm)"
    return [(kind, f"{text}: the pose is wrong, the body has another shape, or it is another patient.")]


def _judge_slices(astray: float, limits: QualityLimits) -> Findings:
    if astray <= limits.astray_pass:
        return []
    share = f"{parted(100 * astray, 100 * limits.astray_pass, 0)}%"
    text = f"{share} of the body fits better mirrored or in reversed order (limit {100 * limits.astray_pass:g}%)"
    return [("warn", f"{text}: slices may be out of order or flipped.")]


def _agreement(numbers: Mapping[str, Any], limits: QualityLimits) -> str:
    before, after = numbers["nmi_before"], numbers["nmi_after"]
    apart_mm = numbers.get("start_disagreement_mm")
    text = "" if apart_mm is None else f"Two starts agree within {apart_mm:.2f} mm; "
    if before is None:
        return f"{text}NMI is {after:.3f}; by their headers the images do not meet."
    if after == before:
        kept = f"the images are as their headers place them; NMI is {after:.3f} there."
        return f"{text}{kept}" if text else f"{kept[0].upper()}{kept[1:]}"
    if after <= before + limits.nmi_noise:
        moved = f"moved by {numbers['translation_mm']:.1f} mm and {numbers['rotation_deg']:.1f}°"
        text += f"the headers had aligned the images already; {moved}, NMI is no worse: {before:.3f}, now {after:.3f}."
        return text[0].upper() + text[1:]
    return f"{text}NMI rose from {before:.3f} to {after:.3f}."


def _interior(mask: MetaTensor, depth_mm: float) -> Any:
    """The body without its outermost millimetres, or the whole body where nothing else is left of it."""
    distance = sitk.SignedMaurerDistanceMap(to_sitk(mask), squaredDistance=False, useImageSpacing=True)
    deep = sitk.GetArrayViewFromImage(distance).transpose(2, 1, 0) <= -depth_mm
    return deep if deep.any() else mask.numpy()[0] > 0


def _perturbations(centre: FloatArray, shift_mm: float, turn_degrees: float) -> list[FloatArray]:
    steps = []
    for axis in np.vstack([np.eye(3), -np.eye(3)]):
        shift, turn = np.eye(4), np.eye(4)
        shift[:3, 3] = shift_mm * axis
        turn[:3, :3] = Rotation.from_rotvec(turn_degrees * axis, degrees=True).as_matrix()
        turn[:3, 3] = centre - turn[:3, :3] @ centre
        steps += [shift, turn]
    return steps
