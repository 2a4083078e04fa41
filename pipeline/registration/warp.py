"""A map from fixed to moving points: a linear one, and before it, where space bends, a cubic B-spline."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import SimpleITK as sitk
from monai.data import MetaTensor
from scipy import ndimage

from pipeline.geometry import LPS_RAS, FloatArray, apply, itk_geometry, lps_affine, spacing_mm
from pipeline.volumes import affine_of, transform_from_matrix

#: Half the step of the central differences; cubic splines are smooth over it to about 1e-6.
STEP_MM = 0.05
#: The inverse of a B-spline is stored as displacements on a grid that need not be finer than this.
INVERSE_MM = 2.0
#: Fixed-point iterations for the inverse: it ends earlier where nothing moves any more.
MOST_ITERATIONS = 60
STILL_MM = 1e-3


@dataclass(frozen=True)
class Spline:
    """A cubic B-spline of displacements, as ITK's `BSplineTransform` has it (LPS mm).

    Attributes:
        fixed: control points along each axis, origin, spacing, direction cosines by rows; 18 numbers.
        parameters: displacement of every control point: all x, then all y, then all z; the first axis runs fastest.
    """

    fixed: FloatArray
    parameters: FloatArray

    @cached_property
    def transform(self) -> sitk.Transform:
        """The same as a SimpleITK transform."""
        transform = sitk.BSplineTransform(3, 3)
        transform.SetFixedParameters(self.fixed.tolist())
        transform.SetParameters(self.parameters.tolist())
        return transform

    def displacements(self, points: FloatArray) -> FloatArray:
        """Displacements (N, 3), mm, of points (N, 3), both LPS; none beyond the control points, as in ITK."""
        size = self.fixed[:3].astype(int)
        affine = lps_affine(self.fixed[3:6], self.fixed[6:9], self.fixed[9:])
        index = apply(np.linalg.inv(affine), points)
        reached = ((index >= 1.0) & (index < size - 2.0)).all(axis=1)
        found = np.zeros_like(points)
        for axis, numbers in enumerate(self.parameters.reshape(3, *size[::-1])):
            values = ndimage.map_coordinates(numbers.T, index[reached].T, order=3, prefilter=False)
            found[reached, axis] = values
        return found


@dataclass(frozen=True)
class Warp:
    """A map from fixed to moving points.

    Attributes:
        matrix: the linear part, 4 x 4 RAS.
        spline: what bends the fixed image's space before it, or None.
    """

    matrix: FloatArray = field(default_factory=lambda: np.eye(4))
    spline: Spline | None = None

    def __call__(self, points: FloatArray) -> FloatArray:
        """Where points (N, 3) of the fixed image lie in the moving one, both RAS mm."""
        if self.spline is None:
            return apply(self.matrix, points)
        moved = self.spline.displacements(apply(LPS_RAS, points)) * np.diag(LPS_RAS)[:3]
        return apply(self.matrix, points + moved)

    @property
    def transforms(self) -> list[sitk.Transform]:
        """The parts as SimpleITK transforms; the last is applied first, as in `sitk.CompositeTransform`."""
        linear = transform_from_matrix(self.matrix)
        return [linear] if self.spline is None else [linear, self.spline.transform]

    def jacobian(self, points: FloatArray) -> FloatArray:
        """Determinant of the Jacobian at points (N, 3), RAS mm: local change of volume, negative where space folds."""
        columns = []
        for axis in np.eye(3):
            columns.append((self(points + STEP_MM * axis) - self(points - STEP_MM * axis)) / (2 * STEP_MM))
        return np.asarray(np.linalg.det(np.stack(columns, axis=-1)))

    def inverse(self, grid: MetaTensor) -> list[sitk.Transform]:
        """The way back, from moving to fixed points, as SimpleITK transforms; the last is applied first.

        A linear map's inverse is exact. That of a B-spline are displacements on the fixed image's grid (or a coarser
        one, see `INVERSE_MM`): the fixed point of z = y - u(z).

        Args:
            grid: the fixed image.

        Source: Chen et al., Med Phys 35(1), 2008: doi 10.1118/1.2816107.
        """
        linear = transform_from_matrix(np.linalg.inv(self.matrix))
        if self.spline is None:
            return [linear]
        shape, affine = inverse_grid(grid)
        index = np.indices(shape).reshape(3, -1).T.astype(np.float64)
        field_lps = invert(self.spline, apply(LPS_RAS @ affine, index))
        # single precision is far below a micrometre, and its zeros pack well
        values = field_lps.astype(np.float32).astype(np.float64).reshape(*shape, 3).transpose(2, 1, 0, 3)
        image = sitk.GetImageFromArray(values, isVector=True)
        origin, spacing, direction = itk_geometry(affine)
        image.SetOrigin(origin)
        image.SetSpacing(spacing)
        image.SetDirection(direction)
        return [sitk.DisplacementFieldTransform(image), linear]


def invert(spline: Spline, points: FloatArray) -> FloatArray:
    """What brings points (N, 3) back to where a B-spline has moved them from, as displacements (N, 3); all LPS mm."""
    found = np.zeros_like(points)
    moving = np.arange(len(points))
    for _ in range(MOST_ITERATIONS):
        step = -spline.displacements(points[moving] + found[moving])
        still = np.linalg.norm(step - found[moving], axis=1) < STILL_MM
        found[moving] = step
        moving = moving[~still]
        if not len(moving):
            break
    return found


def inverse_grid(grid: MetaTensor) -> tuple[tuple[int, int, int], FloatArray]:
    """Shape and RAS affine of an image's grid, its voxels grouped until they reach `INVERSE_MM`."""
    affine = affine_of(grid)
    factors = np.maximum(1, np.floor(INVERSE_MM / spacing_mm(affine) + 1e-6)).astype(int)
    shape = tuple(int(-(-(size - 1) // factor)) + 1 for size, factor in zip(grid.shape[1:], factors, strict=True))
    return shape, affine @ np.diag([*factors, 1.0])  # type: ignore[return-value]


def as_transform(parts: list[sitk.Transform]) -> sitk.Transform:
    """One SimpleITK transform of several, of which the last is applied first."""
    return parts[0] if len(parts) == 1 else sitk.CompositeTransform(parts)
