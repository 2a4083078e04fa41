"""Whose the files of a tree are: two persons under one PatientID, issuers, and what an earlier run has kept of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipeline.commands.deidentify import show
from pipeline.dicom.confidentiality.options import Options
from pipeline.dicom.confidentiality.tree import deidentify_tree
from pipeline.errors import UsageError
from pipeline.store.pseudonyms import Pseudonyms
from tests.dicom.confidentiality.deidentified import changed, copies, private_rows, table


def test_two_files_that_claim_one_instance_are_left_out_and_copies_are_one(tree: Path, tmp_path: Path) -> None:
    first, second = sorted((tree / "Jane" / "ct").iterdir())[:2]
    shutil.copy(first, tree / "again")
    shutil.copy(second, tree / "other")
    changed(tree / "other", InstanceNumber=99)
    found = deidentify_tree(tree, tmp_path / "out", Options())
    assert found.codes() == {"E_DUP_SOP": 2}
    assert len(copies(tmp_path / "out")) == 11


def test_two_persons_under_one_patient_id_are_left_out_until_they_are_parted(
    tree: Path, tmp_path: Path, tandem_home: Path
) -> None:
    """Of the copies, which have neither name nor birth date, nobody could tell."""
    for path in (tree / "John" / "mr").iterdir():
        changed(path, PatientName="Poe^Edgar", PatientBirthDate="19800117")
    for path in (tree / "John" / "ct").iterdir():
        changed(path, PatientBirthDate="19700101")
    found = deidentify_tree(tree, tmp_path / "out", Options())
    assert (found.count("copied"), found.codes()) == (4, {"E_CONTRADICTION": 8})
    assert {row["reason"] for row in table(tmp_path / "out") if row["code"]} == {
        "PatientName and PatientBirthDate differ under one PatientID."
    }
    assert {data.PatientID for data in copies(tmp_path / "out")} == {Pseudonyms(tmp_path / "out").of("patient", "P2")}
    named = {(row["patient_name"], row["birth_date"]) for row in private_rows(tandem_home) if row["code"]}
    assert named == {("Doe^John", "19700101"), ("Poe^Edgar", "19800117")}
    for path in (tree / "John" / "mr").iterdir():
        changed(path, PatientID="P3")
    again = deidentify_tree(tree, tmp_path / "out", Options())
    assert (again.count("copied"), again.reused) == (12, 4)


def test_an_issuer_in_some_files_alone_parts_a_patient_and_is_said(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (tree / "John" / "mr").iterdir():
        changed(path, IssuerOfPatientID="CLINIC")
    found = deidentify_tree(tree, tmp_path / "out", Options())
    assert (found.parted, len({data.PatientID for data in copies(tmp_path / "out")})) == (1, 3)
    assert show(found, tmp_path / "out") == 0
    assert "1 PatientIDs have an issuer in some files and none in others" in capsys.readouterr().err


def test_a_private_table_without_todays_columns_is_of_another_version(tree: Path, tmp_path: Path) -> None:
    deidentify_tree(tree, tmp_path / "out", Options())
    settings = tmp_path / "out" / "deidentified.json"
    kept = json.loads(settings.read_text())
    del kept["columns"]  # as written before a column was added
    settings.write_text(json.dumps(kept))
    with pytest.raises(UsageError, match=r"E_OPTION.*another version"):
        deidentify_tree(tree, tmp_path / "out", Options())
    assert deidentify_tree(tree, tmp_path / "out", Options(), overwrite=True).reused == 0
