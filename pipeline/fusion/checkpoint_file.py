"""Checkpoints of the fusion network: how its images are prepared, and the network ready to predict."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import UsageError
from pipeline.fusion.network import FusionNet
from pipeline.fusion.stream_net import StreamNet
from pipeline.learning.checkpoint_file import DEFINITION, PREPARATION, TRAINING_CASES, read_checkpoint, restore
from pipeline.learning.table import Standard

#: Of modalities on one grid, or of streams that share none.
Network = FusionNet | StreamNet
#: By the class that a definition names; one without a name is of modalities on one grid.
NETWORKS: dict[str, type[Network]] = {"FusionNet": FusionNet, "StreamNet": StreamNet}


@dataclass(frozen=True)
class Preparation:
    """How images were prepared for a network: what has to be done to those that it is going to see.

    Attributes:
        modalities: in the order of the channels.
        ct_modalities: those of them that are CT, in HU.
        ct_window: level and width in HU that became 0 to 1; all others got foreground mean 0 and deviation 1.
        patch: voxels of a patch along each side; of streams, how many values they have together.
        spacing_mm: voxel size to which images were resampled; none where they stayed on their own grids.
        seen_mm: the smallest and the largest voxel side of the training images before that; none where not known.
        standard: of the table of further numbers: columns, means and standard deviations.
        orientation: where the axes I, J, K of its images run, such as `RAS`; empty: as the files had them.
        streams: name -> keys and values of each stream (`pipeline.spec.streams.Stream`), where they share no grid.
    """

    modalities: Sequence[str]
    ct_modalities: Sequence[str]
    ct_window: Sequence[float]
    patch: Sequence[int]
    spacing_mm: Sequence[float] = ()
    seen_mm: Sequence[float] = ()
    standard: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    orientation: str = ""
    streams: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def ct(self) -> list[str]:
        """The CT modalities."""
        return [name for name in self.modalities if name in self.ct_modalities]

    @property
    def others(self) -> list[str]:
        """The modalities that are not CT."""
        return [name for name in self.modalities if name not in self.ct_modalities]

    @property
    def table(self) -> Standard:
        """How the table of further numbers was standardised."""
        return Standard(**self.standard)

    def to_plain(self) -> dict[str, Any]:
        """As a checkpoint keeps it."""
        more: dict[str, Any] = {"orientation": self.orientation}
        if self.streams:
            more["streams"] = {name: dict(stream) for name, stream in self.streams.items()}
        plain = {n: list(value) for n, value in asdict(self).items() if n not in ("standard", "streams", *more)}
        return {**plain, **more, "standard": {name: list(value) for name, value in self.standard.items()}}


@dataclass(frozen=True)
class Trained:
    """A network ready to predict, how its images are prepared, and the names of the cases that it has learned from."""

    network: Network
    preparation: Preparation
    training_cases: tuple[str, ...]


def load_trained(path: str | Path, device: str | torch.device = "cpu") -> Trained:
    """Build the network that a checkpoint is of, ready to predict.

    Raises:
        UsageError: E_WEIGHTS, E_CHECKPOINT.
    """
    if not str(path):
        raise UsageError("E_WEIGHTS", "Expected --weights or the section `fuse` of the data spec to name a checkpoint.")
    found = read_checkpoint(path)
    try:
        definition = json.loads(found[DEFINITION])
        network = NETWORKS[definition.pop("class", "FusionNet")](**definition)
        preparation = Preparation(**found[PREPARATION])
        cases = tuple(found[TRAINING_CASES])
    except (TypeError, ValueError, KeyError) as error:
        raise UsageError("E_CHECKPOINT", "Expected the definition of a fusion network, got another one.") from error
    restore(network, found)
    return Trained(network.to(device).eval(), preparation, cases)
