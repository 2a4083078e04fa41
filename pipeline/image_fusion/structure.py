"""How alike images are in windows: SSIM, Piella's quality, and visual information fidelity."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from pipeline.image_fusion.images import Array, Floats
from pipeline.image_fusion.windows import Side, Windows, box, filtered, gaussian, windows

#: Voxels a side: of SSIM's windows, of Piella's, and the least image that the four scales of VIF need.
SSIM_SIDE, PIELLA_SIDE, VIF_LEAST = 7, 8, 41
#: What noise counts as, as parts of the scale. Source: Wang et al., IEEE TIP 13(4), 2004, section III.B.
SSIM_K1, SSIM_K2 = 0.01, 0.03
#: VIF's windows, the largest first, and the variance of its channel's noise on the scale from 0 to 255.
#: Source: Sheikh and Bovik, IEEE TIP 15(2), 2006, the pixel domain version.
VIF_SIDES, VIF_NOISE = (17, 9, 5, 3), 2.0
#: What counts as no variance.
_NONE = 1e-10


def ssim(fused: Array, sources: list[Array], ranges: tuple[float, ...]) -> Floats | None:
    """The mean structural similarity with each source.

    Args:
        fused: of any number of axes.
        sources: of the same shape.
        ranges: what is taken for the width of the scale, which decides how much noise counts as structure.

    Returns:
        (ranges, sources); None where an axis is shorter than a window of 7 voxels.

    Source: Wang et al., IEEE TIP 13(4), 2004, as scikit-image has it: equal weights, unbiased variances, whole windows.
    """
    if min(fused.shape) < SSIM_SIDE:
        return None
    sums, count = np.zeros((len(ranges), len(sources))), 0
    for part in windows(fused, sources, box(SSIM_SIDE)):
        sums += np.transpose([_similarities(part, side, ranges, SSIM_SIDE**fused.ndim) for side in part.sides])
        count += part.mean.size
    return np.asarray(sums / count)


def _similarities(part: Windows, side: Side, ranges: tuple[float, ...], voxels: int) -> list[float]:
    unbiased = voxels / (voxels - 1)
    means, covariances = 2 * part.mean * side.mean, 2 * unbiased * side.covariance
    squares, variances = part.mean**2 + side.mean**2, unbiased * (part.variance + side.variance)
    found = []
    for width in ranges:
        c1, c2 = (SSIM_K1 * width) ** 2, (SSIM_K2 * width) ** 2
        found.append(float((((means + c1) * (covariances + c2)) / ((squares + c1) * (variances + c2))).sum()))
    return found


def piella(fused: Array, sources: list[Array]) -> float | None:
    """The weighted fusion quality Q_W of two sources; None where an axis is shorter than a window of 8 voxels.

    In each window the sources count by their variance, and the window by the larger of the two.

    Source: Piella and Heijmans, ICIP 2003; the index: Wang and Bovik, IEEE SPL 9(3), 2002.
    """
    if min(fused.shape) < PIELLA_SIDE:
        return None
    above = below = 0.0
    for part in windows(fused, sources, box(PIELLA_SIDE)):
        first, second = part.sides
        weight = np.maximum(first.variance, second.variance)
        total = first.variance + second.variance
        quality = first.variance * _index(part, first) + second.variance * _index(part, second)
        above += float((weight * _over(quality, total)).sum())
        below += float(weight.sum())
    return above / below


def _index(part: Windows, side: Side) -> Floats:
    """Wang and Bovik's index; 0 where it is undefined, which is where a source has no variance, and so no weight."""
    above = 4 * side.covariance * side.mean * part.mean
    return _over(above, (side.mean**2 + part.mean**2) * (side.variance + part.variance))


def _over(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def vif(fused: Array, sources: list[Array]) -> Floats | None:
    """The visual information fidelity in the pixel domain, of each source.

    Args:
        fused: of any number of axes, on the scale from 0 to 255.
        sources: of the same shape.

    Returns:
        (sources,), 1 where the fused image is the source, more where it has more contrast; None where an axis is
        shorter than 41 voxels, which the four scales need.

    Source: Sheikh and Bovik, IEEE TIP 15(2), 2006; their pixel-domain version (vifp_mscale).
    """
    if min(fused.shape) < VIF_LEAST:
        return None
    images, sums = [fused, *sources], np.zeros((2, len(sources)))
    for side, next_side in pairwise((*VIF_SIDES, 0)):
        for part in windows(images[0], images[1:], gaussian(side, side / 5)):
            sums += np.transpose([_information(part, source) for source in part.sides])
        if next_side:
            kernels = _coarser(fused.ndim, images[0].shape, next_side)
            images = [filtered(image, kernels, step=2) for image in images]
    return np.asarray(sums[0] / sums[1])


def _coarser(axes: int, shape: tuple[int, ...], side: int) -> list[Floats]:
    """A kernel for each axis, before every second voxel is taken.

    In 3D it is one voxel wider where an even number of voxels would be left: of an odd number every second lies
    alike from both ends, and a mirrored volume measures the same.
    """
    return [gaussian(side + (axes == 3 and (size - side) % 2), side / 5) for size in shape]


def _information(part: Windows, side: Side) -> tuple[float, float]:
    """What the fused image tells of the source, and what the source itself tells."""
    variance = np.where(side.variance < _NONE, 0, side.variance)
    gain = side.covariance / (variance + _NONE)
    gain[(variance == 0) | (part.variance < _NONE) | (gain < 0)] = 0
    rest = part.variance - gain * side.covariance
    rest[part.variance < _NONE] = 0
    told = np.log1p(gain**2 * variance / (np.maximum(rest, _NONE) + VIF_NOISE))
    return float(told.sum()), float(np.log1p(variance / VIF_NOISE).sum())
