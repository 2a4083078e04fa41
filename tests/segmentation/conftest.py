"""Tiny models on the disk, as nnU-Net leaves them: plans, labels and random weights from a seed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from scipy import ndimage

from pipeline.segmentation.model import Model, build_network, load_model
from pipeline.segmentation.weights import describe

LABELS = {"background": 0, "head": 1, "tail": 2}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "middle": [3]}
Maker = Callable[..., Path]


def network_of(stages: int, dims: int) -> dict[str, Any]:
    """The architecture part of a plan: 4, 8 … features."""
    norm, conv = f"torch.nn.modules.instancenorm.InstanceNorm{dims}d", f"torch.nn.modules.conv.Conv{dims}d"
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": [4 * 2**stage for stage in range(stages)],
            "conv_op": conv,
            "kernel_sizes": [[3] * dims] * stages,
            "strides": [[1] * dims, *[[2] * dims] * (stages - 1)],
            "n_conv_per_stage": [1] * stages,
            "n_conv_per_stage_decoder": [1] * (stages - 1),
            "conv_bias": True,
            "norm_op": norm,
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def resampling(of: str, order: int, order_z: int = 0) -> dict[str, Any]:
    options = {"is_seg": of == "seg", "order": order, "order_z": order_z, "force_separate_z": None}
    return {f"resampling_fn_{of}": "resample_data_or_seg_to_shape", f"resampling_fn_{of}_kwargs": options}


def plans_of(name: str, patch: Sequence[int], spacing: Sequence[float], channels: int, **more: Any) -> dict[str, Any]:
    configuration = {
        "data_identifier": f"plans_{name}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch),
        "spacing": list(spacing),
        "normalization_schemes": ["ZScoreNormalization"] * channels,
        "use_mask_for_norm": [True] + [False] * (channels - 1),
        **resampling("data", 3),
        **resampling("seg", 1),
        **resampling("probabilities", 1),
        "architecture": network_of(2, len(patch)),
        "batch_dice": False,
        **more,
    }
    return {
        "dataset_name": "Dataset501_Toy",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "NibabelIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(number): {"mean": 50.0, "std": 20.0, "percentile_00_5": 0.0, "percentile_99_5": 90.0}
            for number in range(channels)
        },
        "configurations": {name: configuration},
    }


def write_model(
    folder: Path,
    name: str = "3d_fullres",
    patch: Sequence[int] = (8, 12, 8),
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    labels: Mapping[str, Any] = LABELS,
    channels: Sequence[str] = ("MR",),
    folds: int = 1,
    mirror: Sequence[int] = (0, 1, 2),
    transpose: Sequence[int] = (0, 1, 2),
    about: Mapping[str, Any] | None = None,
    **more: Any,
) -> Path:
    """A results folder with random weights, whose logits are of some size."""
    plans = plans_of(name, patch, spacing, len(channels), **more)
    plans |= {"transpose_forward": list(transpose), "transpose_backward": [list(transpose).index(i) for i in range(3)]}
    dataset: dict[str, Any] = {
        "channel_names": {str(i): channel for i, channel in enumerate(channels)},
        "labels": labels,
    }
    dataset |= {"numTraining": 4, "file_ending": ".nii.gz"}
    if any(isinstance(value, list) for value in labels.values()):
        dataset["regions_class_order"] = [1, 2, 3]
    manager = PlansManager(plans)
    for fold in range(folds):
        torch.manual_seed(fold)
        network = build_network(manager, manager.get_configuration(name), dataset)
        for key, value in network.state_dict().items():
            if "seg_layers" in key:
                value.mul_(8)
        checkpoint = {
            "network_weights": network.state_dict(),
            "trainer_name": "TandemTrainer",
            "init_args": {"configuration": name, "fold": fold},
            "inference_allowed_mirroring_axes": tuple(mirror),
        }
        (folder / f"fold_{fold}").mkdir(parents=True)
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    describe(folder, about)
    return folder


def write_dataset(folder: Path, cases: int = 4) -> Path:
    """A raw data set: blobs whose labels are their brighter parts; two folds."""
    place = folder / "raw" / "Dataset501_Toy"
    rng = np.random.default_rng(1)
    for part in ("imagesTr", "labelsTr"):
        (place / part).mkdir(parents=True)
    names = [f"case_{number}" for number in range(cases)]
    for name in names:
        image = ndimage.gaussian_filter(rng.normal(size=(16, 16, 16)), 2)
        label = (image > np.quantile(image, 0.7)).astype(np.uint8) + (image > np.quantile(image, 0.9))
        nib.save(
            nib.Nifti1Image((100 * image + 500).astype(np.float32), np.eye(4)),
            place / "imagesTr" / f"{name}_0000.nii.gz",
        )
        nib.save(nib.Nifti1Image(label.astype(np.uint8), np.eye(4)), place / "labelsTr" / f"{name}.nii.gz")
    dataset = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "outer": 1, "inner": 2}, "numTraining": cases}
    (place / "dataset.json").write_text(json.dumps({**dataset, "file_ending": ".nii.gz"}))
    folds = [{"train": names[2:], "val": names[:2]}, {"train": names[:2], "val": names[2:]}]
    (place / "splits_final.json").write_text(json.dumps(folds))
    (place / "tandem.json").write_text(json.dumps({"spec": "toy", "channels": ["mr"], "label_map": {"1": 3, "2": 8}}))
    return place


@pytest.fixture
def toy(tmp_path: Path) -> Callable[..., Model]:
    """Make a model and load it."""

    def make(**options: Any) -> Model:
        """A cascade's second stage lies beside its first one."""
        name = options.get("name", "3d_fullres")
        folder = write_model(tmp_path / f"TandemTrainer__nnUNetPlans__{name}", **options)
        return load_model(folder)

    return make
