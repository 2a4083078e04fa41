"""Judge a trained model out of fold: each case by the network that has not seen it; calibration and best model."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.commands.calibrate import Voxels, calibrate, chosen_voxels, summary, write_voxels
from pipeline.commands.evaluate_segmentation import evaluate_segmentation, show
from pipeline.commands.segment import output_of
from pipeline.console import echo, plainly, track
from pipeline.errors import UsageError
from pipeline.nifti.volume import read_argument
from pipeline.segmentation.model import Model, load_model
from pipeline.segmentation.predict import Predictor
from pipeline.segmentation.splits import held_out_folds, read_splits
from pipeline.segmentation.stage import from_network, to_network
from pipeline.segmentation.weights import CHECKPOINT, FOUND, describe
from pipeline.segmentation.workspace import TANDEM, Workspace, plans_name
from pipeline.store.artifacts import save
from pipeline.store.files import save_text, write_atomic, write_text
from pipeline.volumes import affine_of, volume

#: Beside a fold's predictions: which network made them, and how.
ABOUT = "made_by.json"
#: Beside the folder of a fold's predictions, in which nnU-Net takes every npz file for probabilities.
ROWS = "validation_rows"
CALIBRATION = FOUND[0]


@dataclass(frozen=True)
class Case:
    """A held-out case: its name, images in the order of the channels, and its labels."""

    name: str
    images: tuple[Path, ...]
    labels: Path


class OutOfFold:
    """Predict the held-out cases of every fold, judge them, and give the model what was learned of it.

    Writes into the model's folder of each configuration `fold_k/validation/` (nnU-Net's layout) and `out_of_fold/`:
    label images; and in `evaluation/` what `tandem evaluate segmentation` writes. With `method`, `calibration.json`;
    with `find_best`, nnU-Net's `postprocessing.json` for the best model. A second run predicts what is missing.

    Args:
        dataset_dir: the raw data set, as for plan.yaml.
        output_dir: as for plan.yaml.
        preset: as for plan.yaml.
        network: as for plan.yaml.
        configurations: trained ones.
        folds: of each; the numbers of those that were trained; None: all that the data set has.
        step: of the tiles.
        mirroring: as in inference.yaml.
        engine: likewise.
        bfloat16: likewise.
        device: where the networks are.
        method: of the calibration; empty: none.
        find_best: let nnU-Net find the best configuration and its postprocessing.
        processes: that it may spawn for that.
    """

    def __init__(  # noqa: PLR0913 - each is one line of evaluate.yaml
        self,
        dataset_dir: str,
        output_dir: str,
        preset: str = "default",
        network: str = "unet",
        configurations: Sequence[str] = ("3d_fullres",),
        folds: Sequence[int] | None = None,
        step: float = 0.5,
        mirroring: bool = True,
        engine: str = "torch",
        bfloat16: bool = False,
        device: str | torch.device = "cpu",
        method: str = "temperature",
        find_best: bool = True,
        processes: int = 1,
    ) -> None:
        self.workspace = Workspace(Path(dataset_dir), Path(output_dir), processes)
        self.plans, self.configurations = plans_name(preset, network), list(configurations)
        self.settings: dict[str, Any] = {"step": step, "mirror": mirroring, "engine": engine, "bfloat16": bfloat16}
        self.device, self.method, self.find_best = device, method, find_best
        self.ensembles = find_best and len(self.configurations) > 1
        self.splits = read_splits(self.workspace.dataset)
        self.folds = held_out_folds(self.splits, folds)
        for name in self.configurations:
            self._require_trained(name)

    def _require_trained(self, name: str) -> None:
        folder = self.workspace.model(self.plans, name)
        missing = [str(fold) for fold in self.folds if not (folder / f"fold_{fold}" / CHECKPOINT).is_file()]
        if missing:
            what = f"Expected {name} to be trained in its folds {', '.join(map(str, self.folds))}, got none of "
            remedy = "Run train.yaml with the same preset, network and output folder first, or name the trained folds."
            raise UsageError("E_INPUT", f"{what}{', '.join(missing)}.", remedy)

    @plainly()
    def run(self) -> None:
        """Predict and judge.

        Raises:
            SystemExit: 2 when it cannot be; the message says why.
        """
        for configuration in self.configurations:
            self._judge(self.workspace.model(self.plans, configuration))
        if self.find_best:
            models = [[self.plans, name] for name in self.configurations]
            arguments: dict[str, Any] = {"folds": self.folds, "processes": self.workspace.processes}
            arguments["ensembles"] = self.ensembles
            found = self.workspace.call("best", models=models, **arguments)
            echo(f"Best: {' with '.join(found['models'])}, Dice {found['dice']['post_pp']:.4f} after postprocessing.")

    def _judge(self, folder: Path) -> None:
        rows: list[Voxels] = []
        merged = folder / "out_of_fold"
        merged.mkdir(parents=True, exist_ok=True)
        for path in merged.glob("*.nii.gz"):
            path.unlink()
        for fold in self.folds:
            model = load_model(folder, [fold], self.device)
            rows += list(self._fold(folder, fold, model))
            for path in (folder / f"fold_{fold}" / "validation").glob("*.nii.gz"):
                (merged / path.name).symlink_to(Path("..", f"fold_{fold}", "validation", path.name))
        table, truth = self.workspace.dataset / "cases.csv", self._truth(merged)
        cases = table if table.is_file() else None
        show(evaluate_segmentation([merged], truth, folder / "evaluation", cases=cases), folder / "evaluation")
        if self.method and rows:
            self._calibrate(folder, rows)

    def _truth(self, merged: Path) -> Path:
        """The true labels of the cases that were predicted: a folder of copies beside them."""
        folder = merged.with_name("truth")
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        for path in merged.glob("*.nii.gz"):
            shutil.copyfile(self.workspace.dataset / "labelsTr" / path.name, folder / path.name)
        write_text(folder / "dataset.json", (self.workspace.dataset / "dataset.json").read_text(encoding="utf-8"))
        return folder

    def _fold(self, folder: Path, fold: int, model: Model) -> Iterator[Voxels]:
        """Predict what is missing of a fold; of each case some voxels' log-probabilities and true labels."""
        place = folder / f"fold_{fold}" / "validation"
        about = json.dumps({"weights": model.digests, **self.settings}, indent=2) + "\n"
        if not (place / ABOUT).is_file() or (place / ABOUT).read_text(encoding="utf-8") != about:
            for path in (*place.glob("*"), *place.with_name(ROWS).glob("*")):
                path.unlink()
            save_text(place / ABOUT, about)
        predictor = Predictor(model, **self.settings)
        random = np.random.default_rng(fold)
        for case in track(self._cases(fold), len(self.splits[fold]["val"]), f"segment: fold {fold}"):
            wanted = [place / f"{case.name}.nii.gz", rows := place.with_name(ROWS) / f"{case.name}.npz"]
            wanted += [place / f"{case.name}.npz"] if self.ensembles else []
            if not all(path.is_file() for path in wanted):
                self._predict(case, predictor, place, random)
            held = np.load(rows)
            if len(held["labels"]):
                yield case.name, held["logits"], held["labels"]

    def _predict(self, case: Case, predictor: Predictor, place: Path, random: np.random.Generator) -> None:
        model, images = predictor.model, [read_argument(path) for path in case.images]
        affine = affine_of(images[0])
        stack = np.concatenate([np.asarray(image.numpy(), dtype=np.float32) for image in images])
        array, spacing = to_network(stack, affine, model.orientation)
        found = predictor(array, spacing, probabilities=True)
        chances = np.asarray(found.probabilities)
        truth = read_argument(case.labels)
        shown = from_network(chances, affine, model.orientation)
        few = np.empty(0, np.intp) if model.labels.has_regions else chosen_voxels(truth, random)
        logits = np.log(np.clip(shown.reshape(len(shown), -1)[:, few].T, np.finfo(np.float32).tiny, None))
        labels = truth.numpy().reshape(-1)[few].astype(np.int64)
        known = labels < len(shown)  # not what is to be ignored
        rows = place.with_name(ROWS) / f"{case.name}.npz"
        write_atomic(rows, lambda path: np.savez(path, logits=logits[known], labels=labels[known]))
        if self.ensembles:
            self._for_ensembles(case, model, chances, place)
        save(case.name, "label", volume(from_network(found.labels[None], affine, model.orientation), affine), place)

    def _for_ensembles(self, case: Case, model: Model, chances: npt.NDArray[Any], place: Path) -> None:
        """What nnU-Net averages: probabilities and the properties with which it writes an image, in its own formats."""
        _, properties = model.plans.image_reader_writer_class().read_images([str(path) for path in case.images])
        write_atomic(place / f"{case.name}.npz", lambda path: np.savez_compressed(path, probabilities=chances))
        write_atomic(place / f"{case.name}.pkl", lambda path: path.write_bytes(pickle.dumps(properties)))

    def _cases(self, fold: int) -> Iterator[Case]:
        for name in self.splits[fold]["val"]:
            images = tuple(sorted((self.workspace.dataset / "imagesTr").glob(f"{name}_[0-9][0-9][0-9][0-9].nii.gz")))
            yield Case(name, images, self.workspace.dataset / "labelsTr" / f"{name}.nii.gz")

    def _calibrate(self, folder: Path, rows: Sequence[Voxels]) -> None:
        """Fit on the held-out voxels near the foreground, and keep the calibration with the model."""
        logits, labels, cases = write_voxels(rows, folder / "evaluation")
        data = f"out-of-fold voxels of {self.workspace.dataset.name}"
        output = output_of(load_model(folder, self.folds))
        out = folder / CALIBRATION
        fitted = calibrate(logits, labels, out, self.method, cases, None, "out_of_fold", data, output)
        echo(summary(fitted))
        about = json.loads((folder / TANDEM).read_text(encoding="utf-8"))
        describe(folder, {**about, "calibration": CALIBRATION})
