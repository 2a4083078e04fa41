"""Slices that are missing, there twice, or alone."""

from __future__ import annotations

from pathlib import Path

from pydicom import Dataset

from tests.phantoms.faults.editing import brighten, copy, edit, in_order, middle, set_everywhere, set_instance_uid


def missing_slice(folder: Path, count: int = 1) -> list[Path]:
    """Remove `count` neighbouring slices from the middle."""
    paths = in_order(folder)
    first = (len(paths) - count) // 2
    return _remove(paths[first : first + count])


def missing_alternate(folder: Path) -> list[Path]:
    """Remove every second slice of the first half."""
    paths = in_order(folder)
    return _remove(paths[1 : len(paths) // 2 : 2])


def missing_ends(folder: Path, count: int = 1, told: bool = True) -> list[Path]:
    """Remove `count` slices from either end; ImagesInAcquisition (0020,1002) tells how many there were, or not."""
    paths = in_order(folder)
    if told:
        set_everywhere(folder, ImagesInAcquisition=len(paths))
    return _remove([*paths[:count], *paths[-count:]])


def single_slice(folder: Path) -> list[Path]:
    """Remove all slices but the middle one."""
    kept = middle(folder)
    return _remove([path for path in in_order(folder) if path != kept])


def duplicate_file(folder: Path) -> list[Path]:
    """Copy one file to a second name: the same instance twice, byte for byte."""
    return [copy(middle(folder))]


def duplicate_sop(folder: Path) -> list[Path]:
    """Add a file that claims one slice's SOPInstanceUID but holds other values."""
    return edit([copy(middle(folder))], lambda slice_: brighten(slice_, 50))


def duplicate_position(folder: Path, everywhere: bool = False) -> list[Path]:
    """Add a slice at a position that is taken, with a SOPInstanceUID and values of its own; or one at each position."""

    def change(slice_: Dataset) -> None:
        slice_.InstanceNumber = int(slice_.InstanceNumber) + 1000
        set_instance_uid(slice_, "duplicate")
        brighten(slice_, 50)

    return edit([copy(path) for path in (in_order(folder) if everywhere else [middle(folder)])], change)


def _remove(paths: list[Path]) -> list[Path]:
    for path in paths:
        path.unlink()
    return paths
