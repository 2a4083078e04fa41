"""What all of this room's functions ask of their images, and pieces of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import CaseError

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

#: The scale on which the field measures: eight bits.
TOP = 255.0
#: On that scale, for what is measured and what a network learns: CT from here on is bone, without its outermost voxels,
#: which other tissue shares.
BONE, BONE_RIM = 230.0, 1
#: Where CT lies between these, and MR above its own, is soft tissue, without the outermost voxels.
SOFT_CT, SOFT_MR, SOFT_RIM = (30.0, 160.0), 20.0, 2
#: A value may leave the scale by this part of it: what rounding does to a float32.
_SLACK = 1e-5
#: So many voxels of an image are worked on at a time.
_PIECE = 1 << 21


def checked(images: dict[str, Array], top: float | None = None) -> list[Array]:
    """Images of one shape, without their axes of one voxel.

    Args:
        images: what each is called -> (I, J) or (I, J, K).
        top: white, where black is 0; None where values may be any.

    Returns:
        As many arrays of two or three axes; unchanged but for the axes of one voxel.

    Raises:
        CaseError: E_GRID for images of different shapes, or of other than two or three axes of more than one voxel;
            E_NIFTI for a value that is not finite; E_BLANK for an image of one value; E_DTYPE for values beyond the
            scale.
    """
    shapes = {name: np.shape(image) for name, image in images.items()}
    if len(set(shapes.values())) > 1:
        got = ", ".join(f"{shape} of {name}" for name, shape in shapes.items())
        raise CaseError("E_GRID", f"Expected images of one shape, got {got}.")
    return [_one(name, np.squeeze(image), top) for name, image in images.items()]


def _one(name: str, image: Array, top: float | None) -> Array:
    if image.ndim not in (2, 3) or image.dtype.kind not in "buif":
        raise CaseError("E_GRID", f"Expected {name} as numbers (I, J) or (I, J, K), got {image.dtype} {image.shape}.")
    low, high = float(image.min()), float(image.max())
    if not np.isfinite([low, high]).all():
        raise CaseError("E_NIFTI", f"Expected finite values of {name}, got NaN or infinity.")
    if low == high:
        raise CaseError("E_BLANK", f"Expected {name} with contrast, got {low:g} in every voxel.")
    if top is not None and (low < -_SLACK * top or high > (1 + _SLACK) * top):
        raise CaseError("E_DTYPE", f"Expected values of {name} from 0 to {top:g}, got {low:g} to {high:g}.")
    return image


def eight_bit(image: Array, top: float) -> Array:
    """An image on the scale from 0 to 255: float32, which holds whole numbers and four decimals of such values."""
    return np.multiply(image, np.float32(TOP / top), dtype=np.float32).clip(0, np.float32(TOP))


def pieces(images: list[Array], window: int) -> Iterator[list[Floats]]:
    """Parts of images along their first axis, which overlap so that each window of voxels lies whole in one of them.

    What is made of windows so takes the memory of a part, and stays near the processor.

    Args:
        images: of one shape.
        window: voxels a side.

    Yields:
        A part of each image, float64.
    """
    size = images[0].shape[0]
    step = max(3 * window, _PIECE // int(np.prod(images[0].shape[1:])) - window)
    for first in range(0, size - window + 1, step):
        yield [image[first : first + step + window - 1].astype(np.float64) for image in images]
