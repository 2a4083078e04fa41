"""Segmentations compared, the whole path on small simulated cases: trials, held-out measures, temperature, report."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pymupdf
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.metrics import f1_score

from benchmarks.segmentation_comparison import (
    SegmentationComparison,
    cases_in,
    compare_segmentations,
    read_kept,
    voxel_logits,
)
from benchmarks.segmentation_report import dice_chart, example_chart, markdown, tables_of, write_report
from pipeline.comparison.classification import judged_folders
from pipeline.comparison.trials import EVALUATION, Protocol, Trial, Variant, run_trials, trials_of
from pipeline.errors import UsageError
from pipeline.evaluation.results import Settings
from pipeline.report.segmentation import SegmentationContent
from tests.phantoms.mechanism_files import write_mechanism_cases

FOLDS = (0, 1)
EARLY = Variant("early", ("early",), {"network_def::width": 6})
CT = Variant("ct", ("ct_only",), {"network_def::width": 6})
NEVER = Variant("never trained", ("late",))
SETTINGS = Settings(resamples=500)
FAMILIES = {"Fusion": [("early", "ct")]}


@pytest.fixture(scope="module")
def protocol(tmp_path_factory: pytest.TempPathFactory) -> Protocol:
    """Two variants on two folds of six patients with a mask."""
    folder = tmp_path_factory.mktemp("sts")
    write_mechanism_cases(folder / "data", "additive", 12, seed=3)
    settings = {
        "dataset_dir": str(folder / "data"),
        "classes": 0,
        "folds": 2,
        "patch": [16, 16, 16],
        "network_def::levels": 3,
        "network_def::deep": 0,
        "ct_window": [140, 800],
        "max_epochs": 3,
        "val_interval": 3,
        "warmup": 1,
        "rate": 0.01,
        "cache_rate": 1.0,
        "device": "cpu",
    }
    protocol = Protocol(folder / "out", settings, {EVALUATION: {"keep_logits": True}}, calibration="")
    records = run_trials(protocol, trials_of([EARLY, CT], [0], FOLDS))
    assert [record["status"] for record in records] == ["done"] * 4, records
    return protocol


@pytest.fixture(scope="module")
def patients(protocol: Protocol) -> dict[str, str]:
    with (Path(protocol.settings["dataset_dir"]) / "cases.csv").open(newline="") as stream:
        return {row["case_id"]: row["patient_id"] for row in csv.DictReader(stream)}


@pytest.fixture(scope="module")
def found(protocol: Protocol, patients: dict[str, str]) -> SegmentationComparison:
    return compare_segmentations(protocol, [EARLY, CT, NEVER], FOLDS, FAMILIES, 1.0, patients, SETTINGS)


def folders_of(protocol: Protocol, variant: Variant) -> list[Path]:
    return judged_folders(protocol, [Trial(variant, 0, fold) for fold in FOLDS])


def test_every_case_is_judged_once_and_dice_is_that_of_its_logits(
    protocol: Protocol, found: SegmentationComparison
) -> None:
    early = found.variants[0]
    expected = {}
    for folder in folders_of(protocol, EARLY):
        for case_id in cases_in(folder):
            logits, mask = read_kept(folder, case_id)
            predicted = logits.numpy()[1] > logits.numpy()[0]
            expected[case_id] = f1_score(mask.numpy().ravel() > 0, predicted.ravel(), zero_division=0)
    assert len(expected) == 12
    assert early.case_ids == tuple(sorted(expected))
    assert early.values["dice"] == pytest.approx([expected[case] for case in early.case_ids])


def test_the_temperature_is_fitted_on_the_other_folds(protocol: Protocol, found: SegmentationComparison) -> None:
    folders = folders_of(protocol, EARLY)
    for number, temperature in enumerate(found.variants[0].temperatures):
        rows = voxel_logits([folder for folder in folders if folder != folders[number]])

        def nll(log_t: float, logits: np.ndarray = rows.logits, labels: np.ndarray = rows.labels) -> float:
            chances = log_softmax(logits / np.exp(log_t), axis=1)
            return float(-chances[np.arange(len(labels)), labels].mean())

        best = minimize_scalar(nll, bounds=(-4, 4), method="bounded", options={"xatol": 1e-8})
        assert temperature == pytest.approx(np.exp(best.x), rel=1e-3)


def test_the_error_is_that_of_the_probabilities(protocol: Protocol, found: SegmentationComparison) -> None:
    """Worked out again for one case, with and without temperature."""
    early = found.variants[0]
    folder = folders_of(protocol, EARLY)[1]
    case_id = cases_in(folder)[0]
    logits, mask = read_kept(folder, case_id)
    truth = mask.numpy()[0] > 0
    spacing = np.linalg.norm(mask.affine.numpy()[:3, :3], axis=0)
    inside, all_voxels = (np.argwhere(part) * spacing for part in (truth, np.ones_like(truth)))
    near = np.linalg.norm(inside[None] - all_voxels[:, None], axis=2).min(1) <= 10
    for name, temperature in (("", 1.0), ("_calibrated", early.temperatures[1])):
        chances = np.exp(log_softmax(logits.numpy().reshape(2, -1).T / temperature, axis=1))[near]
        sure, right = chances.max(1), chances.argmax(1) == truth.ravel()[near]
        part = np.minimum((sure * 15).astype(int), 14)
        error = sum(abs((sure - right)[part == index].sum()) for index in range(15)) / near.sum()
        likely = chances[np.arange(len(chances)), truth.ravel()[near].astype(int)]
        place = early.case_ids.index(case_id)
        assert early.values[f"ece{name}"][place] == pytest.approx(error, abs=1e-3)
        assert early.values[f"nll{name}"][place] == pytest.approx(-np.log(likely).mean(), rel=1e-3)


def test_what_is_not_done_is_left_out_and_named(found: SegmentationComparison) -> None:
    assert [item.name for item in found.variants] == ["early", "ct"]
    assert found.left_out == ("never trained",)
    assert "never trained" in tables_of(found)[0].note


def test_patients_are_resampled_whole(protocol: Protocol, found: SegmentationComparison) -> None:
    """Two cases each: as if every case were a patient, the interval would be another."""
    alone = compare_segmentations(protocol, [EARLY, CT], FOLDS, FAMILIES, 1.0, None, SETTINGS)
    assert alone.means["early"][0].value == pytest.approx(found.means["early"][0].value)
    assert alone.means["early"][0].low != found.means["early"][0].low


def test_nothing_done(protocol: Protocol, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        compare_segmentations(replace(protocol, out=tmp_path), [EARLY], FOLDS, {}, 1.0)
    assert error.value.code == "E_NO_CASES"


def test_a_single_fold_has_none_to_be_calibrated_by(protocol: Protocol) -> None:
    with pytest.raises(UsageError) as error:
        compare_segmentations(protocol, [EARLY], (0,), {}, 1.0)
    assert error.value.code == "E_FOLD"


def test_the_report_holds_the_figures(protocol: Protocol, found: SegmentationComparison, tmp_path: Path) -> None:
    charts = (dice_chart(found), example_chart(found, protocol, [EARLY, CT], FOLDS, ("ct", "mr")))
    content = SegmentationContent(
        "Simulated lesions", ("Twelve cases.",), tuple(tables_of(found)), charts, ("Made up.",)
    )
    write_report(found, content, tmp_path)
    cases = pd.read_csv(tmp_path / "cases.csv")
    assert len(cases) == 2 * 12
    mean = cases[cases["variant"] == "early"]["dice"].mean()
    assert found.means["early"][0].value == pytest.approx(mean)
    differences = pd.read_csv(tmp_path / "differences.csv")
    assert differences.iloc[0]["difference"] == pytest.approx(
        mean - cases[cases["variant"] == "ct"]["dice"].mean(), abs=1e-9
    )
    with pymupdf.open(tmp_path / "report.pdf") as document:
        text = "\n".join(page.get_text() for page in document)
        assert sum(len(page.get_images()) for page in document) == 2
    assert "Simulated lesions" in text
    assert f"{mean:.3f}" in text


def test_the_section_of_a_page_holds_the_figures(found: SegmentationComparison) -> None:
    text = markdown(tables_of(found))
    early, ct = found.variants
    assert f"| early | {early.values['dice'].mean():.3f} (" in text
    difference = early.values["dice"].mean() - ct.values["dice"].mean()
    assert f"| early less ct | Dice | {difference:+.3f}".replace("-", "−") in text
    assert f"| early | {early.parameters:,} |" in text
