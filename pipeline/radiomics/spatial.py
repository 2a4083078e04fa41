"""Where in the region values lie: Moran's I, Geary's C, local peaks. Source: IBSI 3.1 and 3.2."""

from __future__ import annotations

import numpy as np
from scipy import fft

from pipeline.radiomics.levels import Floats
from pipeline.radiomics.prepare import Mask, Region

#: Radius of a sphere of 1 cm³.
PEAK_RADIUS_MM = 10 * (3 / (4 * np.pi)) ** (1 / 3)


def autocorrelation(region: Region) -> dict[str, float]:
    """Moran's I and Geary's C over all pairs of voxels, weighted by 1 / distance; NaN where undefined.

    The sums over pairs are sums over frequencies (Parseval) of a padded box, exact to rounding.
    """
    number = int(region.value_mask.sum())
    if number < 2:
        return {"moran_i": np.nan, "geary_c": np.nan}
    mask = region.value_mask
    away = np.where(mask, region.image - region.values.mean(), 0.0)
    squares = away**2
    variance = float(squares.sum())
    if variance == 0:
        return {"moran_i": np.nan, "geary_c": np.nan}
    weight, product, square = _pair_sums(mask.astype(np.float64), away, squares, region.spacing_mm)
    return {
        "moran_i": number / weight * product / variance,
        "geary_c": (number - 1) / (2 * weight) * 2 * (square - product) / variance,
    }


def _pair_sums(inside: Floats, away: Floats, squares: Floats, spacing_mm: Floats) -> tuple[float, float, float]:
    """Sums over pairs (a, b) of w, of w x_a x_b and of w x_a², with w = 1 / distance."""
    half = [fft.next_fast_len(size, real=True) for size in inside.shape]
    padded = [2 * size for size in half]
    spectrum = _distance_spectrum(half, spacing_mm)
    # the first axis' frequencies come in pairs, as the input is real, but for the first and the last
    waves = [np.ascontiguousarray(fft.rfft(item, padded[0], axis=0)) for item in (inside, away, squares)]
    sums = np.zeros(3)
    for frequency in range(half[0] + 1):
        weights = _mirrored(_mirrored(spectrum[frequency]).T).T * (1 if frequency in (0, half[0]) else 2)
        # what is padded later is not transformed earlier
        m, y, y2 = (fft.fft(fft.fft(wave[frequency], padded[1], axis=0), padded[2], axis=1) for wave in waves)
        weighted = weights * m
        sums += np.vdot(weighted, m).real, np.vdot(weights * y, y).real, np.vdot(weighted, y2).real
    weight, product, square = sums / np.prod(padded)
    return float(weight), float(product), float(square)


def _mirrored(half: Floats) -> Floats:
    """All frequencies of a real even spectrum along the first axis, of the first ones and the middle."""
    return np.concatenate([half, half[-2:0:-1]])


def _distance_spectrum(half: list[int], spacing_mm: Floats) -> Floats:
    """The spectrum of 1 / distance (0 at distance 0) on a periodic box of twice the size, its first octant."""
    squared = [(np.arange(size + 1) * step) ** 2 for size, step in zip(half, spacing_mm, strict=True)]
    distance = np.sqrt(squared[0][:, None, None] + squared[1][:, None] + squared[2])
    distance[0, 0, 0] = np.inf
    return np.asarray(fft.dctn(1 / distance, type=1))


def peaks(region: Region) -> dict[str, float]:
    """The mean over a sphere of 1 cm³ round the highest value, and the highest mean round any voxel of the region.

    All voxels of the image with a centre in the sphere count, those out of the region too.
    """
    image, mask, sphere = region.image, region.value_mask, _sphere(region.spacing_mm)
    if np.count_nonzero(_inner(mask, sphere)) < region.values.size:
        reach = [(size // 2, size // 2) for size in sphere.shape]
        image, mask = np.pad(image, reach, constant_values=np.nan), np.pad(mask, reach)
    known = np.isfinite(image)
    total, number = _around(np.where(known, image, 0.0), sphere, mask), sphere.sum()
    if not known.all():
        number = np.rint(_around(known.astype(np.float64), sphere, mask))
    mean = total / number
    return {"peak_loc": float(mean[region.values == region.values.max()].max()), "peak_glob": float(mean.max())}


def _around(values: Floats, sphere: Floats, mask: Mask) -> Floats:
    """Sums over the sphere round each voxel of a mask, no sphere of which reaches over the array's edge, (n,)."""
    shape = [fft.next_fast_len(size, real=True) for size in values.shape]
    # what is padded later is not transformed earlier
    spectrum = fft.fft(fft.fft(fft.rfft(sphere, shape[2]), shape[1], axis=1), shape[0], axis=0)
    sums = fft.irfftn(fft.rfftn(values, shape) * spectrum, shape)
    # a sphere's corner, not its middle, is where a periodic convolution puts it
    whole = tuple(slice(side - 1, size) for side, size in zip(sphere.shape, values.shape, strict=True))
    return np.asarray(sums[whole][_inner(mask, sphere)])


def _inner(mask: Mask, sphere: Floats) -> Mask:
    """The mask without the margin over which a sphere reaches."""
    sides = zip(mask.shape, sphere.shape, strict=True)
    return mask[tuple(slice(side // 2, max(side // 2, size - side // 2)) for size, side in sides)]


def _sphere(spacing_mm: Floats) -> Floats:
    """1 at the voxels whose centres are no farther from the middle one than the radius, else 0."""
    reach = [int(PEAK_RADIUS_MM / step) for step in spacing_mm]
    squared = [(np.arange(-n, n + 1) * step) ** 2 for n, step in zip(reach, spacing_mm, strict=True)]
    inside = squared[0][:, None, None] + squared[1][:, None] + squared[2] <= PEAK_RADIUS_MM**2
    return inside.astype(np.float64)
