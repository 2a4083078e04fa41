"""What becomes of edges: Xydeas and Petrovic's measure, and the correlation of Laplacians."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from pipeline.image_fusion.images import Array, Floats, pieces
from pipeline.image_fusion.windows import filtered

_SMOOTH, _SLOPE = np.array([1.0, 2.0, 1.0]), np.array([-1.0, 0.0, 1.0])
#: How strength and direction become quality: its most, the steepness and the middle of a sigmoid.
#: Source: Xydeas and Petrovic, Electronics Letters 36(4), 2000, section 2.
STRENGTH, DIRECTION = (0.9994, 15.0, 0.5), (0.9879, 22.0, 0.8)


def qabf(fused: Array, sources: list[Array]) -> tuple[float, float | None]:
    """How much of the sources' edges is in the fused image: strength and direction, weighted by the sources' strength.

    The direction is that of a line: opposite gradients are alike. In 2D it is told by `arctan`, whose values of two
    lines that are nearly one may differ by nearly pi; the evaluator of the field's tables takes them for most unlike.

    Args:
        fused: of two or three axes.
        sources: two of the same shape.

    Returns:
        The measure by the angle between the lines, from 0 to 1; and as the evaluator has it, in 2D only.

    Source: Xydeas and Petrovic, Electronics Letters 36(4), 2000. The evaluator: Zhao et al., CVPR 2023 (CDDFuse).
    """
    above, as_evaluated, below = 0.0, 0.0, 0.0
    for parts in pieces([np.pad(image, 1, mode="edge") for image in (fused, *sources)], len(_SLOPE)):
        edge, *others = (_gradient(part) for part in parts)
        for other in others:
            below += float(other[0].sum())
            above += _kept(other, edge)
            as_evaluated += _kept_as_evaluated(other, edge) if fused.ndim == 2 else 0.0
    return above / below, as_evaluated / below if fused.ndim == 2 else None


Gradient = tuple[Floats, list[Floats]]


def _gradient(image: Floats) -> Gradient:
    """Its length, and its part along each axis, by Sobel's filters."""
    axes = range(image.ndim)
    along = [filtered(image, [_SLOPE if axis == other else _SMOOTH for other in axes]) for axis in axes]
    return np.sqrt(sum(part**2 for part in along)), along


def _kept(source: Gradient, fused: Gradient) -> float:
    (strength, along), (fused_strength, fused_along) = source, fused
    both = strength * fused_strength
    cosine = np.abs(sum(a * b for a, b in zip(along, fused_along, strict=True)))
    np.divide(cosine, both, out=cosine, where=both > 0)
    angle = np.arccos(np.minimum(cosine, 1))
    return _quality(strength, _ratio(strength, fused_strength), angle)


def _kept_as_evaluated(source: Gradient, fused: Gradient) -> float:
    """With angles of up to pi; and where both strengths are equal, that strength in place of their ratio."""
    ratio = np.where(source[0] == fused[0], source[0], _ratio(source[0], fused[0]))
    return _quality(source[0], ratio, np.abs(_tangent(source[1]) - _tangent(fused[1])))


def _ratio(strength: Floats, other: Floats) -> Floats:
    larger = np.maximum(strength, other)
    return np.divide(np.minimum(strength, other), larger, out=np.zeros_like(larger), where=larger > 0)


def _tangent(along: list[Floats]) -> Floats:
    """The angle of a line in a slice, above -pi/2 and up to pi/2, as the evaluator counts it."""
    down, right = along
    slope = np.divide(-down, right, out=np.full_like(right, np.inf), where=right != 0)
    return np.asarray(np.arctan(slope))


def _quality(weight: Floats, ratio: Floats, angle: Floats) -> float:
    return float((weight * _sigmoid(ratio, *STRENGTH) * _sigmoid(1 - angle / (np.pi / 2), *DIRECTION)).sum())


def _sigmoid(value: Floats, most: float, steepness: float, middle: float) -> Floats:
    return np.asarray(most / (1 + np.exp(-steepness * (value - middle))))


def laplacian(image: Array) -> Floats:
    """The sum of second differences along all axes; beyond the edge the outermost voxels go on."""
    return np.asarray(ndimage.laplace(image, output=np.float64, mode="nearest"))
