"""nnU-Net's trainer with settings, for `nnUNet_extTrainer`: optimiser, length, mirror axes, precision, seed."""

from __future__ import annotations

import json
import os
import random
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from pipeline.errors import UsageError
from pipeline.segmentation.splits import ALL
from pipeline.segmentation.weights import CHECKPOINT
from pipeline.segmentation.workspace import FOR_NEXT, SETTINGS, next_stages
from pipeline.store.files import sha256_file

#: Of the environment: folders, which a log does not name.
FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "nnUNet_extTrainer")
#: Of features, for bfloat16 on a processor: of shorter ones oneDNN 3 counts the gradients of convolutions wrongly on
#: processors with AVX-512, up to infinity, and writes beside its memory. nnU-Net's own plans have 4 and more.
LEAST_SIDE = 3


class TandemTrainer(nnUNetTrainer):
    """nnU-Net's training with the settings of `train.yaml`; every epoch leaves a checkpoint from which it can go on.

    Each epoch has a seed of its own: a training that was broken off ends where an unbroken one does.
    """

    output_folder: str

    def __init__(
        self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: torch.device | None = None
    ) -> None:
        self.settings: dict[str, Any] = json.loads(os.environ[SETTINGS])
        self._seed(-1)
        super().__init__(plans, configuration, fold, dataset_json, device or torch.device("cpu"))
        self.num_epochs, self.num_iterations_per_epoch = self.settings["epochs"], self.settings["iterations"]
        self.num_val_iterations_per_epoch = self.settings["val_iterations"]
        self.initial_lr, self.weight_decay = self.settings["rate"], self.settings["weight_decay"]
        self.save_every = 1
        # MONAI's networks give one output
        self.enable_deep_supervision = "twins" not in self.configuration_manager.network_arch_class_name
        self._require_sides()

    def _require_sides(self) -> None:
        """Raise E_CONFIG where the deepest features are too small for bfloat16 on a processor."""
        strides = self.configuration_manager.network_arch_init_kwargs["strides"]
        sides = np.asarray(self.configuration_manager.patch_size) // np.prod(strides, 0)
        if self.settings["bfloat16"] and self.device.type == "cpu" and sides.min() < LEAST_SIDE:
            least, found = f"{LEAST_SIDE} voxels a side", " x ".join(map(str, sides))
            what = f"Expected {least} or more at the deepest level for bfloat16 on a processor, got {found}"
            raise UsageError("E_CONFIG", f"{what}: give a larger patch, or bfloat16: false.")

    def _seed(self, epoch: int) -> None:
        seed = (self.settings["seed"] * 100_003 + epoch + 1) % 2**32
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)

    def configure_optimizers(self) -> Any:
        """AdamW, or nnU-Net's SGD with a momentum of .99; nnU-Net's schedule for both."""
        if self.settings["optimizer"] == "sgd":
            return super().configure_optimizers()
        optimizer = torch.optim.AdamW(self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Any:  # noqa: N802 - nnU-Net's name
        """nnU-Net's, but for the mirror axes where the settings have them."""
        found = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        axes = self.settings["mirror_axes"]
        if axes is None:
            return found
        self.inference_allowed_mirroring_axes = tuple(axes) or None  # nnU-Net's prediction fails with an empty one
        return (*found[:3], tuple(axes))

    def on_epoch_start(self) -> None:
        """Draw this epoch's numbers from its own seed."""
        self._seed(self.current_epoch)
        super().on_epoch_start()

    def train_step(self, batch: dict) -> dict:
        """One step.

        Raises:
            UsageError: E_NAN_LOSS with the batch's cases; the checkpoint of the last epoch stays.
        """
        with self._precision():
            found: dict = super().train_step(batch)
        if not np.isfinite(found["loss"]):
            cases = ", ".join(dict.fromkeys(map(str, batch["keys"])))
            raise UsageError("E_NAN_LOSS", f"Expected a finite loss, got {found['loss']} on the cases {cases}.")
        return found

    def validation_step(self, batch: dict) -> dict:
        """One step of the pseudo Dice."""
        with self._precision():
            found: dict = super().validation_step(batch)
        return found

    def _precision(self) -> AbstractContextManager[Any]:
        short = self.settings["bfloat16"] and self.device.type == "cpu"
        return torch.autocast("cpu", torch.bfloat16) if short else nullcontext()

    def save_checkpoint(self, filename: str) -> None:
        """Write a checkpoint that is whole or not there: a training may be killed while it writes."""
        unfinished = f"{filename}.tmp"
        super().save_checkpoint(unfinished)
        if Path(unfinished).is_file():
            Path(unfinished).replace(filename)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Nothing to do for a network of one output."""
        if self.enable_deep_supervision:
            super().set_deep_supervision_enabled(enabled)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """What a cascade's second stage learns from; else evaluate.yaml predicts out of fold, without pools.

        Raises:
            UsageError: E_INPUT for cases that are not preprocessed for the second stage.
        """
        stages = next_stages(self.plans_manager, self.configuration_name, self.preprocessed_dataset_folder_base)
        if not stages or self.fold == ALL:
            return
        self.inference_allowed_mirroring_axes = self.inference_allowed_mirroring_axes or None  # of a checkpoint
        folder = Path(self.output_folder)
        with TemporaryDirectory(dir=folder) as place:
            self.output_folder = place  # takes labels that evaluate.yaml predicts itself, and a summary with folders
            try:
                super().perform_actual_validation(save_probabilities)
            finally:
                self.output_folder = str(folder)
        left = {(path.parent.name, path.stem) for path in folder.parent.glob("predicted_next_stage/*/*")}
        missing = [case for case in self.do_split()[1] for stage in stages if (stage, case) not in left]
        if missing:
            what = f"Expected cases that are preprocessed for {', '.join(stages)}, got none of {', '.join(missing)}."
            raise UsageError("E_INPUT", what, "Run plan.yaml again, with both stages among its configurations.")
        (folder / FOR_NEXT).write_text(sha256_file(folder / CHECKPOINT) + "\n", encoding="utf-8")

    def print_to_log_file(self, *args: Any, also_print_to_console: bool = True, add_timestamp: bool = True) -> None:
        """Log without the machine's folders."""
        words = []
        for item in args:
            text = str(item)
            for name in FOLDERS:
                text = text.replace(os.environ.get(name) or "\0", name)
            words.append(text)
        super().print_to_log_file(*words, also_print_to_console=also_print_to_console, add_timestamp=add_timestamp)

    def _save_debug_information(self) -> None:
        """Nothing: it names the machine's folders."""

    def plot_network_architecture(self) -> None:
        """Nothing: what would draw it no longer works."""
