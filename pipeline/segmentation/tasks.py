"""Planning and training as a bundle runs them: nnU-Net in a child process, folds one after the other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.console import echo, plainly, track
from pipeline.errors import UsageError
from pipeline.segmentation.splits import asked_folds, read_splits
from pipeline.segmentation.workspace import FOR_NEXT, Workspace, plans_name
from pipeline.store.files import save_text

OPTIMISERS = ("adamw", "sgd")
#: Beside a fold's checkpoints: the settings that it is trained with.
SETTINGS_FILE = "training.json"


@dataclass(frozen=True)
class TrainingSettings:
    """How long and how a network learns.

    Attributes:
        epochs: of them, after each of which there is a checkpoint.
        iterations: steps in an epoch.
        val_iterations: batches of the held-out cases in an epoch, for the pseudo Dice.
        optimizer: `adamw` or `sgd` (nnU-Net's, with a momentum of .99: it needs thousands of steps).
        rate: the learning rate at the beginning.
        weight_decay: of the optimiser.
        mirror_axes: of (z, y, x), along which it is shown mirror images; None: all, as nnU-Net does; empty: none.
        bfloat16: count in bfloat16 on a processor.
        seed: of the weights and all draws; with one thread and process two trainings give the same weights.

    Raises:
        UsageError: E_CONFIG for a number or a name that cannot be.
    """

    epochs: int = 1000
    iterations: int = 250
    val_iterations: int = 50
    optimizer: str = "sgd"
    rate: float = 0.01
    weight_decay: float = 3e-5
    mirror_axes: tuple[int, ...] | None = None
    bfloat16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.iterations, self.val_iterations) < 1 or not self.rate > 0 or self.seed < 0:
            got = f"{self.epochs}, {self.iterations}, {self.val_iterations}, a rate of {self.rate:g}, seed {self.seed}"
            raise UsageError("E_CONFIG", f"Expected epochs, iterations and a rate above 0, got {got}.")
        if self.optimizer not in OPTIMISERS:
            raise UsageError("E_CONFIG", f"Expected {' or '.join(OPTIMISERS)} as the optimizer, got {self.optimizer}.")
        if not {*(self.mirror_axes or ())} <= {0, 1, 2}:
            raise UsageError("E_CONFIG", f"Expected mirror axes out of 0, 1, 2 (z, y, x), got {self.mirror_axes}.")


class Planning:
    """Plan and preprocess a raw data set.

    Args:
        dataset_dir: `DatasetXXX_Name`, as `tandem convert nnunet` writes it.
        output_dir: takes `preprocessed/` and `results/`.
        preset: see `pipeline.segmentation.workspace.PLANS`.
        network: `unet`, `dynunet`, `segresnet`.
        configurations: those of them that the plans have are preprocessed.
        patch: voxels (z, y, x) in the place of the planned ones; empty: the planned ones.
        batch: patches a step; 0: as planned.
        pretrained: with the preset `pretrained`: the model whose plans are moved here.
        processes: that nnU-Net may spawn.
        threads: of each.
    """

    def __init__(  # noqa: PLR0913 - each is one line of plan.yaml
        self,
        dataset_dir: str,
        output_dir: str,
        preset: str = "default",
        network: str = "unet",
        configurations: Sequence[str] = ("3d_fullres",),
        patch: Sequence[int] = (),
        batch: int = 0,
        pretrained: str = "",
        processes: int = 1,
        threads: int = 1,
    ) -> None:
        self.workspace = Workspace(Path(dataset_dir), Path(output_dir), processes, threads)
        self.plans = plans_name(preset, network)
        if (preset == "pretrained") != bool(pretrained):
            what = "Expected a pretrained model with the preset pretrained, and with no other"
            raise UsageError("E_CONFIG", f"{what}, got {preset} and {pretrained or 'none'}.")
        self.arguments: dict[str, Any] = {
            **{"plans": self.plans, "preset": preset, "network": network, "configurations": list(configurations)},
            **{"patch": list(patch), "batch": batch, "pretrained": _whole(pretrained), "processes": processes},
        }

    @plainly()
    def run(self) -> None:
        """Plan.

        Raises:
            SystemExit: 2 when it cannot be; the message says why.
        """
        there = self.workspace.call("plan", **self.arguments)
        echo(f"Plans {self.plans}: {', '.join(there)}.")


class Training:
    """Train folds of a configuration, one after the other; a second run goes on where the first was broken off.

    Args:
        dataset_dir: as for `Planning`.
        output_dir: likewise.
        preset: likewise.
        network: likewise.
        configuration: what is trained.
        folds: numbers, or `all` for all cases without a held-out one.
        settings: how.
        pretrained: a model whose weights it starts from, but for the last layers.
        resume: false: train anew, whatever is there.
        device: `cpu` or `cuda`.
        processes: that draw and augment batches; 1: the training's own.
        threads: of the training.
    """

    def __init__(  # noqa: PLR0913 - each is one line of train.yaml
        self,
        dataset_dir: str,
        output_dir: str,
        settings: TrainingSettings,
        preset: str = "default",
        network: str = "unet",
        configuration: str = "3d_fullres",
        folds: Sequence[int | str] | None = None,
        pretrained: str = "",
        resume: bool = True,
        device: str = "cpu",
        processes: int = 1,
        threads: int = 1,
    ) -> None:
        self.workspace = Workspace(Path(dataset_dir), Path(output_dir), processes, threads)
        self.plans, self.configuration = plans_name(preset, network), configuration
        self.settings, self.pretrained, self.resume, self.device = settings, pretrained, resume, device
        plans = self.workspace.preprocessed / f"{self.plans}.json"
        if not plans.is_file():
            what = f"Expected the plans {self.plans} in {output_dir}, got none."
            raise UsageError("E_INPUT", what, "Run plan.yaml with the same preset and network first.")
        self.first = self._first_stage(json.loads(plans.read_text(encoding="utf-8"))["configurations"])
        self.folds = asked_folds(read_splits(self.workspace.preprocessed), folds)

    def _first_stage(self, planned: dict[str, Any]) -> dict[str, str]:
        """Fold -> by which checkpoint the first stage of a cascade has predicted it; empty for what is no second one.

        Raises:
            UsageError: E_CONFIG, E_INPUT.
        """
        if self.configuration not in planned:
            what = f"Expected a configuration that the plans have ({', '.join(planned)}), got {self.configuration}."
            raise UsageError("E_CONFIG", what, "nnU-Net plans 3d_lowres and a cascade for large images alone.")
        if not (before := planned[self.configuration].get("previous_stage")):
            return {}
        folds = range(len(read_splits(self.workspace.preprocessed)))
        files = {str(fold): self.workspace.model(self.plans, before) / f"fold_{fold}" / FOR_NEXT for fold in folds}
        if left := [fold for fold, path in files.items() if not path.is_file()]:
            what = f"Expected what {self.configuration} learns from, the predictions of each fold of {before}"
            remedy = f"Train all folds with --configuration {before} first; of what is trained it makes these alone."
            raise UsageError("E_INPUT", f"{what}, got none of {', '.join(left)}.", remedy)
        return {fold: path.read_text(encoding="utf-8").strip() for fold, path in files.items()}

    @plainly()
    def run(self) -> None:
        """Train.

        Raises:
            SystemExit: 2 when it cannot be; the message says why.
        """
        settings = asdict(self.settings)
        about = {"plans": self.plans, "configuration": self.configuration, "device": self.device}
        kept = settings | ({"first_stage": self.first} if self.first else {})
        for fold in track(self.folds, len(self.folds), f"segment: train {self.configuration}"):
            self._keep(fold, kept)
            how = self.workspace.call("train", settings, fold=fold, pretrained=_whole(self.pretrained), **about)
            echo(f"Fold {fold} {how}.")

    def _keep(self, fold: int | str, settings: dict[str, object]) -> None:
        """Keep the settings beside the fold; one that was begun with others is not gone on with.

        Raises:
            UsageError: E_CHECKPOINT.
        """
        path = self.workspace.model(self.plans, self.configuration) / f"fold_{fold}" / SETTINGS_FILE
        text = json.dumps(settings, indent=2) + "\n"
        if self.resume and path.is_file() and path.read_text(encoding="utf-8") != text:
            what = f"Expected the settings that fold {fold} was begun with, got others."
            raise UsageError("E_CHECKPOINT", what, f"See {SETTINGS_FILE} beside its checkpoints, or set resume: false.")
        if not self.resume:
            shutil.rmtree(path.parent, ignore_errors=True)
        save_text(path, text)


def _whole(path: str) -> str:
    """A path that holds in any working folder; empty where there is none."""
    return str(path and Path(path).resolve())
