"""Why the fusion network says what it says: its maps over the images, and what each modality has to do with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from monai.data import MetaTensor

from pipeline.cases import Record
from pipeline.geometry import same_grid
from pipeline.report.figures import Map, map_figure
from pipeline.report.framing import body_frame, canonical, voxels
from pipeline.report.pictures import Picture, Roles, display_window, image_of, recorded_names
from pipeline.report.slices import Frame
from pipeline.volumes import affine_of, require_same_grid
from pipeline.words import NOT_AVAILABLE, clean, in_words, number_text

#: With every map, because a picture persuades more than it proves.
CAVEAT = (
    "A map shows what the network's answer is sensitive to. It does not prove that this is why the case is of the "
    "class, nor that the rest of the image does not matter."
)
#: Measures that stand here, and not in the list of all measures.
PREFIXES = (
    *("fused_explained_", "fused_gradcam_", "fused_gate"),
    *("fused_class_without_", "fused_class_probability_without_", "fused_class_probability_change_"),
)
COLUMNS = (
    "Modality",
    "Part of Grad-CAM",
    "Mean gate in the body",
    "Probability without it",
    "Change",
    "Class without it",
)
MAPS_A_SHEET = 5
#: Of the places that add something; brighter ones share the brightest colour.
GRADCAM_PERCENTILE = 99.0


@dataclass(frozen=True)
class Why:
    """What a report says about the reasons of a class.

    Attributes:
        heading: with the class.
        rows: one a modality, texts as in `COLUMNS`.
        pictures: maps over images.
    """

    heading: str
    rows: tuple[tuple[str, ...], ...]
    pictures: tuple[Picture, ...]


def case_why(case: Mapping[str, Any], records: Sequence[Record], roles: Roles) -> Why | None:
    """What the stages have found of why a case got its class; None where nobody asked.

    Args:
        case: role -> MetaTensor; `fused_gradcam`, `fused_gates`, `fused_occlusion` where they were made.
        records: of its stages.
        roles: which images belong together.

    Raises:
        CaseError: E_GRID when a map is not on the fixed image's grid.
    """
    measures = {name: value for record in records for name, value in record.measures.items()}
    if not any(name.startswith(PREFIXES) for name in measures):
        return None
    said = clean(measures.get("fused_explained_class", ""))
    heading = f"Why {said}" if said else "What the network looks at"
    return Why(heading, tuple(_rows(measures)), tuple(_pictures(case, roles, heading)))


def _rows(measures: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    names = [name for key in ("fused_gradcam_channels", "fused_gates_channels") for name in _listed(measures, key)]
    names += [key.removeprefix("fused_class_without_") for key in measures if key.startswith("fused_class_without_")]
    for name in dict.fromkeys(names):
        change = measures.get(f"fused_class_probability_change_without_{name}")
        yield (
            in_words(name),
            _number(measures.get(f"fused_gradcam_share_{name}")),
            _number(measures.get(f"fused_gate_share_{name}")),
            _number(measures.get(f"fused_class_probability_without_{name}")),
            NOT_AVAILABLE if change is None else f"{change:+.3f}",
            clean(measures.get(f"fused_class_without_{name}", NOT_AVAILABLE)),
        )


def _listed(measures: Mapping[str, Any], key: str) -> list[str]:
    return [name for name in str(measures.get(key, "")).split(", ") if name]


def _number(value: Any) -> str:
    return NOT_AVAILABLE if value is None else number_text(float(value))


def _pictures(case: Mapping[str, Any], roles: Roles, heading: str) -> Iterator[Picture]:
    fixed = image_of(case, roles.fixed)
    if fixed is None:
        return
    fixed = canonical(fixed)
    maps = list(_maps(case, fixed, roles))
    frame = _frame(fixed, maps, roles)
    for start in range(0, len(maps), MAPS_A_SHEET):
        group = maps[start : start + MAPS_A_SHEET]
        title = heading if start == 0 else f"{heading}, continued"
        caption = f"{_caption(group)} {CAVEAT}"
        yield Picture(f"why_{start // MAPS_A_SHEET + 1}", title, caption, map_figure(group, frame, title))


def _maps(case: Mapping[str, Any], fixed: MetaTensor, roles: Roles) -> Iterator[Map]:
    for key, word, unit in (
        ("fused_gradcam", "Grad-CAM", "added log-odds"),
        ("fused_occlusion", "Occlusion", "fall of the probability"),
        ("fused_gates", "Gate", "share of the modality"),
    ):
        values = image_of(case, key)
        if values is None:
            continue
        values = canonical(values)
        require_same_grid(fixed, values, (f"the {in_words(roles.fixed)} image", key))
        limit = _limit(key, values)
        names = recorded_names(case, key) or [""]
        for channel, name in enumerate(names):
            image, role = _image_below(case, name, fixed, roles)
            window = display_window(image, roles.modality(role), roles.ct_window)
            title = f"{word} {in_words(name)}".strip()
            beyond = float(values.max()) > limit
            yield Map(title, image, window, values, channel, limit, key == "fused_occlusion", unit, beyond)


def _limit(key: str, values: MetaTensor) -> float:
    """The value of the brightest colour; of Grad-CAM below the few voxels that a largest value alone may rest on."""
    if key == "fused_gates":
        return 1.0
    above = values.abs()[values != 0].numpy()
    if not above.size:
        return 1.0
    return float(np.percentile(above, GRADCAM_PERCENTILE)) if key == "fused_gradcam" else float(above.max())


def _image_below(case: Mapping[str, Any], name: str, fixed: MetaTensor, roles: Roles) -> tuple[MetaTensor, str]:
    """The image of the modality where the case has it on the fixed grid, under the same name; else the fixed image."""
    for key in (f"{name}_aligned", name):
        image = image_of(case, key)
        if image is None:
            continue
        image = canonical(image)
        if same_grid(image.shape, affine_of(image), fixed.shape, affine_of(fixed)):
            return image, name
    return fixed, roles.fixed


def _frame(fixed: MetaTensor, maps: Sequence[Map], roles: Roles) -> Frame:
    """The body, with planes through the strongest place of the first map that has one: gates alone have none."""
    frame = body_frame(fixed, roles.modality(roles.fixed))
    peaked = next((item for item in maps if item.signed), next(iter(maps), None))
    if peaked is None or peaked.name.startswith("Gate"):
        return frame
    values = np.abs(voxels(peaked.values, peaked.channel))
    # the middle of all voxels that share the largest value, as a block does
    peak = np.median(np.argwhere(values == values.max()), axis=0).astype(int)
    inside = np.clip(peak, frame.low, np.asarray(frame.high) - 1)
    return replace(frame, centre=(int(inside[0]), int(inside[1]), int(inside[2])))


def _caption(maps: Sequence[Map]) -> str:
    words = {
        "Grad-CAM": "Grad-CAM: what each place adds to the log-odds of the class, in the tiles that make it.",
        "Occlusion": "Occlusion: how far the probability falls when a block shows the mean of the body; blue: rises.",
        "Gate": "Gate: how much each modality counts at a place; the shares sum to 1.",
    }
    there = [text for word, text in words.items() if any(item.name.startswith(word) for item in maps)]
    return " ".join(there)
