"""Methods of image fusion judged on a table of pairs: tables, charts, and what each method takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import ndimage

from pipeline.cases import Document
from pipeline.console import echo, track
from pipeline.errors import CaseError
from pipeline.evaluation.results import Settings
from pipeline.evaluation.segmentation import mean_over_cases
from pipeline.image_fusion.judging import Judge, Judged, Shown
from pipeline.image_fusion.metrics import MEASURES
from pipeline.image_fusion.pair import SHOWN
from pipeline.image_fusion.weights import Trained, load_trained
from pipeline.learning.table import Row, read_table
from pipeline.report.fusion_charts import Mean, correlation_chart, measures_chart, pictures_chart
from pipeline.spec.stages import NETWORK
from pipeline.store.artifacts import save
from pipeline.store.files import writable_folder
from pipeline.words import counted

ATTENTION = "attention_visualization"
NO_NETWORK = f"No network was judged: there is no {ATTENTION}.png."
FEW = "Intervals resample patients; those of fewer than ten say little."


@dataclass(frozen=True)
class FusionEvaluation:
    """What `evaluate.yaml` runs.

    Attributes:
        table: of the pairs: case_id, patient_id, a column for each modality and each image fused elsewhere.
        judge: methods and windows.
        output_dir: takes the tables and charts.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """

    table: Path
    judge: Judge
    output_dir: Path
    resamples: int = 2000
    seed: int = 0

    def run(self) -> list[Judged]:
        """Judge all pairs, and write what was found; a pair that cannot be judged is named, and left out everywhere.

        Raises:
            UsageError: E_TABLE, E_CASE_ID, E_OPTION, E_OUT.
            CaseError: that of the first pair, where none can be judged.
        """
        rows = read_table(self.table, [*self.judge.modalities, *self.judge.fused], 0)
        folder = writable_folder(Path(self.output_dir))
        found, failures, shown = self._judged(rows)
        notes = self._notes(found, failures)
        summary = self._summary(found)
        patients = len({item.patient_id for item in found})
        said = f"{counted(len({item.case_id for item in found}), 'pair')} of {counted(patients, 'patient')}"
        about = {"said": said, "pairs": len({item.case_id for item in found}), "patients": patients, "notes": notes}
        save("detailed_metrics", "table", pd.DataFrame(map(_detailed, found)), folder)
        save("performance_benchmark", "table", pd.DataFrame(_benchmark(found)), folder)
        told = {**about, "failed": failures, "measures": MEASURES, "methods": summary}
        save("summary_statistics", "measure", told, folder)
        self._draw(folder, found, summary, shown, said)
        for line in (said, *notes):
            echo(line)
        return found

    def _judged(self, rows: Sequence[Row]) -> tuple[list[Judged], dict[str, str], Shown]:
        found: list[Judged] = []
        failures: dict[str, CaseError] = {}
        shown = None
        for number, row in enumerate(track(rows, len(rows), "judge")):
            try:
                judged, pictures = self.judge.judge(row)
            except CaseError as error:
                failures[row.case_id] = error
                echo(f"{row.case_id}: {error}")
                continue
            found += judged
            if shown is None or number <= len(rows) // 2:  # the middle of a head shows more than its top
                shown = pictures
        if shown is None:
            raise next(iter(failures.values()))
        return found, {name: str(error) for name, error in failures.items()}, shown

    def _summary(self, found: Sequence[Judged]) -> dict[str, dict[str, Any]]:
        """Method -> measure -> mean with its interval by patients."""
        settings = Settings(resamples=self.resamples, seed=self.seed)
        summary: dict[str, dict[str, Any]] = {}
        for method in dict.fromkeys(item.method for item in found):
            own = [item for item in found if item.method == method]
            patients = [item.patient_id for item in own]
            summary[method] = {"pairs": len(own), "patients": len(set(patients))}
            for name in MEASURES:
                values = np.asarray([item.measures[name] for item in own], dtype=np.float64)
                estimate = asdict(mean_over_cases(name, values, patients, settings))
                summary[method][name] = {"mean": estimate.pop("value")} | {
                    key: estimate[key] for key in ("low", "high", "method", "note")
                }
        return summary

    def _notes(self, found: Sequence[Judged], failures: dict[str, str]) -> list[str]:
        notes = [f"{counted(len(failures), 'pair')} could not be judged."] if failures else []
        if len({item.patient_id for item in found}) < 10:
            notes.append(FEW)
        if (trained := self.judge.trained) is None:
            return [*notes, NO_NETWORK]
        if pairs := self._learned(found):
            notes.append(f"The network has learned from {pairs} named like these: its figures there are no judgement.")
        if trained.preparation.learned_measures:
            notes.append(f"The network was trained on {', '.join(trained.preparation.learned_measures)}.")
        return notes

    def _learned(self, found: Sequence[Judged]) -> str:
        """How many of the pairs the network has learned from; empty for none."""
        known = set(self.judge.trained.training_cases) if self.judge.trained else set()
        seen = {item.case_id for item in found} & known
        return counted(len(seen), "pair") if seen else ""

    def _draw(self, folder: Path, found: list[Judged], summary: dict[str, Any], shown: Shown, said: str) -> None:
        means = {name: {method: _mean(values[name]) for method, values in summary.items()} for name in SHOWN}
        told = {
            name: values for name, values in means.items() if any(np.isfinite(mean) for mean, *_ in values.values())
        }
        learned = self._learned(found)
        beside = f"; {NETWORK} has learned from {learned}" if learned else ""
        chart = measures_chart(told, f"Means over {said}, 95 % intervals by patient{beside}")
        _save_chart("performance_analysis", chart, folder)
        names, matrix = _correlations(found)
        chart = correlation_chart(names, matrix, f"Correlation of measures, {said}")
        _save_chart("correlation_matrix", chart, folder)
        edges = {name: _edges(image) for name, image in shown.images.items()}
        kept = {item.method: f"Qabf {item.measures['Qabf']:.2f}" for item in found if item.case_id == shown.case_id}
        title = f"{shown.case_id}: pictures, and the size of their gradients"
        _save_chart("edge_analysis", pictures_chart([shown.images, edges], kept, title), folder)
        (folder / f"{ATTENTION}.png").unlink(missing_ok=True)  # no former network's may stand beside this evaluation's
        if shown.inside:
            own = {name: shown.images[name] for name in ("CT", "MR", NETWORK)} | dict(shown.inside)
            text = f"{shown.case_id}: what the network makes of it, and where it looks"
            _save_chart(ATTENTION, pictures_chart([own], {}, text, across=7), folder)


def fusion_evaluation(  # noqa: PLR0913 - each is a key of the configuration
    table: str,
    output_dir: str,
    modalities: Sequence[str],
    methods: Sequence[str],
    fused: Sequence[str] = (),
    windows: Sequence[Sequence[float]] = (),
    weights: str = "",
    weights_sha256: str = "",
    device: str | torch.device = "cpu",
    **settings: int,
) -> FusionEvaluation:
    """An evaluation from plain values, as `evaluate.yaml` has them.

    Raises:
        UsageError: E_OPTION for a method that there is not; E_WEIGHTS, E_CHECKPOINT for weights that are none.
    """
    trained: Trained | None = load_trained(weights, device, weights_sha256) if weights else None
    judge = Judge(tuple(modalities), tuple(methods), tuple(fused), tuple(windows), trained)
    return FusionEvaluation(Path(table), judge, Path(output_dir), **settings)


def _mean(values: dict[str, Any]) -> Mean:
    return (np.nan if values["mean"] is None else values["mean"], values["low"], values["high"])


def _correlations(found: Sequence[Judged]) -> tuple[list[str], Any]:
    """Over all pairs and methods; measures that are the same everywhere, or known of fewer than three, are left out."""
    values = pd.DataFrame([item.measures for item in found], columns=list(MEASURES), dtype=np.float64)
    known = values.where(np.isfinite(values))
    varying = [name for name in MEASURES if known[name].count() > 2 and known[name].nunique() > 1]
    return varying, known[varying].corr(min_periods=3).to_numpy()


def _edges(image: Any) -> Any:
    return np.hypot(ndimage.sobel(image, 0), ndimage.sobel(image, 1)) / 4


def _detailed(item: Judged) -> dict[str, Any]:
    return {"case_id": item.case_id, "patient_id": item.patient_id, "method": item.method, **item.measures}


def _benchmark(found: Sequence[Judged]) -> list[dict[str, Any]]:
    """What each method takes a pair: medians of seconds and speed, the largest memory; empty where nobody counts."""
    rows = []
    for method in dict.fromkeys(item.method for item in found):
        own = [item for item in found if item.method == method]
        costs = [(item.cost, item.voxels) for item in own if item.cost is not None]
        memory = [cost.memory_mb for cost, _ in costs if cost.memory_mb is not None]
        speeds = [voxels / cost.seconds / 1e6 for cost, voxels in costs]
        rows.append(
            {
                "method": method,
                "pairs": len(own),
                "seconds": f"{np.median([cost.seconds for cost, _ in costs]):.4g}" if costs else "",
                "mvoxel_per_s": f"{np.median(speeds):.4g}" if costs else "",
                "memory_mb": f"{max(memory):.4g}" if memory else "",
            }
        )
    return rows


def _save_chart(name: str, png: bytes, folder: Path) -> None:
    save(name, "document", Document(".png", png), folder)
