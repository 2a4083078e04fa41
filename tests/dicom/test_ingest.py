from __future__ import annotations

import csv
import json
import os
import stat
from pathlib import Path

import pydicom
import pytest

from pipeline.dicom.ingest import FindSeries
from pipeline.errors import UsageError
from pipeline.simulation.dicom import SeriesHeader, write_series
from pipeline.spec.spec import Role, Spec, every_volume
from tests.phantoms.phantom import position_phantom

CANARY = "DOE^CANARY"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two patients: one with CT and MR, one with a CT and text in the tree; names everywhere."""
    small = position_phantom(shape=(12, 10, 6))
    root = tmp_path / "dicom"
    for patient, modality, number in (("A", "CT", 1), ("A", "MR", 2), ("B", "CT", 1)):
        header = SeriesHeader(
            patient_id=f"{CANARY}-{patient}",
            patient_name=CANARY,
            modality=modality,
            series_number=number,
            series_description=f"{CANARY} head",
        )
        write_series(small, root / CANARY / patient / modality, header)
    (root / "note.txt").write_text(CANARY)
    return root


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_series_has_a_row_and_no_name_gets_out(tree: Path, tmp_path: Path, tandem_home: Path) -> None:
    cases = FindSeries(tree, tmp_path / "out", every_volume())()
    table = rows(tmp_path / "out" / "series.csv")
    assert len(cases) == len(table) == 3
    assert {row["role"] for row in table} == {"image"}
    assert {row["modality"] for row in table} == {"CT", "MR"}
    assert {row["case_id"] for row in table} == {case["case_id"] for case in cases}
    assert {row["slice_step_mm"] for row in table} == {"2.5"}
    uids = {str(pydicom.dcmread(path).SeriesInstanceUID) for path in tree.rglob("IM*")}
    for path in (path for path in (tmp_path / "out").rglob("*") if path.is_file()):
        assert not any(secret in path.read_text() for secret in (CANARY, *uids)), path.name
    private = list((tandem_home / "links").rglob("series.csv"))
    assert {row["patient_id"] for row in rows(private[0])} == {f"{CANARY}-A", f"{CANARY}-B"}
    for path in (private[0], tandem_home / "key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_patient_is_one_case_and_the_name_is_stable(tree: Path, tmp_path: Path) -> None:
    spec = Spec(name="x", description="x", roles={"ct": Role(modality="CT")})
    first = [case["case_id"] for case in FindSeries(tree, tmp_path / "a", spec)()]
    second = [case["case_id"] for case in FindSeries(tree, tmp_path / "b", spec)()]
    assert len(first) == 2 and first == second
    assert all(name.startswith("case-") and len(name) == 17 for name in first)


def test_every_part_of_a_series_has_a_row_and_a_case(tmp_path: Path) -> None:
    small, root = position_phantom(shape=(12, 10, 6)), tmp_path / "dicom"
    for echo, te_ms in enumerate((20.0, 5.0)):
        header = SeriesHeader(modality="MR", te_ms=te_ms, first_instance=1 + 6 * echo)
        write_series(small, root / str(echo), header)
    cases = FindSeries(root, tmp_path / "out", every_volume())()
    table = rows(tmp_path / "out" / "series.csv")
    assert [(row["part"], row["instances"], row["notes"]) for row in table] == [
        ("echo 1 of 2", "6", "N_SPLIT"),
        ("echo 2 of 2", "6", "N_SPLIT"),
    ]
    assert len({row["series"] for row in table}) == len({case["case_id"] for case in cases}) == 2
    first = next(case["image"] for case in cases if case["case_id"] == table[0]["case_id"])
    assert {float(item.tags["EchoTime"]) for item in first.instances} == {5.0}


def test_values_that_contradict_each_other_are_named_in_private_alone(tmp_path: Path, tandem_home: Path) -> None:
    small, root = position_phantom(shape=(12, 10, 6)), tmp_path / "dicom"
    people = {"CT": (f"{CANARY}^JANE", "19500101", "F"), "MR": (f"{CANARY}^TOM", "19880630", "M")}
    for number, (modality, (name, born, sex)) in enumerate(people.items(), start=1):
        own = {"patient_name": name, "birth_date": born, "sex": sex, "frame": str(number)}
        write_series(small, root / modality, SeriesHeader("a", modality, "ANON", series_number=number, **own))
    spec = Spec(name="x", description="x", roles={"ct": Role(modality="CT"), "mr": Role(modality="MR")})
    (case,) = FindSeries(root, tmp_path / "out", spec)()
    assert case["fault"].code == "E_CONTRADICTION"
    for path in (path for path in (tmp_path / "out").rglob("*") if path.is_file()):
        assert not any(secret in path.read_text() for secret in (CANARY, "19500101", "19880630")), path.name
    (private,) = (tandem_home / "links").rglob("contradictions.csv")
    ids = {row["modality"]: row["series"] for row in rows(tmp_path / "out" / "series.csv")}
    told = {(row["series"], row["element"], row["value"]) for row in rows(private)}
    for modality, values in people.items():
        for element, value in zip(("PatientName", "PatientBirthDate", "PatientSex"), values, strict=True):
            assert (ids[modality], element, value) in told
    assert stat.S_IMODE(private.stat().st_mode) == 0o600


def test_every_entry_is_counted_and_named_beside_the_key(tree: Path, tmp_path: Path, tandem_home: Path) -> None:
    """A folder in Latin-1, a slice without its header, one that is cut, one that is gone, a pipe, a loop, a text."""
    folder = tree / CANARY / "B" / os.fsdecode(b"M\xfcller")
    (tree / CANARY / "B" / "CT").rename(folder)
    headless, cut, gone = sorted(folder.iterdir())[:3]
    headless.write_bytes(bytes(500))
    cut.write_bytes(cut.read_bytes()[:-9])
    gone.unlink()
    gone.symlink_to("nowhere")
    os.mkfifo(tree / "pipe")
    (tree / "loop").symlink_to(tree)
    (tree / CANARY / "single").mkdir()
    (tree / CANARY / "single" / "1.dcm").write_bytes(b"")
    cases = FindSeries(tree, tmp_path / "out", every_volume())()
    assert sorted(case["fault"].code if case["fault"] else "" for case in cases) == ["", "", "E_GAP"]
    assert json.loads((tmp_path / "out" / "scan.json").read_text()) == {
        **{"series": 3, "files_accepted": 15, "files_rejected": 3, "files_unreadable": 1, "files_not_dicom": 3},
        "files_of_no_series": 1,
    }
    assert len([path for path in tree.rglob("*") if not path.is_dir() or path.is_symlink()]) == 15 + 3 + 1 + 3
    (private,) = (tandem_home / "links").rglob("files.csv")
    named = {row["path"].rsplit("/")[-1]: row["code"] or row["reason"] for row in rows(private)}
    assert named == {
        headless.name: "E_HEADER",
        cut.name: "E_PIXEL_LENGTH",
        gone.name: "E_UNREADABLE",
        "1.dcm": "E_HEADER",
        "pipe": "a pipe, a socket or a device",
        "loop": "a link to a folder that is read elsewhere",
        "note.txt": "not DICOM",
    }
    assert rf"/M\udcfcller/{gone.name}" in private.read_text()


def test_output_in_the_input_is_refused(tree: Path) -> None:
    with pytest.raises(UsageError, match="E_OUT"):
        FindSeries(tree, tree / "out", every_volume())()


def test_files_without_a_series_are_said_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An object without a SeriesInstanceUID belongs to no series."""
    path = write_series(position_phantom(shape=(12, 10, 6)), tmp_path / "in", SeriesHeader(modality="CT"))[0]
    for other in path.parent.iterdir():
        if other != path:
            other.unlink()
    dataset = pydicom.dcmread(path)
    del dataset.SeriesInstanceUID, dataset.Rows
    dataset.save_as(path)
    with pytest.raises(UsageError, match="E_NO_CASES: The tree holds DICOM files, but no series of images"):
        FindSeries(tmp_path / "in", tmp_path / "out", every_volume())()
    said = capsys.readouterr().err
    assert said.startswith("1 DICOM file cannot be used: see ") and said.endswith(" for each one's reason.\n")


def test_no_series_for_any_role(tree: Path, tmp_path: Path) -> None:
    spec = Spec(name="x", description="x", roles={"pet": Role(modality="PT")})
    with pytest.raises(UsageError, match=r"E_NO_CASES: None of the 3 series .* `tandem series .*dicom` describes"):
        FindSeries(tree, tmp_path / "out", spec)()
    assert {row["reason"] for row in rows(tmp_path / "out/series.csv")} == {
        "pet: modality CT instead of PT",
        "pet: modality MR instead of PT",
    }
