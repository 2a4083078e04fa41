"""A network on a whole picture or volume: slice by slice, or tile by tile, without what is black."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from torch import Tensor

from pipeline.errors import CaseError, UsageError
from pipeline.image_fusion.candidates import CANDIDATES
from pipeline.image_fusion.network import ImageFusionNet
from pipeline.image_fusion.thin import for_processor
from pipeline.inference.engine import AsTuple, Engine, Task, compiled, require_engine, require_processor, weights_sha256
from pipeline.inference.tiles import Box, TileSum, groups

Floats = npt.NDArray[np.float32]
Forward = Callable[[Tensor], Tensor]
#: More voxels at once are slower on a processor: its caches no longer hold the features.
PROCESSOR_VOXELS = 2**18


class Applied(NamedTuple):
    """What a network says of a whole image; 0 in slices and tiles that are black in both sources.

    Attributes:
        fused: (I, J) or (I, J, K), 0 to 1.
        weights: of `candidates.CANDIDATES`, in their order (5, I, J[, K]): 0 to 1, with the sum 1.
        residual: what was added to their sum (I, J[, K]).
        attention: of the scales, from fine to coarse (levels, I, J[, K]), 0 to 1.
    """

    fused: Floats
    weights: Floats
    residual: Floats
    attention: Floats


def apply_network(
    network: ImageFusionNet,
    windows: Floats,
    mr: Floats,
    tile: Sequence[int] = (64, 64, 64),
    overlap: float = 0.25,
    batch: int = 4,
    engine: Engine = "torch",
) -> Applied:
    """Fuse a picture or a volume, where the network is.

    A network of two dimensions sees each slice (I, J) of a volume by itself; one of three sees tiles, whose answers
    are averaged with Gaussian weights.

    Args:
        network: evaluating.
        windows: of the CT, those of the network's preparation (W, I, J[, K]), 0 to 1 (`pictures.windowed`).
        mr: (I, J[, K]), 0 to 1 (`pictures.scaled`).
        tile: voxels along each side; that of the preparation's patch is what a network has learned from.
        overlap: of neighbouring tiles, from 0 to below 1.
        batch: slices or tiles at once, at most.
        engine: what runs the network: `torch`, or `openvino` on a processor: the same to six digits.

    Raises:
        UsageError: E_CONFIG for other windows than the network's, or an overlap, a batch or an engine that cannot be;
            E_EXTRA when the engine is not installed.
        CaseError: E_GRID for images of different shapes.
    """
    if not 0 <= overlap < 1 or batch < 1:
        raise UsageError("E_CONFIG", f"Expected an overlap in [0, 1) and a batch, got {overlap:g} and {batch}.")
    require_engine(engine)
    if engine == "openvino":
        require_processor(network)
    image = _stacked(network, windows, mr)
    with torch.inference_mode():
        if network.spatial_dims == 2:
            said = _by_slices(network, image, batch, engine)
        else:
            said = _by_tiles(network, image, tile, overlap, batch, engine)
    found = said.cpu().numpy().reshape(-1, *np.shape(mr))
    many = len(CANDIDATES)
    return Applied(found[0], found[1 : 1 + many], found[1 + many], found[2 + many :])


def _stacked(network: ImageFusionNet, windows: Floats, mr: Floats) -> Tensor:
    """The network's image (W + 1, I, J, K), where the network is; a picture is a volume of one slice."""
    if np.shape(windows)[1:] != np.shape(mr) or np.ndim(mr) not in (2, 3):
        raise CaseError("E_GRID", f"Expected CT and MR on one grid, got {np.shape(windows)[1:]} and {np.shape(mr)}.")
    if len(windows) != network.windows:
        raise UsageError("E_CONFIG", f"Expected the network's {network.windows} windows, got {len(windows)}.")
    image = torch.from_numpy(np.concatenate([windows, mr[None]]).astype(np.float32, copy=False))
    return image.reshape(*image.shape[:3], -1).to(next(network.parameters()).device)


def _shows(part: Tensor) -> bool:
    """Whether there is anything to fuse: what the network says of two black images is black."""
    return bool(part[0].any() or part[-1].any())


def _forward(network: ImageFusionNet, example: Tensor, engine: Engine) -> Forward:
    """What looks at images (B, W + 1, …) of the shape of an example (1, W + 1, …)."""
    if engine == "torch":
        return for_processor(network) if example.device.type == "cpu" else network
    identity = f"{weights_sha256(network)} {network.definition}"
    look = compiled(Task(identity, ("image",), ("said",), AsTuple(network).eval(), (example,)))
    return lambda stack: look(stack)[0]


def _most(image: Tensor, sides: Sequence[int], batch: int) -> int:
    """How many slices or tiles are looked at together."""
    return min(batch, max(1, PROCESSOR_VOXELS // math.prod(sides))) if image.device.type == "cpu" else batch


def _by_slices(network: ImageFusionNet, image: Tensor, batch: int, engine: Engine) -> Tensor:
    said = image.new_zeros((network.outputs, *image.shape[1:]))
    shown = [number for number in range(image.shape[-1]) if _shows(image[..., number])]
    if shown:
        forward = _forward(network, _slices(image, shown[:1]), engine)
        for group in groups(shown, _most(image, image.shape[1:3], batch)):
            said[..., group] = forward(_slices(image, group)).movedim(0, -1)
    return said


def _slices(image: Tensor, numbers: Sequence[int]) -> Tensor:
    return image[..., numbers].movedim(-1, 0).contiguous()


def _by_tiles(
    network: ImageFusionNet, image: Tensor, tile: Sequence[int], overlap: float, batch: int, engine: Engine
) -> Tensor:
    sides = [min(side, size) for side, size in zip(tile, image.shape[1:], strict=True)]
    weight = compute_importance_map(tuple(sides), mode="gaussian", device=image.device).float()
    total = TileSum(network.outputs, image.shape[1:], weight)
    steps = [max(1, int(side * (1 - overlap))) for side in sides]
    # on MONAI's own grid
    boxes = [box for box in dense_patch_slices(image.shape[1:], sides, steps) if _shows(image[(slice(None), *box)])]
    if boxes:
        forward = _forward(network, _tiles(image, boxes[:1]), engine)
        for group in groups(boxes, _most(image, sides, batch)):
            total.add(group, forward(_tiles(image, group)))
    return total.mean()


def _tiles(image: Tensor, boxes: Sequence[Box]) -> Tensor:
    return torch.stack([image[(slice(None), *box)] for box in boxes])
