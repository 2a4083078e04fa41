"""Boxes and ellipsoids round a convex hull."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial import ConvexHull

from pipeline.radiomics.levels import Array, Floats

#: Terms of the series of an ellipsoid's surface. Source: IBSI 3.1.21 (RDD2).
_TERMS = 20
#: The least ellipsoid's volume is right to this part.
_CLOSE, _STEPS = 1e-9, 100


def ellipsoid_size(half_axes: Sequence[float] | Floats) -> tuple[float, float]:
    """Volume, mm³, and area, mm², of half axes (3,), mm; NaN where one is.

    The area is IBSI's series of Legendre polynomials, cut where IBSI cuts it. As IBSI prints it, the series is not
    quite the surface (4 % less in its digital phantom); its values need it.
    """
    c, b, a = np.sort(np.asarray(half_axes, float))
    alpha2, beta2 = 1 - (b / a) ** 2, 1 - (c / a) ** 2
    # (alpha beta)^n times the n-th polynomial, by the polynomials' recurrence: nothing to divide by in a sphere
    before, now, total = 0.0, 1.0, 0.0
    for n in range(_TERMS + 1):
        total += now / (1 - 4 * n**2)
        before, now = now, ((2 * n + 1) / 2 * (alpha2 + beta2) * now - n * alpha2 * beta2 * before) / (n + 1)
    return float(4 / 3 * np.pi * np.prod(half_axes)), float(4 * np.pi * a * b * total)


def least_box(hull: ConvexHull) -> Floats:
    """Sides (3,), mm, of the least box with a face of the hull in one of its faces.

    Every face is tried; within it, the box lies along one of the edges of the hull's outline seen from there.
    """
    normals = hull.equations[:, :3]
    # edges once, and none within a plane
    bent = np.abs(normals[:, None] - normals[hull.neighbors]).max(2) > 1e-9
    facet, corner = np.nonzero(bent & (np.arange(len(normals))[:, None] < hull.neighbors))
    beside = hull.neighbors[facet, corner]
    # an edge lies opposite to a corner of a triangle
    ends = hull.points[hull.simplices[facet[:, None], (corner[:, None] + (1, 2)) % 3]]
    edges = ends[:, 1] - ends[:, 0]
    upward = np.unique(np.round(normals * np.where(normals @ (1, 1e-3, 1e-6) < 0, -1, 1)[:, None], 9), axis=0)
    upward /= np.linalg.norm(upward, axis=1, keepdims=True)
    heights = np.ptp(hull.points[hull.vertices] @ upward.T, axis=0)
    facing = upward @ normals.T > -1e-9
    view, edge = np.divmod(np.flatnonzero(facing[:, facet] != facing[:, beside]), len(facet))
    first = np.cross(upward, np.eye(3)[np.abs(upward).argmin(1)])
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    axes = first + 1j * np.cross(upward, first)
    sides = _rectangles(view, np.einsum("na,na->n", edges[edge], axes[view]))
    best = int((heights[view] * sides.prod(0)).argmin())
    return np.array([heights[view[best]], *sides[:, best]])


def _rectangles(view: Array, outline: Array) -> Floats:
    """Sides of the rectangles round convex outlines, each along one of the edges.

    The edges of a convex outline cover its width along any line twice. Turned into one half plane and sorted by angle,
    those that run against a line are the ones before or after a place, so that running sums give all widths.

    Args:
        view: (n,) number of the outline, rising.
        outline: (n,) the edges, complex, mm.

    Returns:
        (2, n), infinite where an edge is none.
    """
    upper = np.where((outline.imag < 0) | ((outline.imag == 0) & (outline.real < 0)), -outline, outline)
    angle = np.arctan2(upper.imag, upper.real)
    order = np.argsort(4 * view + angle, kind="stable")
    key, upper = (4 * view + angle)[order], upper[order]
    running = np.concatenate([[0], np.cumsum(upper)])
    whole = running[np.searchsorted(view, view, "left")] + running[np.searchsorted(view, view, "right")]
    lengths = np.abs(upper)
    back = upper.conj() / np.maximum(lengths, 1e-12)
    across = np.searchsorted(key, 4 * view + (angle[order] + np.pi / 2) % np.pi)
    sides = np.empty((2, len(view)))
    sides[0, order] = np.abs((back * (2 * running[across] - whole)).real) / 2
    sides[1, order] = np.abs((back * (2 * running[:-1] - whole)).imag) / 2
    sides[:, np.abs(outline) < 1e-9] = np.inf
    return sides


def least_ellipsoid(points: Floats) -> Floats:
    """Half axes (3,), mm, of the least ellipsoid round points (n, 3) that are not in a plane.

    With q = (x, 1) it is where q'Mq <= 1, and M has the largest determinant of all for which that holds at every point:
    Newton's method, with a barrier that is made steeper until the volume is right to `_CLOSE`. Source: Boyd and
    Vandenberghe, Convex Optimization, 2004, 8.4.1 and 11.3.
    """
    middle, scale = points.mean(0), np.ptp(points, axis=0)
    lifted = np.column_stack([(points - middle) / scale, np.ones(len(points))])
    bases = np.array([np.eye(16)[4 * a + b].reshape(4, 4) for a in range(4) for b in range(a + 1)])
    bases = (bases + bases.transpose(0, 2, 1)) / 2
    rows = np.einsum("na,kab,nb->nk", lifted, bases, lifted)
    m = np.linalg.lstsq(bases.reshape(10, 16).T, np.diag([0.3, 0.3, 0.3, 0.1]).ravel(), rcond=None)[0]
    steepness = 1.0
    while steepness < len(points) / _CLOSE:
        steepness *= 20
        m = _centred(m, rows, bases, steepness)
    matrix = np.tensordot(m, bases, 1)
    shape, linear = matrix[:3, :3] / np.outer(scale, scale), matrix[:3, 3] / scale
    level = 1 - matrix[3, 3] + linear @ np.linalg.solve(shape, linear)
    return np.sort(np.sqrt(level / np.linalg.eigvalsh(shape)))


def _centred(m: Floats, rows: Floats, bases: Floats, steepness: float) -> Floats:
    """Newton's steps to the least of -log det M - sum(log(1 - q'Mq)) / steepness."""
    for _ in range(_STEPS):
        slack = 1 - rows @ m
        inverse = np.linalg.inv(np.tensordot(m, bases, 1))
        turned = inverse @ bases
        pull = rows / slack[:, None]
        gradient = pull.sum(0) / steepness - np.trace(turned, axis1=1, axis2=2)
        curve = pull.T @ pull / steepness + np.einsum("kab,lba->kl", turned, turned)
        step = -np.linalg.solve(curve, gradient)
        decrease = float(-gradient @ step)
        if decrease * steepness < 1e-6 or decrease < 1e-15:
            break
        change = float((pull @ step).max())
        shrink = float(-np.linalg.eigvals(np.tensordot(step, turned, 1)).real.min())
        m = m + step * min(1.0, 0.9 / max(change, shrink, 1e-12))
    return m
