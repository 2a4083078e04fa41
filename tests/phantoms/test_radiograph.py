"""Simulated radiographs against the analytic chord of an ellipsoid."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.volumes import volume
from tests.phantoms.radiograph import PHOTONS, WATER_PER_MM, attenuation
from tests.registration.phantom import oblique_grid

CENTRE, RADII = np.array([3.0, -5.0, 4.0]), np.array([30.0, 22.0, 26.0])
SOURCE = np.array([40.0, 500.0, -30.0])
GRID = oblique_grid((40, 36, 44), (2.0, 2.2, 1.8), (10, -6, 15), tuple(CENTRE))


def water_ellipsoid() -> object:
    """Partial volume by 3 x 3 x 3 points."""
    index = np.indices((40, 36, 44)).reshape(3, -1).T
    inside = np.zeros(len(index))
    for offset in np.array(np.meshgrid(*[(-1 / 3, 0, 1 / 3)] * 3)).reshape(3, -1).T:
        points = (index + offset) @ GRID[:3, :3].T + GRID[:3, 3]
        inside += (((points - CENTRE) / RADII) ** 2).sum(axis=1) < 1
    return volume((inside.reshape(40, 36, 44) / 27 * 1000 - 1000).astype(np.float32), GRID)


def pixels() -> np.ndarray:
    x, z = np.meshgrid(np.linspace(-60, 50, 12), np.linspace(-40, 60, 9))
    return np.stack([x, np.full_like(x, -150.0), z], axis=-1)


def chords_mm(ends: np.ndarray) -> np.ndarray:
    """Length of each ray in the ellipsoid: the roots of a quadratic."""
    way, start = (ends - SOURCE) / RADII, (SOURCE - CENTRE) / RADII
    a, b, c = (way**2).sum(-1), (way * start).sum(-1), (start**2).sum() - 1
    root = np.sqrt(np.clip(b**2 - a * c, 0, None))
    return 2 * root / a * np.linalg.norm(ends - SOURCE, axis=-1)


def test_a_ray_loses_what_its_way_through_water_says() -> None:
    found = attenuation(water_ellipsoid(), SOURCE, pixels()) / WATER_PER_MM
    expected = chords_mm(pixels())
    assert expected.max() > 40 and (expected == 0).any()
    deep = expected > 15
    np.testing.assert_allclose(found[deep], expected[deep], rtol=0.03)
    beside = expected < 15  # the chord falls with a root to 0, and voxels blur it
    assert np.abs(found - expected)[beside].max() < 4
    assert np.abs(found[beside].mean() - expected[beside].mean()) < 0.3


def test_noise_is_that_of_the_photons() -> None:
    ends = np.broadcast_to(np.array([500.0, -150.0, 0.0]), (60, 60, 3))  # beside the body
    found = attenuation(water_ellipsoid(), SOURCE, ends, np.random.default_rng(0))
    assert found.mean() == pytest.approx(0, abs=4 / np.sqrt(PHOTONS * 3600))
    assert found.std() == pytest.approx(1 / np.sqrt(PHOTONS), rel=0.05)
