"""The comparison of fusion variants: its figures are right, what is done is not repeated, what fails is said."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.metrics import roc_auc_score

from benchmarks.document import write_section
from benchmarks.mechanism_page import calibrated, sections
from benchmarks.mechanism_trials import Scale, plans, run_plans, trials_left, true_posterior
from benchmarks.segmentation_comparison import voxel_logits
from benchmarks.segmentation_report import markdown_table
from pipeline.comparison import trials
from pipeline.comparison.classification import (
    ClassLogits,
    auroc_of,
    class_logits,
    compare_variants,
    judged_folders,
)
from pipeline.comparison.trials import (
    DONE,
    EVALUATION,
    FAILED,
    Protocol,
    Trial,
    Variant,
    read_trial,
    run_bundle,
    run_trials,
    trials_of,
)
from pipeline.errors import UsageError
from pipeline.evaluation.results import Settings
from pipeline.fusion.checkpoint_file import load_trained
from pipeline.fusion.network import parameter_count
from pipeline.learning.table import read_table
from tests.comparison.small import SMALL, definition
from tests.phantoms.mechanisms import mechanism_cases

GATED, LATE = Variant("gated"), Variant("late", ("late",))


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Protocol:
    """Two folds of a variant with a voxel head, one seed."""
    protocol = Protocol(tmp_path_factory.mktemp("trained"), {**SMALL, "dataset_dir": str(data), "folds": 2})
    run_trials(protocol, trials_of([GATED], [0], [0, 1]))
    return protocol


def written(folder: Path, cases: list[str], labels: list[int], logits: np.ndarray, patients: list[str]) -> Path:
    """A judgement as `FoldEvaluation` writes it."""
    folder.mkdir(parents=True)
    np.save(folder / "class_logits.npy", logits)
    np.save(folder / "class_labels.npy", labels)
    with (folder / "class_cases.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("case_id", "patient_id"), *zip(cases, patients, strict=True)])
    return folder


def made_up(out: Path, variants: list[Variant], seeds: int, noise: Mapping[str, float]) -> Protocol:
    """Trials whose logits are known: the label's sign plus normal noise, over two folds of 30 cases each."""
    protocol = Protocol(out, {"dataset_dir": str(out)})
    for trial in trials_of(variants, range(seeds), [0, 1]):
        rng = np.random.default_rng([trial.seed, trial.fold, len(trial.variant.name)])
        labels = np.arange(30) % 2
        scores = (2 * labels - 1) + noise[trial.variant.name] * rng.standard_normal(30)
        names = [f"case-{30 * trial.fold + index:02d}" for index in range(30)]
        folder = protocol.folder(trial)
        written(folder / EVALUATION, names, labels.tolist(), np.stack([0 * scores, scores], 1), names)
        (folder / "curves.csv").write_text("epoch,training_loss,validation_loss\n1,0.9,0.8\n2,0.5,0.6\n")
        record = {"status": DONE, "parameters": 1000, "flops": 2_000_000, "seconds": {"training": 3.0 + trial.fold}}
        record["key"] = protocol.key(trial)
        (folder / "trial.json").write_text(json.dumps(record))
    return protocol


def test_a_trial_is_trained_judged_and_calibrated_once(trained: Protocol, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(GATED, 0, 0)
    record = read_trial(trained, trial)
    assert record["status"] == DONE and set(record["seconds"]) == {"training", EVALUATION}
    assert record["parameters"] == parameter_count(definition(width=4, levels=2, labels=2))
    # one convolution of the stem alone: 16^3 voxels, 27 weights, 4 channels, twice
    assert record["flops"] > 2 * 16**3 * 27 * 4 * 2
    asked: list[Any] = []
    monkeypatch.setattr(trials, "run_bundle", lambda names, settings: asked.append(names))
    assert run_trials(trained, [trial]) == [record] and not asked
    assert replace(trained, settings={**trained.settings, "rate": 0.1}).key(trial) != record["key"]
    assert replace(trained, calibration="").key(trial) != record["key"]
    assert not read_trial(replace(trained, settings={**trained.settings, "rate": 0.1}), trial)


def test_a_table_that_has_changed_is_another_trial(tmp_path: Path) -> None:
    protocol, trial = Protocol(tmp_path, {"dataset_dir": str(tmp_path)}), Trial(GATED)
    (tmp_path / "cases.csv").write_text("case_id\na\n")
    before = protocol.key(trial)
    (tmp_path / "cases.csv").write_text("case_id\nb\n")
    assert protocol.key(trial) != before


def test_an_image_that_has_changed_makes_another_trial(tmp_path: Path) -> None:
    protocol, trial = Protocol(tmp_path, {"dataset_dir": str(tmp_path)}), Trial(GATED)
    elsewhere = tmp_path / "elsewhere.nii"
    (tmp_path / "cases.csv").write_text(f"case_id,ct,mr\na,ct.nii,{elsewhere}\n")
    keys = set()
    for first, second in ((b"1", b"2"), (b"1", b"3"), (b"4", b"3")):
        (tmp_path / "ct.nii").write_bytes(first)
        elsewhere.write_bytes(second)
        keys |= {protocol.key(trial), protocol.key(trial)}
    assert len(keys) == 3


def test_out_of_fold_rows_are_every_case_once(trained: Protocol, data: Path) -> None:
    folders = judged_folders(trained, trials_of([GATED], [0], [0, 1]))
    classes = class_logits(folders)
    rows = {row.case_id: row for row in read_table(data / "cases.csv", ["ct", "mr"], 2)}
    assert classes.case_ids == tuple(sorted(rows))
    assert classes.labels.tolist() == [rows[name].label for name in classes.case_ids]
    assert classes.patient_ids == tuple(rows[name].patient_id for name in classes.case_ids)
    dice = [row for folder in folders for row in csv.DictReader((folder / "dice.csv").open(encoding="utf-8"))]
    assert sorted(row["case_id"] for row in dice) == sorted(rows)
    voxels = voxel_logits(folders)
    assert voxels.logits.shape == (12 * 2000, 2) and set(voxels.case_ids.tolist()) == set(rows)
    with pytest.raises(UsageError, match=r"E_ROWS.*case-\d+ twice"):
        class_logits([folders[0], folders[0]])


def test_a_trial_that_fails_is_recorded_and_the_others_go_on(data: Path, tmp_path: Path) -> None:
    protocol = Protocol(tmp_path, {**SMALL, "dataset_dir": str(data), "folds": 2, "max_epochs": 1, "labels": 0}, {})
    protocol = replace(protocol, calibration="")
    bad = Variant("bad", (), {"modalities": ["ct", "pet"]})
    records = run_trials(protocol, trials_of([bad, GATED], [0], [0]))
    assert [record["status"] for record in records] == [FAILED, DONE]
    assert records[0]["code"] == "E_TABLE" and "pet" in records[0]["message"]
    with pytest.raises(UsageError, match=r"E_NO_CASES.*bad, seed 0, fold 0"):
        judged_folders(protocol, [Trial(bad)])


def test_a_defect_is_recorded_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(names: Sequence[str], settings: Mapping[str, Any]) -> None:
        raise ZeroDivisionError("why")

    monkeypatch.setattr(trials, "run_bundle", broken)
    protocol = Protocol(tmp_path, {"dataset_dir": str(tmp_path)})
    stray = protocol.folder(Trial(GATED)) / "of a stopped trial"
    stray.mkdir(parents=True)
    (record,) = run_trials(protocol, [Trial(GATED)])
    assert not stray.exists() and (record["code"], record["message"]) == ("E_INTERNAL", "ZeroDivisionError: why")


@pytest.mark.parametrize("names", [("a", "a"), ("t1/flair",), ("..",)])
def test_names_that_make_no_folder_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="E_NAMES"):
        trials_of([Variant(name) for name in names], [0], [0])


def test_no_trial_is_started_after_the_time(tmp_path: Path) -> None:
    assert run_trials(Protocol(tmp_path, {"dataset_dir": str(tmp_path)}), [Trial(GATED)], until_s=0) == []


def test_figures_agree_with_scikit_learn(tmp_path: Path) -> None:
    protocol = made_up(tmp_path, [GATED, LATE], 3, {"gated": 1.0, "late": 3.0})
    asked = [GATED, LATE, Variant("never run")]
    found = compare_variants(protocol, asked, range(3), [0, 1], tmp_path / "report", settings=Settings(resamples=200))
    for item in found.variants:
        areas = [roc_auc_score(seed.labels, seed.logits[:, 1]) for seed in item.seeds]
        assert item.auroc.mean == pytest.approx(np.mean(areas))
        assert item.auroc.deviation == pytest.approx(np.std(areas, ddof=1))
        chances = np.mean([softmax(seed.logits, 1)[:, 1] for seed in item.seeds], 0)
        best = found.auroc(item.name)
        assert best.value == pytest.approx(roc_auc_score(item.seeds[0].labels, chances))
        assert best.method.startswith("DeLong") and best.low < best.value < best.high
        assert (item.parameters, item.flops, item.seconds) == (1000, 2_000_000, 3.5)
    ours, theirs = found.difference("gated", "late"), found.difference("late", "gated")
    assert ours.difference == pytest.approx(found.auroc("gated").value - found.auroc("late").value)
    assert (theirs.difference, theirs.low, theirs.high) == (-ours.difference, -ours.high, -ours.low)
    assert 0 < ours.p_value <= ours.p_holm < 0.05
    page = (tmp_path / "report" / "report.html").read_text()
    left = "Left out, because a training has failed or is not done: never run."
    assert found.left_out == ("never run",) and found.said[0] == left
    assert left in page and "± 0.0" in page
    assert {"report.pdf", "table.csv", "loss_1.png", "loss_2.png", "roc_1.png", "confusion_2.png"} <= {
        path.name for path in (tmp_path / "report").iterdir()
    }


def test_auroc_of_three_classes_is_the_mean_of_each_against_the_rest() -> None:
    rng = np.random.default_rng(1)
    labels, logits = rng.integers(0, 3, 60), rng.standard_normal((60, 3))
    found = ClassLogits((), (), labels, logits)
    each = [roc_auc_score(labels == index, softmax(logits, 1)[:, index]) for index in range(3)]
    assert auroc_of(found) == pytest.approx(np.mean(each))


def test_seeds_that_were_judged_by_other_cases_are_refused(tmp_path: Path) -> None:
    protocol = made_up(tmp_path, [GATED], 2, {"gated": 1.0})
    folder = protocol.folder(Trial(GATED, 1, 0)) / EVALUATION
    np.save(folder / "class_labels.npy", 1 - np.load(folder / "class_labels.npy"))
    with pytest.raises(UsageError, match=r"E_ROWS.*every seed of gated"):
        compare_variants(protocol, [GATED], [0, 1], [0, 1], tmp_path / "report")


def test_a_calibration_is_applied_to_other_cases_alone(tmp_path: Path) -> None:
    """Logits that are three times too large need the temperature 3."""
    rng = np.random.default_rng(5)
    scores = rng.standard_normal(2000)
    labels = (rng.random(2000) < expit(scores)).astype(int).tolist()
    names = [f"case-{index:04d}" for index in range(2000)]
    folder = written(tmp_path / EVALUATION, names, labels, np.stack([0 * scores, 3 * scores], 1), names)
    run_bundle(["calibrate"], {"output_dir": str(folder)})
    with pytest.raises(UsageError, match="E_CAL_TRAINING"):
        calibrated(folder, np.zeros((1, 2)))
    found = calibrated(tmp_path / "test", np.array([[0.0, 3.0], [0.0, -6.0]]))
    np.testing.assert_allclose(found[:, 1] - found[:, 0], [1.0, -2.0], rtol=0.15)


def test_a_hidden_modality_is_a_missing_one(trained: Protocol, data: Path, tmp_path: Path) -> None:
    settings = trained.settings_of(Trial(GATED, 0, 0))
    rows = read_table(data / "cases.csv", ["ct", "mr"], 2)
    held_out = {row.case_id for row in rows} - set(
        load_trained(Path(settings["output_dir"]) / "last.pt").training_cases
    )
    lines = [f"{row.case_id},{row.images['ct'].name},,{row.label}" for row in rows if row.case_id in held_out]
    (data / "ct.csv").write_text("\n".join(["case_id,ct,mr,label", *lines]) + "\n")
    common = {**settings, "weights": str(Path(settings["output_dir"]) / "last.pt"), "report": False}
    run_bundle(["train", "evaluate"], {**common, "hidden_modalities": ["mr"], "output_dir": str(tmp_path / "hidden")})
    run_bundle(["train", "evaluate"], {**common, "test_table": "ct.csv", "output_dir": str(tmp_path / "absent")})
    hidden, absent = (class_logits([tmp_path / name]) for name in ("hidden", "absent"))
    assert hidden.case_ids == absent.case_ids
    np.testing.assert_array_equal(hidden.logits, absent.logits)
    whole = class_logits(judged_folders(trained, [Trial(GATED, 0, 0)]))
    assert np.abs(hidden.logits - whole.logits).max() > 1e-3


def test_a_section_replaces_the_former_one_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    write_section(page, "Fusion", "one", "## One\n\nfirst")
    write_section(page, "Fusion", "two", "## Two\n\n\\1 stays")
    write_section(page, "Fusion", "one", "## One\n\nsecond")
    text = page.read_text()
    assert text.startswith("# Fusion\n") and "first" not in text
    assert text.index("second") < text.index("\\1 stays") and text.count("## One") == 1
    assert markdown_table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


@pytest.mark.slow
def test_the_mechanisms_are_simulated_trained_and_written_down(tmp_path: Path) -> None:
    scale = Scale(16, 16, 8, 12, 1, (0,), 24, 24, 16, 1)
    additive, *_, large = plans(tmp_path, scale)
    kept = ("CT alone", "MR alone", "intermediate", "intermediate, dropout")
    found = [replace(additive, variants=tuple(item for item in additive.variants if item.name in kept)), large]
    run_plans(found)
    labels, posterior = true_posterior("additive", scale)
    judged = class_logits(judged_folders(additive.protocol, found[0].trials[:1], "test"))
    assert judged.labels.tolist() == labels.tolist()
    text = sections(found, scale, Settings(resamples=100))
    assert f"The true posterior has AUROC {roc_auc_score(labels, posterior):.3f}" in text
    assert "not known: late is not done" in text and trials_left(found) == 0
    assert trials_left([replace(found[0], seeds=(0, 1))]) == len(kept)
    assert text.count("| intermediate, dropout | MR |") == 1 and "ECE inside its null interval" in text
    assert f"| true posterior | {roc_auc_score(labels, posterior):.3f} |" in text
    own = mechanism_cases("additive", 16 + 8, 0).labels
    rows = read_table(tmp_path / "additive" / "cases" / "additive-0-16-8.csv", ["ct", "mr"], 2)
    assert [row.label for row in rows] == own.tolist() and sum(row.fold == 1 for row in rows) == 16
    assert len({row.patient_id for row in rows}) == 24
