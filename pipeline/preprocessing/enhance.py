"""Images for the eye: less noise, more local contrast.

Neither belongs before radiomics, nor before a network that normalises CT itself: both change the intensities that
those measure.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from monai.data import MetaTensor
from scipy import ndimage
from skimage.exposure import equalize_adapthist
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

from pipeline.body import finite_values
from pipeline.errors import CaseError, UsageError
from pipeline.geometry import spacing_mm
from pipeline.preprocessing.intensity import ChangeEachd, like
from pipeline.volumes import affine_of

DenoiseMethod = Literal["nlm", "tv", "curvature"]
Values = npt.NDArray[np.float32]

# The strengths give about the best PSNR *inside* simulated heads (T1, T2, FLAIR; 32.1 dB before): 35.6, 34.1 and
# 33.9 dB. Over the whole image stronger filters look better, for the air that they flatten.
#: Non-local means: the width of the filter in noise deviations.
NLM_WIDTH = 0.6
NLM_PATCH_VOXELS = 3
NLM_DISTANCE_VOXELS = 2
#: Total variation: the weight in noise deviations.
TV_WEIGHT = 0.5
#: Curvature flow; 0.0625 is ITK's stable step in 3D.
CURVATURE_STEPS = 3
CURVATURE_TIME_STEP = 0.0625
#: The median absolute value of a normal distribution with deviation 1.
NORMAL_MEDIAN = 0.6745


def denoise(image: MetaTensor, method: DenoiseMethod = "nlm", strength: float = 1.0) -> MetaTensor:
    """Remove noise in three dimensions and keep the edges.

    Non-local means and total variation adapt to the image's noise (`noise_sd`); an image without noise comes back as
    it is. Curvature flow knows no noise level and takes a fixed number of steps, with the voxels' proportions. The
    other two count in voxels.

    Args:
        image: (1, I, J, K).
        method: `nlm` non-local means, `tv` total variation (Chambolle), `curvature` curvature flow.
        strength: above 0; multiplies the filter's width, weight or number of steps.

    Returns:
        (1, I, J, K) float32, within the image's own range of values.

    Raises:
        UsageError: E_CONFIG for another method or a strength that is not above 0.
        CaseError: E_BLANK when the image is constant or not finite; E_GRID when it has more than one channel.

    Source: Buades, Coll and Morel, CVPR 2005; Chambolle, J. Math. Imaging Vision 20, 2004; Sethian, Level Set Methods,
        1999.
    """
    check_denoising(method, strength)
    values = finite_values(image)
    if method == "curvature":
        smooth = _curvature(values, spacing_mm(affine_of(image)), strength)
    else:
        sd = noise_sd(image)
        smooth = _DENOISERS[method](values, sd, strength) if sd > 0 else values
    # scikit-image drops axes of one voxel.
    return like(np.clip(smooth, values.min(), values.max()).reshape(values.shape), image)


def noise_sd(image: MetaTensor) -> float:
    """The standard deviation of white noise, from the finest diagonal Haar wavelet coefficients.

    Only blocks brighter than the mean count, since in MR magnitude images the noise of air is smaller (Rayleigh), and
    of those the half with the least slope, since edges have detail, too. A block's detail and mean are independent for
    white noise, so the choice does not bias the estimate. Noise that is correlated between neighbours, as after
    interpolation or a smooth CT kernel, is underestimated.

    Args:
        image: (1, I, J, K); axes of one voxel are left out.

    Returns:
        In the image's unit.

    Raises:
        CaseError: E_BLANK when the image is constant or not finite; E_GRID when it has more than one channel.

    Source: Donoho and Johnstone, Biometrika 81(3), 1994.
    """
    detail = mean = finite_values(image).astype(np.float64)
    for axis in (axis for axis, size in enumerate(detail.shape) if size > 1):
        detail = np.subtract(*_pairs(detail, axis)) / np.sqrt(2.0)
        mean = np.add(*_pairs(mean, axis)) / 2.0
    tissue = mean >= mean.mean()
    slope = ndimage.gaussian_gradient_magnitude(mean, 0.5, mode="nearest")
    flat = tissue & (slope <= np.median(slope[tissue]))
    return float(np.median(np.abs(detail[flat])) / NORMAL_MEDIAN)


def clahe(image: MetaTensor, clip_limit: float = 0.01, kernel_fraction: float = 0.125) -> MetaTensor:
    """Contrast-limited adaptive histogram equalisation, in three dimensions.

    In three dimensions, because slice by slice the same tissue would take another grey in each, and a slice of air
    would be stretched to full contrast. A single slice (a radiograph) is equalised in its plane.
    Takes about 90 bytes of memory a voxel.

    Args:
        image: (1, I, J, K) in [0, 1]: clip to percentiles and rescale it before.
        clip_limit: 0 to 1; 0.01 to 0.02 is usual, more gives more contrast and more noise.
        kernel_fraction: the size of a tile as a fraction of the image, along each axis; above 0, at most 1.

    Returns:
        (1, I, J, K) float32 in [0, 1].

    Raises:
        UsageError: E_CONFIG when a parameter is out of its range.
        CaseError: E_BLANK when the image is constant or not finite; E_DTYPE when its values leave [0, 1]; E_GRID when
            it has more than one channel.

    Source: Zuiderveld, Graphics Gems IV, 1994.
    """
    check_clahe(clip_limit, kernel_fraction)
    values = finite_values(image)
    if values.min() < 0 or values.max() > 1:
        raise CaseError("E_DTYPE", f"Expected values in [0, 1], got {values.min():.4g} to {values.max():.4g}.")
    thick = np.squeeze(values)
    kernel = [max(1, round(size * kernel_fraction)) for size in thick.shape]
    return like(equalize_adapthist(thick, kernel, clip_limit).reshape(values.shape), image)


def check_denoising(method: str, strength: float) -> None:
    """Raise E_CONFIG for a method that is not known, or a strength that is not above 0."""
    if method not in get_args(DenoiseMethod):
        raise UsageError("E_CONFIG", f"Expected method {', '.join(get_args(DenoiseMethod))}, got {method}.")
    if not strength > 0:
        raise UsageError("E_CONFIG", f"Expected a strength above 0, got {strength}.")


def check_clahe(clip_limit: float, kernel_fraction: float) -> None:
    """Raise E_CONFIG for parameters of CLAHE that are out of range."""
    if not 0 < clip_limit <= 1 or not 0 < kernel_fraction <= 1:
        raise UsageError(
            "E_CONFIG", f"Expected clip limit and kernel fraction in (0, 1], got {clip_limit} and {kernel_fraction}."
        )


def _pairs(values: npt.NDArray[np.float64], axis: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The even and the odd voxels along an axis, as many of each."""
    last = values.shape[axis] // 2 * 2
    return values.take(range(0, last, 2), axis), values.take(range(1, last, 2), axis)


def _nlm(values: Values, sd: float, strength: float) -> Values:
    return np.asarray(
        denoise_nl_means(
            values,
            patch_size=NLM_PATCH_VOXELS,
            patch_distance=NLM_DISTANCE_VOXELS,
            h=NLM_WIDTH * strength * sd,
            sigma=sd,
            fast_mode=True,
        )
    )


def _tv(values: Values, sd: float, strength: float) -> Values:
    return np.asarray(denoise_tv_chambolle(values, weight=TV_WEIGHT * strength * sd))


def _curvature(values: Values, spacing: npt.NDArray[np.float64], strength: float) -> Values:
    image = sitk.GetImageFromArray(values.transpose(2, 1, 0))
    # The time step is stable for voxels of at least 1: the smallest side is taken as the unit.
    image.SetSpacing((spacing / spacing.min()).tolist())
    steps = max(1, round(CURVATURE_STEPS * strength))
    smooth = sitk.CurvatureFlow(image, CURVATURE_TIME_STEP, steps)
    return np.asarray(sitk.GetArrayFromImage(smooth).transpose(2, 1, 0))


_DENOISERS: Mapping[str, Callable[[Values, float, float], Values]] = {"nlm": _nlm, "tv": _tv}


class Denoised(ChangeEachd):
    """Remove noise; see `denoise`.

    Args:
        keys: the images.
        method: `nlm`, `tv` or `curvature`.
        strength: above 0.
    """

    def __init__(
        self,
        keys: Sequence[str] | str,
        method: DenoiseMethod = "nlm",
        strength: float = 1.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        check_denoising(method, strength)
        self.method, self.strength = method, strength

    def changed(self, image: MetaTensor, case: Mapping[Hashable, Any]) -> MetaTensor:
        """Denoised."""
        return denoise(image, self.method, self.strength)


class Clahed(ChangeEachd):
    """Raise local contrast; see `clahe`.

    Args:
        keys: the images, in [0, 1].
        clip_limit: 0 to 1.
        kernel_fraction: the size of a tile as a fraction of the image.
    """

    def __init__(
        self,
        keys: Sequence[str] | str,
        clip_limit: float = 0.01,
        kernel_fraction: float = 0.125,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        check_clahe(clip_limit, kernel_fraction)
        self.clip_limit, self.kernel_fraction = clip_limit, kernel_fraction

    def changed(self, image: MetaTensor, case: Mapping[Hashable, Any]) -> MetaTensor:
        """Equalised."""
        return clahe(image, self.clip_limit, self.kernel_fraction)
