"""What all filters have in common. Source: IBSI 2, the reference manual on convolutional filters (arXiv 2006.05470)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal

from pipeline.radiomics.levels import Floats
from pipeline.spec.explain import Model

if TYPE_CHECKING:
    from torch import Tensor

#: Beyond the image's edge: zeros; the outermost value; the image again; the image mirrored, its edge voxels twice.
Boundary = Literal["zero", "nearest", "periodic", "mirror"]
#: How many voxels along I, J, K a response depends on, to each side.
Reach = tuple[int, int, int]
#: How the responses to all turns of a filter by right angles become one.
Pooling = Literal["average", "max"]


class Filter(Model, ABC):
    """A filter of an image.

    Attributes:
        dimensions: of slices, or of the volume.
    """

    dimensions: Literal["2D", "3D"] = "3D"

    @property
    def axes(self) -> int:
        """How many axes it works along: the first two, or all three."""
        return int(self.dimensions[0])

    @property
    def wraps(self) -> bool:
        """Whether voxels at one edge of the image count at the opposite one."""
        return getattr(self, "boundary", "periodic") == "periodic"

    @abstractmethod
    def reach_voxels(self, spacing_mm: Floats) -> Reach | None:
        """How far a voxel's response depends on others; None where it depends on the whole image.

        Args:
            spacing_mm: (3,).
        """

    @abstractmethod
    def response(self, image: Tensor, spacing_mm: Floats) -> Tensor:
        """The filtered image.

        Args:
            image: (I, J, K), real; K slices.
            spacing_mm: (3,).

        Returns:
            (I, J, K), real, of the same type and on the same device.
        """

    def _reach(self, *sides: int) -> Reach:
        """Along each axis that it works along: one number for all, or one for each."""
        each = (sides * 3)[:3] if len(sides) == 1 else sides
        i, j, k = (*each[: self.axes], 0, 0)[:3]
        return i, j, k
