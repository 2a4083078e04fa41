"""Networks compiled by OpenVINO: what PyTorch says of the same tiles, and nothing told to anybody."""

from __future__ import annotations

import copy
import math
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.errors import UsageError
from pipeline.fusion.engine import compiled
from pipeline.fusion.network import BLOCKS, MODES, FusionNet
from pipeline.fusion.tiles import TiledInferer
from pipeline.inference import engine

PATCH = (16, 8, 16)
IMAGE = torch.randn(3, 2, *PATCH, generator=torch.Generator().manual_seed(1))
#: Both modalities, the first, the second.
SOME = torch.tensor([[True, True], [True, False], [False, True]])


def small(**options: Any) -> FusionNet:
    torch.manual_seed(2)
    net = FusionNet(["ct", "mr"], **{"width": 8, "levels": 3, **options}).eval()
    with torch.no_grad():
        for item in net.parameters():  # norms that do more than normalise
            item.add_(0.05 * torch.randn_like(item))
    return net


def heads_of(net: FusionNet, image: Tensor, table: Tensor | None = None) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        heads = net.heads(image, SOME, table)
    return heads.voxels, heads.classes


@pytest.mark.parametrize(
    "options",
    [
        *({"mode": mode} for mode in MODES),
        *({"block": block} for block in BLOCKS),
        {"mode": "single", "only": "mr"},
        {"classes": 0, "labels": 4, "deep": 1},
        {"mode": "late", "labels": 0, "classes": 3},
    ],
    ids=str,
)
def test_the_compiled_network_says_what_the_network_says(options: dict[str, Any]) -> None:
    net = small(**options)
    image = IMAGE.clone()
    image[1, 1] = image[2, 0] = math.nan  # what a missing modality's channel holds has no influence
    expected = heads_of(net, image)
    for ours, theirs in zip(compiled(net, PATCH)(image, SOME, None), expected, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == torch.float32
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_a_pretrained_encoder_is_compiled_too() -> None:
    net, image = small(encoder="resnet10"), torch.randn(1, 2, 64, 32, 32)
    there = torch.ones(1, 2, dtype=torch.bool)
    voxels, classes = compiled(net, (64, 32, 32))(image, there, None)
    with torch.inference_mode():
        heads = net.heads(image, there)
    assert torch.allclose(voxels, heads.voxels, atol=1e-3) and torch.allclose(classes, heads.classes, atol=1e-3)


def test_a_table_may_have_holes_or_be_missing() -> None:
    net = small(table_features=2)
    table = torch.tensor([[0.5, -1.0], [math.nan, 3.0], [math.nan, math.nan]])
    look = compiled(net, PATCH)
    for given in (table, None):
        assert torch.allclose(look(IMAGE, SOME, given)[1], heads_of(net, IMAGE, given)[1], atol=1e-4)
    assert not torch.allclose(look(IMAGE, SOME, table)[1], look(IMAGE, SOME, None)[1], atol=1e-2)


def test_bfloat16_says_nearly_the_same() -> None:
    net = small()
    exact, (short, _) = heads_of(net, IMAGE)[0], compiled(net, PATCH, bfloat16=True)(IMAGE, SOME, None)
    apart = float((short - exact).abs().max())
    assert apart < 0.1 * float(exact.abs().max())
    import openvino  # after Tandem has seen to it that it tells nobody anything

    counts_so = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert (apart > 1e-4) == counts_so  # a processor that cannot counts in float32


def test_weights_that_change_are_compiled_anew() -> None:
    net = small()
    first = compiled(net, PATCH)
    misses = engine.compiled.cache_info().misses
    compiled(pickle.loads(pickle.dumps(net)), PATCH)  # as a process is given it with every case
    assert engine.compiled.cache_info().misses == misses
    with torch.no_grad():
        net.voxel_heads[0].maps[0].bias.add_(1.0)  # type: ignore[index, union-attr, operator]
    before, after = first(IMAGE, SOME, None)[0], compiled(net, PATCH)(IMAGE, SOME, None)[0]
    assert torch.allclose(after, before + 1, atol=1e-4)
    misses = engine.compiled.cache_info().misses
    compiled(net, PATCH, bfloat16=True)
    compiled(net, (8, 16, 16))
    assert engine.compiled.cache_info().misses == misses + 2


@pytest.mark.parametrize("mirror", [False, True])
def test_a_whole_image_is_the_same_with_either_engine(mirror: bool) -> None:
    """Tiles in groups of different sizes, some left out, classes pooled."""
    image, body = torch.randn(1, 2, 30, 16, 34), torch.zeros(1, 1, 30, 16, 34)
    body[..., :20, 4:12, 2:30] = 1
    net, there = small(), torch.tensor([[True, False]])
    ours, theirs = (
        TiledInferer(PATCH, 0.5, batch=4, mirror=mirror, engine=name)(image, net, there, body)
        for name in engine.ENGINES
    )
    assert ours.shape == (1, 4, 30, 16, 34)
    assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.slow
def test_nothing_is_told_to_anybody(tmp_path: Path) -> None:
    """OpenVINO comes with a package that reports every import of it, and keeps a number of its user in ~/intel."""
    code = """
import sys, torch
from pipeline.fusion.engine import compiled
from pipeline.fusion.network import FusionNet
compiled(FusionNet(["ct", "mr"], width=8, levels=2).eval(), (8, 8, 8))
assert "openvino.tools.ovc.telemetry_stub" in sys.modules
assert not [name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module]
"""
    home = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=home, cwd=Path(__file__).parents[2])
    assert not (tmp_path / "intel").exists()


def test_an_engine_that_is_not_there_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"E_CONFIG.*torch or openvino.*got tensorrt"):
        TiledInferer(PATCH, engine="tensorrt")  # type: ignore[arg-type]
    monkeypatch.setattr(engine, "PACKAGES", ("openvino", "a_package_that_is_not_there"))
    with pytest.raises(UsageError, match=r"E_EXTRA.*a_package_that_is_not_there.*tandem-imaging\[openvino\]"):
        TiledInferer(PATCH, engine="openvino")
    TiledInferer(PATCH)


def test_a_network_elsewhere_is_refused() -> None:
    elsewhere = small().to("meta")
    with pytest.raises(UsageError, match=r"E_CONFIG.*a network on meta, got openvino"):
        TiledInferer(PATCH, engine="openvino").check(elsewhere)
    TiledInferer(PATCH).check(elsewhere)


def test_a_compiled_network_that_says_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    export = engine._export

    def other(task: engine.Task, path: Path) -> None:
        changed = copy.deepcopy(task.network)
        with torch.no_grad():
            changed.network.class_heads[0].out.bias.add_(1.0)  # type: ignore[union-attr, operator, index]
        export(replace(task, network=changed), path)

    monkeypatch.setattr(engine, "_export", other)
    engine.compiled.cache_clear()
    with pytest.raises(UsageError, match=r"E_ENGINE.*got 1 apart"):
        compiled(small(), PATCH)
