"""The figures of a report: two images before or after alignment, and galleries of further channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from monai.data import MetaTensor

from pipeline.geometry import spacing_mm
from pipeline.report.framing import body_frame, canonical, voxels
from pipeline.report.sheet import Scale, Tile, draw, png
from pipeline.report.slices import (
    LETTERS,
    PLANES,
    Frame,
    checkerboard,
    overlay,
    plane_slice,
    plane_spacing,
    robust_window,
    to_pixels,
    windowed,
)
from pipeline.volumes import affine_of, require_same_grid

Window = tuple[float, float]

#: Pictures along the longer side of a plane have this many pixels: what a printed cell resolves.
PIXELS = 480
#: Tiles along the longest side of the box.
TILES = 7
THUMBNAIL_PIXELS = 200
#: Amber on grey, by brightness alone: dark voxels stay neutral, and white is left to the fixed image.
COLOURS: npt.NDArray = np.linspace(0.0, 1.0, 256)[:, None] * np.array([1.0, 0.6, 0.15])
#: Blue on grey, for values below 0: apart from amber for every kind of colour vision.
BELOW: npt.NDArray = np.linspace(0.0, 1.0, 256)[:, None] * np.array([0.25, 0.6, 1.0])


@dataclass(frozen=True)
class Channel:
    """One picture column of a gallery.

    Attributes:
        name: what stands above it.
        image: (C, I, J, K), canonical axes.
        channel: which channel is drawn.
        window: low and high end of the display.
        frame: what of the grid is drawn.
    """

    name: str
    image: MetaTensor
    channel: int
    window: Window
    frame: Frame


@dataclass(frozen=True)
class Map:
    """One column of a figure of maps over images.

    Attributes:
        name: what stands above it.
        image: (1, I, J, K), canonical axes: what is shown in grey.
        window: low and high end of its display.
        values: (C, I, J, K) on the image's grid, canonical axes.
        channel: which channel of the values is shown.
        limit: the value of the brightest colour.
        signed: there are values below 0, down to -limit, in another colour.
        unit: of the values, in words.
        beyond: values go on above the limit, in its colour, and the colour scale says so.
    """

    name: str
    image: MetaTensor
    window: Window
    values: MetaTensor
    channel: int
    limit: float
    signed: bool
    unit: str
    beyond: bool = False


def alignment_figure(
    fixed: MetaTensor,
    moving: MetaTensor,
    title: str,
    windows: tuple[Window, Window] | None = None,
    frame: Frame | None = None,
    names: tuple[str, str] = ("Fixed", "Moving"),
) -> bytes:
    """Draw two images side by side, as a checkerboard and one over the other, in three planes.

    Args:
        fixed: (1, I, J, K).
        moving: (1, I, J, K) on the fixed image's grid.
        title: above the figure.
        windows: low and high end of the display, fixed and moving; robust percentiles when left out.
        frame: planes and crop on the fixed grid in canonical axes; the fixed image's body when left out.
        names: what stands above the columns.

    Returns:
        PNG bytes, radiological display, one scale for all pictures.

    Raises:
        CaseError: E_GRID when the two are not on one grid.
    """
    require_same_grid(fixed, moving, ("the fixed image", "the moving image"))
    fixed, moving = canonical(fixed), canonical(moving)
    frame = frame or body_frame(fixed, "", moving)
    windows = windows or (robust_window(voxels(fixed)), robust_window(voxels(moving)))
    spacing, pixel = spacing_mm(affine_of(fixed)), pixel_mm(fixed, frame)
    rows = []
    for plane in PLANES:
        pair = [
            _plane(image, 0, plane, frame, window, pixel)
            for image, window in zip((fixed, moving), windows, strict=True)
        ]
        size = plane_size_mm(plane_slice(voxels(fixed), plane, frame).shape, plane_spacing(spacing, plane))
        tile = max(1, round(PIXELS / TILES))
        mixed = [checkerboard(pair[0], pair[1], tile), overlay(pair[0], pair[1], COLOURS)]
        rows.append([Tile(pixels, size, LETTERS[plane]) for pixels in (*pair, *mixed)])
    columns = (names[0], names[1], "Checkerboard", f"{names[1]} over {names[0]}")
    return draw(rows, [plane.capitalize() for plane in PLANES], columns, title)


def gallery_figure(channels: Sequence[Channel], title: str) -> bytes:
    """Draw channels side by side in three planes.

    Args:
        channels: one to four of them.
        title: above the figure.

    Returns:
        PNG bytes, radiological display, one scale for all pictures.
    """
    rows = []
    for plane in PLANES:
        row = []
        for item in channels:
            spacing = plane_spacing(spacing_mm(affine_of(item.image)), plane)
            pixel = pixel_mm(item.image, item.frame)
            pixels = _plane(item.image, item.channel, plane, item.frame, item.window, pixel)
            size = plane_size_mm(plane_slice(voxels(item.image), plane, item.frame).shape, spacing)
            row.append(Tile(pixels, size, LETTERS[plane]))
        rows.append(row)
    return draw(rows, [plane.capitalize() for plane in PLANES], [item.name for item in channels], title)


def map_figure(maps: Sequence[Map], frame: Frame, title: str) -> bytes:
    """Draw maps in colour over images in grey, in three planes, with a colour scale below each.

    Args:
        maps: one to five of them, on one grid.
        frame: planes and crop on that grid.
        title: above the figure.

    Returns:
        PNG bytes, radiological display, one scale for all pictures.
    """
    rows = []
    for plane in PLANES:
        spacing = plane_spacing(spacing_mm(affine_of(maps[0].image)), plane)
        size = plane_size_mm(plane_slice(voxels(maps[0].image), plane, frame).shape, spacing)
        rows.append([Tile(_map_over_image(item, plane, frame), size, LETTERS[plane]) for item in maps])
    scales = [_scale(item) for item in maps]
    return draw(rows, [plane.capitalize() for plane in PLANES], [item.name for item in maps], title, scales)


def _map_over_image(item: Map, plane: str, frame: Frame) -> npt.NDArray:
    pixel = pixel_mm(item.image, frame)
    grey = _plane(item.image, 0, plane, frame, item.window, pixel)
    spacing = plane_spacing(spacing_mm(affine_of(item.image)), plane)
    values = to_pixels(plane_slice(voxels(item.values, item.channel), plane, frame) / item.limit, spacing, pixel)
    coloured = overlay(grey, np.clip(values, 0, 1), COLOURS)
    if not item.signed:
        return coloured
    return np.where((values < 0)[..., None], overlay(grey, np.clip(-values, 0, 1), BELOW), coloured)


def _scale(item: Map) -> Scale:
    high = f"{item.limit:.2g}"
    if item.signed:
        return Scale(np.concatenate([BELOW[::-1], COLOURS]), f"-{high}", high, item.unit)
    return Scale(COLOURS, "0", f"≥ {high}" if item.beyond else high, item.unit)


def thumbnail(fixed: MetaTensor, moving: MetaTensor, windows: tuple[Window, Window], frame: Frame) -> bytes:
    """Draw the axial overlay alone, small, for the page of the cohort.

    Args:
        fixed: (1, I, J, K), canonical axes.
        moving: (1, I, J, K) on the same grid.
        windows: low and high end of the display, fixed and moving.
        frame: plane and crop.

    Returns:
        PNG bytes, at most 200 pixels wide or high.
    """
    pixel = pixel_mm(fixed, frame) * PIXELS / THUMBNAIL_PIXELS
    pair = [
        _plane(image, 0, "axial", frame, window, pixel) for image, window in zip((fixed, moving), windows, strict=True)
    ]
    return png(np.round(overlay(pair[0], pair[1], COLOURS) * 255).astype(np.uint8))


def plane_size_mm(shape: Sequence[int], spacing: tuple[float, float]) -> tuple[float, float]:
    """Height and width of a plane's picture, mm."""
    return shape[0] * spacing[0], shape[1] * spacing[1]


def pixel_mm(image: MetaTensor, frame: Frame) -> float:
    """Side of a square pixel with which the longest side of the box has `PIXELS` pixels."""
    extent = (np.asarray(frame.high) - np.asarray(frame.low)) * spacing_mm(affine_of(image))
    return float(extent.max() / PIXELS)


def _plane(image: MetaTensor, channel: int, plane: str, frame: Frame, window: Window, pixel: float) -> npt.NDArray:
    cut = windowed(plane_slice(voxels(image, channel), plane, frame), window)
    return to_pixels(cut, plane_spacing(spacing_mm(affine_of(image)), plane), pixel)
