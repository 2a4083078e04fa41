"""The fusion network by an engine: every output that it has, of an image, what is available and a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pipeline.fusion.checkpoint_file import Network
from pipeline.inference import engine as engines
from pipeline.inference.engine import Engine, Task, require_processor, weights_sha256

#: Of the compiled network.
INPUTS = ("image", "available", "table")
#: Voxel logits (B, labels, I, J, K) and class logits (B, classes), float32, of what a network's `heads` is given.
Forward = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]


def forward_of(network: Network, patch: Sequence[int], engine: Engine, bfloat16_on_cpu: bool) -> Forward:
    """What looks with a network at tiles, or at packed streams; arguments as of `compiled`, and what runs it."""
    if engine == "openvino":
        return compiled(network, patch, bfloat16_on_cpu)

    def forward(image: Tensor, available: Tensor, table: Tensor | None) -> tuple[Tensor, Tensor]:
        cuda = image.device.type == "cuda"
        if cuda and image.ndim == 5:
            image = image.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast(image.device.type, torch.bfloat16, enabled=cuda or bfloat16_on_cpu):
            heads = network.heads(image, available, table)
        return heads.voxels.float(), heads.classes.float()

    return forward


def compiled(network: Network, patch: Sequence[int], bfloat16: bool = False) -> Forward:
    """Compile a network for as many threads as PyTorch uses; once in a process, whatever object holds the weights.

    Args:
        network: on a processor, evaluating.
        patch: voxels of a tile along each side; of streams, how many values they have together.
        bfloat16: count in bfloat16: faster where the processor can, and a little less exact.

    Raises:
        UsageError: E_CONFIG when the network is not on a processor; E_ENGINE when what was compiled does not say what
            the network says of a random tile.
    """
    require_processor(network)
    tile = torch.randn(network.example(patch).shape, generator=torch.Generator().manual_seed(0))
    example = (tile, torch.ones((1, len(network.modalities)), dtype=torch.bool), _table(None, network, 1))
    identity, names = f"{weights_sha256(network)} {network.definition}", _outputs(network)
    look = engines.compiled(Task(identity, INPUTS, names, _Outputs(network).eval(), example, bfloat16))

    def forward(image: Tensor, available: Tensor, table: Tensor | None) -> tuple[Tensor, Tensor]:
        found = look(image, available, _table(table, network, len(image)))
        made = dict(zip(names, found, strict=True))
        voxels = made.get("voxels", image.new_zeros((len(image), 0, *image.shape[2:])))
        return voxels, made.get("classes", image.new_zeros((len(image), 0)))

    return forward


def _table(given: Tensor | None, network: Network, count: int) -> Tensor:
    """The tiles' numbers (count, table_features); none of them is known where there is no table."""
    return torch.full((count, network.table_features), torch.nan) if given is None else given


def _outputs(network: Network) -> tuple[str, ...]:
    return tuple(name for name, count in (("voxels", network.labels), ("classes", network.classes)) if count)


class _Outputs(nn.Module):
    """The outputs that a network has, as a tuple."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, available: Tensor, table: Tensor) -> tuple[Tensor, ...]:
        heads = self.network.heads(image, available, table)
        return tuple(getattr(heads, name) for name in _outputs(self.network))
