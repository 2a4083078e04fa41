"""Tiles put together: as MONAI's inferer where both see the same, and as the formula says where there is one."""

from __future__ import annotations

import itertools

import pytest
import torch
from monai.inferers.utils import sliding_window_inference
from monai.transforms import SpatialPad
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.fusion.network import FusionNet, Heads
from pipeline.fusion.tiles import SURE, Tiled, TiledInferer

SHAPE = (20, 11, 26)


class Local(nn.Module):
    """A network whose logits at a voxel are the voxel's own values: whatever the tiles, the result is the image."""

    labels, classes = 2, 2

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def heads(self, image: Tensor, available: Tensor | None = None, table: Tensor | None = None) -> Heads:
        self.seen += len(image)
        empty = image.new_zeros(len(image), 1, 0)
        return Heads(
            image, torch.stack([image[:, 0].mean((1, 2, 3)), image[:, 1].amax((1, 2, 3))], 1), [], empty, empty
        )


def picture() -> Tensor:
    return torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("patch", [(8, 8, 8), (16, 16, 16), (20, 11, 26)])
@pytest.mark.parametrize("mirror", [False, True])
def test_tiles_of_a_local_network_make_the_image(overlap: float, patch: tuple[int, int, int], mirror: bool) -> None:
    found = TiledInferer(patch, overlap, batch=3, mirror=mirror).tiles(picture(), Local())  # type: ignore[arg-type]
    assert torch.allclose(found.voxels, picture(), atol=1e-5)


def test_it_says_what_monai_says_where_the_tiles_are_the_same() -> None:
    torch.manual_seed(3)
    net = FusionNet(["ct", "mr"], width=8, levels=3, classes=0).eval()
    image, body = torch.randn(1, 2, 36, 16, 32), torch.zeros(1, 1, 36, 16, 32)
    body[:, :, 3:9, 5:11, 22:28] = 1
    with torch.no_grad():
        expected = sliding_window_inference(image, (16, 16, 16), 2, net, 0.5, mode="gaussian")
        found = TiledInferer((16, 16, 16), 0.5, batch=2)(image, net)
        inside = TiledInferer((16, 16, 16), 0.5, batch=2)(image, net, None, body)
    assert torch.allclose(found, expected, atol=1e-4)
    places = (body[0, 0] > 0).expand(2, -1, -1, -1)
    assert torch.allclose(inside[0][places], expected[0][places], atol=1e-4)
    assert not torch.allclose(inside, expected, atol=1e-4)


def test_bfloat16_on_a_processor_is_asked_for_and_says_nearly_the_same() -> None:
    torch.manual_seed(3)
    net = FusionNet(["ct", "mr"], width=8, levels=3, classes=0).eval()
    image = torch.randn(1, 2, 16, 16, 16)
    exact = TiledInferer((16, 16, 16))(image, net)
    short = TiledInferer((16, 16, 16), bfloat16_on_cpu=True)(image, net)
    assert short.dtype == torch.float32 and not torch.equal(short, exact)
    assert torch.allclose(short, exact, atol=0.05 * float(exact.abs().max()))


def test_only_the_body_is_looked_at() -> None:
    body = torch.zeros(SHAPE, dtype=torch.bool)
    body[2:5, 3:6, 4:7] = True
    body[14:18, 3:6, 20:24] = True
    net = Local()
    found = TiledInferer((8, 8, 8), 0.5).tiles(picture(), net, inside=body)  # type: ignore[arg-type]
    every = Local()
    TiledInferer((8, 8, 8), 0.5).tiles(picture(), every)  # type: ignore[arg-type]
    assert torch.allclose(found.voxels[:, body], picture()[:, body], atol=1e-5)
    assert found.voxels[:, 19, 0, 0].tolist() == [SURE, 0]
    assert 0 < net.seen < every.seen / 2


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("patch", [(8, 8, 8), (6, 4, 10), (16, 16, 16)])
@pytest.mark.parametrize("corner", [(0, 0, 0), (7, 2, 5), (10, 4, 12)])
def test_tiles_over_the_body_cover_it_with_fewer_looks(
    overlap: float, patch: tuple[int, int, int], corner: tuple[int, int, int]
) -> None:
    body = torch.zeros(SHAPE, dtype=torch.bool)
    i, j, k = corner
    body[i : i + 10, j : j + 7, k : k + 14] = True
    net, every = Local(), Local()
    found = TiledInferer(patch, overlap, grid="body").tiles(picture(), net, inside=body)  # type: ignore[arg-type]
    TiledInferer(patch, overlap).tiles(picture(), every, inside=body)  # type: ignore[arg-type]
    assert torch.allclose(found.voxels[:, body], picture()[:, body], atol=1e-5)
    assert net.seen <= every.seen
    for axis, (side, size) in enumerate(zip(patch, SHAPE, strict=True)):
        starts = sorted({box[axis].start for box in found.boxes})
        assert starts[0] >= 0 and starts[-1] + side <= max(side, size)
        apart = [after - before for before, after in itertools.pairwise(starts)]
        assert max(apart, default=0) <= max(1, int(side * (1 - overlap)))


def test_tiles_over_the_body_lie_evenly_around_it() -> None:
    """40 voxels of body from 30 on, and one more on either side, in tiles of 8 that lie 6 apart: from 29 to 71."""
    body = torch.zeros((100, 8, 8), dtype=torch.bool)
    body[30:70] = True
    found = TiledInferer((8, 8, 8), 0.25, grid="body").tiles(torch.zeros(2, 100, 8, 8), Local(), inside=body)  # type: ignore[arg-type]
    assert [box[0].start for box in found.boxes] == [28, 34, 40, 46, 52, 58, 64]


@pytest.mark.parametrize(("tiles", "sizes"), [(1, [1]), (4, [4]), (5, [2, 3]), (9, [3, 3, 3])])
def test_no_tile_is_looked_at_alone_without_need(tiles: int, sizes: list[int]) -> None:
    seen = []

    class Noting(Local):
        def heads(self, image: Tensor, *more: Tensor | None) -> Heads:
            seen.append(len(image))
            return super().heads(image)

    TiledInferer((8, 8, 8), 0.0).tiles(torch.zeros(2, 8 * tiles, 8, 8), Noting())  # type: ignore[arg-type]
    assert seen == sizes


def test_the_class_of_a_case_is_that_of_the_tiles_with_most_to_see() -> None:
    found = Tiled(torch.zeros(2, 1, 1, 1), torch.tensor([[1.0, 0], [3, 0], [0, 8]]), torch.tensor([0.2, 0.6, 0.0]))
    assert TiledInferer((8, 8, 8), top_k=1).pooled(found).tolist() == [3, 0]
    assert TiledInferer((8, 8, 8), top_k=2).pooled(found).tolist() == [2, 0]
    assert TiledInferer((8, 8, 8), pooling="attention").pooled(found).tolist() == pytest.approx([2.5, 0])


def test_mirroring_averages_eight_answers() -> None:
    """A network that adds a ramp along I: over mirror images the ramp becomes its mean."""

    class Ramp(Local):
        def heads(self, image: Tensor, available: Tensor | None = None, table: Tensor | None = None) -> Heads:
            ramp = torch.arange(image.shape[2], dtype=torch.float32)[None, None, :, None, None]
            return super().heads(image + ramp)

    image = torch.zeros(2, 8, 8, 8)
    found = TiledInferer((8, 8, 8), mirror=True).tiles(image, Ramp())  # type: ignore[arg-type]
    assert torch.allclose(found.voxels, torch.full_like(found.voxels, 3.5))


@pytest.mark.parametrize(
    "options", [{"overlap": 1.0}, {"overlap": -0.1}, {"batch": 0}, {"pooling": "mean"}, {"grid": "lung"}]
)
def test_settings_that_make_no_tiling_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="E_CONFIG"):
        TiledInferer((8, 8, 8), **options)  # type: ignore[arg-type]


def test_an_image_smaller_than_a_tile_stands_in_the_tile_s_middle_as_in_training() -> None:
    """What the network says of it is what it says of the image that training's `SpatialPad` has padded."""
    torch.manual_seed(3)
    net = FusionNet(["ct", "mr"], width=4, levels=3).eval()
    image = torch.randn(1, 2, 9, 16, 11)
    inside = torch.ones(9, 16, 11, dtype=torch.bool)
    padded = SpatialPad((16, 16, 16))(image[0])[None].as_tensor()
    with torch.no_grad():
        expected = net(padded)[..., 3:12, :, 2:13]
    for grid in ("image", "body"):
        found = TiledInferer((16, 16, 16), grid=grid)  # type: ignore[arg-type]
        assert torch.allclose(found(image, net, body=inside[None, None]), expected, atol=1e-4)


def test_tiles_that_show_nothing_at_all_count_the_same() -> None:
    found = Tiled(torch.zeros(2, 1, 1, 1), torch.tensor([[1.0, 0], [3, 0]]), torch.zeros(2))
    assert TiledInferer((8, 8, 8), pooling="attention").pooled(found).tolist() == [2, 0]
