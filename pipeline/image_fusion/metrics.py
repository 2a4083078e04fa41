"""How good one picture of CT and MR is, by the measures of the field and by two that ask what it is for.

Each measure of the field can be had by an image that nobody wants: copies, the larger of both. Read them beside those
of the baselines, and look at the picture.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from pipeline.image_fusion.edges import laplacian, qabf
from pipeline.image_fusion.images import BONE, BONE_RIM, SOFT_CT, SOFT_MR, SOFT_RIM, TOP, Array, checked, eight_bit
from pipeline.image_fusion.structure import piella, ssim, vif

Measures = dict[str, float | None]

#: What float32 leaves of a difference of equal images on the scale from 0 to 255 is less.
ROUNDING = 1e-3
#: The width of the scale that the evaluator's SSIM assumes: the former default of scikit-image for real numbers.
EVALUATOR_RANGE = 2.0

#: What each measure is, and its unit; images are on the scale from 0 to 255.
MEASURES = {
    "EN": "entropy of the fused image, bits",
    "EN_CT": "entropy of CT, bits",
    "EN_MR": "entropy of MR, bits",
    "SD": "standard deviation",
    "SF": "spatial frequency: root of the mean squares of the steps along each axis, summed",
    "AG": "average gradient: mean over voxels of its root mean square over the axes",
    "MI": "mutual information with CT and with MR, summed, nats",
    "SCD": "correlation of CT with what differs from MR and the reverse, summed",
    "VIF": "visual information fidelity of CT and of MR, summed",
    "VIF_CT": "visual information fidelity of CT",
    "VIF_MR": "visual information fidelity of MR",
    "Qabf": "edges kept, by the angle between gradients as lines",
    "Qabf_evaluator": "edges kept, with the evaluator's differences of angles of up to pi; 2D only",
    "SSIM": "structural similarity with CT and with MR, summed, data range 255",
    "SSIM_CT": "structural similarity with CT, data range 255",
    "SSIM_MR": "structural similarity with MR, data range 255",
    "SSIM_evaluator": "structural similarity summed, with the evaluator's data range of 2",
    "PSNR": "of the mean squared differences from CT and MR, dB of 255",
    "CC": "correlation with CT and with MR, their mean",
    "EPI": "correlation of Laplacians with CT's and with MR's, their mean",
    "FQI": "weighted fusion quality Q_W",
    "bone": "mean of the fused image over that of CT inside bone",
    "soft": "correlation with MR inside soft tissue",
}


def measure(fused: Array, ct: Array, mr: Array, top: float = TOP) -> Measures:
    """All measures of a fused image.

    Images are put on the scale from 0 to 255; entropies and mutual information are of their whole numbers. Steps,
    windows and gradients are by voxels, whatever their spacing, along all axes alike. A measure is None where it is
    undefined: SCD of a copy, bone where there is none, and what needs windows of 7 (SSIM), 8 (FQI) or 41 voxels (VIF)
    where an axis is shorter.

    Args:
        fused: (I, J) or (I, J, K), from 0 (black) to `top` (white); an axis of one voxel is left out.
        ct: of the same shape and scale, as it is shown: within its window.
        mr: of the same shape and scale.
        top: white.

    Returns:
        The names of `MEASURES` -> value.

    Raises:
        CaseError: E_GRID for images of different shapes, or of other than two or three axes; E_NIFTI for a value that
            is not finite; E_BLANK for a constant image; E_DTYPE for values beyond the scale.

    Sources: SF: Eskicioglu and Fisher, IEEE Trans. Commun. 43(12), 1995. MI: Qu et al., Electronics Letters 38(7),
    2002. SCD: Aslantas and Bendes, AEU 69(12), 2015. EPI: Sattar et al., IEEE TIP 6(6), 1997. The others: `structure`
    and `edges`. The sums over sources are those of the field's evaluator (Zhao et al., CVPR 2023).
    """
    images = [eight_bit(image, top) for image in checked({"the fused image": fused, "CT": ct, "MR": mr}, top)]
    whole, *sources = images
    found = _of_values(*images) | _of_differences(*images) | _of_windows(whole, sources)
    found |= {"bone": bone_kept(whole, sources[0]), "soft": soft_tissue_correlation(*images)}
    return {name: found[name] for name in MEASURES}


def bone_kept(fused: Array, ct: Array) -> float | None:
    """The mean of the fused image over that of CT inside bone; None where there is none. Scale: 0 to 255."""
    bone = _inside(ct >= BONE, BONE_RIM)
    return float(fused[bone].mean(dtype=np.float64) / ct[bone].mean(dtype=np.float64)) if bone.any() else None


def soft_tissue_correlation(fused: Array, ct: Array, mr: Array) -> float | None:
    """The correlation of the fused image with MR inside soft tissue; None where there is none, or one is constant.

    All are on the scale from 0 to 255, and of one shape.
    """
    soft = _inside((ct > SOFT_CT[0]) & (ct < SOFT_CT[1]) & (mr > SOFT_MR), SOFT_RIM)
    return _correlation(fused[soft], mr[soft]) if soft.any() else None


def _inside(mask: Array, rim: int) -> Array:
    """A mask without its outermost voxels; the image's edge is not the tissue's."""
    return np.asarray(ndimage.binary_erosion(mask, iterations=rim, border_value=1))


def _of_values(fused: Array, ct: Array, mr: Array) -> Measures:
    whole, *sources = (np.rint(image).astype(np.uint8) for image in (fused, ct, mr))
    entropies = dict(zip(("EN", "EN_CT", "EN_MR"), map(_entropy_bits, (whole, *sources)), strict=True))
    information = sum(mutual_information(whole, source) for source in sources)
    return {**entropies, "MI": information, "SD": float(fused.std(dtype=np.float64))}


def _of_differences(fused: Array, ct: Array, mr: Array) -> Measures:
    differences = [fused - ct, fused - mr]
    squares = np.mean([_mean_square(item) for item in differences])
    edges, *of_sources = (laplacian(image) for image in (fused, ct, mr))
    return {
        "SF": float(np.sqrt(sum(_mean_square(np.diff(fused, axis=axis)) for axis in range(fused.ndim)))),
        "AG": _average_gradient(fused),
        "SCD": _combined([_told(differences[1], ct), _told(differences[0], mr)]),
        "PSNR": float(10 * np.log10(TOP**2 / squares)) if squares else None,
        "CC": _combined([_correlation(fused, ct), _correlation(fused, mr)], 0.5),
        "EPI": _combined([_correlation(edges, other) for other in of_sources], 0.5),
    }


def _of_windows(fused: Array, sources: list[Array]) -> Measures:
    edges, as_evaluated = qabf(fused, sources)
    fidelity, similarity = vif(fused, sources), ssim(fused, sources, (TOP, EVALUATOR_RANGE))
    true, loose = (None, None) if similarity is None else similarity
    return {
        **_by_source("VIF", fidelity),
        **{"Qabf": edges, "Qabf_evaluator": as_evaluated},
        **_by_source("SSIM", true),
        **{"SSIM_evaluator": None if loose is None else float(loose.sum()), "FQI": piella(fused, sources)},
    }


def _by_source(name: str, values: Array | None) -> Measures:
    if values is None:
        return dict.fromkeys((name, f"{name}_CT", f"{name}_MR"))
    ct, mr = values.tolist()
    return {name: ct + mr, f"{name}_CT": ct, f"{name}_MR": mr}


def _combined(values: list[float | None], factor: float = 1.0) -> float | None:
    known = [value for value in values if value is not None]
    return factor * sum(known) if len(known) == len(values) else None


def _entropy_bits(levels: Array) -> float:
    return _entropy(np.bincount(levels.ravel())) / float(np.log(2))


def mutual_information(first: Array, second: Array) -> float:
    """What two images (uint8) of one shape share, nats."""
    joint = np.bincount((first.astype(np.uint16) * 256 + second).ravel(), minlength=1 << 16).reshape(256, 256)
    return _entropy(joint.sum(axis=0)) + _entropy(joint.sum(axis=1)) - _entropy(joint)


def _entropy(counts: Array) -> float:
    parts = counts[counts > 0] / counts.sum()
    return float(-(parts * np.log(parts)).sum())


def _mean_square(values: Array) -> float:
    return float(np.square(values, dtype=np.float64).mean())


def _average_gradient(image: Array) -> float:
    total = np.zeros(image.shape, np.float32)
    for axis in range(image.ndim):
        total += np.gradient(image, axis=axis) ** 2
    return float(np.sqrt(total / image.ndim).mean(dtype=np.float64))


def _told(difference: Array, source: Array) -> float | None:
    """The correlation of a difference with a source; None where a copy differs by rounding alone."""
    return _correlation(difference, source) if float(np.ptp(difference)) > ROUNDING else None


def _correlation(first: Array, second: Array) -> float | None:
    """Pearson's; None where one is constant."""
    one, other = (values.ravel() - values.mean(dtype=np.float64) for values in (first, second))
    norm = np.sqrt(np.vdot(one, one) * np.vdot(other, other))
    return float(np.vdot(one, other) / norm) if norm else None
