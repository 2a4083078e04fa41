"""Choose and draw the pictures of a case: before and after alignment, the CT's windows, the enhanced images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from monai.data import MetaTensor

from pipeline.geometry import same_grid
from pipeline.report.figures import Channel, Window, alignment_figure, gallery_figure, thumbnail
from pipeline.report.framing import body_frame, canonical, through_headers, voxels
from pipeline.report.slices import Frame, level_width, robust_window
from pipeline.volumes import affine_of
from pipeline.words import clean, in_words

#: Abdominal soft tissue, level and width in HU: bone, muscle, fat and air stay apart in any body part.
SOFT_TISSUE: tuple[float, float] = (40.0, 400.0)
#: Role suffixes of further images worth a look.
EXTRAS = ("windows", "enhanced")
GALLERY_COLUMNS = 4


@dataclass(frozen=True)
class Roles:
    """Which images belong together.

    Attributes:
        fixed: role of the image that gives the grid.
        moving: roles of the images that were aligned to it.
        modalities: role -> DICOM Modality.
        ct_window: level and width in HU for showing CT.
    """

    fixed: str
    moving: tuple[str, ...]
    modalities: Mapping[str, str] = field(default_factory=dict)
    ct_window: tuple[float, float] = SOFT_TISSUE

    def modality(self, role: str) -> str:
        """The role's modality; unknown ones are shown by percentiles."""
        return self.modalities.get(role, "")


@dataclass(frozen=True)
class Picture:
    """A drawn figure.

    Attributes:
        key: `<role>_before`, `<role>_after`, `<role>_thumbnail`, `gallery_<n>`.
        title: a heading.
        caption: what it shows, in a sentence or two.
        png: the file's bytes.
    """

    key: str
    title: str
    caption: str
    png: bytes


def case_pictures(case: Mapping[str, Any], roles: Roles) -> tuple[Picture, ...]:
    """Draw what the case has images for.

    Args:
        case: role -> MetaTensor (C, I, J, K); roles without an image are left out.
        roles: which images belong together.

    Raises:
        CaseError: E_GRID when an aligned image is not on the fixed image's grid.
    """
    fixed = image_of(case, roles.fixed)
    pictures: list[Picture] = []
    if fixed is not None:
        for role in roles.moving:
            pictures += _alignment(case, canonical(fixed), role, roles)
    return (*pictures, *_galleries(case, roles))


def image_of(case: Mapping[str, Any], key: str) -> MetaTensor | None:
    """The case's image under a key, or None."""
    value = case.get(key)
    return value if isinstance(value, MetaTensor) else None


def display_window(image: MetaTensor, modality: str, ct_window: tuple[float, float]) -> Window:
    """Low and high end of the display: the given level and width for CT, else robust percentiles."""
    return level_width(*ct_window) if modality == "CT" else robust_window(voxels(image))


def _alignment(case: Mapping[str, Any], fixed: MetaTensor, role: str, roles: Roles) -> Iterator[Picture]:
    native, aligned = image_of(case, role), image_of(case, f"{role}_aligned")
    if native is None and aligned is None:
        return
    before = None if native is None else through_headers(canonical(native), fixed)
    after = None if aligned is None else canonical(aligned)
    shown = after if after is not None else before
    source = native if native is not None else aligned
    frame = body_frame(fixed, roles.modality(roles.fixed), shown)
    windows = (
        display_window(fixed, roles.modality(roles.fixed), roles.ct_window),
        display_window(source, roles.modality(role), roles.ct_window),
    )
    names = (in_words(roles.fixed), in_words(role))
    for image, when in ((before, "before"), (after, "after")):
        if image is not None:
            title = f"{names[1]} and {names[0]} {when} alignment"
            data = alignment_figure(fixed, image, title, windows, frame, names)
            yield Picture(f"{role}_{when}", title, _alignment_caption(names, when), data)
    if after is not None:
        yield Picture(f"{role}_thumbnail", names[1], "Axial overlay.", thumbnail(fixed, after, windows, frame))


def _alignment_caption(names: tuple[str, str], when: str) -> str:
    place = (
        f"{names[1]} placed by the positions in its own header, nothing else."
        if when == "before"
        else f"{names[1]} resampled to the grid of {names[0]} through the transform that was found."
    )
    return (
        f"{place} Checkerboard: edges should run on from tile to tile. Overlay: {names[0]} in grey, {names[1]} in "
        "colour. Radiological display: the patient's right is at the left of axial and coronal pictures."
    )


def _galleries(case: Mapping[str, Any], roles: Roles) -> Iterator[Picture]:
    channels = [channel for role in (roles.fixed, *roles.moving) for channel in _channels(case, role, roles)]
    groups = [channels[start : start + GALLERY_COLUMNS] for start in range(0, len(channels), GALLERY_COLUMNS)]
    for number, group in enumerate(groups, start=1):
        title = "Prepared images" if number == 1 else f"Prepared images, continued ({number})"
        caption = "Each channel in its own display window, through the centre of the body."
        yield Picture(f"gallery_{number}", title, caption, gallery_figure(group, title))


def _channels(case: Mapping[str, Any], role: str, roles: Roles) -> Iterator[Channel]:
    for key in (f"{role}_{extra}" for extra in EXTRAS):
        image = image_of(case, key)
        if image is None:
            continue
        names = _channel_names(image, recorded_names(case, key), in_words(role), in_words(key))
        frame = _extra_frame(case, role, canonical(image), roles)
        for index, name in enumerate(names):
            yield Channel(name, canonical(image), index, _channel_window(image, index), frame)


def recorded_names(case: Mapping[str, Any], key: str) -> list[str]:
    """The channels' names, which the stage that made them has recorded as the measure `<key>_channels`."""
    measures = {name: value for record in case.get("records") or () for name, value in record.measures.items()}
    return [name for name in str(measures.get(f"{key}_channels", "")).split(", ") if name]


def _channel_names(image: MetaTensor, recorded: Sequence[str], role: str, name: str) -> Sequence[str]:
    """The role and the recorded names of the channels; else the image's own name, numbered where there are several."""
    count = image.shape[0]
    if len(recorded) == count:
        return [f"{role} {clean(item).replace('_', ' ')}" for item in recorded]
    return [name] if count == 1 else [f"{name} {index + 1}" for index in range(count)]


def _channel_window(image: MetaTensor, channel: int) -> Window:
    """Channels that were scaled to [0, 1] are shown as they are, others by percentiles."""
    values = voxels(image, channel)
    scaled = float(values.min()) >= 0.0 and 0.5 <= float(values.max()) <= 1.0
    return (0.0, 1.0) if scaled else robust_window(values)


def _extra_frame(case: Mapping[str, Any], role: str, image: MetaTensor, roles: Roles) -> Frame:
    """The frame of the role's own image or of the fixed one, whichever shares the grid: their modality is known."""
    for name in (role, roles.fixed):
        source = image_of(case, name)
        if source is None:
            continue
        source = canonical(source)
        if same_grid(source.shape, affine_of(source), image.shape, affine_of(image)):
            return body_frame(source, roles.modality(name))
    return body_frame(image, "")
