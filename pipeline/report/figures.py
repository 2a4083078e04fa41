"""The figures of a report: columns of images in three planes, with what lies over them, their scales and legends."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from monai.data import MetaTensor
from PIL import Image

from pipeline.geometry import apply, spacing_mm
from pipeline.report.sheet import Scale, Swatch, Tile, draw, png
from pipeline.report.slices import (
    LETTERS,
    PLANES,
    Frame,
    checkerboard,
    outline,
    overlay,
    plane_slice,
    plane_spacing,
    to_label_pixels,
    to_pixels,
    windowed,
)
from pipeline.store.sections import Axis, Coloured
from pipeline.volumes import affine_of
from pipeline.words import clean, number_text, with_unit

Window = tuple[float, float]

#: Pictures along the longer side of a plane have this many pixels: what a printed cell resolves.
PIXELS = 480
#: Tiles along the longest side of the box.
TILES = 7
THUMBNAIL_PIXELS = 200
#: Slices to scroll through: how many at most, how large, and how strongly compressed.
SLICES, SLICE_PIXELS, SLICE_QUALITY = 24, 280, 82
#: Amber on grey, by brightness alone: dark voxels stay neutral, and white is left to the fixed image.
COLOURS: npt.NDArray = np.linspace(0.0, 1.0, 256)[:, None] * np.array([1.0, 0.6, 0.15])
#: Blue on grey, for values below 0: apart from amber for every kind of colour vision.
BELOW: npt.NDArray = np.linspace(0.0, 1.0, 256)[:, None] * np.array([0.25, 0.6, 1.0])
#: Opacity of a label's colour inside its edge.
LABEL_OPACITY = 0.4


@dataclass(frozen=True)
class View:
    """How volumes of one grid become pictures: one plane of it, cropped, in square pixels.

    Attributes:
        plane: `axial`, `coronal` or `sagittal`.
        frame: where the plane lies and how it is cropped.
        spacing_mm: of the grid along I, J, K.
        pixel_mm: side of a pixel.
    """

    plane: str
    frame: Frame
    spacing_mm: npt.NDArray
    pixel_mm: float

    @property
    def between_mm(self) -> tuple[float, float]:
        """Distance between the voxels' rows and columns."""
        return plane_spacing(self.spacing_mm, self.plane)

    def values(self, array: npt.NDArray) -> npt.NDArray:
        """Values (rows, columns) of a volume (I, J, K), interpolated."""
        return to_pixels(plane_slice(array, self.plane, self.frame), self.between_mm, self.pixel_mm)

    def grey(self, array: npt.NDArray, window: Window) -> npt.NDArray:
        """A volume (I, J, K) in a display window, (rows, columns, 3)."""
        cut = windowed(plane_slice(array, self.plane, self.frame), window)
        return np.repeat(to_pixels(cut, self.between_mm, self.pixel_mm)[..., None], 3, axis=2)

    def labels(self, array: npt.NDArray) -> npt.NDArray:
        """Labels (rows, columns) of a volume (I, J, K), each pixel that of its voxel."""
        return to_label_pixels(plane_slice(array, self.plane, self.frame), self.between_mm, self.pixel_mm)


@dataclass(frozen=True)
class Labels:
    """A label image (I, J, K): value -> name and colour."""

    values: npt.NDArray
    swatches: Mapping[int, Swatch]

    def seen(self, view: View) -> Iterator[tuple[npt.NDArray, Swatch]]:
        """Of each label that a picture shows: its pixels (rows, columns), and its swatch."""
        shown = np.round(view.labels(self.values))
        for value in np.unique(shown):
            if value in self.swatches:
                yield shown == value, self.swatches[value]


@dataclass(frozen=True)
class Column:
    """One column of a figure; all arrays are (I, J, K) on one grid in canonical axes.

    Attributes:
        name: what stands above it.
        grey: what is shown in grey.
        window: low and high end of its display.
        unit: of its values, or an empty text.
        outlined: label images whose edges are drawn.
        filled: a label image that lies over it, each label in its colour.
        top: what else lies over it, or alternates with it.
        top_window: low and high end of its display.
        top_unit: of its values, in words.
        checkered: the two alternate in tiles.
        coloured: how `top` is shown, where it is values in colour.
    """

    name: str
    grey: npt.NDArray
    window: Window
    unit: str = ""
    outlined: tuple[Labels, ...] = ()
    filled: Labels | None = None
    top: npt.NDArray | None = None
    top_window: Window = (0.0, 1.0)
    top_unit: str = ""
    checkered: bool = False
    coloured: Coloured | None = None

    @property
    def note(self) -> str:
        """The display window in words; nothing for a checkerboard, whose two images stand beside it."""
        return "" if self.checkered else window_text(self.window, self.unit)

    @property
    def scale(self) -> Scale | None:
        """What the colours of continuous values mean."""
        if self.top is None or self.checkered:
            return None
        if self.coloured is None:
            return Scale(COLOURS, *_ends(self.top_window), self.top_unit)
        high = f"{self.coloured.limit:.2g}"
        if self.coloured.signed:
            return Scale(np.concatenate([BELOW[::-1], COLOURS]), f"-{high}", high, self.coloured.unit)
        return Scale(COLOURS, "0", f"≥ {high}" if self.coloured.beyond else high, self.coloured.unit)

    def pixels(self, view: View) -> npt.NDArray:
        """The column's picture in one plane, (rows, columns, 3) in [0, 1]."""
        shown = view.grey(self.grey, self.window)
        if self.top is not None:
            shown = self._with_top(shown, self.top, view)
        for inside, swatch in self.filled.seen(view) if self.filled else ():
            shown[inside] = (1 - LABEL_OPACITY) * shown[inside] + LABEL_OPACITY * swatch.colour
        for inside, swatch in self._edged(view):
            shown[outline(inside)] = swatch.colour
        return shown

    def swatches(self, view: View) -> list[Swatch]:
        """The labels that the picture shows."""
        return [swatch for _, swatch in self._edged(view)]

    def _edged(self, view: View) -> Iterator[tuple[npt.NDArray, Swatch]]:
        for labels in (*self.outlined, *([self.filled] if self.filled else [])):
            yield from labels.seen(view)

    def _with_top(self, shown: npt.NDArray, top: npt.NDArray, view: View) -> npt.NDArray:
        if self.coloured:
            values = view.values(top / self.coloured.limit)
            shown = overlay(shown, np.clip(values, 0, 1), COLOURS)
            return overlay(shown, np.clip(-values, 0, 1), BELOW) if self.coloured.signed else shown
        above = view.grey(top, self.top_window)
        if self.checkered:
            return checkerboard(shown, above, max(1, round(PIXELS / TILES)))
        return overlay(shown, above[..., 0], COLOURS)


def draw_columns(
    columns: Sequence[Column], grid: MetaTensor, frame: Frame, title: str, axes: Sequence[Axis] = ()
) -> bytes:
    """Draw columns in three planes; of a grid that is one voxel thick, the plane that it fills.

    Args:
        columns: one to five of them, on one grid.
        grid: (C, I, J, K), canonical axes.
        frame: planes and crop on that grid.
        title: above the figure.
        axes: of a flat picture that lies nowhere in a patient, across and up; empty for all others.

    Returns:
        PNG bytes, radiological display, one scale for all pictures.
    """
    flat = [plane for plane, axis in PLANES.items() if grid.shape[1 + axis] == 1]
    views = [view_of(grid, plane, frame) for plane in flat or PLANES]
    rows = []
    for view in views:
        shape = plane_slice(columns[0].grey, view.plane, frame).shape
        size = shape[0] * view.between_mm[0], shape[1] * view.between_mm[1]
        rows.append([Tile(column.pixels(view), size, "" if axes else LETTERS[view.plane], axes) for column in columns])
    seen = [swatch for column in columns for view in views for swatch in column.swatches(view)]
    found = {(item.name, tuple(item.colour)): item for item in seen}
    return draw(
        rows,
        [_row_name(view, grid, frame, axes) for view in views],
        [column.name for column in columns],
        title,
        notes=[column.note for column in columns],
        scales=[column.scale for column in columns],
        legend=list(found.values()),
    )


def _row_name(view: View, grid: MetaTensor, frame: Frame, axes: Sequence[Axis]) -> str:
    """What stands at the left of a row: the plane and where it lies, or what runs up and across."""
    if axes:
        across, up = (clean(axis.name) for axis in axes)
        return f"{up}\nacross: {across}"
    return f"{view.plane.capitalize()}\n{position_text(grid, view.plane, frame)}"


def view_of(grid: MetaTensor, plane: str, frame: Frame, pixels: int = PIXELS) -> View:
    """One plane of a grid, in pixels with which the longest side of the frame's box has `pixels` of them."""
    spacing = spacing_mm(affine_of(grid))
    extent = (np.asarray(frame.high) - np.asarray(frame.low)) * spacing
    return View(plane, frame, spacing, float(extent.max() / pixels))


def position_text(grid: MetaTensor, plane: str, frame: Frame) -> str:
    """Where a plane lies: the patient coordinate (RAS) that it is perpendicular to, at the point all planes share."""
    axis = PLANES[plane]
    return f"{'xyz'[axis]} = {float(apply(affine_of(grid), frame.centre)[axis]):.1f} mm"


def window_text(window: Window, unit: str) -> str:
    """A display window in words: width and level for HU, else low and high end, with the unit."""
    low, high = window
    if unit == "HU":
        return f"W {number_text(high - low)} L {number_text((low + high) / 2)} HU"
    return with_unit(" to ".join(_ends(window)), unit)


def _ends(window: Window) -> tuple[str, str]:
    """Both ends, to three digits; what is less than a thousandth of what lies between is 0."""
    least = (window[1] - window[0]) / 1000
    low, high = (number_text(float(f"{end if abs(end) >= least else 0.0:.3g}")) for end in window)
    return low, high


def scrollable(columns: Sequence[Column], grid: MetaTensor, frame: Frame) -> tuple[tuple[str, bytes], ...]:
    """Axial slices of columns side by side, from head to feet.

    Returns:
        For each slice where it lies and its JPEG bytes; none for a grid that is one voxel thick.
    """
    low, high = frame.low[2], frame.high[2]
    if min(grid.shape[1:]) == 1:
        return ()
    found = []
    for k in np.unique(np.linspace(high - 1, low, min(SLICES, high - low)).round().astype(int))[::-1]:
        here = Frame((*frame.centre[:2], int(k)), frame.low, frame.high)
        view = view_of(grid, "axial", here, SLICE_PIXELS)
        tiles = [column.pixels(view) for column in columns]
        found.append((position_text(grid, "axial", here), _jpeg(np.concatenate(tiles, axis=1))))
    return tuple(found)


def _jpeg(pixels: npt.NDArray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(_bytes(pixels)).save(stream, "JPEG", quality=SLICE_QUALITY)
    return stream.getvalue()


def _bytes(pixels: npt.NDArray) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(np.round(pixels * 255).astype(np.uint8))


def thumbnail(column: Column, grid: MetaTensor, frame: Frame) -> bytes:
    """Draw the axial slice of a column, small, for the page of the cohort.

    Returns:
        PNG bytes, at most 200 pixels wide or high.
    """
    return png(_bytes(column.pixels(view_of(grid, "axial", frame, THUMBNAIL_PIXELS))))
