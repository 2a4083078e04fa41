"""Small two-modality images whose class follows from both by a known mechanism, with the true posterior of every case.

Three mechanisms tell the fusion strategies apart:

- `additive`: each modality has a cue of its own, and the cues add up: any strategy can use both.
- `exclusive`: the class is whether the two cues disagree (exclusive or): one modality alone says nothing, and neither
  does any sum of what the modalities say; the cues have to meet.
- `texture`: both modalities show noise, and the class is the sign of its correlation, voxel by voxel: only features
  that are compared at full resolution can tell.

Each image shows an ellipsoid that is brighter than its surroundings; the cue is in its brightness or texture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import expit, log_expit

from pipeline.simulation.kinds import additive_cues

Mechanism = Literal["additive", "exclusive", "texture"]
FloatArray = npt.NDArray[np.float64]
MECHANISMS: tuple[Mechanism, ...] = ("additive", "exclusive", "texture")

#: Cues of the exclusive mechanism are nearly certain: 4 standard deviations apart.
EXCLUSIVE_CUE = 2.0
#: Correlation of the two textures, + in one class and - in the other.
TEXTURE_CORRELATION = 0.6
#: Brightness of the ellipsoid, and what one standard deviation of the cue adds to it; the noise has 1.
BRIGHTNESS, CUE_BRIGHTNESS = 2.5, 0.5
RADII_VOXELS = (3.5, 6.0)


@dataclass(frozen=True)
class MechanismCases:
    """Simulated cases.

    Attributes:
        images: (N, 2, I, J, K) float32.
        masks: (N, I, J, K) uint8, 1 in the ellipsoid.
        labels: (N,) 0 or 1.
        posterior: (N,) the probability of class 1 given all that the mechanism has shown.
    """

    images: npt.NDArray[np.float32]
    masks: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    posterior: FloatArray


def mechanism_cases(mechanism: Mechanism, count: int, seed: int, size: int = 16) -> MechanismCases:
    """Draw cases of a mechanism; the same arguments give the same cases.

    Args:
        mechanism: see the module.
        count: how many.
        seed: of the chance.
        size: voxels along each side.
    """
    rng = np.random.default_rng([seed, MECHANISMS.index(mechanism)])
    labels = rng.integers(0, 2, count)
    masks = np.stack([_ellipsoid(size, rng) for _ in range(count)])
    noise = rng.standard_normal((count, 2, size, size, size))
    if mechanism == "texture":
        _correlate(noise, masks, labels)
        images, posterior = noise, _texture_posterior(noise, masks)
    else:
        cues, posterior = cues_of(mechanism, labels, rng)
        images = noise + masks[:, None] * (CUE_BRIGHTNESS * cues)[:, :, None, None, None]
    images = images + BRIGHTNESS * masks[:, None]
    return MechanismCases(images.astype(np.float32), masks, labels.astype(np.int64), posterior)


def true_nll(cases: MechanismCases) -> float:
    """The negative log-likelihood of the true posterior, in nats a case: no model can have less on average."""
    right = np.where(cases.labels == 1, cases.posterior, 1 - cases.posterior)
    return float(-np.log(np.clip(right, 1e-300, 1)).mean())


def _ellipsoid(size: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    radii = rng.uniform(*RADII_VOXELS, 3)
    centre = rng.uniform(radii, size - 1 - radii)
    axes: Sequence[FloatArray] = np.meshgrid(*[np.arange(size, dtype=np.float64)] * 3, indexing="ij")
    distance = sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, radii, strict=True))
    return (np.asarray(distance) <= 1).astype(np.uint8)


def cues_of(
    mechanism: Mechanism, labels: npt.NDArray[np.int64], rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Draw cues of cases, in standard deviations, and find what they say of the class.

    Args:
        mechanism: `additive` or `exclusive`.
        labels: (N,) 0 or 1, equally likely.
        rng: the source of chance.

    Returns:
        The cue of each modality (N, 2), and the posterior of class 1 (N,) that follows by Bayes' rule.
    """
    if mechanism == "additive":
        return additive_cues(labels, rng)
    chance = rng.standard_normal((len(labels), 2))
    first = rng.integers(0, 2, len(labels))
    signs = 2 * np.stack([first, first ^ labels], 1) - 1
    cues = EXCLUSIVE_CUE * signs + chance
    up = expit(2 * EXCLUSIVE_CUE * cues)
    return cues, up[:, 0] * (1 - up[:, 1]) + (1 - up[:, 0]) * up[:, 1]


def _correlate(noise: FloatArray, masks: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
    """Make the second noise follow the first one inside the ellipsoid; each alone stays standard normal."""
    sign = TEXTURE_CORRELATION * (2 * labels - 1)[:, None, None, None]
    mixed = sign * noise[:, 0] + np.sqrt(1 - TEXTURE_CORRELATION**2) * noise[:, 1]
    noise[:, 1] = np.where(masks > 0, mixed, noise[:, 1])


def _texture_posterior(noise: FloatArray, masks: npt.NDArray[np.uint8]) -> FloatArray:
    """From the ratio of two bivariate normal densities that differ in the sign of their correlation."""
    products = (noise[:, 0] * noise[:, 1] * masks).sum((1, 2, 3))
    ratio = 2 * TEXTURE_CORRELATION / (1 - TEXTURE_CORRELATION**2) * products
    return np.exp(log_expit(ratio))
