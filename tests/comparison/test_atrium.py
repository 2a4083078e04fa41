"""The benchmark of the atrium: who is held out, and what its page says; the training itself is the bundle's."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks.atrium import RECIPE, means, protocol_of, read_cases, section, write_table
from pipeline.comparison.trials import EVALUATION, Trial, Variant
from pipeline.errors import UsageError


def folder_of(home: Path, count: int = 20) -> Path:
    data = home / "la_mr"
    data.mkdir()
    lines = ["case_id,patient_id,mr,label,mask"]
    for number in range(count):
        (data / f"p{number}_mr.nii.gz").touch()
        (data / f"p{number}_la.nii.gz").touch()
        lines.append(f"p{number},p{number},p{number}_mr.nii.gz,,p{number}_la.nii.gz")
    (data / "cases.csv").write_text("\n".join(lines) + "\n")
    return data


def patients(table: Path, fold: str = "") -> set[str]:
    with table.open() as stream:
        return {row["patient_id"] for row in csv.DictReader(stream) if not fold or row["fold"] == fold}


def test_a_recipe_is_chosen_without_the_patients_that_judge_it(tmp_path: Path) -> None:
    data = folder_of(tmp_path)
    outer, inner = write_table(data, tmp_path / "outer"), write_table(data, tmp_path / "inner", inner=True)
    judged = patients(outer, "0")
    assert len(judged) == 4 and len(patients(outer)) == 20
    assert patients(inner) == patients(outer) - judged and len(patients(inner, "0")) == 4
    settings = protocol_of(tmp_path, outer).settings_of(Trial(Variant("single")))
    assert settings["fold"] == 0 and settings["network_def::mode"] == "single" and settings["modalities"] == ["mr"]
    assert settings["max_epochs"] == RECIPE["val_interval"]  # no held-out patient chooses an epoch


def test_the_page_has_both_measures_and_says_that_the_images_are_cropped(tmp_path: Path) -> None:
    folds = [[0.8, 0.9, 0.85], [0.95, 0.9]]
    for number, dice in enumerate(folds):
        (tmp_path / str(number)).mkdir()
        lines = [f"p{number}{n},1,{d},{d / (2 - d)}" for n, d in enumerate(dice)]
        (tmp_path / str(number) / "dice.csv").write_text("\n".join(["case_id,label,dice,iou", *lines]) + "\n")
    found = means(read_cases(tmp_path / "0"))
    assert found["dice"].value == pytest.approx(0.85)
    assert found["iou"].value == pytest.approx((0.8 / 1.2 + 0.9 / 1.1 + 0.85 / 1.15) / 3)
    records = [{"parameters": 1234, "seconds": {"training": seconds, EVALUATION: 9.0}} for seconds in (100.0, 120.0)]
    text = section([tmp_path / "0", tmp_path / "1"], records)
    assert "**The images are cropped round the atrium**" in text and "in 100 to 120 s of one processor" in text
    assert "| all 5 | Dice | 0.880 |" in text and "| 0.800 | 0.85 | yes |" in text
    assert "| the 3 of fold 0 | IoU | 0.741 |" in text and "| 0.667 | 0.74 | yes |" in text
    (tmp_path / "0" / "dice.csv").write_text("case_id,label,dice,iou\n")
    with pytest.raises(UsageError, match="E_TABLE"):
        read_cases(tmp_path / "0")
