from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.cases import Artifact, Fault, Record
from pipeline.errors import UsageError
from pipeline.store import records


def put(out: Path, stage: str, reads: dict[str, str], makes: dict[str, str], **changes: object) -> Record:
    """Write a stage's record and outputs; `reads` and `makes` map a path or key to a hash."""
    inputs = tuple(Artifact(Path(path).name, "image", path, digest) for path, digest in reads.items())
    folder = records.case_folder(out, "case-1") / stage
    made = tuple(Artifact(key, "image", f"cases/case-1/{stage}/{key}", digest) for key, digest in makes.items())
    record = replace(Record("case-1", stage, "k", "done", inputs, made), **changes)
    records.write(record, folder)
    return record


CT, ALIGNED = "cases/case-1/ingest/ct", "cases/case-1/register/aligned"


def test_a_record_survives_the_disk(tmp_path: Path) -> None:
    fault = Fault("E_GAP", "3 of 9 slices are missing.", "Export again.")
    record = put(tmp_path, "ingest", {}, {"ct": "1"}, error=fault, measures={"seconds": 1.5}, flags=("N_X",))
    assert records.read(tmp_path / "cases/case-1/ingest") == record


@pytest.mark.parametrize("text", ["", "{", "[]", '{"case_id": 1}', "null"])
def test_a_broken_record_is_no_record(tmp_path: Path, text: str) -> None:
    (tmp_path / records.RECORD).write_text(text)
    assert records.read(tmp_path) is None


def test_stale_records_are_left_out(tmp_path: Path) -> None:
    put(tmp_path, "ingest", {}, {"ct": "1"})
    put(tmp_path, "register", {CT: "1"}, {"aligned": "2"})
    put(tmp_path, "preprocess", {CT: "1", ALIGNED: "2"}, {"windows": "3"})
    names = [record.stage for record in records.of_case(tmp_path / "cases/case-1")]
    assert names == ["ingest", "register", "preprocess"]
    put(tmp_path, "register", {CT: "1"}, {"aligned": "changed"})
    assert [record.stage for record in records.of_case(tmp_path / "cases/case-1")] == ["ingest", "register"]
    put(tmp_path, "ingest", {}, {}, status="quarantined")
    assert [record.stage for record in records.of_case(tmp_path / "cases/case-1")] == ["ingest"]


def test_a_report_of_records_that_have_changed_is_stale_and_comes_last(tmp_path: Path) -> None:
    """Whatever the names, and the order in which the stages were done, say."""
    folder = tmp_path / "cases/case-1"
    put(tmp_path, "ingest", {}, {"ct": "1"})
    seen = records.digest(records.of_case(folder))
    read_all = Artifact("records", records.RECORDS, "", seen)
    put(tmp_path, "a_report", {}, {"page": "2"}, inputs=(read_all,))
    assert [record.stage for record in records.of_case(folder)] == ["ingest", "a_report"]
    put(tmp_path, "register", {CT: "1"}, {"aligned": "2"})
    assert [record.stage for record in records.of_case(folder)] == ["ingest", "register"]
    seen = records.digest(records.of_case(folder))
    put(tmp_path, "a_report", {}, {"page": "3"}, inputs=(replace(read_all, sha256=seen),))
    assert [record.stage for record in records.of_case(folder)] == ["ingest", "register", "a_report"]


def test_the_digest_of_records_knows_neither_order_nor_time(tmp_path: Path) -> None:
    one, two = (Record("c", name, "k", "done", measures={"seconds": 1.0, "n": 2}) for name in ("a", "b"))
    slower = replace(one, measures={"seconds": 9.0, "n": 2})
    assert records.digest([one, two]) == records.digest([two, slower])
    assert records.digest([one, two]) != records.digest([two, replace(one, measures={"n": 3})])


def test_the_digest_is_that_of_the_records_on_the_disk(tmp_path: Path) -> None:
    put(tmp_path, "ingest", {}, {"ct": "1"}, measures={"n": 2, "x": [1.5, None]}, answers={"Size": "3 ml"})
    made = replace(put(tmp_path, "register", {CT: "1"}, {"aligned": "2"}), reused=True)
    (first, second) = records.of_case(tmp_path / "cases/case-1")
    assert records.digest([first, made]) == records.digest([first, second])
    (tmp_path / "cases/case-1/a_file").write_text("no stage")
    assert len(records.of_case(tmp_path / "cases/case-1")) == 2 and records.of_case(tmp_path / "cases/none") == []


def test_cases_are_found_by_what_they_have(tmp_path: Path) -> None:
    put(tmp_path, "ingest", {}, {"ct": "1"})
    find = records.FindCases(tmp_path, {"ct": "image", "mr": "image?"})
    (case,) = find()
    assert case["case_id"] == "case-1" and case["ct"] == tmp_path / CT and "mr" not in case
    assert records.FindCases(tmp_path, {"ct": "image", "mr": "image"})() == []
    assert len(records.FindCases(tmp_path, {"mr": "image"}, all_cases=True)()) == 1
    with pytest.raises(UsageError, match="E_NO_CASES"):
        records.FindCases(tmp_path / "nothing", {})()


def test_the_key_depends_on_each_part() -> None:
    keys = {
        records.resume_key("a", {"x": 1}, {"ct": "1"}, []),
        records.resume_key("b", {"x": 1}, {"ct": "1"}, []),
        records.resume_key("a", {"x": 2}, {"ct": "1"}, []),
        records.resume_key("a", {"x": 1}, {"ct": "2"}, []),
        records.resume_key("a", {"x": 1}, {"mr": "1"}, []),
        records.resume_key("a", {"x": 1}, {"ct": "1"}, ["ab12"]),
    }
    assert len(keys) == 6
    assert records.resume_key("a", {"x": 1}, {"ct": "1"}, []) in keys


def test_the_table_has_a_row_a_case(tmp_path: Path) -> None:
    put(tmp_path, "ingest", {}, {"ct": "1"}, measures={"seconds": 2.0})
    fault = Fault("E_OVERLAP", "The images do not overlap.")
    put(tmp_path, "register", {CT: "1"}, {}, status="failed", error=fault, flags=("N_A", "N_B"))
    (row,) = records.table(records.of_run(tmp_path)).to_dict("records")
    assert row["case_id"] == "case-1" and row["ingest"] == "done" and row["register"] == "failed"
    assert row["code"] == "E_OVERLAP" and row["flags"] == "N_A; N_B" and row["ingest_seconds"] == 2.0
