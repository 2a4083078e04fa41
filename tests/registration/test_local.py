from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from pipeline.body import body_mask
from pipeline.registration.local import PART_MM, STEPS_MM, astray_fraction, local_shift_mm, pointwise_information
from pipeline.registration.quality import Pair, QualityLimits, measure
from pipeline.registration.similarity import BINS, SampledPair, bin_indices, robust_limits
from pipeline.volumes import affine_of, volume
from tests.registration.phantom import HeadPair, rigid

LIMITS = QualityLimits()
SPACING_MM = 3.0


@pytest.fixture(scope="module")
def measured(pair: HeadPair) -> Pair:
    return Pair(pair.ct, pair.mr, body_mask(pair.ct, "CT"), body_mask(pair.mr, "MR"))


def blobs(seed: int) -> np.ndarray:
    """Smooth structure everywhere, (60, 60, 60)."""
    return ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(60, 60, 60)), 2.0)


def sampled(fixed: np.ndarray, moving: np.ndarray) -> SampledPair:
    """Two images on one grid of 3 mm, looked at away from the border."""
    index = np.stack(np.meshgrid(*[np.arange(8, 52, 2)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    affine = np.diag([SPACING_MM] * 3 + [1.0])
    values = fixed[tuple(index.T)].astype(np.float64)
    return SampledPair(index * SPACING_MM, values, moving.astype(np.float32), affine, robust_limits(moving))


def shifted(mm: tuple[float, float, float]) -> np.ndarray:
    return rigid((0, 0, 0), mm)


def test_the_mean_of_the_pointwise_information_is_the_mutual_information() -> None:
    """Of two dependent normal variables it is -log(1 - r^2) / 2 nats."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=400_000)
    r = 0.8
    b = r * a + np.sqrt(1 - r**2) * rng.normal(size=a.size)
    bins = [bin_indices(x, (-4.0, 4.0)) for x in (a, b)]
    found = pointwise_information(*bins)[tuple(bins)].mean()
    assert found == pytest.approx(-np.log(1 - r**2) / 2, rel=0.05)


def test_independent_images_share_no_information() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, BINS, (2, 400_000))
    assert abs(pointwise_information(a, b)[a, b].mean()) < 0.01


@pytest.mark.parametrize("mm", [(0, 0, 0), (0, 3, 0), (-6, 0, 3), (4.5, 0, -6)])
def test_a_pose_that_is_off_by_a_shift_shows_that_shift(mm: tuple[float, float, float]) -> None:
    """Every part would go back by the same way, in the inverted contrast, too."""
    image = blobs(3)
    found = local_shift_mm(sampled(image, np.exp(-image * 5)), shifted(mm))
    assert found == pytest.approx(np.linalg.norm(mm), abs=STEPS_MM[-1])


def test_parts_that_moved_by_themselves_are_found_though_the_whole_has_its_best_pose() -> None:
    """Every other slab of the width of a part moved by 6 mm one way, the others the other way: no shift helps both."""
    image = blobs(4)
    part = round(PART_MM / SPACING_MM)
    first = round((np.arange(8, 52, 2).mean()) - part / 2)
    moved = np.empty_like(image)
    for i in range(60):
        step = 2 if ((i - first) // part) % 2 else -2
        moved[i] = np.roll(image[i], step, axis=1)
    pair = sampled(image, moved)
    assert local_shift_mm(pair, np.eye(4)) == pytest.approx(6.0, abs=0.75)
    assert local_shift_mm(sampled(image, image), np.eye(4)) == 0


def test_nothing_is_said_where_too_little_is_in_view() -> None:
    image = blobs(5)
    assert local_shift_mm(sampled(image, image), shifted((150.0, 0, 0))) is None


def test_a_right_pose_and_wrong_ones_of_a_head(measured: Pair, pair: HeadPair) -> None:
    right = measured.local_shift_mm(pair.truth)
    off = [measured.local_shift_mm(pair.truth @ shifted((0, mm, 0))) for mm in (4.0, 8.0)]
    turned = measured.local_shift_mm(pair.truth @ rigid((0, 0, 12), (0, 0, 0)))
    assert right is not None and right <= 1.5
    assert off[0] is not None and off[0] > right + 1.0
    assert off[1] is not None and off[1] > 3.5
    assert turned is not None and turned > LIMITS.local_shift_pass_mm


def test_a_function_of_points_is_measured_as_its_matrix(measured: Pair, pair: HeadPair) -> None:
    matrix = pair.truth @ shifted((3, 0, 0))
    by_function = measured.local_shift_mm(lambda points: points @ matrix[:3, :3].T + matrix[:3, 3])
    assert by_function == measured.local_shift_mm(matrix)


def test_a_noise_image_does_not_pass(pair: HeadPair) -> None:
    noise = np.random.default_rng(6).normal(300, 50, pair.mr.shape).astype(np.float32)
    strange = Pair(pair.ct, volume(noise, affine_of(pair.mr)), body_mask(pair.ct, "CT"), body_mask(pair.mr, "MR"))
    assert measure(strange, [pair.truth, pair.truth], None, LIMITS)["verdict"] == "fail"


def in_part(image: np.ndarray, share: float, how: str) -> np.ndarray:
    """A copy in which some of the slices (K) of a stack are in reversed order, or mirrored (I)."""
    changed, count = image.copy(), image.shape[2]
    low = (count - round(share * count)) // 2
    part = np.s_[:, :, low : low + round(share * count)]
    changed[part] = image[part][:, :, ::-1] if how == "reversed" else image[part][::-1]
    return changed


@pytest.mark.parametrize("how", ["reversed", "mirrored"])
@pytest.mark.parametrize("share", [0.25, 0.45])
@pytest.mark.parametrize("turned", [False, True])
def test_slices_that_are_reversed_or_mirrored_are_astray(how: str, share: float, turned: bool) -> None:
    """Whichever of the two images they are in, and in the inverted contrast, too."""
    image = blobs(7)
    pair = sampled(image, 3 - in_part(image, share, how))
    if turned:
        pair = sampled(in_part(image, share, how), 3 - image)
    assert astray_fraction(pair, np.eye(4)) == pytest.approx(share * 60 / 44, abs=0.17)  # of the slices looked at


def test_no_slice_is_astray_in_a_pose_that_is_right_or_a_little_off(measured: Pair, pair: HeadPair) -> None:
    image = blobs(8)
    for mm in ((0.0, 0.0, 0.0), (1.5, 0.0, -1.5)):
        assert astray_fraction(sampled(image, 3 - image), shifted(mm)) == 0
    assert measured.astray_fraction(pair.truth) == 0


@pytest.mark.parametrize("how", ["reversed", "mirrored"])
@pytest.mark.parametrize("share", [0.3, 0.4])
def test_a_copy_of_a_ct_with_slices_out_of_order_does_not_pass(pair: HeadPair, how: str, share: float) -> None:
    """In its true pose, turned by 8 degrees and moved by 12 mm: most of it matches, and no part fits better beside."""
    image = pair.ct.numpy()[0]
    texture = ndimage.gaussian_filter(np.random.default_rng(9).normal(size=image.shape), 1.5)
    image = (image + np.where(image > -300, 100 * texture / texture.std(), 0)).astype(np.float32)
    pose, fixed = rigid((0, 0, 8), (0, 12, 0)), volume(image, affine_of(pair.ct))
    for changed, verdict in ((image, "pass"), (in_part(image, share, how), "warn")):
        moving = volume(changed, pose @ affine_of(pair.ct))
        both = Pair(fixed, moving, body_mask(fixed, "CT"), body_mask(moving, "CT"))
        found = measure(both, [pose, pose], None, LIMITS)
        assert found["verdict"] == verdict, found["reason"]
    assert "fits better mirrored or in reversed order" in found["reason"]
