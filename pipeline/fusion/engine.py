"""The network compiled for one processor by OpenVINO: the same logits in less time, checked against the network's own.

OpenVINO keeps features in the layout that the processor's vector instructions want, where PyTorch brings them there and
back at every layer. The network gets there as an ONNX file.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.fusion.checkpoint_file import weights_sha256
from pipeline.fusion.network import FusionNet

Engine = Literal["torch", "openvino"]
ENGINES: tuple[Engine, ...] = ("torch", "openvino")
PACKAGES = ("openvino", "onnx")
#: Of the compiled network.
INPUTS = ["image", "available", "table"]
#: The newest version of the ONNX standard that PyTorch's exporter of traced networks writes.
OPSET = 18
#: How far a compiled network may be from its model, as a share of the largest logit: float32, and bfloat16 (8 bits).
TOLERANCE, TOLERANCE_BFLOAT16 = 2e-3, 0.1
#: Voxel logits (B, labels, I, J, K) and class logits (B, classes), float32, of what `FusionNet.heads` is given.
Forward = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]


def require_engine(engine: str) -> None:
    """Say at once what would stop an engine later.

    Raises:
        UsageError: E_CONFIG for an engine that does not exist, E_EXTRA when its packages are not installed.
    """
    if engine not in ENGINES:
        raise UsageError("E_CONFIG", f"Expected {' or '.join(ENGINES)} as the engine, got {engine}.")
    missing = [name for name in PACKAGES if engine == "openvino" and importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            "E_EXTRA",
            f"The engine openvino needs {missing[0]}, got no such package: pip install 'tandem-imaging[openvino]'.",
        )


def require_processor(network: FusionNet) -> None:
    """Raise E_CONFIG unless the network is where OpenVINO's plugin runs."""
    device = next(network.parameters()).device
    if device.type != "cpu":
        raise UsageError("E_CONFIG", f"Expected the engine torch for a network on {device.type}, got openvino.")


def compiled(network: FusionNet, patch: Sequence[int], bfloat16: bool = False) -> Forward:
    """Compile a network for as many threads as PyTorch uses; once in a process, whatever object holds the weights.

    Args:
        network: on a processor, evaluating.
        patch: voxels of a tile along each side.
        bfloat16: count in bfloat16: faster where the processor can, and a little less exact.

    Raises:
        UsageError: E_CONFIG when the network is not on a processor; E_ENGINE when what was compiled does not say what
            the network says of a random tile.
    """
    require_processor(network)
    return _made(_Task(weights_sha256(network), network.definition, tuple(patch), bfloat16, network))


@dataclass(frozen=True)
class _Task:
    """What is compiled; the network itself is told from others by its weights and its definition."""

    weights: str
    definition: str
    patch: tuple[int, ...]
    bfloat16: bool
    network: FusionNet = field(compare=False)
    threads: int = field(default_factory=torch.get_num_threads)


@functools.lru_cache(maxsize=2)
@torch.inference_mode()
def _made(task: _Task) -> Forward:
    network = task.network
    tile = torch.randn((1, len(network.modalities), *task.patch), generator=torch.Generator().manual_seed(0))
    given = (tile, torch.ones(tile.shape[:2], dtype=torch.bool), _table(None, network, 1))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        _export(network, given, path)
        forward = _forward_of(path, network, task.bfloat16)
    expected = network.heads(*given)
    for ours, theirs in zip(forward(*given), (expected.voxels, expected.classes), strict=True):
        limit = (TOLERANCE_BFLOAT16 if task.bfloat16 else TOLERANCE) * max(1.0, _largest(theirs))
        apart = _largest(ours - theirs)
        if not apart <= limit:  # also when it is NaN
            raise UsageError("E_ENGINE", f"Expected the network's logits within {limit:.2g}, got {apart:.2g} apart.")
    return forward


def _forward_of(path: Path, network: FusionNet, bfloat16: bool) -> Forward:
    core = _openvino().Core()
    core.set_property({"ENABLE_MMAP": False})  # the file does not stay
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        # cases that are worked on side by side would all be tied to the same cores
        "ENABLE_CPU_PINNING": False,
    }
    model = core.read_model(path)
    wanted = {name for port in model.inputs for name in port.names}

    @functools.cache
    def request(tiles: int) -> Any:
        """For a fixed number of tiles: compiled for any number, a small network takes up to a third longer."""
        fixed = model.clone()
        fixed.reshape({port: [tiles, *list(port.partial_shape)[1:]] for port in fixed.inputs})
        return core.compile_model(fixed, "CPU", options).create_infer_request()

    def forward(image: Tensor, available: Tensor, table: Tensor | None) -> tuple[Tensor, Tensor]:
        given = dict(zip(INPUTS, (image, available, _table(table, network, len(image))), strict=True))
        arrays = {name: item.contiguous().numpy() for name, item in given.items() if name in wanted}
        found = request(len(image)).infer(arrays, share_inputs=True)
        made = {name: torch.from_numpy(found[name]) for name in _outputs(network)}
        voxels = made.get("voxels", image.new_zeros((len(image), 0, *image.shape[2:])))
        return voxels, made.get("classes", image.new_zeros((len(image), 0)))

    return forward


def _openvino() -> Any:
    """OpenVINO, without the package by which it tells its makers, whenever it is imported, that it is used."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # such a module is taken as missing
    import openvino

    return openvino


def _table(given: Tensor | None, network: FusionNet, count: int) -> Tensor:
    """The tiles' numbers (count, table_features); none of them is known where there is no table."""
    return torch.full((count, network.table_features), torch.nan) if given is None else given


def _outputs(network: FusionNet) -> list[str]:
    return [name for name, count in (("voxels", network.labels), ("classes", network.classes)) if count]


class _Outputs(nn.Module):
    """The outputs that a network has, as a tuple."""

    def __init__(self, network: FusionNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, available: Tensor, table: Tensor) -> tuple[Tensor, ...]:
        heads = self.network.heads(image, available, table)
        return tuple(getattr(heads, name) for name in _outputs(self.network))


def _export(network: FusionNet, given: tuple[Tensor, ...], path: Path) -> None:
    """Write the network as an ONNX file for any number of tiles at once."""
    model, outputs = _Outputs(copy.deepcopy(network)), _outputs(network)
    _use_instance_norm(model)
    with _exporting():
        torch.onnx.export(
            model.eval(),
            given,
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=INPUTS,
            output_names=outputs,
            dynamic_axes={name: {0: "tiles"} for name in (*INPUTS, *outputs)},
        )


class _InstanceNorm(nn.Module):
    """A group normalisation of one channel a group, as the instance normalisation that it is: OpenVINO knows that."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, image: Tensor) -> Tensor:
        # not nn.InstanceNorm3d, which refuses features of a single voxel
        return torch.instance_norm(image, self.weight, self.bias, None, None, True, 0.0, self.eps, False)


def _use_instance_norm(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.GroupNorm) and child.num_groups == child.num_channels:
            setattr(module, name, _InstanceNorm(child))
        else:
            _use_instance_norm(child)


@contextmanager
def _exporting() -> Iterator[None]:
    """What PyTorch's exporter cannot write is off, and so is its advice to use one that cannot write our options."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0
