"""Where in the region values lie: Moran's I, Geary's C, local peaks. Source: IBSI 3.1 and 3.2."""

from __future__ import annotations

import numpy as np
from scipy import fft

from pipeline.radiomics.levels import Array, Floats
from pipeline.radiomics.prepare import Region

#: Radius of a sphere of 1 cm³.
PEAK_RADIUS_MM = 10 * (3 / (4 * np.pi)) ** (1 / 3)
#: So many frequencies of the last axis are held at once.
_SHEETS = 16


def autocorrelation(region: Region) -> dict[str, float]:
    """Moran's I and Geary's C over all pairs of voxels, weighted by 1 / distance; NaN where undefined.

    The sums over pairs are sums over frequencies (Parseval) of a padded box, exact to rounding.
    """
    number = int(region.value_mask.sum())
    if number < 2:
        return {"moran_i": np.nan, "geary_c": np.nan}
    box = tuple(slice(line.min(), line.max() + 1) for line in np.nonzero(region.value_mask))
    mask = region.value_mask[box]
    away = np.where(mask, region.image[box] - region.values.mean(), 0.0)
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
    mirrored = [np.minimum(np.arange(size), size - np.arange(size)) for size in padded[:2]]
    # real input: frequencies of the last axis but the first and the last stand for two
    twice = np.full(half[2] + 1, 2.0)
    twice[[0, -1]] = 1
    waves = [fft.rfft(item, padded[2]) for item in (inside, away, squares)]
    sums = np.zeros(3)
    for start in range(0, half[2] + 1, _SHEETS):
        sheet = slice(start, start + _SHEETS)
        weights = (spectrum[:, :, sheet] * twice[sheet])[mirrored[0]][:, mirrored[1]]
        m, y, y2 = (fft.fft(fft.fft(wave[:, :, sheet], padded[1], axis=1), padded[0], axis=0) for wave in waves)
        sums += [_dot(weights, m, m), _dot(weights, y, y), _dot(weights, m, y2)]
    weight, product, square = sums / np.prod(padded)
    return float(weight), float(product), float(square)


def _dot(weights: Floats, a: Array, b: Array) -> float:
    return float(
        np.einsum("ijk,ijk,ijk->", weights, a.real, b.real) + np.einsum("ijk,ijk,ijk->", weights, a.imag, b.imag)
    )


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
    image, mask = region.image, region.value_mask
    known = np.isfinite(image)
    sphere = _sphere(region.spacing_mm)
    filled = np.where(known, image, 0.0)
    shape = [fft.next_fast_len(a + b - 1, real=False) for a, b in zip(image.shape, sphere.shape, strict=True)]
    # two real convolutions in one complex one
    spectrum = fft.fftn(filled + 1j * known, shape) * fft.fftn(sphere, shape)
    start = [size // 2 for size in sphere.shape]
    both = fft.ifftn(spectrum)[tuple(slice(a, a + b) for a, b in zip(start, image.shape, strict=True))][mask]
    mean = both.real / np.rint(both.imag)
    return {"peak_loc": float(mean[image[mask] == image[mask].max()].max()), "peak_glob": float(mean.max())}


def _sphere(spacing_mm: Floats) -> Floats:
    """1 at the voxels whose centres are no farther from the middle one than the radius, else 0."""
    reach = [int(PEAK_RADIUS_MM / step) for step in spacing_mm]
    squared = [(np.arange(-n, n + 1) * step) ** 2 for n, step in zip(reach, spacing_mm, strict=True)]
    inside = squared[0][:, None, None] + squared[1][:, None] + squared[2] <= PEAK_RADIUS_MM**2
    return inside.astype(np.float64)
