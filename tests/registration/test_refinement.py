"""Affine maps, B-splines and landmarks that pull, by elastix itself, against maps that are known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from monai.data import MetaTensor

from pipeline.geometry import apply
from pipeline.registration import Landmarks, Method, Registration, RegistrationSettings, Side, resample_image
from pipeline.registration.findings import AlignmentLimits, _too_little
from pipeline.registration.register import register
from pipeline.registration.warp import Spline, Warp, as_transform
from pipeline.volumes import affine_of, transform_from_matrix, volume
from tests.registration.conftest import quick
from tests.registration.phantom import HeadPair, oblique_grid, rigid, scan

SHAPE = (40, 46, 36)
GRID = oblique_grid(SHAPE, (4.6, 4.8, 5.2), (5, -8, 12), (3, -4, 2))
RIGID = quick("rigid_mr_mr", MaximumNumberOfIterations=120, NumberOfSpatialSamples=2048, NumberOfResolutions=3)
POSE = rigid((4, -3, 5), (4, -5, 3))


@pytest.fixture(scope="module")
def head() -> MetaTensor:
    return scan("MR", SHAPE, GRID, np.eye(4), seed=5)


def head_points(head: MetaTensor) -> np.ndarray:
    return apply(GRID, np.argwhere(head.numpy()[0] > 200)[::11])


def moved(head: MetaTensor, inverse: object) -> MetaTensor:
    """The head as another scan shows it: each of its points is fetched from the fixed image by the way back."""
    other = volume(
        np.zeros((44, 44, 40), np.float32), oblique_grid((44, 44, 40), (4.4, 5.0, 4.8), (-4, 6, 3), (7, -9, 5))
    )
    return resample_image(head, other, inverse, float(head.min()))  # type: ignore[arg-type]


def aligned(fixed: Side, moving: Side, method: Method, weight: float = 0.0) -> Registration:
    return register(fixed, moving, RegistrationSettings(method, starts=1, refined=1, landmark_weight=weight))


def test_an_affine_map_is_found(head: MetaTensor) -> None:
    truth = POSE @ np.diag([1.05, 0.96, 1.03, 1.0])
    other = moved(head, transform_from_matrix(np.linalg.inv(truth)))
    maps = (RIGID, quick("affine", MaximumNumberOfIterations=150))
    found = aligned(Side(head, "MR"), Side(other, "MR"), Method("affine", maps))
    points = head_points(head)
    assert found.quality["transform"] == "affine", found.quality["reason"]
    assert np.linalg.norm(found.warp(points) - apply(truth, points), axis=1).mean() < 1.0
    assert found.warp.jacobian(points[:9]) == pytest.approx(1.05 * 0.96 * 1.03, rel=0.05)


def test_a_bspline_is_found_and_undone(head: MetaTensor) -> None:
    size, spacing = np.array([9, 10, 9]), 40.0
    origin = -spacing * (size - 1) / 2
    points = origin + spacing * np.indices(size[::-1]).reshape(3, -1)[::-1].T
    numbers = 4.0 * np.sin(2 * np.pi * points[:, [1, 2, 0]] / 160.0 + [0.4, 1.3, 2.2])
    truth = Warp(POSE, Spline(np.concatenate([size, origin, [spacing] * 3, np.eye(3).ravel()]), numbers.T.ravel()))
    other = moved(head, as_transform(truth.inverse(head)))
    changes = {"NumberOfResolutions": 2, "GridSpacingSchedule": "2.0 1.0", "MaximumNumberOfIterations": 150}
    spline = quick("bspline_mr_mr", **changes, FinalGridSpacingInPhysicalUnits=32.0, NumberOfSpatialSamples=1024)
    found = aligned(Side(head, "MR"), Side(other, "MR"), Method("bspline", (RIGID, spline)))
    inside = head_points(head)
    before, after = (
        np.linalg.norm(way(inside) - truth(inside), axis=1).mean() for way in (Warp(found.warp.matrix), found.warp)
    )
    assert found.quality["transform"] == "bspline", found.quality["reason"]
    # Ellipsoids do not show where tissue slides along their surface, so that not all can be found.
    assert after < 0.6 * before
    assert after < 2.5
    assert found.quality["folding_fraction"] == 0
    assert found.quality["inverse_error_mm"] <= 0.5


def test_landmarks_with_a_weight_pull_the_pose(pair: HeadPair, parameters: str) -> None:
    """Landmarks that all lie 6 mm off: with a small weight the images win, with a large one the landmarks."""
    marks = np.array([[0, 97, -30], [-80, -6, -14], [12, 6, 16], [-20, -50, -30]], float)
    wrong = rigid((0, 0, 0), (0, 6.0, 0)) @ pair.truth
    fixed = Side(pair.ct, "CT", landmarks=Landmarks(marks))
    moving = Side(pair.mr, "MR", landmarks=Landmarks(apply(wrong, marks)))
    quick_map = Method("rigid", (quick("rigid_ct_mr", MaximumNumberOfIterations=120, NumberOfResolutions=3),))
    weak, strong = (aligned(fixed, moving, quick_map, weight) for weight in (1e-6, 10.0))
    assert weak.quality["landmark_fre_mm"] == pytest.approx(6.0, abs=1.0)
    assert strong.quality["landmark_fre_mm"] < 1.0
    assert pair.errors_mm(weak.warp.matrix).mean() < 1.0 < 5.0 < pair.errors_mm(strong.warp.matrix).mean()
    assert affine_of(strong.moved).tolist() == affine_of(pair.ct).tolist()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [(1.0, 1.0, "one grey"), (1.0, 1.1, "one grey"), (1.1, 1.101, "by only 1.0%"), (1.1, 1.2, "")],
)
def test_what_a_bending_has_to_gain(old: float, new: float, said: str) -> None:
    """A core of one grey shares nothing with the other image: its NMI is 1, from which gains are counted."""
    before, after = SimpleNamespace(spline=None), SimpleNamespace(spline=object())
    core = SimpleNamespace(nmi=lambda warp: old if warp is before else new)
    found = _too_little(cast(Any, core), cast(Any, before), cast(Any, after), AlignmentLimits())
    assert said in found if said else not found
