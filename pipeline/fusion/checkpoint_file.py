"""Weights in files: checkpoints of the network with its own definition, and encoders that were learned elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.fusion.network import FusionNet
from pipeline.fusion.table import Standard
from pipeline.store.files import require_given, sha256_file, write_atomic

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
    """A network ready to predict, how its images are prepared, and the names of the cases that it has learned from."""

    network: FusionNet
    preparation: Preparation
    training_cases: tuple[str, ...]


def write_checkpoint(path: Path, network: nn.Module, more: Mapping[str, Any]) -> None:
    """Write weights, definition and more plain values and tensors: wholly there or not at all."""
    content = {WEIGHTS: network.state_dict(), DEFINITION: definition_of(network), **more}
    write_atomic(path, lambda temporary: torch.save(content, temporary), lambda temporary: _read(temporary))


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        UsageError: E_WEIGHTS when it is damaged or of another kind; E_INPUT, E_UNREADABLE when it cannot be opened.
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


def definition_of(network: nn.Module) -> str:
    """The network's own definition as JSON; of a network of another kind, its class alone."""
    return str(getattr(network, DEFINITION, json.dumps({"class": type(network).__qualname__})))


def _read(path: Path) -> Any:
    require_given(path, "a checkpoint")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds on files that are no checkpoints
        raise UsageError("E_WEIGHTS", f"The checkpoint {path} cannot be read ({type(error).__name__}).") from error


#: What other projects put before the names: DataParallel, Lightning, MONAI and MedicalNet wrappers.
PREFIXES = ("module.", "model.", "net.", "backbone.", "encoder.")


@dataclass(frozen=True)
class Transferred:
    """What a checkpoint of a `sha256` gave: tensors taken over, those that it lacks, those that found no place."""

    sha256: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]


def load_encoder(encoder: nn.Module, path: Path, sha256: str = "") -> Transferred:
    """Take over an encoder's weights from a local checkpoint, 3D or 2D.

    A 2D kernel is inflated (`inflate`), and the stem of a network for colour pictures is summed (`fit_stem`).

    Args:
        encoder: its tensors are replaced where name and shape fit.
        path: a file of `torch.save`: a state dictionary, or one under `state_dict` or `model`.
        sha256: the file's expected hash; not asked when empty.

    Raises:
        UsageError: E_WEIGHTS when the file cannot be read, is not the expected one, has tensors of another shape, or
            none that fits.
    """
    digest = _digest(path, sha256)
    stored = {_plain_name(name): item for name, item in _state(path).items() if isinstance(item, Tensor)}
    own = encoder.state_dict()
    names = {_plain_name(name): name for name in own}
    fitting = {names[name]: _fit(name, tensor, own[names[name]]) for name, tensor in stored.items() if name in names}
    if not fitting:
        raise UsageError("E_WEIGHTS", f"Expected weights of this encoder in {path}, got none that it has a place for.")
    encoder.load_state_dict({**own, **fitting})
    missing = tuple(name for name in own if name not in fitting)
    return Transferred(digest, tuple(fitting), missing, tuple(name for name in stored if name not in names))


def inflate(kernel: Tensor, depth: int) -> Tensor:
    """Make a 3D kernel (out, in, depth, J, K) of a 2D one (out, in, J, K): repeated along I, divided by `depth`.

    On a volume that is the same in every slice it answers as the 2D kernel does.

    Source: Carreira and Zisserman, Quo vadis, action recognition?, CVPR 2017, section 2.3.
    """
    return kernel[:, :, None].repeat(1, 1, depth, 1, 1) / depth


def fit_stem(kernel: Tensor, channels: int) -> Tensor:
    """Make a stem (out, channels, …) for grey images of one (out, 3, …) for red, green and blue.

    One grey channel gets the sum: a grey picture is one whose three channels are equal. (Their mean would make every
    activation three times smaller.) Several grey channels share the sum.
    """
    summed = kernel.sum(1, keepdim=True)
    return summed.repeat(1, channels, *[1] * (kernel.ndim - 2)) / channels


def freeze(modules: Iterable[nn.Module], frozen: bool) -> None:
    """Stop or start learning in modules."""
    for module in modules:
        for parameter in module.parameters():
            parameter.requires_grad_(not frozen)


def layer_wise_rates(
    encoders: Iterable[nn.Module], others: Iterable[nn.Module], rate: float, decay: float
) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser: the earlier a stage (child) of an encoder, the slower it learns.

    The last stages and the others learn at `rate`; `decay`, in (0, 1], is the factor from a stage to the one before.

    Raises:
        UsageError: E_CONFIG for a decay outside (0, 1].

    Source: Howard and Ruder, ULMFiT, ACL 2018, section 3.2 (discriminative fine-tuning).
    """
    if not 0 < decay <= 1:
        raise UsageError("E_CONFIG", f"Expected a decay of the rate above 0 and up to 1, got {decay:g}.")
    groups = [{"params": [p for module in others for p in module.parameters()], "lr": rate}]
    for encoder in encoders:
        stages = _stages(encoder)
        for number, stage in enumerate(stages):
            groups.append({"params": list(stage.parameters()), "lr": rate * decay ** (len(stages) - 1 - number)})
    return [group for group in groups if group["params"]]


def _stages(encoder: nn.Module) -> list[nn.Module]:
    """The parts of an encoder that hold parameters, from the image on; a lone list or wrapper is looked into."""
    parts = [child for child in encoder.children() if any(True for _ in child.parameters())]
    return _stages(parts[0]) if len(parts) == 1 and list(parts[0].children()) else parts


def _digest(path: Path, expected: str) -> str:
    require_given(path, "a checkpoint")
    digest = sha256_file(path)
    if expected and digest != expected:
        raise UsageError("E_WEIGHTS", f"The weights {path} are not the expected ones: sha256 {digest}.")
    return digest


def _state(path: Path) -> Mapping[str, Any]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds on files that are no checkpoints
        raise UsageError("E_WEIGHTS", f"{path} is not a checkpoint of tensors ({type(error).__name__}).") from error
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping):
        raise UsageError("E_WEIGHTS", f"Expected named tensors in {path}, got {type(found).__name__}.")
    return found


def _plain_name(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _fit(name: str, stored: Tensor, own: Tensor) -> Tensor:
    """A stored tensor in the shape that the encoder needs; raises E_WEIGHTS when it cannot be brought into it."""
    tensor = stored
    if tensor.ndim == 4 and own.ndim == 5:
        tensor = inflate(tensor, own.shape[2])
    if tensor.ndim == 5 and tensor.shape[1] == 3 and own.shape[1] != 3:
        tensor = fit_stem(tensor, own.shape[1])
    if tensor.shape != own.shape:
        shapes = f"{tuple(own.shape)}, got {tuple(stored.shape)}"
        raise UsageError("E_WEIGHTS", f"Expected the tensor {name} with shape {shapes}: another architecture.")
    return tensor
