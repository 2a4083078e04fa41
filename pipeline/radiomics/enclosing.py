"""Boxes and ellipsoids round a convex hull."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial import ConvexHull

from pipeline.radiomics.levels import Array, Floats

#: Terms of the series of an ellipsoid's surface. Source: IBSI 3.1.21 (RDD2).
_TERMS = 20
#: The least ellipsoid is found to this part; a point farther out than that is still moved in.
_CLOSE, _STEPS = 1e-10, 20_000


def ellipsoid_volume(half_axes: Sequence[float] | Floats) -> float:
    """Of half axes (3,), mm: mm³."""
    return float(4 / 3 * np.pi * np.prod(half_axes))


def ellipsoid_area(half_axes: Sequence[float] | Floats) -> float:
    """Of half axes (3,), mm: mm², by IBSI's series of Legendre polynomials, cut where IBSI cuts it."""
    c, b, a = np.sort(np.asarray(half_axes, float))
    alpha2, beta2 = 1 - (b / a) ** 2, 1 - (c / a) ** 2
    # (alpha beta)^n times the n-th polynomial, by the polynomials' recurrence: nothing to divide by in a sphere
    before, now, total = 0.0, 1.0, 0.0
    for n in range(_TERMS + 1):
        total += now / (1 - 4 * n**2)
        before, now = now, ((2 * n + 1) / 2 * (alpha2 + beta2) * now - n * alpha2 * beta2 * before) / (n + 1)
    return float(4 * np.pi * a * b * total)


def least_box(hull: ConvexHull) -> Floats:
    """Sides (3,), mm, of the least box with a face of the hull in one of its faces.

    Every face is tried; within it, the box lies along one of the edges of the hull's outline seen from there.
    """
    points, normals = hull.points, hull.equations[:, :3]
    facets, corner = np.nonzero(np.arange(len(normals))[:, None] < hull.neighbors)
    edges = np.array([np.delete(hull.simplices[facet], at) for facet, at in zip(facets, corner, strict=True)])
    beside = hull.neighbors[facets, corner]
    upward = np.unique(np.round(normals * np.where(normals @ [1, 1e-3, 1e-6] < 0, -1, 1)[:, None], 9), axis=0)
    corners = points[hull.vertices]
    heights = np.ptp(corners @ upward.T, axis=0)
    floor = heights * _projected_areas(hull, upward)
    best, sides = np.inf, np.zeros(3)
    for number in np.argsort(floor, kind="stable"):
        if floor[number] >= best:
            break
        facing = normals @ upward[number]
        outline = edges[(facing[facets] > -1e-9) != (facing[beside] > -1e-9)]
        widths = _least_rectangle(points[outline], upward[number])
        if heights[number] * widths.prod() < best:
            best, sides = heights[number] * widths.prod(), np.array([heights[number], *widths])
    return sides


def _projected_areas(hull: ConvexHull, directions: Floats) -> Floats:
    """The hull's area as seen from each direction (n, 3): mm², (n,)."""
    a, b, c = (hull.points[hull.simplices[:, corner]] for corner in range(3))
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    return np.asarray(np.abs(directions @ hull.equations[:, :3].T) @ areas / 2)


def _least_rectangle(outline: Floats, normal: Floats) -> Floats:
    """Sides (2,) of the least rectangle round the edges (n, 2, 3) of an outline, seen along a normal."""
    along = outline[:, 1] - outline[:, 0]
    along -= np.outer(along @ normal, normal)
    along = along[np.linalg.norm(along, axis=1) > 1e-9]
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    corners = outline.reshape(-1, 3)
    first, second = (np.ptp(corners @ axes.T, axis=0) for axes in (along, np.cross(normal, along)))
    best = int((first * second).argmin())
    return np.array([first[best], second[best]])


def least_ellipsoid(points: Floats) -> Floats:
    """Half axes (3,), mm, of the least ellipsoid round points (n, 3) that are not in a plane.

    Source: the algorithm of Khachiyan with steps away, Todd and Yildirim, Discrete Appl Math 155, 2007.
    """
    scale = np.ptp(points, axis=0).max()
    lifted = np.column_stack([(points - points.mean(0)) / scale, np.ones(len(points))])
    size = lifted.shape[1]
    weights = np.zeros(len(points))
    weights[_extremes(points)] = 1
    weights /= weights.sum()
    for _ in range(_STEPS):
        inverse = np.linalg.inv((lifted.T * weights) @ lifted)
        far = np.einsum("ni,ni->n", lifted @ inverse, lifted)
        out, near = int(far.argmax()), int(np.where(weights > 0, far, np.inf).argmin())
        if max(far[out] - size, size - far[near]) < _CLOSE * size:
            break
        at = out if far[out] - size >= size - far[near] else near
        step = (far[at] - size) / (size * (far[at] - 1))
        step = max(step, -weights[at] / (1 - weights[at]))
        weights *= 1 - step
        weights[at] = max(0.0, weights[at] + step)
    spread = np.cov(lifted[:, :3].T, aweights=weights, ddof=0)
    return np.sqrt(np.linalg.eigvalsh(spread) * (far.max() - 1)) * scale


def _extremes(points: Floats) -> Array:
    """The farthest points along 13 directions: they span space."""
    steps = np.array([item for item in np.ndindex(3, 3, 3) if item > (1, 1, 1)]) - 1
    along = points @ steps.T
    return np.unique([along.argmax(0), along.argmin(0)])
