"""What the fusion network says of a case: probabilities, each with its calibration, and labels over the images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from monai.data import MetaTensor

from pipeline.cases import Record
from pipeline.report.figures import Map, map_figure
from pipeline.report.framing import body_frame, canonical, voxels
from pipeline.report.pictures import Picture, Roles, display_window, image_of
from pipeline.report.slices import Frame
from pipeline.volumes import require_same_grid
from pipeline.words import NOT_AVAILABLE, clean, in_words, measure_text, value_text

#: Measures that stand here, and not in the list of all measures.
PREFIXES = ("fused_class", "fused_label", "fused_modalities")
COLUMNS = ("What", "Value", "Calibration")
NOT_CALIBRATED = "not calibrated"
MAPS_A_SHEET = 4
CAPTION = (
    "The probability of each label, and the label that is most probable at each voxel, over the images; planes through "
    "the most probable place. Whether the probabilities are calibrated stands in the table."
)


@dataclass(frozen=True)
class Fused:
    """What a report says about the network's answer.

    Attributes:
        heading: with the most probable class.
        summary: which modalities the network saw.
        rows: one a probability or label, texts as in `COLUMNS`.
        pictures: labels and their probabilities over the images.
    """

    heading: str
    summary: str
    rows: tuple[tuple[str, str, str], ...]
    pictures: tuple[Picture, ...]


def case_fused(case: Mapping[str, Any], records: Sequence[Record], roles: Roles) -> Fused | None:
    """What the stage `fuse` has found; None where it has not run or did not finish.

    Args:
        case: role -> MetaTensor; `fused_probability` and `fused_label` where they were made.
        records: of its stages.
        roles: which images belong together.

    Raises:
        CaseError: E_GRID when an answer is not on the fixed image's grid.
    """
    measures = {name: value for record in records for name, value in record.measures.items()}
    if "fused_modalities" not in measures:
        return None
    said = clean(measures.get("fused_class", ""))
    seen = ", ".join(in_words(name) for name in str(measures["fused_modalities"]).split(", "))
    rows = (*_classes(measures), *_labels(measures))
    heading = f"Fusion: {said}" if said else "Fusion"
    return Fused(heading, f"The network saw {seen}.", rows, tuple(_pictures(case, measures, roles)))


def _classes(measures: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    calibration = clean(measures.get("fused_class_calibration", NOT_CALIBRATED))
    for key, value in measures.items():
        name = key.removeprefix("fused_class_").removesuffix("_probability")
        if key == f"fused_class_{name}_probability":
            yield f"Probability of {clean(name)}", value_text(value), calibration


def _labels(measures: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    calibration = clean(measures.get("fused_label_calibration", NOT_CALIBRATED))
    for name in _label_names(measures):
        volume = measures.get(f"fused_label_{name}_volume_ml")
        text = NOT_AVAILABLE if volume is None else measure_text("volume_ml", volume)
        yield f"Volume of {clean(name)}", text, f"voxel probabilities {calibration}"


def _label_names(measures: Mapping[str, Any]) -> list[str]:
    """Of the labels above 0, in order: `1 lesion, 2 organ` in the record."""
    return [item.split(" ", 1)[1] for item in str(measures.get("fused_label_labels", "")).split(", ") if " " in item]


def _pictures(case: Mapping[str, Any], measures: Mapping[str, Any], roles: Roles) -> Iterator[Picture]:
    fixed, chances, labels = (image_of(case, key) for key in (roles.fixed, "fused_probability", "fused_label"))
    if fixed is None or chances is None or labels is None:
        return
    fixed, chances, labels = (canonical(image) for image in (fixed, chances, labels))
    for image in (chances, labels):
        require_same_grid(fixed, image, (f"the {in_words(roles.fixed)} image", "the network's answer"))
    maps = list(_maps(case, fixed, chances, labels, _label_names(measures), roles))
    frame = _frame(fixed, chances, roles)
    for start in range(0, len(maps), MAPS_A_SHEET):
        title = "Labels of the fusion network" + (", continued" if start else "")
        drawn = map_figure(maps[start : start + MAPS_A_SHEET], frame, title)
        yield Picture(f"fused_{start // MAPS_A_SHEET + 1}", title, CAPTION, drawn)


def _maps(
    case: Mapping[str, Any],
    fixed: MetaTensor,
    chances: MetaTensor,
    labels: MetaTensor,
    names: Sequence[str],
    roles: Roles,
) -> Iterator[Map]:
    """Of each label its probability over the fixed image; the labels over every image."""
    window = display_window(fixed, roles.modality(roles.fixed), roles.ct_window)
    for channel, name in enumerate(names, start=1):
        yield Map(f"P({clean(name)})", fixed, window, chances, channel, 1.0, False, "probability")
    limit = float(max(1, len(names)))
    for role in (roles.fixed, *roles.moving):
        image = fixed if role == roles.fixed else image_of(case, f"{role}_aligned")
        if image is not None:
            window = display_window(image, roles.modality(role), roles.ct_window)
            yield Map(f"Labels over {in_words(role)}", canonical(image), window, labels, 0, limit, False, "label")


def _frame(fixed: MetaTensor, chances: MetaTensor, roles: Roles) -> Frame:
    """The body, with planes through the place that is most probably not background."""
    frame = body_frame(fixed, roles.modality(roles.fixed))
    background = voxels(chances, 0)
    peak = np.median(np.argwhere(background == background.min()), axis=0).astype(int)
    inside = np.clip(peak, frame.low, np.asarray(frame.high) - 1)
    return replace(frame, centre=(int(inside[0]), int(inside[1]), int(inside[2])))
