"""Weights of the image fusion network: how its images were prepared, and the network ready to fuse."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import UsageError
from pipeline.image_fusion.network import ImageFusionNet
from pipeline.learning.checkpoint_file import DEFINITION, PREPARATION, TRAINING_CASES, read_checkpoint, restore
from pipeline.learning.transfer import require_sha256

#: Terms of the loss that are measures of fusion, too: a network that has learned by them is good at them.
MEASURES = {
    "structure": ("SSIM",),
    "qabf": ("Qabf",),
    "vif": ("VIF",),
    "scd": ("SCD",),
    "medical": ("bone", "soft"),
    "bone": ("bone",),
}


@dataclass(frozen=True)
class Preparation:
    """How images were prepared, and by what was learned.

    Attributes:
        modalities: names of the two, the one with the windows first.
        windows: level and width of each, in HU, or of 0 to 1 for pictures.
        patch: voxels along each side.
        loss: term -> how much it counted; and how the structure was measured.
    """

    modalities: Sequence[str]
    windows: Sequence[Sequence[float]]
    patch: Sequence[int]
    loss: Mapping[str, float] = field(default_factory=dict)

    @property
    def learned_measures(self) -> list[str]:
        """The measures of fusion that it was trained on: a table says so beside them."""
        found = [name for term, names in MEASURES.items() if self.loss.get(term, 0) > 0 for name in names]
        return list(dict.fromkeys(found))

    @property
    def of_volumes(self) -> bool:
        """Whether it has learned from CT in HU; pictures are seen in windows of 0 to 1."""
        return any(width > 1 for _, width in self.windows)

    def to_plain(self) -> dict[str, Any]:
        """As a checkpoint keeps it."""
        return json.loads(json.dumps(asdict(self)))


@dataclass(frozen=True)
class Trained:
    """A network ready to fuse, how its images are prepared, the cases that it has learned from, its file's hash."""

    network: ImageFusionNet
    preparation: Preparation
    training_cases: tuple[str, ...]
    sha256: str = ""


def load_trained(path: str | Path, device: str | torch.device = "cpu", sha256: str = "") -> Trained:
    """Build the network that a checkpoint is of.

    Args:
        path: what `train.yaml` has written.
        device: where it goes.
        sha256: the file's expected hash; not asked when empty.

    Raises:
        UsageError: E_WEIGHTS when it is damaged or not the expected one; E_CHECKPOINT when it is of another network.
    """
    digest = require_sha256(Path(path), sha256, "weights")
    found = read_checkpoint(path)
    try:
        network = ImageFusionNet(**json.loads(found[DEFINITION]))
        preparation = Preparation(**found[PREPARATION])
        cases = tuple(found[TRAINING_CASES])
    except (TypeError, ValueError, KeyError) as error:
        what = "Expected the definition of an image fusion network, got another one."
        raise UsageError("E_CHECKPOINT", what) from error
    restore(network, found)
    return Trained(network.to(device).eval(), preparation, cases, digest)
