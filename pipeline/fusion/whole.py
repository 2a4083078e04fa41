"""Packed streams through their network, in one look: what `TiledInferer` is for images on one grid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.fusion.checkpoint_file import Network
from pipeline.fusion.engine import forward_of
from pipeline.fusion.stream_net import EARLY_CAVEAT, StreamNet
from pipeline.fusion.tiles import TiledInferer
from pipeline.inference.engine import Engine, require_engine, require_processor


class WholeInferer:
    """Look once at all streams of a case.

    Args:
        patch: how many values they have together.
        engine: what runs the network: `torch`, or `openvino` on a processor (`pipeline.fusion.engine`).
        bfloat16_on_cpu: count in bfloat16 on a processor, too.

    Raises:
        UsageError: E_CONFIG for an engine that does not exist; E_EXTRA when it is not installed.
    """

    #: Streams are not mirrored: neither a chest nor a sound is the same the other way round.
    mirror = False

    def __init__(self, patch: Sequence[int], engine: Engine = "torch", bfloat16_on_cpu: bool = False) -> None:
        require_engine(engine)
        self.patch, self.engine, self.bfloat16_on_cpu = tuple(patch), engine, bfloat16_on_cpu

    @torch.inference_mode()
    def __call__(
        self,
        inputs: Tensor,
        network: StreamNet,
        available: Tensor | None = None,
        body: Tensor | None = None,
        table: Tensor | None = None,
    ) -> Tensor:
        """The class logits, with the axes of a voxel, so that they are read as those of `TiledInferer` are.

        Args:
            inputs: (B, 1, N), as `PackStreamsd` gives them.
            network: where they are.
            available: (B, M); all are there when None.
            body: is not looked at: streams share no grid.
            table: (B, table_features), for a network that takes a table.

        Returns:
            (B, classes, 1, 1, 1) float32.
        """
        there = torch.ones((len(inputs), len(network.modalities)), dtype=torch.bool) if available is None else available
        look = forward_of(network, self.patch, self.engine, self.bfloat16_on_cpu)
        return look(inputs, there.to(inputs.device), table)[1][:, :, None, None, None]

    def check(self, network: nn.Module) -> None:
        """Raise E_CONFIG before the first case when the engine cannot run the network where it is."""
        if self.engine == "openvino":
            require_processor(network)

    def describe_pooling(self) -> str:
        """In words, how the class of a case is made."""
        return "one look at all streams"


def inferer_for(network: Network, tiled: TiledInferer) -> TiledInferer | WholeInferer:
    """What looks at whole cases with a network: tile by tile, or, where it takes streams, at all of them at once.

    Args:
        network: of either kind.
        tiled: of a network whose modalities lie on one grid; its engine is asked for either way.

    Raises:
        UsageError: E_CONFIG when streams were to be mirrored.
    """
    if not isinstance(network, StreamNet):
        return tiled
    if tiled.mirror:
        raise UsageError("E_CONFIG", "Expected mirror: false for streams, which are not mirrored, got true.")
    return WholeInferer(tiled.patch, tiled.engine, tiled.bfloat16_on_cpu)


def caveats(network: Network) -> tuple[str, ...]:
    """What every report of a network's results has to say of the way in which it looks."""
    return (EARLY_CAVEAT,) if isinstance(network, StreamNet) and network.mode == "early" else ()
