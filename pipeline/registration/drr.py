"""Digitally reconstructed radiographs: the attenuation of a CT along rays, differentiable by the pose. Needs torch.

The detector's frame, in mm at the detector: its origin is the detector's centre (where the central ray ends), x runs
along a row of the radiograph, y down a column, z completes a right-handed system. The source lies on the z axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from pipeline.geometry import FloatArray

#: Below this a voxel is air, which attenuates nothing.
AIR_HU = -1000.0


@dataclass(frozen=True)
class Detector:
    """A flat detector and the point that the rays come from.

    Attributes:
        x_mm: of the columns of pixels, in the detector's frame.
        y_mm: of the rows.
        source_mm: the source on the z axis; negative where the rays run along z, positive where they run against it.
    """

    x_mm: torch.Tensor
    y_mm: torch.Tensor
    source_mm: float

    @classmethod
    def centred(cls, shape: Sequence[int], spacing_mm: Sequence[float], source_mm: float) -> Detector:
        """The detector of a radiograph (columns, rows): its central ray ends in the image's centre."""
        axes = [(torch.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing_mm, strict=True)]
        return cls(axes[0], axes[1], source_mm)

    @property
    def pixels(self) -> torch.Tensor:
        """Where the pixels lie in the detector's frame, (columns, rows, 3), mm, float32."""
        x, y = torch.meshgrid(self.x_mm, self.y_mm, indexing="ij")
        return torch.stack([x, y, torch.zeros_like(x)], dim=-1).float()


class Projector:
    """Draws radiographs of one CT on one detector.

    Args:
        attenuation: of the CT relative to water's (water 1, air 0), shape (I, J, K).
        affine: 4 x 4, voxel index to world, mm; world as the poses take it.
        detector: see `Detector`.
    """

    def __init__(self, attenuation: torch.Tensor, affine: FloatArray, detector: Detector) -> None:
        # grid_sample takes (x, y, z) for the axes (last, middle, first) of its image
        self._image = attenuation.float().permute(2, 1, 0)[None, None]
        self._detector = detector
        self._pixels = detector.pixels
        shape = np.array(attenuation.shape)
        to_grid = np.diag([*(2.0 / shape), 1.0])
        to_grid[:3, 3] = 1.0 / shape - 1.0
        self._to_grid = torch.from_numpy(to_grid @ np.linalg.inv(affine)).float()
        self._centre = torch.from_numpy(affine @ [*((shape - 1) / 2), 1.0]).float()
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        self._radius_mm = float(np.linalg.norm(shape * spacing) / 2)
        self._step_mm = float(spacing.min())

    def __call__(self, pose: torch.Tensor) -> torch.Tensor:
        """Draw a radiograph.

        Args:
            pose: 4 x 4, from the CT's world to the detector's frame, mm.

        Returns:
            (columns, rows): attenuation relative to water's times mm, by the midpoint rule with trilinear values.
        """
        source = torch.tensor([0.0, 0.0, self._detector.source_mm])
        rays = self._pixels - source
        lengths = rays.norm(dim=-1)
        distance = float((pose.detach() @ self._centre)[:3].sub(source).norm())
        near, far = max(distance - self._radius_mm, 0.0), distance + self._radius_mm
        count = max(1, int(np.ceil((far - near) / self._step_mm)))
        depths = near + (torch.arange(count) + 0.5) * ((far - near) / count)
        points = source + (rays / lengths[..., None])[..., None, :] * depths[:, None]
        matrix = self._to_grid @ torch.linalg.inv(pose)
        grid = points @ matrix[:3, :3].T + matrix[:3, 3]
        values = functional.grid_sample(self._image, grid[None], align_corners=False, padding_mode="zeros")
        return values[0, 0].sum(dim=-1) * ((far - near) / count)


def attenuation(hounsfield: torch.Tensor) -> torch.Tensor:
    """Attenuation relative to water's of a CT in HU; 0 for air and below. Source: definition of the HU."""
    return (1.0 - hounsfield.float() / AIR_HU).clamp(min=0.0)


def gradient_correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean correlation of two images' derivatives along both axes: 1 for images that differ in brightness and contrast.

    Args:
        a: (columns, rows).
        b: the same.

    Returns:
        From -1 to 1; 0 where one of them is constant.

    Source: Penney et al., IEEE TMI 17(4), 1998.
    """
    parts = []
    for axis in (0, 1):
        one, other = (image.diff(dim=axis) for image in (a, b))
        one, other = one - one.mean(), other - other.mean()
        parts.append((one * other).sum() / (one.norm() * other.norm()).clamp(min=1e-12))
    return torch.stack(parts).mean()
