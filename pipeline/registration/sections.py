"""What a report says of an alignment: its measures beside their limits, and pictures before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.registration.findings import AlignmentLimits
from pipeline.store.sections import Panel, Picture, Section, Table
from pipeline.words import NOT_AVAILABLE, clean, in_words, measure_text, parted, unit_of, with_unit

GRADE_WORDS = {"pass": "The alignment passed.", "warn": "Look at this alignment.", "fail": "The alignment failed."}
#: What was warned of stands on the first page of a report, before any other result.
RANKS = {"pass": 10, "warn": 40, "fail": 50}
#: Measure -> the limit that it is judged by, and on which side of it is well.
LIMITS = {
    "start_disagreement_mm": ("at most", "start_disagreement_pass_mm"),
    "nmi_after": ("at least", "nmi_least"),
    "nmi_peak_fraction": ("at least", "peak_pass"),
    "local_shift_mm": ("at most", "local_shift_pass_mm"),
    "astray_fraction": ("at most", "astray_pass"),
    "overlap_dice_after": ("at least", "overlap_dice_pass"),
    "landmark_tre_mm": ("at most", "landmark_pass_mm"),
    "landmark_fre_mm": ("at most", "landmark_pass_mm"),
    "label_distance_mm": ("at most", "label_distance_pass_mm"),
    "jacobian_min": ("at least", "jacobian_least"),
    "jacobian_max": ("at most", "jacobian_most"),
    "folding_fraction": ("at most", "folding_most"),
}
HELP = {
    "start_disagreement_mm": "How far apart two searches from different poses end, at most, in the body.",
    "nmi_other_start": "The normalised mutual information where the other search ends.",
    "nmi_before": "Normalised mutual information inside the body by the headers alone; 1: the images share nothing.",
    "nmi_after": "The same after the alignment.",
    "nmi_rigid": "The same for the rigid pose alone.",
    "nmi_mirrored": "The same for the best pose of the mirror image: if it is higher, left and right may be exchanged.",
    "nmi_peak_fraction": "Of small shifts and turns, the part that lowers it: a right pose is a peak.",
    "nmi_peak_step_mm": "How large these shifts are.",
    "local_shift_mm": "How far away parts of the body match better.",
    "astray_fraction": "How much of the body lies in slices that fit better mirrored or in reversed order.",
    "overlap_dice_before": "Dice of the two bodies by the headers alone.",
    "overlap_dice_after": "Dice of the two bodies after the alignment.",
    "header_conflict_mm": "How far from the headers' alignment the images match best, mean over the body.",
    "header_conflict_nmi": "The NMI there.",
    "rotation_deg": "By how much the moving image was turned.",
    "translation_mm": "By how much the body's centre was moved.",
    "inverse_error_mm": "How far a point lies from itself when it is mapped there and back.",
    "landmark_tre_mm": "Mean distance of landmarks that had no part in the alignment.",
    "landmark_fre_mm": "Mean distance of landmarks that the alignment was fitted to.",
    "label_distance_mm": "Distance of the centres of a label that was drawn on both images.",
    "label_distance_before_mm": "The same by the headers alone, of the label that lies furthest apart now.",
    "jacobian_min": "The smallest local change of volume.",
    "jacobian_max": "The largest local change of volume.",
}
CAPTION = (
    "Checkerboard: edges should run on from tile to tile. Overlay: {fixed} in grey, {moving} in colour. "
    "Radiological display: the patient's right is at the left of axial and coronal pictures."
)


def alignment_section(
    images: tuple[str, str, str],
    names: tuple[str, str],
    quality: Mapping[str, Any],
    limits: AlignmentLimits,
    focus: str = "",
) -> Section:
    """The part of a report about one alignment.

    Args:
        images: keys of the fixed image, the moving one, and the moving one on the fixed grid.
        names: of the fixed and of the moving image.
        quality: `verdict`, `reason`, and numbers with the unit in the key.
        limits: by which it was judged.
        focus: key of a label image on the fixed grid, through which the pictures' planes run.
    """
    rows = tuple(_row(key, value, limits) for key, value in quality.items() if key not in ("verdict", "reason"))
    help_of = {in_words(key): text for key, text in HELP.items()}
    sentences = (GRADE_WORDS[quality["verdict"]], clean(quality["reason"]))
    fixed, moving, aligned = images
    places = {
        "before": (moving, f"{names[1]} placed by the positions in its own header, nothing else."),
        "after": (aligned, f"{names[1]} on the grid of {names[0]}, where the alignment has put it."),
    }
    pictures = tuple(
        Picture(
            f"{moving}_{when}",
            f"{names[1]} and {names[0]} {when} alignment",
            f"{place} {CAPTION.format(fixed=names[0], moving=names[1])}",
            (
                Panel(names[0], fixed),
                Panel(names[1], image),
                Panel("Checkerboard", fixed, checkered=image),
                Panel(f"{names[1]} over {names[0]}", fixed, overlaid=image),
            ),
            focus=focus,
            flicker=moving,
            without=aligned if when == "before" else "",
            rank=RANKS[quality["verdict"]] if when == "after" else 0,
        )
        for when, (image, place) in places.items()
    )
    table = Table("", ("Measure", "Value", "Limit"), rows, help_of)
    return Section(f"{names[1]} aligned to {names[0]}", sentences, (table,), pictures)


def _row(key: str, value: Any, limits: AlignmentLimits) -> tuple[str, str, str]:
    side, name = LIMITS.get(key, ("", ""))
    limit = f"{side} {measure_text(key, getattr(limits, name))}" if name else ""
    text = NOT_AVAILABLE if value is None else measure_text(key, value)
    if value is not None and limit == f"{side} {text}":
        text = with_unit(parted(value, getattr(limits, name), 4), unit_of(key))
    return in_words(key), text, limit
