"""Where the slices lie: positions, orientations, spacings, matrices, and the numbers that say so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread

from pipeline.simulation.dicom import decimal_string
from tests.phantoms.faults.editing import (
    axes_of,
    decimal_strings,
    edit,
    in_order,
    middle,
    paint,
    position_of,
    put,
    set_everywhere,
    set_pixels,
    set_raw,
)


def gantry_tilt(folder: Path, angle_deg: float = 12.0) -> list[Path]:
    """Turn each slice of a position phantom about its first row; the table still moves along the former normal.

    Every voxel shows what lies at its new position, as a tilted gantry's does. GantryDetectorTilt (0018,1120) says
    the angle, positive where the columns lean towards the normal.
    """
    angle = np.radians(angle_deg)

    def change(slice_: Dataset) -> None:
        row, column, normal = axes_of(slice_)
        slice_.ImageOrientationPatient = decimal_strings([*row, *(np.cos(angle) * column + np.sin(angle) * normal)])
        slice_.GantryDetectorTilt = f"{angle_deg:g}"
        paint(slice_)

    return edit(in_order(folder), change)


def moved_slices(folder: Path, along_mm: Callable[[int, int], float], thickness: bool = False) -> list[Path]:
    """Lay the slices of a position phantom at distances of their own along the normal; each shows what lies there.

    Args:
        folder: of a clean series.
        along_mm: gives a slice's distance from the first, from its number (from 0) and the slices' count.
        thickness: SliceThickness (0018,0050) says the distance to the next slice.
    """
    paths = in_order(folder)
    first = position_of(dcmread(paths[0], stop_before_pixels=True))
    last = position_of(dcmread(paths[-1], stop_before_pixels=True))
    up = (last - first) / np.linalg.norm(last - first)

    def change(slice_: Dataset) -> None:
        number = paths.index(Path(slice_.filename))
        here, after = (along_mm(index, len(paths)) for index in (number, number + 1))
        put(slice_, first + here * up)
        if thickness:
            slice_.SliceThickness = decimal_string(after - here)
        paint(slice_)

    return edit(paths, change)


def jittered(folder: Path, by_mm: float = 0.4) -> list[Path]:
    """Lay slices of 2.5 mm distance up to `by_mm` from their even places."""
    offsets = np.random.default_rng(9).uniform(-by_mm, by_mm, len(in_order(folder)) + 1)
    return moved_slices(folder, lambda number, _: 2.5 * number + float(offsets[number]))


def two_distances(folder: Path, near_mm: float = 2.5, far_mm: float = 5.0) -> list[Path]:
    """Lay the first half of the slices `near_mm` apart and the others `far_mm`; SliceThickness says so."""

    def along(number: int, count: int) -> float:
        half = count // 2
        return near_mm * min(number, half) + far_mm * max(number - half, 0)

    return moved_slices(folder, along, thickness=True)


def growing_distances(folder: Path, factor: float = 1.03) -> list[Path]:
    """Lay each slice `factor` times as far from the one before as that one from its own."""
    return moved_slices(folder, lambda number, _: 2.5 * (factor**number - 1) / (factor - 1))


def torn_apart(folder: Path, gap_mm: float = 11.3) -> list[Path]:
    """Lay the second half of slices of 2.5 mm distance `gap_mm` above the first: no multiple of it, no even step."""
    return moved_slices(folder, lambda number, count: 2.5 * number + (gap_mm - 2.5) * (number >= count // 2))


def other_orientation(folder: Path) -> list[Path]:
    """Turn one slice of a position phantom by 90 degrees: its columns run along the stack's normal."""

    def change(slice_: Dataset) -> None:
        row, _, normal = axes_of(slice_)
        slice_.ImageOrientationPatient = decimal_strings([*row, *normal])
        paint(slice_)

    return edit([middle(folder)], change)


def skewed_axes(folder: Path, angle_deg: float = 1.0) -> list[Path]:
    """Turn every slice's column direction towards its row direction: the two are no longer orthogonal."""

    def change(slice_: Dataset) -> None:
        row, column, _ = axes_of(slice_)
        angle = np.radians(angle_deg)
        slice_.ImageOrientationPatient = decimal_strings([*row, *(np.cos(angle) * column + np.sin(angle) * row)])

    return edit(in_order(folder), change)


def long_axes(folder: Path, factor: float = 1.01) -> list[Path]:
    """Multiply every direction cosine: they are no unit vectors any more."""

    def change(slice_: Dataset) -> None:
        cosines = np.asarray(slice_.ImageOrientationPatient, dtype=float)
        slice_.ImageOrientationPatient = decimal_strings(factor * cosines)

    return edit(in_order(folder), change)


def shifted_in_plane(folder: Path, shift_mm: float = 3.0) -> list[Path]:
    """Move one slice of a position phantom along its rows; it shows what lies there."""

    def change(slice_: Dataset) -> None:
        put(slice_, position_of(slice_) + shift_mm * axes_of(slice_)[0])
        paint(slice_)

    return edit([middle(folder)], change)


def equal_positions(folder: Path) -> list[Path]:
    """Give every slice the first one's ImagePositionPatient (0020,0032)."""
    first = dcmread(in_order(folder)[0], stop_before_pixels=True).ImagePositionPatient
    return set_everywhere(folder, ImagePositionPatient=first)


def missing_geometry(folder: Path, keyword: str = "ImagePositionPatient", everywhere: bool = False) -> list[Path]:
    """Delete ImagePositionPatient (0020,0032) or ImageOrientationPatient (0020,0037) from one slice, or from all."""
    paths = in_order(folder) if everywhere else [middle(folder)]
    return edit(paths, lambda slice_: delattr(slice_, keyword))


def nan_position(folder: Path) -> list[Path]:
    """Write NaN as the first number of one slice's ImagePositionPatient (0020,0032)."""
    path = middle(folder)
    _, y, z = dcmread(path, stop_before_pixels=True).ImagePositionPatient
    return edit([path], lambda slice_: set_raw(slice_, "ImagePositionPatient", f"NaN\\{y}\\{z}"))


def zero_spacing(folder: Path) -> list[Path]:
    """Write 0 as PixelSpacing (0028,0030) of every slice."""
    return set_everywhere(folder, PixelSpacing=["0", "0"])


def other_spacing(folder: Path, factor: float = 1.1) -> list[Path]:
    """Multiply the PixelSpacing (0028,0030) of one slice of a position phantom."""

    def change(slice_: Dataset) -> None:
        slice_.PixelSpacing = decimal_strings(factor * float(value) for value in slice_.PixelSpacing)
        paint(slice_)

    return edit([middle(folder)], change)


def comma_decimal(folder: Path, keyword: str = "PixelSpacing") -> list[Path]:
    r"""Write an element of every slice with a decimal comma: PixelSpacing (0028,0030) `0,9\0,9` for 0.9 mm."""

    def change(slice_: Dataset) -> None:
        text = "\\".join(str(value) if "." in str(value) else f"{value}.0" for value in slice_[keyword].value)
        set_raw(slice_, keyword, text.replace(".", ","))

    return edit(in_order(folder), change)


def other_matrix(folder: Path, fewer: int = 4) -> list[Path]:
    """Cut the last `fewer` rows and columns off one slice."""
    return edit([middle(folder)], lambda slice_: set_pixels(slice_, slice_.pixel_array[:-fewer, :-fewer]))


def shuffled_numbers(folder: Path) -> list[Path]:
    """Deal InstanceNumbers (0020,0013) and file names anew, in an order that is not that of the positions."""
    paths = in_order(folder)
    order = np.random.default_rng(22).permutation(len(paths))
    numbers = [int(dcmread(path, stop_before_pixels=True).InstanceNumber) for path in paths]
    names = sorted(paths)
    for path in paths:
        path.rename(_aside(path))
    for path, new in zip(paths, order, strict=True):
        slice_ = dcmread(_aside(path))
        slice_.InstanceNumber = numbers[new]
        slice_.save_as(names[new], enforce_file_format=True)
        _aside(path).unlink()
    return names


def reversed_numbers(folder: Path) -> list[Path]:
    """Count the InstanceNumbers (0020,0013) from the other end."""
    total = len(in_order(folder)) + 1
    return edit(in_order(folder), lambda slice_: setattr(slice_, "InstanceNumber", total - int(slice_.InstanceNumber)))


def lying_thickness(folder: Path, factor: float = 3.0) -> list[Path]:
    """Multiply SliceThickness (0018,0050) of every slice; the positions stay."""

    def change(slice_: Dataset) -> None:
        slice_.SliceThickness = decimal_string(float(slice_.SliceThickness) * factor)

    return edit(in_order(folder), change)


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.aside")
