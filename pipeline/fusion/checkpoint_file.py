"""Checkpoints: the network's weights with its own definition, and what a stopped training needs to go on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.errors import UsageError
from pipeline.fusion.network import FusionNet
from pipeline.fusion.table import Standard
from pipeline.store.files import write_atomic

#: Where the weights stand in a checkpoint, as `ckpt_export --key_in_ckpt` asks.
WEIGHTS = "network"
DEFINITION = "definition"
#: The names of the cases that were learned from.
TRAINING_CASES = "training_cases"
PREPARATION = "preparation"


@dataclass(frozen=True)
class Preparation:
    """How images were prepared for a network: what has to be done to those that it is going to see.

    Attributes:
        modalities: in the order of the channels.
        ct_modalities: those of them that are CT, in HU.
        ct_window: level and width in HU that became 0 to 1; all others got foreground mean 0 and deviation 1.
        patch: voxels of a patch along each side.
        spacing_mm: voxel size to which images were resampled; none where they stayed on their own grids.
        seen_mm: the smallest and the largest voxel side of the training images before that; none where not known.
        standard: of the table of further numbers: columns, means and standard deviations.
        orientation: where the axes I, J, K of its images run, such as `RAS`; empty: as the files had them.
    """

    modalities: Sequence[str]
    ct_modalities: Sequence[str]
    ct_window: Sequence[float]
    patch: Sequence[int]
    spacing_mm: Sequence[float] = ()
    seen_mm: Sequence[float] = ()
    standard: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    orientation: str = ""

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
        texts = {"orientation": self.orientation}
        plain = {name: list(value) for name, value in asdict(self).items() if name not in ("standard", *texts)}
        return {**plain, **texts, "standard": {name: list(value) for name, value in self.standard.items()}}


@dataclass(frozen=True)
class Trained:
    """A network ready to predict, and what it is made for.

    Attributes:
        network: on its device, evaluating.
        preparation: of its images.
        training_cases: the names of the cases that it has learned from.
    """

    network: FusionNet
    preparation: Preparation
    training_cases: tuple[str, ...]


def write_checkpoint(path: Path, network: nn.Module, more: Mapping[str, Any]) -> None:
    """Write a checkpoint that is wholly there or not at all.

    Args:
        path: the file.
        network: its weights and its definition are kept.
        more: what else is kept: plain values and tensors.
    """
    content = {WEIGHTS: network.state_dict(), DEFINITION: definition_of(network), **more}
    write_atomic(path, lambda temporary: torch.save(content, temporary), lambda temporary: _read(temporary))


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        UsageError: E_WEIGHTS when it is not there, damaged or of another kind.
    """
    found = _read(Path(path))
    if not isinstance(found, dict) or not {WEIGHTS, DEFINITION} <= found.keys():
        raise UsageError("E_WEIGHTS", f"Expected a checkpoint of the fusion network at {path}, got something else.")
    return found


def restore(network: nn.Module, found: Mapping[str, Any]) -> None:
    """Give a network the weights of a checkpoint.

    Raises:
        UsageError: E_CHECKPOINT when the checkpoint is of another architecture.
    """
    stored, own = json.loads(found[DEFINITION]), json.loads(definition_of(network))
    different = sorted(key for key in stored.keys() | own.keys() if stored.get(key) != own.get(key))
    if different:
        key = different[0]
        raise UsageError("E_CHECKPOINT", f"Expected {key} {stored.get(key)} as in the checkpoint, got {own.get(key)}.")
    try:
        network.load_state_dict(found[WEIGHTS])
    except RuntimeError as error:
        raise UsageError("E_CHECKPOINT", "Expected the tensors of the checkpoint, got others.") from error


def load_trained(path: str | Path, device: str | torch.device = "cpu") -> Trained:
    """Build the network that a checkpoint is of, ready to predict.

    Raises:
        UsageError: E_WEIGHTS, E_CHECKPOINT.
    """
    if not str(path):
        raise UsageError("E_WEIGHTS", "Expected --weights or the section `fuse` of the data spec to name a checkpoint.")
    found = read_checkpoint(path)
    try:
        network = FusionNet(**json.loads(found[DEFINITION]))
        preparation = Preparation(**found[PREPARATION])
        cases = tuple(found[TRAINING_CASES])
    except (TypeError, ValueError, KeyError) as error:
        raise UsageError("E_CHECKPOINT", "Expected the definition of a fusion network, got another one.") from error
    restore(network, found)
    return Trained(network.to(device).eval(), preparation, cases)


def weights_sha256(network: nn.Module) -> str:
    """A hash of a network's weights: the same in whatever checkpoint they stand."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def definition_of(network: nn.Module) -> str:
    """The network's own definition as JSON; of a network of another kind, its class alone."""
    return str(getattr(network, DEFINITION, json.dumps({"class": type(network).__qualname__})))


def _read(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds on files that are no checkpoints
        raise UsageError("E_WEIGHTS", f"The checkpoint {path} cannot be read ({type(error).__name__}).") from error
