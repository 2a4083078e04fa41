"""The fuse bundle through MONAI's own checks and commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow, ckpt_export, verify_net_in_out

from pipeline.fusion.checkpoint_file import load_trained
from pipeline.learning.checkpoint_file import read_checkpoint
from pipeline.shipped import shipped
from tests.phantoms.mechanism_files import write_mechanism_cases

CONFIGS = shipped("bundles", "fuse", "configs")
TRAIN, META = str(CONFIGS / "train.yaml"), str(CONFIGS / "metadata.json")
#: `streams` and what lies over it: tests/bundles/test_streams.py.
OTHERS = ("tensorboard", "streams", "streams_inference")
OVERLAYS = sorted(path.stem for path in (CONFIGS / "overlays").glob("*.yaml") if path.stem not in OTHERS)
SMALL: dict[str, Any] = {
    "patch": [16, 16, 16],
    "network_def::width": 8,
    "network_def::levels": 3,
    "network_def::deep": 1,
    "ct_window": [140, 800],
    "max_epochs": 1,
    "folds": 2,
}
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_mechanism_cases(folder, "additive", 8, seed=5)
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network after one epoch."""
    out = tmp_path_factory.mktemp("trained")
    workflow = ConfigWorkflow(TRAIN, META, False, dataset_dir=str(data), output_dir=str(out), device="cpu", **SMALL)
    workflow.initialize()
    workflow.run()
    return out / "model.pt"


def bundle(*launcher: str, configs: list[str], settings: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    files = json.dumps([str(CONFIGS / f"{name}.yaml") for name in configs])
    options = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
    command = [sys.executable, "-m", *launcher, "monai.bundle", "run", "--config_file", files, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        command, cwd=shipped(), env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )


@pytest.mark.parametrize("overlay", ["", *OVERLAYS])
def test_a_training_has_the_standard_ids(data: Path, tmp_path: Path, overlay: str) -> None:
    files = [TRAIN, *([str(CONFIGS / "overlays" / f"{overlay}.yaml")] if overlay else [])]
    workflow = ConfigWorkflow(
        files, META, False, init_id="none", dataset_dir=str(data), output_dir=str(tmp_path), device="cpu", **SMALL
    )
    workflow.initialize()
    assert workflow.check_properties() == []


def test_the_network_takes_and_gives_what_the_metadata_say() -> None:
    verify_net_in_out("network_def", meta_file=META, config_file=TRAIN, device="cpu", n=1)
    with pytest.raises(ValueError, match="doesn't match"):
        verify_net_in_out("network_def", meta_file=META, config_file=TRAIN, device="cpu", n=1, classes=3)


def test_the_exported_checkpoint_says_what_the_network_says(trained: Path, tmp_path: Path) -> None:
    exported = tmp_path / "model.ts"
    overrides = {key: value for key, value in SMALL.items() if key.startswith("network_def")}
    ckpt_export(
        "network_def",
        exported,
        str(trained),
        META,
        TRAIN,
        key_in_ckpt="network",
        bundle_root=str(CONFIGS.parent),
        **overrides,
    )
    image = torch.randn(1, 2, 16, 16, 16)
    with torch.no_grad():
        assert torch.allclose(torch.jit.load(exported)(image), load_trained(trained).network(image), atol=1e-5)


@pytest.mark.slow
def test_two_processes_train_one_network(data: Path, tmp_path: Path) -> None:
    settings = {**SMALL, "max_epochs": 2, "dataset_dir": data, "output_dir": tmp_path, "bundle_root": CONFIGS.parent}
    launcher = ("torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m")
    done = bundle(*launcher, configs=["train", "overlays/multi_gpu_train"], settings=settings)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(read_checkpoint(tmp_path / "last.pt")["history"]) == 2


#: Without chance, and with a loss that is a mean over the cases: the Dice of a batch is not.
EXACT: dict[str, Any] = {
    **SMALL,
    "max_epochs": 2,
    "warmup": 0,
    "augmentation": False,
    "modality_dropout": 0.0,
    "network_def::dropout": 0.0,
    "loss::voxel_share": 0.0,
    "train::preprocessing::transforms::2::prob": 0.0,
    "rate": 0.003,
    "device": "cpu",
}


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_from_twice_the_batch(data: Path, tmp_path: Path) -> None:
    """Gradients are the mean over all processes, weights the same after each step; a smaller batch learns otherwise."""
    settings = {**EXACT, "batch": 2, "dataset_dir": data, "output_dir": tmp_path / "two", "bundle_root": CONFIGS.parent}
    launcher = ("torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m")
    done = bundle(*launcher, configs=["train", "overlays/sgd", "overlays/multi_gpu_train"], settings=settings)
    assert done.returncode == 0, done.stderr[-3000:]
    files = [TRAIN, str(CONFIGS / "overlays" / "sgd.yaml")]
    for name, batch in (("doubled", 4), ("single", 2)):
        paths = {"dataset_dir": str(data), "output_dir": str(tmp_path / name)}
        workflow = ConfigWorkflow(files, META, False, **EXACT, **paths, batch=batch)
        workflow.initialize()
        workflow.run()
    weights = {name: read_checkpoint(tmp_path / name / "last.pt")["network"] for name in ("two", "doubled", "single")}
    apart = {
        name: max(float((weights["two"][key] - tensor).abs().max()) for key, tensor in found.items())
        for name, found in weights.items()
    }
    assert apart["doubled"] < 1e-5 and apart["single"] > 1e-3, apart


def test_the_curves_reach_tensorboard(data: Path, tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tracking = str(CONFIGS / "overlays" / "tensorboard.yaml")
    workflow = ConfigWorkflow(
        TRAIN, META, False, tracking=tracking, dataset_dir=str(data), output_dir=str(tmp_path), device="cpu", **SMALL
    )
    workflow.initialize()
    workflow.run()
    events = reader.EventAccumulator(str(tmp_path))
    events.Reload()
    history = read_checkpoint(tmp_path / "last.pt")["history"]
    assert len(events.Scalars("training_loss")) == 2
    assert events.Scalars("validation_loss")[0].value == pytest.approx(history[0]["validation_loss"], rel=1e-5)


def test_wrong_input_exits_with_two(data: Path, tmp_path: Path) -> None:
    settings = {**SMALL, "dataset_dir": data, "output_dir": tmp_path, "class_weights": "[1e999,1.0]", "device": "cpu"}
    done = bundle(configs=["train"], settings=settings)
    assert done.returncode == 2 and "E_NAN_LOSS" in done.stderr, done.stderr[-2000:]
