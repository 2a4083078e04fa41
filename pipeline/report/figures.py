"""The figures of a report: columns of images in three planes, with what lies over them, their scales and legends."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
from pipeline.store.sections import Coloured
from pipeline.volumes import affine_of
from pipeline.words import number_text, with_unit

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
class Outline:
    """The edge of a region: (I, J, K), True inside."""

    swatch: Swatch
    inside: npt.NDArray


@dataclass(frozen=True)
class Column:
    """One column of a figure; all arrays are (I, J, K) on one grid in canonical axes.

    Attributes:
        name: what stands above it.
        grey: what is shown in grey.
        window: low and high end of its display.
        unit: of its values, or an empty text.
        outlines: of the regions that belong to it.
        top: what lies over it, or alternates with it.
        top_window: low and high end of its display.
        top_unit: its name and unit, in words.
        checkered: the two alternate in tiles.
        coloured: how `top` is shown, where it is values in colour.
        labels: value -> name and colour, where `top` is labels.
    """

    name: str
    grey: npt.NDArray
    window: Window
    unit: str = ""
    outlines: tuple[Outline, ...] = ()
    top: npt.NDArray | None = None
    top_window: Window = (0.0, 1.0)
    top_unit: str = ""
    checkered: bool = False
    coloured: Coloured | None = None
    labels: Mapping[int, Swatch] = field(default_factory=dict)

    @property
    def note(self) -> str:
        """The display window in words; nothing for a checkerboard, whose two images stand beside it."""
        return "" if self.checkered else window_text(self.window, self.unit)

    @property
    def scale(self) -> Scale | None:
        """What the colours of continuous values mean."""
        if self.top is None or self.checkered or self.labels:
            return None
        if self.coloured is None:
            low, high = (number_text(float(f"{end:.3g}")) for end in self.top_window)
            return Scale(COLOURS, low, high, self.top_unit)
        high = f"{self.coloured.limit:.2g}"
        if self.coloured.signed:
            return Scale(np.concatenate([BELOW[::-1], COLOURS]), f"-{high}", high, self.coloured.unit)
        return Scale(COLOURS, "0", f"≥ {high}" if self.coloured.beyond else high, self.coloured.unit)

    def pixels(self, plane: str, frame: Frame, spacing: npt.NDArray, pixel: float) -> npt.NDArray:
        """The column's picture in one plane, (rows, columns, 3) in [0, 1].

        Args:
            plane: `axial`, `coronal` or `sagittal`.
            frame: where the plane lies and how it is cropped.
            spacing: of the grid along I, J, K, mm.
            pixel: side of a pixel, mm.
        """
        between = plane_spacing(spacing, plane)

        def cut(array: npt.NDArray, window: Window) -> npt.NDArray:
            return to_pixels(windowed(plane_slice(array, plane, frame), window), between, pixel)

        def label_cut(array: npt.NDArray) -> npt.NDArray:
            return to_label_pixels(plane_slice(array, plane, frame), between, pixel)

        shown = np.repeat(cut(self.grey, self.window)[..., None], 3, axis=2)
        if self.top is not None and self.labels:
            shown = _labelled(shown, np.round(label_cut(self.top)), self.labels)
        elif self.top is not None and self.coloured:
            low = to_pixels(plane_slice(self.top, plane, frame) / self.coloured.limit, between, pixel)
            shown = overlay(shown, np.clip(low, 0, 1), COLOURS)
            shown = overlay(shown, np.clip(-low, 0, 1), BELOW) if self.coloured.signed else shown
        elif self.top is not None:
            top = cut(self.top, self.top_window)
            tile = max(1, round(PIXELS / TILES))
            shown = checkerboard(shown, np.repeat(top[..., None], 3, axis=2), tile) if self.checkered else overlay(shown, top, COLOURS)
        for item in self.outlines:
            shown[outline(label_cut(item.inside))] = item.swatch.colour
        return shown


def _labelled(shown: npt.NDArray, values: npt.NDArray, labels: Mapping[int, Swatch]) -> npt.NDArray:
    """Each label in its colour over what is shown, with an opaque edge."""
    for value, swatch in labels.items():
        inside = values == value
        shown[inside] = (1 - LABEL_OPACITY) * shown[inside] + LABEL_OPACITY * swatch.colour
        shown[outline(inside)] = swatch.colour
    return shown


def draw_columns(columns: Sequence[Column], grid: MetaTensor, frame: Frame, title: str) -> bytes:
    """Draw columns in three planes; of a grid that is one voxel thick, the plane that it fills.

    Args:
        columns: one to five of them, on one grid.
        grid: (C, I, J, K), canonical axes.
        frame: planes and crop on that grid.
        title: above the figure.

    Returns:
        PNG bytes, radiological display, one scale for all pictures.
    """
    spacing, pixel = spacing_mm(affine_of(grid)), pixel_mm(grid, frame)
    flat = [plane for plane, axis in PLANES.items() if grid.shape[1 + axis] == 1]
    rows = []
    planes = flat or list(PLANES)
    for plane in planes:
        size = plane_size_mm(plane_slice(columns[0].grey, plane, frame).shape, plane_spacing(spacing, plane))
        rows.append([Tile(column.pixels(plane, frame, spacing, pixel), size, LETTERS[plane]) for column in columns])
    return draw(
        rows,
        [f"{plane.capitalize()}\n{position_text(grid, plane, frame)}" for plane in planes],
        [column.name for column in columns],
        title,
        notes=[column.note for column in columns],
        scales=[column.scale for column in columns],
        legend=legend(columns),
    )


def legend(columns: Sequence[Column]) -> tuple[Swatch, ...]:
    """The labels and outlines that the columns show, each once."""
    found = [item.swatch for column in columns for item in column.outlines if item.inside.any()]
    found += [
        swatch for column in columns for value, swatch in column.labels.items() if (np.round(column.top) == value).any()
    ]
    return tuple({(item.name, tuple(item.colour)): item for item in found}.values())


def position_text(grid: MetaTensor, plane: str, frame: Frame) -> str:
    """Where a plane lies: the patient coordinate (RAS) that it is perpendicular to, at the point all planes share."""
    axis = PLANES[plane]
    return f"{'xyz'[axis]} = {float(apply(affine_of(grid), frame.centre)[axis]):.1f} mm"


def window_text(window: Window, unit: str) -> str:
    """A display window in words: width and level for HU, else low and high end, with the unit."""
    low, high = window
    if unit == "HU":
        return f"W {number_text(high - low)} L {number_text((low + high) / 2)} HU"
    return with_unit(f"{number_text(float(f'{low:.3g}'))} to {number_text(float(f'{high:.3g}'))}", unit)


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
        pixel = pixel_mm(grid, frame) * PIXELS / SLICE_PIXELS
        tiles = [column.pixels("axial", here, spacing_mm(affine_of(grid)), pixel) for column in columns]
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
    pixel = pixel_mm(grid, frame) * PIXELS / THUMBNAIL_PIXELS
    return png(_bytes(column.pixels("axial", frame, spacing_mm(affine_of(grid)), pixel)))


def plane_size_mm(shape: Sequence[int], spacing: tuple[float, float]) -> tuple[float, float]:
    """Height and width of a plane's picture, mm."""
    return shape[0] * spacing[0], shape[1] * spacing[1]


def pixel_mm(grid: MetaTensor, frame: Frame) -> float:
    """Side of a square pixel with which the longest side of the box has `PIXELS` pixels."""
    extent = (np.asarray(frame.high) - np.asarray(frame.low)) * spacing_mm(affine_of(grid))
    return float(extent.max() / PIXELS)
