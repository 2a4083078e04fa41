"""`tandem status`, `retry`, `verify`, `clean` and `cohort` as they are typed, on records that are simulated."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from pipeline.cases import Artifact, Fault, Record, Verdict
from pipeline.commands import cohort
from pipeline.run import events
from pipeline.run.status import finish
from pipeline.store import records
from pipeline.store.files import run_lock
from tests.tandem_process import call

MANY = 120


@dataclass(frozen=True)
class Cohort:
    """A run folder of many cases, of which every tenth lacks a slice and every 20th (from 5) is warned of."""

    out: Path


def simulate(out: Path, number: int) -> None:
    case_id = f"case-{number:04d}"
    folder = out / "cases" / case_id / "ingest"
    if number % 10 == 0:
        fault = Fault("E_GAP", "1 of 9 slices is missing.", "Export it.")
        records.write(Record(case_id, "ingest", "k", "quarantined", error=fault), folder)
        return
    folder.mkdir(parents=True)
    (folder / "ct.nii.gz").write_bytes(case_id.encode())
    digest = hashlib.sha256(case_id.encode()).hexdigest()
    made = (Artifact("ct", "image", f"cases/{case_id}/ingest/ct.nii.gz", digest),)
    verdict = Verdict("warn", ("Look at it.",)) if number % 20 == 5 else None
    measures = {"seconds": 1.5, "ct_volume_ml": 900.0 if number == 7 else 40.0 + number % 9}
    records.write(Record(case_id, "ingest", "k", "done", artifacts=made, measures=measures, verdict=verdict), folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    out = tmp_path_factory.mktemp("cohort")
    for number in range(MANY):
        simulate(out, number)
    with events.of_run(out, ["ingest"]):
        pass
    return Cohort(out)


@pytest.fixture
def own(made: Cohort, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(made.out, tmp_path / "out"))


def test_status_counts_first_and_leaves_long_tables_out(made: Cohort) -> None:
    done = call("status", made.out)
    rows = [line.split() for line in done.out.splitlines()]
    assert rows[1] == ["ingest", "102", "6", "-", "-", "12", "E_GAP", "12"]
    assert f"{MANY} cases: `--cases` prints a row for each" in done.out and "case-0001" not in done.out
    assert done.code == 1 and done.err.splitlines()[-1] == "Exit code 1: 12 quarantined (E_GAP)."
    assert len(call("status", made.out, "--cases").out.splitlines()) == MANY + 3


def test_of_many_lines_the_worst_are_printed(made: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    assert finish(made.out, records.of_run(made.out), limit=13) == 1
    lines = capsys.readouterr().err.splitlines()
    assert all("quarantined: E_GAP" in line for line in lines[:12]) and "verdict warn" in lines[12]
    assert lines[13].startswith("… and 5 more like these") and lines[14] == "Exit code 1: 12 quarantined (E_GAP)."


def test_a_run_that_was_broken_off_is_not_all_done(tmp_path: Path) -> None:
    simulate(tmp_path, 1)
    assert call("status", tmp_path).code == 0
    events.note(tmp_path, events.RUN_STARTED, stages=["ingest"])
    done = call("status", tmp_path)
    assert (done.code, done.err) == (1, "Exit code 1: the last run was broken off.\n")
    with run_lock(tmp_path):
        going = call("status", tmp_path)
    assert going.code == 0 and "A run is going on. The run has started." in going.out
    events.note(tmp_path, events.RUN_ENDED, code="E_DISK")
    assert call("status", tmp_path).err == "Exit code 1: the last run could not go on (E_DISK).\n"
    events.note(tmp_path, events.RUN_ENDED)
    assert call("status", tmp_path).code == 0


def test_verify_finds_what_has_changed(made: Cohort, own: Path) -> None:
    done = call("verify", made.out)
    assert (done.code, done.out) == (0, "108 outputs as recorded\n")
    (own / "cases/case-0001/ingest/ct.nii.gz").write_bytes(b"CASE-0001")
    (own / "cases/case-0002/ingest/ct.nii.gz").unlink()
    (own / "cases/case-0003/ingest/notes.txt").write_text("mine")
    done = call("verify", own, "-j", "1")
    assert done.code == 1 and done.err.splitlines()[:2] == [
        "missing: cases/case-0002/ingest/ct.nii.gz",
        "changed: cases/case-0001/ingest/ct.nii.gz",
    ]
    assert "Exit code 1: E_CHANGED: 1 missing, 1 changed" in done.err
    assert "unrecorded: cases/case-0003/ingest/notes.txt" in done.out and "106 outputs as recorded; 1 file" in done.out


def test_clean_lists_and_deletes_when_told_to(made: Cohort, own: Path) -> None:
    assert call("clean", made.out).out == "Nothing to delete: every file below cases/ is named by a record.\n"
    folder = own / "cases/case-0001/ingest"
    (folder / "old.nii.gz").write_bytes(b"12")
    records.write(
        Record("case-0002", "ingest", "", "quarantined", error=Fault("E_WITHDRAWN", "Gone.")),
        own / "cases/case-0002/ingest",
    )
    listed = call("clean", own)
    assert "cases/case-0001/ingest/old.nii.gz: no record names it" in listed.out and "Nothing was deleted" in listed.out
    assert (
        "cases/case-0002: the input does not hold the case any more" in listed.out and (folder / "old.nii.gz").is_file()
    )
    (own / "report.html").write_text("case-0002 of an earlier run")
    with run_lock(own):
        busy = call("clean", own, "--yes")
    assert busy.code == 2 and "E_BUSY" in busy.err and (folder / "old.nii.gz").is_file()
    assert "Deleted: 2 files or folders" in call("clean", own, "--yes").out
    assert not (folder / "old.nii.gz").exists() and not (own / "cases/case-0002").exists()
    assert "case-0002" not in (own / "cases.csv").read_text() and call("verify", own).code == 0
    assert "case-0002" not in (page := (own / "report.html").read_text()) and "case-0001" in page


def test_nothing_to_retry_is_said_and_is_no_failure(made: Cohort) -> None:
    done = call("retry", made.out, "--code", "E_DISK")
    assert (done.code, done.out) == (0, "Nothing to do again: no case has stopped so.\n")
    done = call("retry", made.out, "--code", "E_GAPS")
    assert done.code == 2 and "did you mean `E_GAP`" in done.err
    done = call("retry", made.out)
    assert done.code == 2 and "ingest of 12 cases" in done.err and "--input ROOT" in done.err


def test_a_cohort_is_written_as_a_table_with_types(own: Path) -> None:
    pytest.importorskip("pyarrow")
    done = call("cohort", own, "--parquet")
    assert done.code == 0 and f"{MANY} cases with 9 columns" in done.out
    table, text = pd.read_parquet(own / "cases.parquet"), pd.read_csv(own / "cases.csv")
    assert list(table.columns) == list(text.columns) and len(table) == MANY
    assert table["ingest_ct_volume_ml"].dtype == float
    pd.testing.assert_series_equal(table["ingest_ct_volume_ml"], text["ingest_ct_volume_ml"])
    assert "Ingest CT volume 900 mL (high)" in (own / "report.html").read_text()


def test_parquet_without_pyarrow_names_the_extra(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohort, "find_spec", lambda _: None)
    done = call("cohort", own, "--parquet")
    assert done.code == 2 and "E_EXTRA" in done.err and "tandem-imaging[parquet]" in done.err
    assert not (own / "cases.parquet").exists()


@pytest.mark.parametrize("command", ["status", "retry", "verify", "clean", "cohort"])
def test_a_folder_without_a_run_is_refused(command: str, tmp_path: Path) -> None:
    done = call(command, tmp_path)
    assert done.code == 2 and "E_NO_CASES" in done.err and list(tmp_path.iterdir()) == []
