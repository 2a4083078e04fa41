"""Series made of headers alone: stacks of slices on an oblique grid, to be split, merged and judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from pipeline.cases import Instance, Pixels, Series

#: Row, column and normal of an oblique stack, LPS; exact to 16 digits.
AXES = Rotation.from_euler("xyz", (-12.0, 8.0, 17.0), degrees=True).as_matrix().T
ORIGIN = np.array([31.7, -12.3, 44.1])
STORED = Pixels(0, 0, "1.2.840.10008.1.2.1", 16, 16, 15, signed=False)


def slice_at(along_mm: float, number: int = 1, sideways_mm: Sequence[float] = (0.0, 0.0), **tags: object) -> Instance:
    """A slice at a distance along the normal, shifted along its rows and columns."""
    position = ORIGIN + along_mm * AXES[2] + sideways_mm[0] * AXES[0] + sideways_mm[1] * AXES[1]
    texts = {
        "ImageType": "ORIGINAL\\PRIMARY\\AXIAL",
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
        "FrameOfReferenceUID": "1.2.3",
        "PhotometricInterpretation": "MONOCHROME2",
        "SliceThickness": "2.5",
        "InstanceNumber": str(number),
        **{name: str(value) for name, value in tags.items()},
    }
    return Instance(
        path=Path(f"IM{number:04d}"),
        sop_uid=f"{number}.{along_mm:.4f}.{'.'.join(str(value) for value in tags.values())}",
        position=tuple(position.tolist()),
        orientation=tuple(AXES[:2].ravel().tolist()),
        spacing_mm=(1.1, 0.9),
        rows=28,
        columns=32,
        slope=1.0,
        intercept=-1024.0,
        tags=texts,
        pixels=STORED,
    )


def stack(along_mm: Sequence[float], first: int = 1, **tags: object) -> list[Instance]:
    """Slices at distances along the normal, numbered on."""
    return [slice_at(float(along), number, **tags) for number, along in enumerate(along_mm, start=first)]


def even(count: int = 20, step_mm: float = 2.5, first: int = 1, **tags: object) -> list[Instance]:
    """Evenly spaced slices."""
    return stack(np.arange(count) * step_mm, first, **tags)


def series(instances: Sequence[Instance], **changes: object) -> Series:
    """A CT series of instances; those with a fault are its rejected files."""
    sound = tuple(item for item in instances if item.fault is None)
    lost = tuple(item for item in instances if item.fault is not None)
    return replace(Series("P1", "1.2", "1.2.1", "CT", sound, lost), **changes)  # type: ignore[arg-type]
