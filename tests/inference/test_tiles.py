"""Tiles put together again: groups, mirror images and weighted means, against what they are by definition."""

from __future__ import annotations

import torch

from pipeline.inference.tiles import TileSum, groups, mirrored, mirrors


def test_groups_are_of_about_the_same_size_and_lose_nothing() -> None:
    found = list(groups(range(9), 4))
    assert [len(group) for group in found] == [3, 3, 3] and [item for group in found for item in group] == [*range(9)]


def test_mirror_images_are_all_combinations_of_axes() -> None:
    assert mirrors((2, 3)) == ((), (2,), (3,), (2, 3)) and len(mirrors((2, 3, 4))) == 8


def test_the_mean_over_mirror_images_is_symmetric() -> None:
    """A network that looks at a voxel's left neighbour looks, on average over both mirror images, at both."""
    tile = torch.arange(5.0)[None, None, None]
    found = mirrored(lambda image: image.roll(1, 3), tile, (3,))
    assert torch.equal(found, (tile.roll(1, 3) + tile.roll(-1, 3)) / 2)


def test_tiles_are_weighted_and_a_place_without_a_tile_is_0() -> None:
    total = TileSum(1, (5,), torch.tensor([1.0, 3.0]))
    total.add([(slice(0, 2),), (slice(1, 3),)], torch.tensor([[[2.0, 4.0]], [[8.0, 6.0]]]))
    assert torch.allclose(total.mean(), torch.tensor([[2.0, (3 * 4 + 1 * 8) / 4, 6.0, 0.0, 0.0]]))
