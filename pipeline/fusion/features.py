"""What frozen encoders say of streams, computed once a case, and kept by what they were given and by their weights."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Transform
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.fusion.stream_net import StreamNet
from pipeline.inference.engine import weights_sha256
from pipeline.store.files import write_atomic


class FrozenFeaturesd(Transform):
    """Replace the packed `image` (1, N) by what the network's encoders say of it (1, F), for a learner of features.

    Args:
        learner: `pipeline.fusion.training.learner`'s, so that weights from elsewhere are there; `of_features`.
        folder: takes a file a stream, so that the next training finds it; empty: nothing is kept but what the data
            set keeps in memory.
        augmentation: whether images are changed by chance, which features of one look cannot follow.
        frozen: whether the encoders do not learn in any epoch.

    Raises:
        UsageError: E_CONFIG when images change or the encoders learn, or the network takes no streams.
    """

    def __init__(self, learner: nn.Module, folder: str | Path, augmentation: bool, frozen: bool) -> None:
        network = getattr(getattr(learner, "module", learner), "network", None)
        if not isinstance(network, StreamNet):
            raise UsageError("E_CONFIG", "Expected a network of streams for cache_features, got another one.")
        if augmentation or not frozen:
            got = "images that change by chance" if augmentation else "encoders that learn"
            remedy = "Give --augmentation False and --freeze_epochs of --max_epochs or more, or no --cache_features."
            raise UsageError(
                "E_CONFIG", f"Expected frozen encoders of the same images for cache_features, got {got}.", remedy
            )
        self.network, self.folder = network, Path(folder) if str(folder) else None
        self.hashes = [weights_sha256(encoder) for encoder in network.encoders]

    @torch.inference_mode()
    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Look."""
        device = next(self.network.parameters()).device
        there = data["available"][None].to(device)
        inputs = self.network.inputs(data["image"][None].to(device), there)
        rows = [self._row(number, item) for number, item in enumerate(inputs)]
        return {**data, "image": torch.from_numpy(np.concatenate(rows, 1))}

    def _row(self, number: int, given: Tensor) -> Any:
        """What one encoder says of one input (1, F)."""
        digest = hashlib.sha256(given.cpu().numpy().tobytes()).hexdigest()
        encoder: Any = self.network.encoders[number]
        name = f"{self.hashes[number][:32]}-{digest[:32]}-{int(encoder.places)}.npy"
        path = self.folder / name if self.folder else None
        if path is not None and path.is_file():
            return np.load(path, allow_pickle=False)
        was_learning = encoder.training
        encoder.eval()
        row = encoder(given, torch.ones(1, dtype=torch.bool)).float().cpu().numpy()
        encoder.train(was_learning)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, lambda temporary: np.save(temporary, row))
        return row
