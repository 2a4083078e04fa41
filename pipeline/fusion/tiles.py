"""A whole image through the network, tile by tile: only where the body is, in batches, with little memory traffic."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.fusion.engine import Forward, forward_of
from pipeline.fusion.network import FusionNet
from pipeline.fusion.stream_net import StreamNet
from pipeline.inference.engine import Engine, require_engine, require_processor
from pipeline.inference.tiles import TileSum, groups, mirrors

Pooling = Literal["top_k", "attention"]
Grid = Literal["image", "body"]
#: How far tiles that are laid over the body reach beyond it, as a part of their side: the deviation of the weights.
MARGIN = 0.125
#: Logit of the background against all labels where no tile was looked at: a probability of 1 - 2e-9 for two labels.
SURE = 20.0
#: Axes along which an image is mirrored.
MIRRORS = mirrors((2, 3, 4))
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Tiled:
    """What the network says of an image.

    Attributes:
        voxels: logits (labels, I, J, K).
        classes: logits of each tile (T, classes).
        evidence: (T,) how much there is to see in each tile: its predicted foreground, as a share of the tile; without
            a voxel head, how sure its class is; 0 without a class head, which alone needs it.
        boxes: where each tile lies in the image, which is padded where it is smaller than a tile (`padded_to`).
    """

    voxels: Tensor
    classes: Tensor
    evidence: Tensor
    boxes: tuple[Box, ...] = ()


class TiledInferer:
    """Slide a window over the image, and leave out the tiles without any of the body.

    In the body the result is that of all tiles: a tile that reaches into it is never left out.

    Args:
        patch: voxels of a tile along each side: those that the network was trained with.
        overlap: of neighbouring tiles, from 0 to below 1.
        batch: tiles that are worked on at once.
        mirror: average over all eight mirror images, at eight times the cost.
        pooling: how tiles make the class of a case: the mean logits of the `top_k` tiles with the most evidence, or of
            all, weighted by it (`attention`).
        top_k: how many tiles.
        bfloat16_on_cpu: count in bfloat16 on a processor, too, as is done on CUDA: faster where the processor can.
        engine: what runs the network: `torch`, or `openvino` on a processor (`pipeline.fusion.engine`).
        grid: what the tiles are laid over: the `image`, as MONAI lays them, or the box around the `body`: fewer tiles,
            but other ones, and with them slightly other labels.

    Raises:
        UsageError: E_CONFIG for an overlap, a pooling, a grid or an engine that does not exist; E_EXTRA when the engine
            is not installed.

    Source: Gaussian weights: Isensee et al., nnU-Net, Nature Methods 18, 2021, online methods.
    """

    def __init__(  # noqa: PLR0913 - each is one line of a bundle's inferer
        self,
        patch: Sequence[int],
        overlap: float = 0.5,
        batch: int = 4,
        mirror: bool = False,
        pooling: Pooling = "top_k",
        top_k: int = 3,
        bfloat16_on_cpu: bool = False,
        grid: Grid = "image",
        engine: Engine = "torch",
    ) -> None:
        if not 0 <= overlap < 1 or batch < 1 or top_k < 1:
            raise UsageError(
                "E_CONFIG", f"Expected an overlap in [0, 1), a batch and tiles, got {overlap:g}, {batch}, {top_k}."
            )
        if pooling not in ("top_k", "attention"):
            raise UsageError("E_CONFIG", f"Expected top_k or attention as the pooling, got {pooling}.")
        if grid not in ("image", "body"):
            raise UsageError("E_CONFIG", f"Expected image or body as the grid of the tiles, got {grid}.")
        self.patch = tuple(int(side) for side in patch)
        self.overlap, self.batch, self.mirror = overlap, batch, mirror
        self.pooling, self.top_k, self.bfloat16_on_cpu, self.grid = pooling, top_k, bfloat16_on_cpu, grid
        require_engine(engine)
        self.engine = engine

    def __call__(
        self,
        inputs: Tensor,
        network: FusionNet,
        available: Tensor | None = None,
        body: Tensor | None = None,
        table: Tensor | None = None,
    ) -> Tensor:
        """Every logit as a channel, as the network gives them for one patch.

        Args:
            inputs: (1, M, I, J, K), as `StackModalitiesd` gives them.
            network: where the image is.
            available: (1, M); all are there when None.
            body: (1, 1, I, J, K), not 0 in the body; the whole image when None.
            table: (1, table_features), for a network that takes a table; every tile is given the case's numbers.

        Returns:
            (1, labels + classes, I, J, K) float32: the voxel logits, then those of the case's class at every voxel.
        """
        inside = None if body is None else body[0, 0] > 0
        found = self.tiles(inputs[0], network, None if available is None else available[0], inside, table)
        classes = self.pooled(found)
        spread = classes[:, None, None, None].expand(-1, *inputs.shape[2:])
        return torch.cat([found.voxels, spread])[None]

    def check(self, network: nn.Module) -> None:
        """Raise E_CONFIG before the first case for a network of streams, or one the engine cannot run where it is."""
        if isinstance(network, StreamNet):
            what = "Expected a network of modalities on one grid, got one of streams."
            remedy = "Give the data spec its `streams`; without a run, lay overlays/streams_inference.yaml over it."
            raise UsageError("E_CONFIG", what, remedy)
        if self.engine == "openvino":
            require_processor(network)

    def describe_pooling(self) -> str:
        """In words, how the class of a case is made of tiles."""
        if self.pooling == "attention":
            return "mean of the class logits of all tiles, weighted by their predicted foreground"
        return f"mean of the class logits of the {self.top_k} tiles with the most predicted foreground"

    def pooled(self, found: Tiled) -> Tensor:
        """The class logits of the case (classes,)."""
        if found.classes.shape[1] == 0:
            return found.classes.new_zeros(0)
        return (found.classes * self.shares(found)[:, None]).sum(0)

    def shares(self, found: Tiled) -> Tensor:
        """How much each tile counts in the class of the case (T,), with the sum 1."""
        if self.pooling == "attention":
            total = found.evidence.sum()
            # where no tile shows anything at all, none tells more than another
            return found.evidence / total if total > 0 else torch.full_like(found.evidence, 1 / len(found.evidence))
        best = found.evidence.topk(min(self.top_k, len(found.evidence))).indices
        return torch.zeros_like(found.evidence).index_fill(0, best, 1 / len(best))

    @torch.inference_mode()
    def tiles(
        self,
        image: Tensor,
        network: FusionNet,
        available: Tensor | None = None,
        inside: Tensor | None = None,
        table: Tensor | None = None,
    ) -> Tiled:
        """Forward at every tile that holds some of the body: of an image (M, I, J, K), where the network is.

        Arguments as in `__call__`, without the batch's axis; `inside` (I, J, K) bool is the body: the whole image when
        None, or when nothing is inside.
        """
        image, shape = image.as_subclass(Tensor), tuple(image.shape[1:])
        body = torch.ones(shape, dtype=torch.bool) if inside is None or not bool(inside.any()) else inside.cpu()
        body = padded_to(body[None], self.patch)[0]
        boxes = [box for box in self._boxes(body) if bool(body[box].any())]
        there = torch.ones(len(image), dtype=torch.bool) if available is None else available
        there = there.to(image.device)[None]
        padded = padded_to(image, self.patch)
        weight = compute_importance_map(self.patch, mode="gaussian", sigma_scale=0.125, device=image.device).float()
        total = TileSum(network.labels, padded.shape[1:], weight)
        forward = forward_of(network, self.patch, self.engine, self.bfloat16_on_cpu)
        classes, evidence = [], []
        for group in groups(boxes, self.batch):
            stack = torch.stack([padded[(slice(None), *box)] for box in group])
            numbers = None if table is None else table.expand(len(group), -1)
            voxels, class_logits = self._forward_mirrored(stack, forward, there.expand(len(group), -1), numbers)
            total.add(group, voxels)
            classes.append(class_logits)
            evidence.append(_evidence(voxels, class_logits))
        logits = total.mean()
        if network.labels:
            logits[0, total.norm == 0] = SURE
        return Tiled(without_padding(logits, shape), torch.cat(classes), torch.cat(evidence), tuple(boxes))

    def _forward_mirrored(
        self, stack: Tensor, forward: Forward, available: Tensor, table: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Voxel logits (B, labels, …) and class logits (B, classes) of some tiles, float32."""
        mirrors = MIRRORS if self.mirror else MIRRORS[:1]
        voxels, classes = [], []
        for axes in mirrors:
            flipped = stack.flip(axes) if axes else stack
            seen, said = forward(flipped, available, table)
            voxels.append(seen.flip(axes) if axes else seen)
            classes.append(said)
        if len(mirrors) == 1:
            return voxels[0], classes[0]
        return torch.stack(voxels).mean(0), torch.stack(classes).mean(0)

    def _boxes(self, body: Tensor) -> list[Box]:
        """Where tiles may lie: on MONAI's own grid over the image, or evenly over the box around the body (I, J, K)."""
        steps = [max(1, int(side * (1 - self.overlap))) for side in self.patch]
        size = list(body.shape)
        if self.grid == "image":
            boxes: list[Box] = dense_patch_slices(size, self.patch, steps)
            return boxes
        places = body.nonzero()
        first, last = places.amin(0).tolist(), (places.amax(0) + 1).tolist()
        starts = [_starts(*axis) for axis in zip(first, last, size, self.patch, steps, strict=True)]
        i, j, k = self.patch
        return [(slice(a, a + i), slice(b, b + j), slice(c, c + k)) for a, b, c in itertools.product(*starts)]


def not_looked_at(voxels: Tensor) -> Tensor:
    """Where no tile was looked at (I, J, K), of the logits (labels, I, J, K) that an inferer has given."""
    return (voxels[0] == SURE) & (voxels[1:] == 0).all(0)


def padded_to(image: Tensor, sides: Sequence[int]) -> Tensor:
    """The image (C, I, J, K) with zeros around it where it is smaller than a tile, in its middle as in training."""
    before = _before(image.shape[1:], sides)
    behind = [max(0, side - size) - b for side, size, b in zip(sides, image.shape[1:], before, strict=True)]
    if not any(behind):
        return image
    around = [width for pair in zip(before[::-1], behind[::-1], strict=True) for width in pair]
    return torch.nn.functional.pad(image, around)


def without_padding(image: Tensor, shape: Sequence[int]) -> Tensor:
    """The middle (C, *shape) of an image that `padded_to` has padded."""
    before = _before(shape, image.shape[1:])
    return image[(slice(None), *(slice(b, b + side) for b, side in zip(before, shape, strict=True)))]


def _before(shape: Sequence[int], sides: Sequence[int]) -> list[int]:
    """How many zeros stand before an image of some shape: the smaller half, as MONAI's `SpatialPad` has it."""
    return [max(0, side - size) // 2 for side, size in zip(sides, shape, strict=True)]


def _starts(first: int, last: int, size: int, side: int, step: int) -> list[int]:
    """Where tiles of a side start along an axis of some size, so that voxels `first` to `last` - 1 lie well in them.

    What the tiles reach beyond the body is the same before and behind it, as far as there is image.
    """
    margin = round(side * MARGIN)
    first, last = max(0, first - margin), min(size, last + margin)
    steps = max(0, math.ceil((last - first - side) / step))
    reach = min(steps * step + side, size)
    start = min(max(0, (first + last - reach) // 2), size - reach)
    return [start + round(number * (reach - side) / max(1, steps)) for number in range(steps + 1)]


def _evidence(voxels: Tensor, classes: Tensor) -> Tensor:
    if not classes.shape[1]:
        return classes.new_zeros(len(classes))
    if voxels.shape[1]:
        return (1 - torch.softmax(voxels, 1)[:, 0]).mean((1, 2, 3))
    return torch.softmax(classes, 1).amax(1)
