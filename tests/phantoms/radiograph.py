"""Simulated radiographs: a CT seen from a point source, with the noise of a limited number of photons."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from monai.data import MetaTensor
from scipy import ndimage

from pipeline import geometry, volumes

FloatArray = npt.NDArray[np.float64]

#: Linear attenuation of water at some 60 keV, the mean energy of a 100 kV beam. Source: NIST XCOM, 0.206 cm2/g.
WATER_PER_MM = 0.0206
#: Photons that reach a pixel where nothing stands in the way.
PHOTONS = 20_000
#: Along a ray, the attenuation is added up in steps of this part of the finest voxel size.
STEP_VOXELS = 0.5


def attenuation(
    ct: MetaTensor, source_mm: npt.ArrayLike, pixels_mm: npt.ArrayLike, rng: np.random.Generator | None = None
) -> FloatArray:
    """What a detector shows of a CT, as the attenuation along each ray: -ln(photons that arrive / that were sent).

    Cubic B-spline interpolation of the CT and the midpoint rule along every ray, ray by ray.

    Args:
        ct: (1, I, J, K), HU, RAS.
        source_mm: where the rays start, (3,), RAS mm.
        pixels_mm: where they end, (rows, columns, 3), RAS mm.
        rng: the source of the photons' chance; without it there is no noise.

    Returns:
        (rows, columns), no unit.
    """
    per_mm = WATER_PER_MM * np.clip(1.0 + np.asarray(ct.numpy()[0], np.float64) / 1000.0, 0.0, None)
    coefficients = ndimage.spline_filter(np.pad(per_mm, 2), order=3)
    to_index = np.linalg.inv(volumes.affine_of(ct))
    source = np.asarray(source_mm, np.float64)
    start = geometry.apply(to_index, source[None])[0] + 2
    pixels = np.asarray(pixels_mm, np.float64)
    step_mm = STEP_VOXELS * float(geometry.spacing_mm(volumes.affine_of(ct)).min())
    sums = np.zeros(pixels.shape[:2])
    for row, ends in enumerate(pixels):
        length_mm = np.linalg.norm(ends - source, axis=1)
        count = int(np.ceil(length_mm.max() / step_mm))
        along = (np.arange(count) + 0.5) / count
        # only the part of the way that meets the volume's circumscribed sphere adds anything
        near, far = _part_in_view(ct, source, ends)
        along = along[(along >= near) & (along <= far)]
        index = start + along[:, None, None] * (geometry.apply(to_index, ends) + 2 - start)
        values = ndimage.map_coordinates(coefficients, index.reshape(-1, 3).T, order=3, prefilter=False)
        sums[row] = values.reshape(len(along), -1).sum(axis=0) * length_mm / count
    if rng is None:
        return sums
    arrived = rng.poisson(PHOTONS * np.exp(-sums))
    return np.asarray(-np.log(np.maximum(arrived, 1) / PHOTONS))


def _part_in_view(ct: MetaTensor, source: FloatArray, ends: FloatArray) -> tuple[float, float]:
    """From and up to which part of the way (0 source, 1 pixel) any of the rays can be in the volume."""
    corners = geometry.corners(ct.shape, volumes.affine_of(ct))
    centre = corners.mean(axis=0)
    radius = float(np.linalg.norm(corners - centre, axis=1).max())
    lengths = np.linalg.norm(ends - source, axis=1)
    distance = float(np.linalg.norm(centre - source))
    return (distance - radius) / lengths.max(), (distance + radius) / lengths.min()
