"""A network compiled for one processor by OpenVINO: the same logits in less time, checked against the network's own.

OpenVINO keeps features in the layout that the processor's vector instructions want, where PyTorch brings them there and
back at every layer. The network gets there as an ONNX file.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipeline.errors import UsageError

Engine = Literal["torch", "openvino"]
ENGINES: tuple[Engine, ...] = ("torch", "openvino")
PACKAGES = ("openvino", "onnx")
#: The newest version of the ONNX standard that PyTorch's exporter of traced networks writes.
OPSET = 18
#: How far a compiled network may be from its model, as a share of the largest logit: float32, and bfloat16 (8 bits).
TOLERANCE, TOLERANCE_BFLOAT16 = 2e-3, 0.1
#: Networks that stay compiled in a process: those of five folds, and one more.
KEPT = 6
#: Float32 tensors, one for each output, of one tensor for each input; the first axis counts the tiles.
Forward = Callable[..., tuple[Tensor, ...]]


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


def require_processor(network: nn.Module) -> None:
    """Raise E_CONFIG unless the network is where OpenVINO's plugin runs."""
    device = next(network.parameters()).device
    if device.type != "cpu":
        raise UsageError("E_CONFIG", f"Expected the engine torch for a network on {device.type}, got openvino.")


def weights_sha256(network: nn.Module) -> str:
    """A hash of a network's weights: the same in whatever checkpoint they stand."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class AsTuple(nn.Module):
    """A network of one output whose answer is a tuple, as a `Task` takes it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """Arguments as the network's."""
        return (self.network(image),)


@dataclass(frozen=True)
class Task:
    """What is compiled; networks are told apart by their `identity`, whatever object holds the weights.

    Attributes:
        identity: of the network: its weights and how it was built.
        inputs: their names.
        outputs: their names.
        network: on a processor, evaluating; gives a tuple of tensors, one for each output.
        example: a tensor for each input, of one tile.
        bfloat16: count in bfloat16: faster where the processor can, and a little less exact.
    """

    identity: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    network: nn.Module = field(compare=False)
    example: tuple[Tensor, ...] = field(compare=False)
    bfloat16: bool = False
    threads: int = field(default_factory=torch.get_num_threads)
    shapes: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "shapes", tuple(tuple(item.shape) for item in self.example))


@functools.lru_cache(maxsize=KEPT)
@torch.inference_mode()
def compiled(task: Task) -> Forward:
    """Compile a network for as many threads as PyTorch uses; once in a process, whatever object holds the weights.

    Raises:
        UsageError: E_ENGINE when what was compiled does not say what the network says of the example.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        _export(task, path)
        forward = _forward_of(path, task)
    for ours, theirs in zip(forward(*task.example), task.network(*task.example), strict=True):
        limit = (TOLERANCE_BFLOAT16 if task.bfloat16 else TOLERANCE) * max(1.0, _largest(theirs))
        apart = _largest(ours - theirs)
        if not apart <= limit:  # also when it is NaN
            raise UsageError("E_ENGINE", f"Expected the network's logits within {limit:.2g}, got {apart:.2g} apart.")
    return forward


def _forward_of(path: Path, task: Task) -> Forward:
    core = _openvino().Core()
    core.set_property({"ENABLE_MMAP": False})  # the file does not stay
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if task.bfloat16 else "f32",
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

    def forward(*given: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(task.inputs, given, strict=True))
        arrays = {name: item.contiguous().numpy() for name, item in named.items() if name in wanted}
        found = request(len(given[0])).infer(arrays, share_inputs=True)
        return tuple(torch.from_numpy(found[name]) for name in task.outputs)

    return forward


def _openvino() -> Any:
    """OpenVINO, without the package by which it tells its makers, whenever it is imported, that it is used."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # such a module is taken as missing
    import openvino

    return openvino


def _export(task: Task, path: Path) -> None:
    """Write the network as an ONNX file for any number of tiles at once."""
    model = copy.deepcopy(task.network)
    _use_instance_norm(model)
    with _exporting():
        torch.onnx.export(
            model.eval(),
            task.example,
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=list(task.inputs),
            output_names=list(task.outputs),
            dynamic_axes={name: {0: "tiles"} for name in (*task.inputs, *task.outputs)},
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
