"""What the class would be without a modality, or without what a place shows."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace

import torch
from monai.visualize import OcclusionSensitivity
from torch import Tensor, nn

from pipeline.fusion.explained_case import ExplainedCase
from pipeline.fusion.tiles import Box


def logits_without(explained: ExplainedCase) -> dict[str, Tensor]:
    """The class logits (classes,) of the case without each modality that is there, as if it had never been taken.

    All tiles are looked at again, so other tiles may make the class. With one modality alone there is nothing to take
    away, and nothing is given.
    """
    found: dict[str, Tensor] = {}
    if int(explained.available.sum()) < 2:
        return found
    for number, name in enumerate(explained.network.modalities):
        if bool(explained.available[number]):
            available = explained.available.clone()
            available[number] = False
            tiles = explained.inferer.tiles(
                explained.image, explained.network, available, explained.inside, explained.table
            )
            found[name] = replace(explained, available=available, found=tiles).logits()
    return found


class _FromBaseline(nn.Module):
    """The class logits of a baseline to which something is added: MONAI occludes with one number, here with 0."""

    def __init__(self, explained: ExplainedCase, baseline: Tensor) -> None:
        super().__init__()
        self.explained, self.baseline = explained, baseline

    def forward(self, difference: Tensor) -> Tensor:
        return self.explained.class_logits(self.baseline + difference)


def baseline_of(explained: ExplainedCase) -> Tensor:
    """The image (M, I, J, K) with the mean of each modality's body in the body: what is put where it is occluded."""
    means = explained.image[:, explained.inside].mean(1)
    return torch.where(explained.inside, means[:, None, None, None], explained.image)


def occluded_logits(explained: ExplainedCase, parts: int = 4) -> Tensor:
    """The class logits of the case when a block around each voxel shows the body's mean in every modality.

    The tiles that make the class are occluded block by block (`monai.visualize.OcclusionSensitivity`); their shares in
    the class are held. A block of air changes nothing.

    Args:
        explained: the case, as the network has seen it.
        parts: blocks along each side of a tile: `parts` ** 3 looks at each tile.

    Returns:
        (classes, I, J, K).
    """
    block = [max(1, side // parts) for side in explained.inferer.patch]
    baselines = {number: tile for number, _, _, tile in explained.tiles(baseline_of(explained))}

    @torch.inference_mode()
    def changes() -> Iterator[tuple[Box, Tensor]]:
        for number, share, box, tile in explained.tiles(explained.image):
            network = _FromBaseline(explained, baselines[number])
            occlusion = OcclusionSensitivity(
                network, block, explained.inferer.batch, verbose=False, mode=0.0, overlap=0.0, activate=False
            )
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Using a non-tuple sequence")  # MONAI's own indexing
                occluded = occlusion(tile - baselines[number])[0][0]
            whole = explained.class_logits(tile)[0]
            yield box, share * (occluded - whole[:, None, None, None])

    logits = explained.logits()
    return logits[:, None, None, None] + explained.assembled(changes(), len(logits))
