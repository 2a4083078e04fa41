"""Checkpoints as files: a network's weights with its own definition, and what is to be known beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.errors import UsageError
from pipeline.store.files import require_given, write_atomic

#: Where the weights stand in a checkpoint, as `ckpt_export --key_in_ckpt` asks.
WEIGHTS = "network"
DEFINITION = "definition"
#: The names of the cases that were learned from.
TRAINING_CASES = "training_cases"
PREPARATION = "preparation"


def write_checkpoint(path: Path, network: nn.Module, more: Mapping[str, Any]) -> None:
    """Write weights, definition and more plain values and tensors: wholly there or not at all."""
    content = {WEIGHTS: network.state_dict(), DEFINITION: definition_of(network), **more}
    write_atomic(path, lambda temporary: torch.save(content, temporary), _read)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        UsageError: E_WEIGHTS when it is damaged or of another kind; E_INPUT, E_UNREADABLE when it cannot be opened.
    """
    found = _read(Path(path))
    if not isinstance(found, dict) or not {WEIGHTS, DEFINITION} <= found.keys():
        raise UsageError("E_WEIGHTS", f"Expected a checkpoint of a network of Tandem at {path}, got something else.")
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


def definition_of(network: nn.Module) -> str:
    """The network's own definition as JSON; of a network of another kind, its class alone."""
    return str(getattr(network, DEFINITION, json.dumps({"class": type(network).__qualname__})))


def _read(path: Path) -> Any:
    require_given(path, "a checkpoint")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds on files that are no checkpoints
        raise UsageError("E_WEIGHTS", f"The checkpoint {path} cannot be read ({type(error).__name__}).") from error
