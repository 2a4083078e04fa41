"""One picture of CT and MR without learning: what a network has to beat, and what stands in for it.

Every method takes CT and MR as they are shown (within their windows, on one scale), as arrays of two or three axes,
and treats all axes alike, by voxels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.errors import UsageError
from pipeline.image_fusion.images import Array, checked
from pipeline.spec.explain import did_you_mean

Image = npt.NDArray[np.float32]
Method = Callable[[Image, Image], Image]

#: The cubic B-spline of both pyramids.
SPLINE = np.array([1, 4, 6, 4, 1], np.float64) / 16
#: Levels of detail: à trous, and at most in the Laplacian pyramid, whose shortest axis keeps two voxels.
ATROUS_LEVELS, PYRAMID_LEVELS = 2, 4
#: How much the stronger gradient prevails: the power of its energy; over which neighbourhood (Gaussian, voxels).
PREVAILS, NEIGHBOURHOOD = 4, 1.0
#: Of the guided filter: the base's window; the Gaussian of the saliency; radius and regularisation of the weights of
#: base and detail, for images of a range of 1. Source: Li et al. 2013, their defaults.
BASE_SIDE, SALIENCY, OF_BASE, OF_DETAIL = 31, 5.0, (45, 0.3), (7, 1e-6)
#: So many voxels are fused at a time where a method looks at neighbours only.
_PIECE = 1 << 21


def fuse(ct: Array, mr: Array, method: str) -> Image:
    """CT and MR as one picture.

    Args:
        ct: (I, J) or (I, J, K), as it is shown.
        mr: of the same shape and scale.
        method: a name of `BASELINES`.

    Returns:
        float32, of the same shape and scale, within the range of both images.

    Raises:
        UsageError: E_OPTION for a method that there is not.
        CaseError: E_GRID for images of different shapes, or of other than two or three axes of more than one voxel;
            E_NIFTI for a value that is not finite; E_BLANK for a constant image.
    """
    require_methods([method])
    images = [image.astype(np.float32, copy=False) for image in checked({"CT": ct, "MR": mr})]
    low, high = (limit([limit(image) for image in images]) for limit in (np.min, np.max))
    fused = BASELINES[method](*images)
    return fused.clip(low, high).astype(np.float32, copy=False).reshape(np.shape(ct))


def require_methods(names: Iterable[str], more: Sequence[str] = ()) -> None:
    """Refuse names of methods that there are not: others than those of `BASELINES`, and `more`.

    Raises:
        UsageError: E_OPTION, with the nearest name.
    """
    known = (*BASELINES, *more)
    for name in names:
        if name not in known:
            near = did_you_mean(name, known) or "."
            raise UsageError("E_OPTION", f"Expected one of the methods {', '.join(known)}, got {name}{near}")


def larger(ct: Image, mr: Image) -> Image:
    """The larger value of both, voxel by voxel."""
    return np.maximum(ct, mr)


def mean(ct: Image, mr: Image) -> Image:
    """The mean of both."""
    return (ct + mr) * np.float32(0.5)


def gradient(ct: Image, mr: Image) -> Image:
    """The image with more gradient energy around the voxel; where both have some, a little of the other."""
    return _by_pieces(lambda a, b: _mixed(_gradient_weight(a, b), a, b), ct, mr, _GRADIENT_REACH)


def atrous(ct: Image, mr: Image) -> Image:
    """The larger of both smoothed images, and the details of that with more gradient energy.

    Source: the à trous algorithm, Starck and Murtagh, Astron. Astrophys. 288, 1994.
    """
    return _by_pieces(_atrous, ct, mr, max(_GRADIENT_REACH, 2 * (2**ATROUS_LEVELS - 1)))


def laplacian_pyramid(ct: Image, mr: Image) -> Image:
    """A pyramid of the details of larger size, on the larger of both bases.

    Source: Burt and Adelson, IEEE Trans. Commun. 31(4), 1983.
    """
    levels = min(PYRAMID_LEVELS, int(np.log2(min(ct.shape))) - 1)
    details = []
    for _ in range(levels):
        halves = [_halved(image) for image in (ct, mr)]
        ct_detail, mr_detail = (image - _doubled(half, ct.shape) for image, half in zip((ct, mr), halves, strict=True))
        details.append(np.where(np.abs(ct_detail) >= np.abs(mr_detail), ct_detail, mr_detail))
        ct, mr = halves
    fused = np.maximum(ct, mr)
    for detail in reversed(details):
        fused = _doubled(fused, detail.shape) + detail
    return fused


def guided(ct: Image, mr: Image) -> Image:
    """Base and detail of the more salient image, with weights that follow the edges of each.

    Source: Li, Kang and Hu, IEEE TIP 22(7), 2013; the filter: He et al., IEEE TPAMI 35(6), 2013.
    """
    chosen = (_saliency(ct) >= _saliency(mr)).astype(np.float32)
    width = max(ct.max(), mr.max()) - min(ct.min(), mr.min())
    difference = ct - mr
    smooth = ndimage.uniform_filter(difference, BASE_SIDE)
    base, detail = (_followed(chosen, ct / width, mr / width, *how) for how in (OF_BASE, OF_DETAIL))
    return mr + base * smooth + detail * (difference - smooth)


BASELINES: dict[str, Method] = {
    "ct": lambda ct, mr: ct,
    "mr": lambda ct, mr: mr,
    "mean": mean,
    "max": larger,
    "gradient": gradient,
    "laplacian": laplacian_pyramid,
    "atrous": atrous,
    "guided": guided,
}

#: Sobel's filter, and the Gaussian up to four standard deviations.
_GRADIENT_REACH = 1 + int(4 * NEIGHBOURHOOD + 0.5)


def _by_pieces(method: Method, ct: Image, mr: Image, reach: int) -> Image:
    """A method that looks `reach` voxels far, on parts along the first axis: it takes the memory of a part."""
    fused, size = np.empty_like(ct), len(ct)
    step = max(4 * reach, _PIECE // int(np.prod(ct.shape[1:])))
    for first in range(0, size, step):
        start, stop = max(0, first - reach), min(size, first + step + reach)
        part = method(ct[start:stop], mr[start:stop])
        fused[first : first + step] = part[first - start :][:step]
    return fused


def _atrous(ct: Image, mr: Image) -> Image:
    weight = _gradient_weight(ct, mr)
    bases = [_smoothed(image) for image in (ct, mr)]
    details = [image - base for image, base in zip((ct, mr), bases, strict=True)]
    return np.maximum(*bases) + _mixed(weight, *details)


def _smoothed(image: Image) -> Image:
    for level in range(ATROUS_LEVELS):
        kernel = np.zeros(4 * 2**level + 1)
        kernel[:: 2**level] = SPLINE
        for axis in range(image.ndim):
            image = ndimage.correlate1d(image, kernel, axis)
    return image


def _mixed(weight: Image, ct: Image, mr: Image) -> Image:
    return mr + weight * (ct - mr)


def _gradient_weight(ct: Image, mr: Image) -> Image:
    """CT's part: the energy of its gradient to a power, over the sum with MR's; a half where both are even."""
    first, second = _energy(ct), _energy(mr)
    total = first + second
    part = np.divide(first, total, out=np.full_like(total, 0.5), where=total > 0)
    part **= PREVAILS
    other = np.divide(second, total, out=np.full_like(total, 0.5), where=total > 0)
    other **= PREVAILS
    return part / (part + other)


def _energy(image: Image) -> Image:
    total = np.zeros_like(image)
    for axis in range(image.ndim):
        total += ndimage.sobel(image, axis) ** 2
    return np.asarray(ndimage.gaussian_filter(total, NEIGHBOURHOOD, truncate=4))


def _halved(image: Image) -> Image:
    for axis in range(image.ndim):
        image = ndimage.correlate1d(image, SPLINE, axis)[(slice(None),) * axis + (slice(None, None, 2),)]
    return image


def _doubled(image: Image, shape: tuple[int, ...]) -> Image:
    """Voxels between those of an image, up to a shape."""
    for axis, size in enumerate(shape):
        wide = np.zeros((*image.shape[:axis], size, *image.shape[axis + 1 :]), np.float32)
        wide[(slice(None),) * axis + (slice(None, None, 2),)] = image
        image = ndimage.correlate1d(wide, 2 * SPLINE, axis, mode="mirror")
    return image


def _saliency(image: Image) -> Image:
    return np.asarray(ndimage.gaussian_filter(np.abs(ndimage.laplace(image)), SALIENCY))


def _followed(chosen: Image, ct: Image, mr: Image, radius: int, epsilon: float) -> Image:
    """CT's weight: the choice of voxels, filtered so that it follows CT's edges, beside the rest by those of MR."""
    first, second = (
        np.clip(_guided(guide, choice, 2 * radius + 1, epsilon), 0, 1)
        for guide, choice in ((ct, chosen), (mr, 1 - chosen))
    )
    total = first + second
    return np.divide(first, total, out=np.full_like(total, 0.5), where=total > 0)


def _guided(guide: Image, image: Image, side: int, epsilon: float) -> Image:
    """The image as a linear function of the guide in each window."""
    means = [ndimage.uniform_filter(item, side) for item in (guide, image)]
    covariance = ndimage.uniform_filter(guide * image, side) - means[0] * means[1]
    variance = ndimage.uniform_filter(guide * guide, side) - means[0] ** 2
    slope = covariance / (variance + np.float32(epsilon))
    offset = means[1] - slope * means[0]
    return np.asarray(ndimage.uniform_filter(slope, side) * guide + ndimage.uniform_filter(offset, side))
