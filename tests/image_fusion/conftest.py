"""Simulated pairs on the disk, and a training of the bundle that takes seconds."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigWorkflow
from PIL import Image
from scipy import ndimage

from pipeline.shipped import shipped

CONFIGS = shipped("bundles", "fuse_image", "configs")
SMALL: dict[str, Any] = {
    "device": "cpu",
    "patch": [48, 48],
    "draws": 8,
    "batch": 4,
    "max_epochs": 3,
    "val_interval": 1,
    "warmup": 1,
    "folds": 2,
    "rate": 0.01,
}


def head(seed: int, *sides: int) -> tuple[np.ndarray, np.ndarray]:
    """A ring of bone that CT shows, and what is in it, which MR shows; 0 to 1, black around."""
    rng = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in sides), indexing="ij"))
    radius = np.sqrt((places**2).sum(0)) + 0.03 * rng.standard_normal()
    bone = ((radius > 0.7) & (radius < 0.85)).astype(float)
    brain = (radius <= 0.7) * (0.35 + 0.15 * np.sign(ndimage.gaussian_filter(rng.standard_normal(sides), 2)))
    ct = 0.95 * bone + 0.25 * (radius <= 0.7) + 0.02 * rng.standard_normal(sides) * (radius < 0.85)
    return np.clip(ct, 0, 1), np.clip(brain + 0.02 * rng.standard_normal(sides) * (radius < 0.9), 0, 1)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pairs of pictures of four patients, with their table."""
    folder = tmp_path_factory.mktemp("pictures")
    rows = []
    for number in range(8):
        for key, values in zip(("ct", "mr"), head(number, 60, 52), strict=True):
            Image.fromarray(np.rint(255 * values).astype(np.uint8)).save(folder / f"{key}{number}.png")
        files = {key: f"{key}{number}.png" for key in ("ct", "mr")}
        rows.append({"case_id": f"case-{number}", "patient_id": f"p{number % 4}", **files})
    write_table(folder, rows)
    return folder


@pytest.fixture(scope="session")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs of volumes of two patients: CT in HU, MR in a scale of its own."""
    folder = tmp_path_factory.mktemp("heads")
    rows = []
    for number in range(2):
        ct, mr = head(number, 32, 30, 28)
        for key, values in (("ct", 1000 * ct - 100), ("mr", 900 * mr)):
            nib.save(
                nib.Nifti1Image(np.rint(values).astype(np.int16), np.diag([3, 3, 3, 1])), folder / f"{key}{number}.nii"
            )
        files = {key: f"{key}{number}.nii" for key in ("ct", "mr")}
        rows.append({"case_id": f"head-{number}", "patient_id": f"p{number}", **files})
    write_table(folder, rows)
    return folder


def write_table(folder: Path, rows: list[dict[str, str]]) -> None:
    with (folder / "cases.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def workflow(pictures: Path, tmp_path: Path) -> Callable[..., ConfigWorkflow]:
    """Make a training of the bundle, ready to run: overlays, then settings."""

    def make(*overlays: str, **settings: Any) -> ConfigWorkflow:
        files = [CONFIGS / "train.yaml", *(CONFIGS / "overlays" / f"{name}.yaml" for name in overlays)]
        options = {**SMALL, "dataset_dir": str(pictures), "output_dir": str(tmp_path / "out"), **settings}
        metadata = str(CONFIGS / "metadata.json")
        found = ConfigWorkflow([str(path) for path in files], metadata, False, workflow_type="train", **options)
        found.initialize()
        return found

    return make
