from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import normalized_mutual_information
from sklearn.metrics import mutual_info_score

from pipeline.registration.similarity import SampledPair, bin_indices, normalised_mutual_information, robust_limits


@pytest.fixture
def images() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    a = rng.gamma(2.0, 30.0, 5000)
    return a, np.cos(a / 40.0) * 50 + rng.normal(0, 10, a.size)


def test_nmi_equals_scikit_images(images: tuple[np.ndarray, np.ndarray]) -> None:
    bins = [bin_indices(x, (x.min(), x.max()), 32) for x in images]
    ours = normalised_mutual_information(*bins, 32)
    assert ours == pytest.approx(normalized_mutual_information(*images, bins=32), abs=1e-9)
    assert 1.05 < ours < 1.9


def test_nmi_equals_its_definition_by_entropies(images: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = (bin_indices(x, robust_limits(x), 16) for x in images)
    # The mutual information of a variable with itself is its entropy.
    h_a, h_b, mutual = mutual_info_score(a, a), mutual_info_score(b, b), mutual_info_score(a, b)
    assert normalised_mutual_information(a, b, 16) == pytest.approx((h_a + h_b) / (h_a + h_b - mutual), abs=1e-12)


def test_nmi_at_its_ends() -> None:
    a = np.arange(4).repeat(100)
    assert normalised_mutual_information(a, 3 - a, 4) == pytest.approx(2)
    assert normalised_mutual_information(a, np.tile(np.arange(4), 100), 4) == pytest.approx(1)
    assert normalised_mutual_information(a * 0, a * 0, 4) == 1


def test_bins_are_equally_wide_and_hold_what_lies_outside() -> None:
    values = [-5.0, 0.0, 0.99, 1.0, 3.99, 4.0, 50.0]
    assert bin_indices(values, (0.0, 4.0), 4).tolist() == [0, 0, 0, 1, 3, 3, 3]
    assert bin_indices(values, (2.0, 2.0), 4).tolist() == [0] * 7


def test_a_sampled_pair_reads_the_moving_image_at_the_posed_points() -> None:
    rng = np.random.default_rng(0)
    moving = rng.normal(size=(12, 10, 9)).astype(np.float32)
    affine = np.array([[0, 2.0, 0, 5], [-3.0, 0, 0, -7], [0, 0, 4.0, 1], [0, 0, 0, 1]])
    index = np.argwhere(np.ones((8, 7, 6), bool))
    shift = np.eye(4)
    shift[:3, 3] = affine[:3, :3] @ [2, 3, 1]  # two, three and one voxels along I, J, K
    world = index @ affine[:3, :3].T + affine[:3, 3]
    pair = SampledPair(
        world, moving[2:10, 3:10, 1:7].ravel(), moving, affine, (float(moving.min()), float(moving.max()))
    )
    score = pair.score(shift)
    assert score is not None
    assert score > 1.6  # the same values at the same places; elsewhere they are independent
    elsewhere = pair.score(np.eye(4))
    assert elsewhere is not None
    assert elsewhere < 1.3
    assert pair.inside(shift).sum() == len(index)
    far = shift.copy()
    far[0, 3] += 2.0 * 5  # five voxels along J: of the seven rows, five fall off the ten that there are
    assert pair.inside(far).sum() == len(index) * 2 // 7
    assert pair.score(far, least=len(index)) is None
