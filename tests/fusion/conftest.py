"""Small cases whose truth is known, on the disk, and a bundle that is small enough to train in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigWorkflow

from pipeline.shipped import shipped
from tests.phantoms.mechanism_files import write_mechanism_cases

CONFIGS = shipped("bundles", "fuse", "configs")
#: A network of 8 channels and 3 levels, patches as large as the cases.
SMALL: dict[str, Any] = {
    "bundle_root": str(CONFIGS.parent),
    "patch": [16, 16, 16],
    "network_def::width": 8,
    "network_def::levels": 3,
    "network_def::deep": 1,
    "ct_window": [140, 800],
    "max_epochs": 3,
    "warmup": 1,
    "folds": 2,
    "rate": 0.003,
    "device": "cpu",
}


@pytest.fixture(scope="session")
def additive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve cases of six patients."""
    folder = tmp_path_factory.mktemp("additive")
    write_mechanism_cases(folder, "additive", 12, seed=3)
    return folder


@pytest.fixture
def workflow(additive: Path, tmp_path: Path) -> Callable[..., ConfigWorkflow]:
    """Make a training of the bundle, ready to run: overlays, then settings."""

    def make(*overlays: str, **settings: Any) -> ConfigWorkflow:
        files = [CONFIGS / "train.yaml", *(CONFIGS / "overlays" / f"{name}.yaml" for name in overlays)]
        options = {**SMALL, "dataset_dir": str(additive), "output_dir": str(tmp_path / "out"), **settings}
        made = ConfigWorkflow(
            [str(path) for path in files], str(CONFIGS / "metadata.json"), False, workflow_type="train", **options
        )
        made.initialize()
        return made

    return make
