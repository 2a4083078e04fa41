"""What CT and MR show of a mixture of tissues."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

FloatArray = npt.NDArray[np.float64]
#: What a set of voxels holds: tissues and their shares (N,).
Mixture = Iterable[tuple["Tissue", FloatArray]]

AIR_HU = -1000.0
#: The lowest value that CT scanners give.
MINIMUM_HU = -1024.0
#: Standard deviation of CT noise, and of the point spread in voxels.
CT_NOISE_HU = 8.0
CT_PSF_VOXELS = 0.6
#: MR signal of a voxel full of water with no decay: the scale of MR images.
MR_SCALE = 1000.0
#: Standard deviation of each channel's noise, as a share of `MR_SCALE`.
MR_NOISE = 0.01


@dataclass(frozen=True)
class Tissue:
    """How a tissue looks: attenuation, proton density (share of water's) and relaxation times at 1.5 T."""

    hu: float
    proton_density: float
    t1_ms: float
    t2_ms: float


#: Source of the MR values: Kwan, Evans and Pike, IEEE TMI 1999 (BrainWeb), diploe as marrow.
TISSUES: Mapping[str, Tissue] = {
    "gray": Tissue(39.0, 0.86, 833.0, 83.0),
    "white": Tissue(31.0, 0.77, 500.0, 70.0),
    "csf": Tissue(8.0, 1.0, 2569.0, 329.0),
    "cortical": Tissue(1300.0, 0.0, 1000.0, 1.0),
    "diploe": Tissue(550.0, 0.77, 500.0, 70.0),
    "muscle": Tissue(55.0, 1.0, 900.0, 47.0),
    "fat": Tissue(-95.0, 1.0, 350.0, 70.0),
}


@dataclass(frozen=True)
class Sequence:
    """A spin-echo sequence."""

    tr_ms: float
    te_ms: float

    def signal(self, tissue: Tissue) -> float:
        """PD (1 - e^(-TR/T1)) e^(-TE/T2), 0 to 1."""
        recovery = 1.0 - np.exp(-self.tr_ms / tissue.t1_ms)
        return float(tissue.proton_density * recovery * np.exp(-self.te_ms / tissue.t2_ms))


T1_WEIGHTED = Sequence(tr_ms=500.0, te_ms=10.0)
T2_WEIGHTED = Sequence(tr_ms=4000.0, te_ms=90.0)


def attenuation_hu(mixture: Mixture) -> FloatArray:
    """Attenuation of voxels (N,), HU; what is missing to 1 is air."""
    return np.asarray(AIR_HU + sum(share * (tissue.hu - AIR_HU) for tissue, share in mixture))


def mr_signal(mixture: Mixture, sequence: Sequence) -> FloatArray:
    """Signal of voxels (N,), water without decay being `MR_SCALE`; air gives none."""
    return np.asarray(MR_SCALE * sum(share * sequence.signal(tissue) for tissue, share in mixture))


def ct_scan(attenuation: FloatArray, rng: np.random.Generator) -> FloatArray:
    """What the scanner makes of it: point spread, noise, the lowest value. (I, J, K), HU."""
    blurred = ndimage.gaussian_filter(attenuation, CT_PSF_VOXELS, mode="nearest")
    return np.clip(blurred + rng.normal(0.0, CT_NOISE_HU, blurred.shape), MINIMUM_HU, None)


def mr_scan(signal: FloatArray, rng: np.random.Generator) -> FloatArray:
    """What the scanner makes of it: a smooth bias of 10 to 35 %, and Rician noise. (I, J, K).

    Source: Gudbjartsson and Patz, MRM 1995 (Rician noise).
    """
    real, imaginary = (rng.normal(0.0, MR_NOISE * MR_SCALE, signal.shape) for _ in range(2))
    return np.hypot(signal * random_bias(signal.shape, rng) + real, imaginary)


def random_bias(shape: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
    """A smooth factor around 1 that departs from it by 10 to 35 % at most: a random quadratic in the grid's axes."""
    x, y, z = np.meshgrid(*[np.linspace(-1.0, 1.0, size) for size in shape], indexing="ij", sparse=True)
    terms = (x, y, z, x * y, y * z, z * x, x * x - 1 / 3, y * y - 1 / 3, z * z - 1 / 3)
    field = sum(weight * term for weight, term in zip(rng.normal(size=len(terms)), terms, strict=True))
    return np.asarray(1.0 + rng.uniform(0.10, 0.35) * field / np.abs(field).max())
