"""Bright and dark ellipsoids in noise, in any number of dimensions: the plainest picture that can show cues."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
#: How far an ellipsoid is from the ground, and what one standard deviation of the cue adds to it; the noise has 1.
BRIGHTNESS, CUE_BRIGHTNESS = 2.5, 0.5
#: Radii of an ellipsoid in parts of the side of its room.
RADII = (0.22, 0.375)


def coordinates(size: Sequence[int]) -> list[Floats]:
    """The places of the pixels or voxels of a field along each axis, from -1 to 1, each of the shape `size`."""
    return list(np.meshgrid(*[(np.arange(side) + 0.5) * 2 / side - 1 for side in size], indexing="ij"))


def shapes(size: Sequence[int], cues: npt.ArrayLike, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Noise with an ellipsoid for each cue, one beside the other along the first axis: bright, dark, and so on.

    What tells the cues apart is what the ellipsoids are like, not where they lie: a network that pools over all places,
    as classifiers do, cannot know the latter.

    Args:
        size: of the image (I, J) or volume (I, J, K).
        cues: (B,) in standard deviations: how bright the first is, how dark the second.
        rng: of places, radii and noise.

    Returns:
        The array, in standard deviations of its noise.
    """
    shown = np.atleast_1d(np.asarray(cues, np.float64))
    places = coordinates(size)
    image = rng.standard_normal(tuple(size))
    edges = np.linspace(-1, 1, len(shown) + 1)
    for number, cue in enumerate(shown):
        room = [(edges[number], edges[number + 1]), *[(-1.0, 1.0)] * (len(size) - 1)]
        image += _ellipsoid(places, np.array(room), rng) * (-1) ** number * (BRIGHTNESS + CUE_BRIGHTNESS * cue)
    return image.astype(np.float32)


def _ellipsoid(places: Sequence[Floats], room: Floats, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """An ellipsoid somewhere in its room: (D, 2) ends along each axis."""
    radii = rng.uniform(*RADII, len(room)) * (room[:, 1] - room[:, 0])
    centre = rng.uniform(room[:, 0] + radii, room[:, 1] - radii)
    apart = [((place - c) / r) ** 2 for place, c, r in zip(places, centre, radii, strict=True)]
    return np.asarray(np.sum(apart, axis=0) <= 1)
