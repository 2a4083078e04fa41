"""Where the fusion network meets evaluation and calibration: the logits of a fold, measures, fitted calibrations."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from scipy.special import softmax

from pipeline.calibration.base import Calibration
from pipeline.calibration.comparison import read_calibration
from pipeline.columns import csv_text
from pipeline.commands.arrays import write_array
from pipeline.commands.calibrate import Voxels, calibrate, chosen_voxels, summary, write_voxels
from pipeline.commands.evaluate import headline, read_models, write_evaluation
from pipeline.console import echo, plainly, track
from pipeline.errors import UsageError
from pipeline.evaluation.results import Settings
from pipeline.fusion.checkpoint_file import Network, Trained
from pipeline.fusion.predict import logits_of
from pipeline.fusion.tiles import TiledInferer
from pipeline.fusion.whole import WholeInferer, caveats
from pipeline.inference.engine import weights_sha256
from pipeline.learning.table import UNKNOWN, Row
from pipeline.store.artifacts import save
from pipeline.store.files import save_text
from pipeline.store.plain import write_json
from pipeline.volumes import affine_of, volume

Array = npt.NDArray[Any]
Inferer = TiledInferer | WholeInferer
CLASSES, VOXELS = "classes", "voxels"
#: The folder of whole logits.
LOGITS = "logits"
#: Which network's logits an evaluation holds (`outputs_of`).
OUTPUTS = "outputs.json"
#: What an evaluation writes into its folder, whichever heads the network has.
FILES = (
    *("class_logits.npy", "class_labels.npy", "class_cases.csv", "class_probabilities.npy"),
    *("voxel_logits.npy", "voxel_labels.npy", "voxel_cases.npy", "dice.csv", OUTPUTS),
)


def calibration_at(path: str, part: str, network: Network, inferer: Inferer) -> Calibration | None:
    """The calibration at a path; None where the path is empty.

    Args:
        path: what `calibrate.yaml` or `tandem calibrate` has written; the latter knows of no network.
        part: whose logits it is for: `classes` or `voxels`.
        network: whose.
        inferer: how they are made.

    Raises:
        UsageError: E_CAL_NETWORK when it was fitted on another output; E_CAL_FILE, E_CAL_METHOD, E_CAL_TRAINING.
    """
    return read_calibration(Path(path), outputs_of(network, inferer)[part]) if path else None


def outputs_of(network: Network, inferer: Inferer) -> dict[str, str]:
    """What logits a calibration is fitted on and made for, in words: of `classes` and of `voxels`."""
    name = f"the network {weights_sha256(network)[:12]}" + (", mirrored" if inferer.mirror else "")
    return {CLASSES: f"{CLASSES} of {name}, {inferer.describe_pooling()}", VOXELS: f"{VOXELS} of {name}"}


def files_of(paths: Sequence[str]) -> list[str]:
    """The paths that are not empty."""
    return [path for path in paths if path]


@dataclass
class Collected:
    """What the cases of a fold have given.

    Attributes:
        class_rows: case id, patient id, true class and class logits, where the class is known.
        voxel_rows: where there is a mask with foreground.
        overlap_rows: case id, label, Dice and IoU; None where neither the mask nor the prediction has the label.
    """

    class_rows: list[tuple[str, str, int, Array]] = field(default_factory=list)
    voxel_rows: list[Voxels] = field(default_factory=list)
    overlap_rows: list[tuple[str, int, float | None, float | None]] = field(default_factory=list)


class FoldEvaluation:
    """Predict the cases of a fold as the stage does, and say how good that is.

    Voxels are judged on the network's own grid (`spacing_mm` of the training), before the stage brings them back.

    Writes `class_logits.npy`, `class_labels.npy`, `class_cases.csv`, `class_probabilities.npy`; `voxel_logits.npy`,
    `voxel_labels.npy`, `voxel_cases.npy` (voxels within 10 mm of the foreground, as many of each case); `dice.csv`;
    `outputs.json` (which network's, so that calibrations know what they are for); and below `classes/` what
    `tandem evaluate classification` writes.

    Args:
        trained: the network.
        rows: the cases.
        read: makes a case of what a row names.
        inferer: as in the stage.
        output_dir: where to.
        resamples: of the bootstrap.
        report: whether `classes/` is written.
        keep_logits: whether `logits/` is written: of each case its voxel logits, and its mask on the same grid.
    """

    def __init__(
        self,
        trained: Trained,
        rows: Sequence[Row],
        read: Callable[[dict[str, Any]], dict[Any, Any]],
        inferer: Inferer,
        output_dir: str,
        resamples: int = 2000,
        report: bool = True,
        keep_logits: bool = False,
    ) -> None:
        self.keep_logits = keep_logits
        self.trained, self.rows, self.read, self.inferer = trained, rows, read, inferer
        self.folder, self.resamples, self.report = Path(output_dir), resamples, report

    @plainly()
    def run(self) -> None:
        """Evaluate.

        Raises:
            SystemExit: 2 when it cannot be; the message says why.
        """
        self._require_other_cases()
        self.inferer.check(self.trained.network)
        self._forget()
        found, random = Collected(), np.random.default_rng(0)
        for row in track(self.rows, len(self.rows), "fuse: evaluate"):
            self._collect(row, found, random)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / OUTPUTS, outputs_of(self.trained.network, self.inferer))
        if found.class_rows:
            self._write_classes(found.class_rows)
        if found.voxel_rows:
            self._write_voxels(found)

    def _forget(self) -> None:
        """Nothing of a former evaluation may stand beside this one's, as if it were of the same cases."""
        for path in (*(self.folder / name for name in FILES), *(self.folder / LOGITS).glob("*.nii.gz")):
            path.unlink(missing_ok=True)

    def _require_other_cases(self) -> None:
        seen = [row.case_id for row in self.rows if row.case_id in self.trained.training_cases]
        if seen:
            got = f"{len(seen)} that the network has learned from"
            raise UsageError("E_CAL_TRAINING", f"Expected cases of another fold, got {got}: {seen[0]}.")

    def _collect(self, row: Row, found: Collected, random: np.random.Generator) -> None:
        network, case = self.trained.network, self.read(row.item())
        logits = logits_of(case, network, self.inferer)
        if network.classes and row.label != UNKNOWN:
            found.class_rows.append((row.case_id, row.patient_id, row.label, logits[network.labels :, 0, 0, 0].numpy()))
        if not network.labels or not bool(case["mask_known"]):
            return
        voxels, truth = logits[: network.labels], case["mask"].as_tensor()[0]
        found.overlap_rows += [
            (row.case_id, label, *_overlap(voxels.argmax(0) == label, truth == label))
            for label in range(1, network.labels)
        ]
        if self.keep_logits:
            self._keep(row.case_id, volume(voxels, affine_of(case["image"])), case["mask"])
        chosen = torch.from_numpy(chosen_voxels(case["mask"], random))
        if len(chosen):
            values, labels = voxels.flatten(1)[:, chosen].T.numpy(), truth.flatten()[chosen].numpy()
            found.voxel_rows.append((row.case_id, values, labels))

    def _keep(self, case_id: str, logits: MetaTensor, mask: MetaTensor) -> None:
        folder = self.folder / LOGITS
        save(case_id, "image", logits, folder)
        save(f"{case_id}_mask", "label", mask, folder)

    def _write_classes(self, rows: Sequence[tuple[str, str, int, Array]]) -> None:
        logits = np.stack([logits for *_, logits in rows])
        paths = {name: self.folder / f"class_{name}.npy" for name in ("logits", "labels", "probabilities")}
        write_array(paths["logits"], logits)
        write_array(paths["labels"], np.array([label for _, _, label, _ in rows]))
        write_array(paths["probabilities"], softmax(logits.astype(np.float64), axis=1))
        cases = self.folder / "class_cases.csv"
        save_text(cases, csv_text([("case_id", "patient_id"), *(row[:2] for row in rows)]))
        if not self.report:
            return
        models = read_models([paths["probabilities"]], paths["labels"], cases, ["fusion network"], [])
        settings, said = Settings(resamples=self.resamples), caveats(self.trained.network)
        for found in write_evaluation(models, self.folder / CLASSES, settings, methods=said)[0]:
            echo(headline(found))

    def _write_voxels(self, found: Collected) -> None:
        write_voxels(found.voxel_rows, self.folder)
        save_text(self.folder / "dice.csv", csv_text([("case_id", "label", "dice", "iou"), *found.overlap_rows]))
        known = [(dice, iou) for *_, dice, iou in found.overlap_rows if dice is not None and iou is not None]
        if known:
            dice, iou = np.mean(known, 0)
            cases = len(found.voxel_rows)
            echo(f"Dice: mean {dice:.3f}, IoU: mean {iou:.3f} over {len(known)} labels of {cases} cases.")


class FoldCalibration:
    """Fit calibrations on what `FoldEvaluation` has written: `calibration_classes.json`, `calibration_voxels.json`.

    Args:
        output_dir: where the evaluation is, and where the calibrations go.
        method: a name of `METHODS`, or `recommended`.
        source: `validation` or `out_of_fold`.
        data: whose logits they are, in words; the files' names when empty.
        set_level: how often sets of classes may miss a case's true class; 0 for no sets.
    """

    def __init__(self, output_dir: str, method: str, source: str, data: str = "", set_level: float = 0) -> None:
        self.set_level = set_level or None
        self.folder, self.method, self.source, self.data = Path(output_dir), method, source, data

    @plainly()
    def run(self) -> None:
        """Fit, write, and say what was found.

        Raises:
            SystemExit: 2 when it cannot be; the message says why.
        """
        parts = {CLASSES: ("class", "class_cases.csv"), VOXELS: ("voxel", "voxel_cases.npy")}
        there = {name: part for name, part in parts.items() if (self.folder / f"{part[0]}_logits.npy").is_file()}
        if not there:
            what = f"Expected the logits of an evaluation in {self.folder}, got none."
            raise UsageError("E_TABLE", what, "Run evaluate.yaml first, or check --output_dir.")
        named = self.folder / OUTPUTS
        outputs = json.loads(named.read_text(encoding="utf-8")) if named.is_file() else {}
        for name, (prefix, cases) in there.items():
            logits, labels = (self.folder / f"{prefix}_{part}.npy" for part in ("logits", "labels"))
            out = self.folder / f"calibration_{name}.json"
            about = self.source, self.data, outputs.get(name, "")
            sets = self.set_level if name == CLASSES else None
            fitted = calibrate(logits, labels, out, self.method, self.folder / cases, None, *about, sets)
            echo(f"{name}: {summary(fitted)}")


def _overlap(predicted: torch.Tensor, truth: torch.Tensor) -> tuple[float, float] | tuple[None, None]:
    """Dice and IoU; None where neither mask has a voxel."""
    both, common = int(predicted.sum()) + int(truth.sum()), int((predicted & truth).sum())
    return (2 * common / both, common / (both - common)) if both else (None, None)
