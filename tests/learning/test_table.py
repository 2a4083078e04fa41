"""The table of a data set: patients stay together, and what is wrong is named."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import CaseError, UsageError
from pipeline.learning.table import UNKNOWN, read_table, split, split_table, standard_of, standardised, with_folds


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "cases.csv"
    for row in rows:
        for key in ("ct", "mr", "mask"):
            if row.get(key):
                (folder / row[key]).touch()
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys(key for row in rows for key in row)), restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def twelve(**more: Any) -> list[dict[str, Any]]:
    """Twelve cases of six patients; each patient has both classes."""
    return [
        {"case_id": f"c{n}", "patient_id": f"p{n // 2}", "ct": f"{n}.nii", "mr": "", "label": n % 2, **more}
        for n in range(12)
    ]


def test_a_row_says_what_there_is(tmp_path: Path) -> None:
    rows = [
        {"case_id": "a", "ct": "a.nii", "mr": "b.nii", "label": "2", "mask": "m.nii", "age": "61", "fold": 1},
        {"case_id": "b", "ct": "", "mr": "b.nii", "label": "", "mask": "", "age": "", "fold": 0},
    ]
    first, second = read_table(write(tmp_path, rows), ["ct", "mr"], 3, ["age"])
    assert first.images == {"ct": tmp_path / "a.nii", "mr": tmp_path / "b.nii"}
    assert (first.label, first.mask, first.table, first.fold) == (2, tmp_path / "m.nii", (61.0,), 1)
    assert second.images == {"mr": tmp_path / "b.nii"} and second.patient_id == "b"
    assert second.label == UNKNOWN and second.mask is None and np.isnan(second.table[0])
    assert "ct" not in second.item() and "mask" not in second.item()


@pytest.mark.parametrize("mark", [";", "\t"])
def test_a_table_may_have_semicolons_or_tabs_between_its_cells(tmp_path: Path, mark: str) -> None:
    path = write(tmp_path, twelve(age=61))
    wanted = read_table(path, ["ct", "mr"], 2, ["age"])
    path.write_text(path.read_text().replace(",", mark))
    assert read_table(path, ["ct", "mr"], 2, ["age"]) == wanted
    path.write_text(path.read_text().replace(f"{mark}61", f"{mark}61,5"))  # which is 61.5, or 61 and a cell too many
    with pytest.raises(UsageError) as caught:
        read_table(path, ["ct", "mr"], 2, ["age"])
    assert caught.value.code == "E_TABLE" and "a number as age" in caught.value.message


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_folds_part_patients_and_hold_every_class(tmp_path: Path, seed: int) -> None:
    rows = with_folds(read_table(write(tmp_path, twelve()), ["ct", "mr"], 2), 3, seed)
    assert [row.fold for row in rows[::2]] == [row.fold for row in rows[1::2]]
    assert sorted([row.fold for row in rows]) == [0] * 4 + [1] * 4 + [2] * 4
    parts = split(rows, 1, 2)
    assert {row.patient_id for row in parts.training}.isdisjoint(row.patient_id for row in parts.validation)
    assert len(parts.training) == 8 and len(parts.validation) == 4


def test_numbers_are_standardised_by_the_training_cases_alone(tmp_path: Path) -> None:
    rows = [{**row, "age": age} for row, age in zip(twelve(), [*range(10, 20), 1000, ""], strict=True)]
    read = read_table(write(tmp_path, rows), ["ct", "mr"], 2, ["age"])
    found = np.array([row.table[0] for row in standardised(read, standard_of(read[:10], ["age"]))])
    assert found[:10].mean() == pytest.approx(0) and found[:10].std() == pytest.approx(1)
    assert found[10] == pytest.approx((1000 - 14.5) / np.std(range(10, 20))) and np.isnan(found[11])


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"label": 2}, "E_LABEL", "classes 0 to 1, got 2"),
        ({"label": 0.5}, "E_LABEL", "got 0.5"),
        ({"label": "x"}, "E_TABLE", "a number as label"),
        ({"ct": ""}, "E_MISSING_ROLE", "one of ct, mr for the case c0"),
        ({"case_id": "c1"}, "E_CASE_ID", "two of c1"),
        ({"fold": "nan"}, "E_TABLE", "a whole number from 0 as fold of c0, got nan"),
        ({"fold": 1.5}, "E_TABLE", "got 1.5"),
        ({"fold": -1}, "E_TABLE", "got -1"),
        ({"fold": "inf"}, "E_TABLE", "a finite number as fold"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, change: dict[str, Any], code: str, words: str) -> None:
    rows = twelve()
    rows[0] |= change
    with pytest.raises((UsageError, CaseError), match=f"{code}.*{words}"):
        read_table(write(tmp_path, rows), ["ct", "mr"], 2)


def test_a_table_that_is_none_is_refused(tmp_path: Path) -> None:
    none = rf"E_INPUT: .* the columns case_id, ct, label, but {tmp_path}/cases.csv does not exist."
    with pytest.raises(UsageError, match=none):
        read_table(tmp_path / "cases.csv", ["ct"], 2)
    (tmp_path / "cases.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=rf"E_TABLE: .*{tmp_path}/cases.csv cannot be read: .*Save the table as CSV"):
        read_table(tmp_path / "cases.csv", ["ct"], 2)
    path = write(tmp_path, twelve())
    with pytest.raises(UsageError, match=r"E_TABLE.*got no pet"):
        read_table(path, ["pet"], 2)
    (tmp_path / "0.nii").unlink()
    with pytest.raises(UsageError, match=r"E_TABLE: .* cases.csv names, but .*0.nii of c0 is none. Correct the table"):
        read_table(path, ["ct"], 2)


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        ([{**row, "label": 0} for row in twelve()], {}, "none of class 1"),
        (twelve(), {"fold": 3}, "for validation beside fold 3"),
        (twelve(), {"folds": 7}, "2 to 6 folds"),
        ([{**row, "patient_id": number} for number, row in enumerate(twelve())], {"folds": 7}, "for 7 folds, got 6"),
        ([{**row, "fold": number % 2} for number, row in enumerate(twelve())], {}, "a patient in two"),
        ([{**row, "fold": "" if number else 0} for number, row in enumerate(twelve())], {}, "got 1 of 12"),
    ],
)
def test_folds_that_cannot_be_are_refused(
    tmp_path: Path, rows: list[dict[str, Any]], options: dict[str, int], words: str
) -> None:
    with pytest.raises(UsageError, match=f"E_FOLD.*{words}"):
        split_table(write(tmp_path, rows), ["ct", "mr"], 2, **{"folds": 3, **options})


def test_an_infinite_number_is_refused_and_a_missing_one_is_not(tmp_path: Path) -> None:
    rows = [{**row, "age": "" if number else "nan"} for number, row in enumerate(twelve())]
    assert all(np.isnan(row.table[0]) for row in read_table(write(tmp_path, rows), ["ct", "mr"], 2, ["age"]))
    rows[3] |= {"age": "-inf"}
    with pytest.raises(UsageError, match=r"E_TABLE.*a finite number as age of c3, got -inf"):
        read_table(write(tmp_path, rows), ["ct", "mr"], 2, ["age"])


@pytest.mark.parametrize("head", ["PatientID", "Patient_ID", "patient_id ", "participant_id", "Subject", "PatientName"])
@pytest.mark.parametrize("others", ["case_id,{},ct,mr,label", " Case ID,{},CT,mr,Label"])
def test_a_patient_stays_on_one_side_whatever_the_columns_are_called(tmp_path: Path, head: str, others: str) -> None:
    path = write(tmp_path, twelve())
    path.write_text(path.read_text().replace("case_id,patient_id,ct,mr,label", others.format(head)))
    found = split_table(path, ["ct"], 2, folds=3)
    sides = [{row.patient_id for row in side} for side in (found.training, found.validation)]
    assert sides[0].isdisjoint(sides[1]) and sides[0] | sides[1] == {f"p{n}" for n in range(6)}
    assert [row.label for row in found.validation[:2]] == [0, 1]


def test_columns_that_are_not_used_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read_table(write(tmp_path, twelve(klass=1, age=60)), ["ct"], 2, ["age"])
    assert capsys.readouterr().out == "cases.csv: not used: mr, klass.\n"


def test_of_two_columns_the_one_that_is_spelt_as_asked_for_is_meant(tmp_path: Path) -> None:
    rows = read_table(write(tmp_path, twelve(Label="1", PatientID="x")), ["ct"], 2)
    assert [row.label for row in rows[:2]] == [0, 1] and [row.patient_id for row in rows[:3]] == ["p0", "p0", "p1"]


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("case_id,subject,ct,participant,label", "one column patient_id in cases.csv, got subject, participant"),
        ("case_id,patient_id,ct,mr,klass", "no label among .* or `--classes 0` where no class"),
        ("case_id,patient_id,ct,mr", "4 cells in row 2 of cases.csv, got more"),
    ],
)
def test_a_head_that_leaves_open_what_is_meant(tmp_path: Path, head: str, words: str) -> None:
    path = write(tmp_path, twelve())
    path.write_text(path.read_text().replace("case_id,patient_id,ct,mr,label", head))
    with pytest.raises(UsageError, match=words) as caught:
        read_table(path, ["ct"], 0 if "more" in words else 2)
    assert caught.value.code == "E_TABLE"
