"""A cohort of one's own: its table, its folds, the strategies that are compared on it, and what is refused."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.comparison.cohort import compare, headline, strategies, write_table
from pipeline.errors import CaseError, UsageError
from pipeline.fusion.controls import validation_rows, with_shuffled_modalities
from pipeline.fusion.network import FusionNet, width_for
from pipeline.learning.table import Row, Split, read_table
from tests.comparison.small import SMALL, definition
from tests.tandem_process import call


def rows_of(patients: Sequence[str]) -> list[Row]:
    """Cases with two images each."""
    names = [f"{patient}{index}" for index, patient in enumerate(patients)]
    return [
        Row(name, patient, {"ct": Path(f"{name}_ct"), "mr": Path(f"{name}_mr")}, 0, None, (), None)
        for name, patient in zip(names, patients, strict=True)
    ]


def test_a_table_with_a_patient_of_the_training_is_not_judged_by(tmp_path: Path) -> None:
    """Another case of a patient whom the network knows is no unseen one."""
    for name in ("x_ct", "x_mr"):
        (tmp_path / name).touch()
    for patient, known in (("b", True), ("z", False)):
        (tmp_path / "test.csv").write_text(f"case_id,patient_id,ct,mr,label\nnew,{patient},x_ct,x_mr,0\n")
        split = Split(tuple(rows_of("aab")), tuple(rows_of("c")))
        with pytest.raises(UsageError, match=r"E_CAL_TRAINING.*such as new") if known else nullcontext():
            assert [row.case_id for row in validation_rows(split, tmp_path, "test.csv", ["ct", "mr"], 2)] == ["new"]


def test_shuffled_modalities_come_from_other_patients() -> None:
    rows = rows_of(["a", "a", "b", "c", "c", "c", "d"])
    found = with_shuffled_modalities(rows, ["ct", "mr"], ["mr"], 0)
    assert [row.images["ct"] for row in found] == [row.images["ct"] for row in rows]
    assert all(row.images["mr"].name[0] != row.patient_id for row in found)
    assert with_shuffled_modalities(rows, ["ct", "mr"], ["mr"], 0) == found
    with pytest.raises(UsageError, match="E_FOLD"):
        with_shuffled_modalities(rows_of(["a", "a"]), ["ct", "mr"], ["mr"], 0)
    with pytest.raises(UsageError, match="E_MODALITY"):
        with_shuffled_modalities(rows, ["ct", "mr"], ["pet"], 0)


def test_shuffled_within_the_class_they_come_from_other_patients_of_it() -> None:
    rows = [replace(row, label=label) for row, label in zip(rows_of("aabbccdd"), [0, 1] * 4, strict=True)]
    label_of = {row.images["mr"]: row.label for row in rows}
    found = with_shuffled_modalities(rows, ["ct", "mr"], ["mr"], 0, within_class=True)
    assert [row.case_id for row in found] == [row.case_id for row in rows]
    assert all(label_of[row.images["mr"]] == row.label for row in found)
    assert all(row.images["mr"].name[0] != row.patient_id for row in found)
    assert sorted(row.images["mr"] for row in found) == sorted(row.images["mr"] for row in rows)
    across = with_shuffled_modalities(rows, ["ct", "mr"], ["mr"], 0)
    assert sorted(row.images["mr"] for row in across) == sorted(row.images["mr"] for row in rows)
    with pytest.raises(UsageError, match="E_FOLD"):
        with_shuffled_modalities([*rows, replace(rows[0], label=2, case_id="x")], ["ct", "mr"], ["mr"], 0, True)


def test_nothing_is_left_when_all_is_hidden() -> None:
    split = Split((), tuple(rows_of(["a", "b"])))
    with pytest.raises(CaseError, match=r"E_MISSING_ROLE.*2 cases, such as a0"):
        validation_rows(split, "", "", ["ct", "mr"], 2, hidden=["ct", "mr"])
    with pytest.raises(UsageError, match=r"E_MODALITY.*pet"):
        validation_rows(split, "", "", ["ct", "mr"], 2, hidden=["pet"])


def test_strategies_have_equal_budgets() -> None:
    common = {"classes": 2, "labels": 2, "network_def::width": 16, "network_def::levels": 4}
    found = strategies(["ct", "mr", "pet"], common)
    assert [item.name for item in found] == ["ct alone", "mr alone", "pet alone", "early", "intermediate", "late"]
    counts = []
    for item in found:
        settings = {**common, "modalities": ["ct", "mr", "pet"], **item.settings}
        network = FusionNet(
            settings["modalities"],
            mode=settings["network_def::mode"],
            width=settings["network_def::width"],
            levels=4,
            deep=2,
        )
        counts.append(sum(parameter.numel() for parameter in network.parameters()))
    assert max(counts) < 1.2 * min(counts) and max(abs(np.array(counts) / counts[4] - 1)) < 0.1
    with pytest.raises(UsageError, match=r"E_CONFIG.*± 10 %"):
        width_for(10, definition(labels=0))


@pytest.mark.slow
def test_a_cohort_of_ones_own_is_compared_from_end_to_end(data: Path, tmp_path: Path) -> None:
    settings = {**{key: value for key, value in SMALL.items() if key != "device"}, "device": "cpu", "labels": "0"}
    settings |= {"max_epochs": "1", "network_def::width": 8}
    found = compare(data / "cases.csv", tmp_path, ["ct", "mr"], ["ct"], folds=2, seeds=1, settings=settings)
    lines = [headline(found, item.name) for item in found.variants]
    assert [line.split(":")[0] for line in lines] == ["ct alone", "mr alone", "early", "intermediate", "late"]
    assert all("AUROC" in line for line in lines) and (tmp_path / "report" / "report.pdf").is_file()
    written_rows = read_table(tmp_path / "cases.csv", ["ct", "mr"], 2)
    fold_of = {row.patient_id: row.fold for row in written_rows}
    assert all(fold_of[row.patient_id] == row.fold for row in written_rows)
    records = sorted(tmp_path.glob("trials/*/*/*/trial.json"))
    before = [path.stat().st_mtime_ns for path in records]
    again = compare(data / "cases.csv", tmp_path, ["ct", "mr"], ["ct"], folds=2, seeds=1, settings=settings)
    assert [headline(again, item.name) for item in again.variants] == lines
    assert [path.stat().st_mtime_ns for path in records] == before


def test_a_cohort_that_cannot_be_compared_is_refused_before_any_training(data: Path, tmp_path: Path) -> None:
    text = (data / "cases.csv").read_text().splitlines()
    index = text[0].split(",").index("label")
    one_class = [",".join([*line.split(",")[:index], "1", *line.split(",")[index + 1 :]]) for line in text[1:]]
    (data / "one_class.csv").write_text("\n".join([text[0], *one_class]) + "\n")
    done = call("compare", data / "one_class.csv", "--out", tmp_path / "out")
    assert done.code == 2 and done.err.startswith("E_FOLD: ") and "class 0" in done.err
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match=r"E_MODALITY.*pet"):
        compare(data / "cases.csv", tmp_path, ["ct", "mr"], ["pet"])
    with pytest.raises(UsageError, match="E_OPTION"):
        compare(data / "cases.csv", tmp_path, ["ct", "mr"], ["ct"], seeds=0)


@pytest.mark.parametrize("key", ["seed", "fold", "folds", "patience", "network_def::mode", "max_epoch", "table_nam"])
def test_a_setting_that_would_do_nothing_or_let_a_judged_fold_choose_is_refused(
    data: Path, tmp_path: Path, key: str
) -> None:
    with pytest.raises(UsageError, match=f"E_OPTION.*got {key}"):
        compare(data / "cases.csv", tmp_path / "out", ["ct", "mr"], ["ct"], settings={key: "3"})
    with pytest.raises(UsageError, match=r"E_OPTION.*for augmentation, got false"):
        compare(data / "cases.csv", tmp_path / "out", ["ct", "mr"], ["ct"], settings={"augmentation": "false"})
    assert not (tmp_path / "out").exists()


def test_further_numbers_reach_the_trials_table(data: Path, tmp_path: Path) -> None:
    ages = [None, 50.1, 1 / 3]
    rows = [
        replace(row, table=(np.nan if age is None else age,)) for row, age in zip(rows_of("abc"), ages, strict=True)
    ]
    write_table(tmp_path / "cases.csv", rows, ["ct", "mr"], ["age"])
    with (tmp_path / "cases.csv").open() as stream:
        found = [row["age"] for row in csv.DictReader(stream)]
    assert [float(age) if age else None for age in found] == ages
