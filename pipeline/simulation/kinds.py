"""The kind of a patient's lesions: a class with a known posterior, shown by how they look in CT and in MR.

All lesions of a patient are of one kind. CT and MR each show a cue of it, and the cues add up: the attenuation in CT,
the T1 time in MR.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from pipeline.simulation.subject import Subject
from pipeline.simulation.tissues import TISSUES, Tissue

#: Half the distance of the classes' cues, in standard deviations: 1.2 apart in each modality, AUC .80 alone and .885
#: together. Source: AUC = Phi(d' / sqrt 2), Green and Swets, Signal detection theory, 1966.
ADDITIVE_CUE = 0.6
#: What one standard deviation of the cue adds to white matter's attenuation.
HU_OF_ONE = 12.0
#: T1 of a lesion without a cue, and the factor by which one standard deviation of the cue lengthens it.
T1_MS, T1_FACTOR = 1600.0, 1.42
PROTON_DENSITY, T2_MS = 0.9, 145.0


@dataclass(frozen=True)
class Kind:
    """The kind of a patient's lesions.

    Attributes:
        label: 0 or 1, equally likely.
        ct_cue: in standard deviations.
        mr_cue: likewise.
        posterior: the probability of class 1 given both cues.
    """

    label: int
    ct_cue: float
    mr_cue: float
    posterior: float

    @property
    def tissue(self) -> Tissue:
        """How the lesions look."""
        hu = TISSUES["white"].hu + HU_OF_ONE * self.ct_cue
        return Tissue(hu, PROTON_DENSITY, T1_MS * math.pow(T1_FACTOR, self.mr_cue), T2_MS)


def random_kind(rng: np.random.Generator) -> Kind:
    """Draw a kind."""
    labels = rng.integers(0, 2, 1)
    cues, posterior = additive_cues(labels, rng)
    return Kind(int(labels[0]), float(cues[0, 0]), float(cues[0, 1]), float(posterior[0]))


def additive_cues(
    labels: npt.NDArray[np.int64], rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Draw cues, in standard deviations, that add up, of cases of classes (N,) 0 or 1, which are equally likely.

    Returns:
        The cue of each modality (N, 2), and the posterior of class 1 (N,) that follows by Bayes' rule.
    """
    cues = ADDITIVE_CUE * (2 * labels - 1)[:, None] + rng.standard_normal((len(labels), 2))
    return cues, expit(2 * ADDITIVE_CUE * cues.sum(1))


def with_kind(subject: Subject, kind: Kind) -> Subject:
    """The patient with lesions of this kind, in the places where they were."""
    lesions = tuple(replace(lesion, tissue=kind.tissue) for lesion in subject.lesions)
    return replace(subject, lesions=lesions)
