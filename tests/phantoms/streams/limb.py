"""A broken limb: one long bone in soft tissue, as a volume of MR and as a radiograph of the same patient.

The radiograph is a projection: attenuation summed along the beam. In it the fracture is a line; in the MR volume,
weighted so that fluid is bright, oedema fills the marrow around it. Both show one anatomy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tests.phantoms.streams.shapes import BRIGHTNESS, CUE_BRIGHTNESS, coordinates

Floats = npt.NDArray[np.float64]
#: MR signal in standard deviations of its noise: fat suppressed, fluid bright. Cortex and air give none.
MUSCLE, MARROW = 4.0, 3.0
#: Attenuation of 1 cm in standard deviations of the radiograph's noise. Source of the ratios: linear attenuation at
#: 60 keV, ICRU Report 44: muscle .21, cortical bone .60, marrow .20 / cm.
ATTENUATION = {"soft": 2.1, "cortex": 6.0, "marrow": 2.0}
#: Depth of the field in cm along the beam, and steps in which it is summed.
DEPTH_CM, STEPS = 4.0, 48
#: Half the width of the fracture line, and how far oedema reaches from it along the bone, in half fields of view.
LINE, OEDEMA = 0.09, 0.38


@dataclass(frozen=True)
class Limb:
    """One limb, its bone along the last axis; lengths in half fields of view, so that any size can show it.

    Attributes:
        soft: radius of the limb.
        outer: radius of the bone.
        inner: radius of its marrow.
        place: of the bone's axis along I and J in the middle.
        lean: what that changes by from the middle to the end.
        height: of the fracture along the bone.
        slope: of the fracture line: what its height changes by across the limb (I).
    """

    soft: float
    outer: float
    inner: float
    place: tuple[float, float]
    lean: tuple[float, float]
    height: float
    slope: float


def random_limb(rng: np.random.Generator) -> Limb:
    """Draw a limb."""
    outer = rng.uniform(0.42, 0.52)
    place = tuple(rng.uniform(-0.12, 0.12, 2).tolist())
    lean = tuple(rng.uniform(-0.12, 0.12, 2).tolist())
    thick = rng.uniform(0.10, 0.14)
    return Limb(rng.uniform(0.8, 0.9), outer, outer - thick, place, lean, *rng.uniform((-0.4, -0.5), (0.4, 0.5)))


def mr_volume(limb: Limb, size: Sequence[int], cues: npt.ArrayLike = 0.0) -> npt.NDArray[np.float32]:
    """The limb in MR, without noise.

    Args:
        limb: of which patient.
        size: (I, J, K) voxels; I to the right, J to the front, K upwards.
        cues: in standard deviations; the first makes the oedema brighter, a second one all of the marrow.

    Returns:
        (I, J, K) in standard deviations of the noise that is to be added.
    """
    oedema, fat = _two(cues)
    places = coordinates(size)
    soft, bone, marrow = _parts(limb, places)
    signal = np.where(marrow, MARROW + CUE_BRIGHTNESS * fat, np.where(soft & ~bone, MUSCLE, 0.0))
    near = np.abs(_above_line(limb, places[0], places[2])) < OEDEMA
    return np.where(marrow & near, signal + BRIGHTNESS + CUE_BRIGHTNESS * oedema, signal).astype(np.float32)


def radiograph(limb: Limb, size: Sequence[int], cues: npt.ArrayLike = 0.0) -> npt.NDArray[np.float32]:
    """The limb from the front: attenuation summed along J, bone bright; without noise.

    Args:
        limb: of which patient.
        size: (I, K) pixels; I to the right, K upwards.
        cues: in standard deviations; the first deepens the fracture line, a second one makes the marrow denser.

    Returns:
        (I, K) in standard deviations of the noise that is to be added.
    """
    gap, dense = _two(cues)
    places = coordinates((size[0], STEPS, size[1]))
    soft, bone, marrow = _parts(limb, places)
    values = np.select([marrow, bone, soft], [ATTENUATION[name] for name in ("marrow", "cortex", "soft")], 0.0)
    summed = values.sum(1) * DEPTH_CM / STEPS + _shadow(marrow) * CUE_BRIGHTNESS * dense
    line = np.abs(_above_line(limb, places[0][:, 0], places[2][:, 0])) < LINE
    return (summed - line * _shadow(bone) * (BRIGHTNESS + CUE_BRIGHTNESS * gap)).astype(np.float32)


def _parts(limb: Limb, places: Sequence[Floats]) -> tuple[npt.NDArray[np.bool_], ...]:
    """Where the limb, its bone and its marrow are."""
    across, beam, along = places
    apart = np.hypot(across - limb.place[0] - limb.lean[0] * along, beam - limb.place[1] - limb.lean[1] * along)
    return np.hypot(across, beam) < limb.soft, apart < limb.outer, apart < limb.inner


def _above_line(limb: Limb, across: Floats, along: Floats) -> Floats:
    return np.asarray(along - limb.height - limb.slope * across)


def _shadow(part: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Where a part of the limb (I, J, K) casts its shadow (I, K)."""
    return np.asarray(part.any(1))


def _two(cues: npt.ArrayLike) -> tuple[float, float]:
    given = np.atleast_1d(np.asarray(cues, np.float64)).tolist()
    return given[0], given[1] if len(given) > 1 else 0.0
