"""Size and shape of a region. Source: IBSI 3.1 (HCUG)."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist
from skimage.measure import marching_cubes

from pipeline.radiomics.enclosing import ellipsoid_size, least_box, least_ellipsoid
from pipeline.radiomics.levels import Floats
from pipeline.radiomics.prepare import Mask, Region

#: An axis shorter than this part of a voxel has no length.
_NOTHING = 1e-9


def morphology(region: Region) -> dict[str, float]:
    """The features of the shape mask, and three that weigh it with values, mm; NaN where undefined."""
    vertices, volume, area = mesh(region.shape_mask, region.spacing_mm)
    hull = ConvexHull(vertices)
    half_axes = _half_axes(region.shape_mask, region.spacing_mm)
    least, minor, major = half_axes
    sphere = (36 * np.pi * volume**2) ** (1 / 3)
    boxes = {
        "aabb": box_size(np.ptp(vertices, axis=0)),
        "ombb": box_size(least_box(hull)),
        "aee": ellipsoid_size(half_axes),
        "mvee": ellipsoid_size(least_ellipsoid(vertices[hull.vertices])),
        "conv_hull": (hull.volume, hull.area),
    }
    values = region.values
    return {
        "volume": volume,
        "vol_approx": float(region.shape_mask.sum() * region.spacing_mm.prod()),
        "area_mesh": area,
        "av": area / volume,
        "comp_1": volume / (np.pi**0.5 * area**1.5),
        "comp_2": 36 * np.pi * volume**2 / area**3,
        "sph_dispr": area / sphere,
        "sphericity": sphere / area,
        "asphericity": area / sphere - 1,
        "com": centre_shift(region),
        "diam": float(pdist(vertices[hull.vertices]).max()),
        "pca_maj_axis": 2 * major,
        "pca_min_axis": 2 * minor,
        "pca_least_axis": 2 * least,
        "pca_elongation": minor / major,
        "pca_flatness": least / major,
        **{f"vol_dens_{name}": volume / size for name, (size, _) in boxes.items()},
        **{f"area_dens_{name}": area / size for name, (_, size) in boxes.items()},
        "integ_int": float(values.mean()) * volume if values.size else np.nan,
    }


def mesh(mask: Mask, spacing_mm: Floats) -> tuple[Floats, float, float]:
    """The surface at .5 between voxel centres of a mask (I, J, K), not empty.

    Returns:
        Vertices (n, 3), mm from the array's first voxel; volume, mm³; area, mm².
    """
    points, faces, _, _ = marching_cubes(np.pad(mask, 1).astype(np.float32), 0.5)
    vertices = (points.astype(np.float64) - 1) * spacing_mm
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    normals = np.cross(b - a, c - a)
    volume = abs(float(np.einsum("ni,ni->", a - vertices.mean(0), normals))) / 6
    return vertices, volume, float(np.linalg.norm(normals, axis=1).sum()) / 2


def box_size(sides: Floats) -> tuple[float, float]:
    """Volume and area of sides (3,)."""
    a, b, c = sides.tolist()
    return a * b * c, 2 * (a * b + b * c + c * a)


def _half_axes(mask: Mask, spacing_mm: Floats) -> Floats:
    """Half axes (3,), least first, mm, of the ellipsoid with the voxel centres' spread; NaN where there is none."""
    away = [np.arange(size) - middle for size, middle in zip(mask.shape, _centre(mask.astype(np.float64)), strict=True)]
    products = np.empty((3, 3))
    for a, b in combinations(range(3), 2):
        flat = mask.sum(3 - a - b)
        products[a, b] = products[b, a] = away[a] @ flat @ away[b]
        products[a, a], products[b, b] = flat.sum(1) @ away[a] ** 2, flat.sum(0) @ away[b] ** 2
    products *= np.outer(spacing_mm, spacing_mm)
    spread = np.linalg.eigvalsh(products / max(1, int(mask.sum()) - 1))
    return np.where(spread > (_NOTHING * spacing_mm.min()) ** 2, 2 * np.sqrt(np.maximum(spread, 0)), np.nan)


def centre_shift(region: Region) -> float:
    """Distance, mm, between the centres of the region and of its values."""
    total = region.values.sum()
    if not total:
        return np.nan
    weights = np.where(region.value_mask, region.image, 0.0)
    apart = _centre(region.shape_mask.astype(np.float64)) - _centre(weights)
    return float(np.linalg.norm(apart * region.spacing_mm))


def _centre(weights: Floats) -> Floats:
    """Weighted mean of the indices, (3,)."""
    lines = [np.einsum(f"ijk->{axis}", weights) for axis in "ijk"]
    return np.array([line @ np.arange(line.size) / line.sum() for line in lines])
