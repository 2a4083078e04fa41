"""What the class would be without a modality, or without what a place shows."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace

import torch
from monai.visualize import OcclusionSensitivity
from torch import Tensor, nn

from pipeline.fusion.look import Look
from pipeline.fusion.tiles import Box


def logits_without(look: Look) -> dict[str, Tensor]:
    """The class logits (classes,) of the case without each modality that is there, as if it had never been taken.

    All tiles are looked at again, so other tiles may make the class. With one modality alone there is nothing to take
    away, and nothing is given.
    """
    found: dict[str, Tensor] = {}
    if int(look.available.sum()) < 2:
        return found
    for number, name in enumerate(look.network.modalities):
        if bool(look.available[number]):
            available = look.available.clone()
            available[number] = False
            tiles = look.inferer.tiles(look.image, look.network, available, look.inside, look.table)
            found[name] = replace(look, available=available, found=tiles).logits()
    return found


class _FromBaseline(nn.Module):
    """The class logits of a baseline to which something is added: MONAI occludes with one number, here with 0."""

    def __init__(self, look: Look, baseline: Tensor) -> None:
        super().__init__()
        self.look, self.baseline = look, baseline

    def forward(self, difference: Tensor) -> Tensor:
        return self.look.class_logits(self.baseline + difference)


def baseline_of(look: Look) -> Tensor:
    """The image (M, I, J, K) with the mean of each modality's body in the body: what is put where it is occluded."""
    means = look.image[:, look.inside].mean(1)
    return torch.where(look.inside, means[:, None, None, None], look.image)


def occluded_logits(look: Look, parts: int = 4) -> Tensor:
    """The class logits of the case when a block around each voxel shows the body's mean in every modality.

    The tiles that make the class are occluded block by block (`monai.visualize.OcclusionSensitivity`); their shares in
    the class are held. A block of air changes nothing.

    Args:
        look: at the case.
        parts: blocks along each side of a tile: `parts` ** 3 looks at each tile.

    Returns:
        (classes, I, J, K).
    """
    block = [max(1, side // parts) for side in look.inferer.patch]
    baselines = {number: tile for number, _, _, tile in look.tiles(baseline_of(look))}

    @torch.inference_mode()
    def changes() -> Iterator[tuple[Box, Tensor]]:
        for number, share, box, tile in look.tiles(look.image):
            network = _FromBaseline(look, baselines[number])
            occlusion = OcclusionSensitivity(
                network, block, look.inferer.batch, verbose=False, mode=0.0, overlap=0.0, activate=False
            )
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Using a non-tuple sequence")  # MONAI's own indexing
                occluded = occlusion(tile - baselines[number])[0][0]
            whole = look.class_logits(tile)[0]
            yield box, share * (occluded - whole[:, None, None, None])

    logits = look.logits()
    return logits[:, None, None, None] + look.assembled(changes(), len(logits))
