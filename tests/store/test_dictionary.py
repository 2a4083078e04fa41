"""Every column of the table of cases is explained, with its unit, in the words of the stage that has measured it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from pipeline.cases import Artifact, Fault, Record, Verdict
from pipeline.store import records
from pipeline.store.sections import Section, Sections, Table


def explained(out: Path) -> dict[str, dict[str, str]]:
    return {item["name"]: item for item in json.loads((out / "cases.json").read_text(encoding="utf-8"))}


def test_every_column_is_explained(tmp_path: Path) -> None:
    table = Table(
        "Quality", ("what", "value"), (), {"NMI": "How alike the images are.", "MR shift": "How far it moved."}
    )
    path = tmp_path / "cases" / "a" / "register" / "sections.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(Sections((Section("Alignment", tables=(table,)),)).as_json()))
    made = (Artifact("sections", "measure", "cases/a/register/sections.json", "0"),)
    measures = {"seconds": 3.5, "mr_nmi": 1.2, "mr_shift_mm": 4.0, "method": "rigid", "mr_label_volume_ml": 2.0}
    judged = {"verdict": Verdict("warn", ("Look.",)), "answers": {"Volume of lesion": "2 mL"}, "flags": ("N_TEST",)}
    records.write(Record("a", "register", "k", "done", artifacts=made, measures=measures, **judged), path.parent)
    fault = Fault("E_GAP", "A slice is missing.")
    records.write(Record("b", "ingest", "k", "quarantined", error=fault), tmp_path / "cases" / "b" / "ingest")
    records.write_table(tmp_path)
    with (tmp_path / "cases.csv").open(newline="") as stream:
        head = next(csv.reader(stream))
    found = explained(tmp_path)
    assert list(found) == head and all(item["meaning"].endswith(".") for item in found.values())
    nmi = {"name": "register_mr_nmi", "kind": "number", "unit": "", "stage": "register"}
    assert found["register_mr_nmi"] == nmi | {"meaning": "MR NMI: How alike the images are."}
    shift, volume = found["register_mr_shift_mm"], found["register_mr_label_volume_ml"]
    assert (shift["unit"], shift["meaning"]) == ("mm", "MR shift: How far it moved.")
    assert (volume["unit"], volume["meaning"]) == ("mL", "MR label volume.")
    assert found["register_seconds"]["meaning"] == "How long the stage took."
    assert found["volume_of_lesion"]["stage"] == "register" and found["verdict"]["kind"] == "category"


def test_sections_that_cannot_be_read_explain_nothing(tmp_path: Path) -> None:
    made = (Artifact("sections", "measure", "cases/a/register/sections.json", "0"),)
    folder = tmp_path / "cases" / "a" / "register"
    records.write(Record("a", "register", "k", "done", artifacts=made, measures={"mr_nmi": 1.2}), folder)
    records.write_table(tmp_path)
    assert explained(tmp_path)["register_mr_nmi"]["meaning"] == "MR NMI."


def test_an_empty_run_has_an_empty_dictionary(tmp_path: Path) -> None:
    (tmp_path / "cases").mkdir()
    records.write_table(tmp_path)
    assert json.loads((tmp_path / "cases.json").read_text()) == []
