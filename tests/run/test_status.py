"""What a run has come to is counted, explained, and is the exit code."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.cases import Fault, Record, Verdict
from pipeline.errors import UsageError
from pipeline.run import events, status
from pipeline.run.status import finish, show, summary
from pipeline.store import records

DONE = Record("c", "register", "k", "done", answers={"Class": "kind_b, probability 0.87"})
WARNED = Record("c", "register", "k", "done", verdict=Verdict("warn", ("NMI is low.", "Look.")))
REJECTED = Record("c", "register", "k", "done", verdict=Verdict("fail", ("The mirror image matches better.",)))
BROKEN = Record("c", "register", "k", "failed", error=Fault("E_CRASH", "It crashed.", "Run again."))
ASIDE = Record("c", "ingest", "k", "quarantined", error=Fault("E_GAP", "1 of 9 slices is missing.", "Export it."))


@pytest.mark.parametrize(
    ("record", "code"), [(DONE, 0), (WARNED, 0), (REJECTED, 1), (BROKEN, 1), (ASIDE, 1)], ids=lambda item: str(item)[:9]
)
def test_the_exit_code_and_the_last_line_that_explains_it(
    tmp_path: Path, record: Record, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finish(tmp_path, {"c": [record]}) == code
    lines = capsys.readouterr().err.splitlines()
    reasons = {
        id(REJECTED): "1 with a verdict of fail",
        id(BROKEN): "1 failed (E_CRASH)",
        id(ASIDE): "1 quarantined (E_GAP)",
    }
    assert [line for line in lines if line.startswith("Exit code")] == (
        [f"Exit code 1: {reasons[id(record)]}."] if code else []
    )
    assert lines[-1:] == ([f"Exit code 1: {reasons[id(record)]}."] if code else lines[-1:])


def test_verdicts_and_faults_are_said_with_their_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finish(tmp_path, {"c": [DONE, WARNED], "d": [ASIDE]})
    assert capsys.readouterr().err.splitlines()[:2] == [
        "c, register: verdict warn: NMI is low. Look.",
        "c, ingest: quarantined: E_GAP: 1 of 9 slices is missing. Export it.",
    ]


def test_a_verdict_that_is_a_pass_is_said_where_it_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    passed = replace(WARNED, verdict=Verdict("pass", ("Two starts agree.",)))
    assert finish(tmp_path, {"c": [DONE, passed]}) == 0
    assert capsys.readouterr().out == ""
    assert finish(tmp_path, {"c": [DONE, passed]}, passed=True) == 0
    assert capsys.readouterr().out == "c, register: verdict pass: Two starts agree.\n"


def test_a_broken_file_that_no_series_has_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "scan.json").write_text('{"files_unreadable": 0, "files_of_no_series": 3}')
    assert finish(tmp_path, {"c": [DONE]}) == 1
    assert capsys.readouterr().err == "Exit code 1: 3 broken files of no series.\n"


def test_an_unreadable_file_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "scan.json").write_text('{"files_unreadable": 2}')
    assert finish(tmp_path, {"c": [DONE]}) == 1
    assert capsys.readouterr().err == "Exit code 1: 2 files or folders could not be read.\n"


def test_a_stages_line_counts_every_kind_of_end() -> None:
    assert summary("register", [DONE]) == "register: 1 done"
    found = [DONE, Record("d", "register", "k", "done", reused=True), WARNED, REJECTED, REJECTED, BROKEN, ASIDE]
    assert summary("register", found) == (
        "register: 5 done (1 already; 1 with a warning, 2 with a failed verdict), 1 failed, 1 quarantined"
    )


def test_status_shows_verdicts_answers_and_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for case_id, record in {"one": DONE, "two": REJECTED, "three": BROKEN}.items():
        made = Record(**{**record.__dict__, "case_id": case_id})
        records.write(made, records.case_folder(tmp_path, case_id) / made.stage)
    assert show(tmp_path) == 1
    printed = capsys.readouterr()
    rows = {line.split()[0]: line for line in printed.out.splitlines()}
    assert rows["case"].split() == ["case", "register", "verdict", "class", "code"]
    assert "kind_b, probability 0.87" in rows["one"]
    assert "fail" in rows["two"] and "E_CRASH" in rows["three"]
    assert "two, register: verdict fail: The mirror image matches better." in printed.err
    assert "three, register: failed: E_CRASH: It crashed." in printed.err


def test_a_case_is_named_whole_on_a_narrow_screen(tmp_path: Path) -> None:
    case_id = "case-0123456789abcdef"
    for number in range(6):
        made = Record(**{**DONE.__dict__, "case_id": case_id, "stage": f"stage_{number}"})
        records.write(made, records.case_folder(tmp_path, case_id) / made.stage)
    found = records.of_run(tmp_path)
    narrow = Console(width=50, file=io.StringIO())
    narrow.print(status._rows(found, records.stages_in_order(found)))
    assert f" {case_id} " in narrow.file.getvalue()


def test_answers_of_one_name_say_which_stage_gave_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for stage, volume in (("segment", "4.7 mL"), ("fuse", "5.0 mL")):
        answers = {"Volume of lesion": volume, **({"Class": "b"} if stage == "fuse" else {})}
        made = Record("one", stage, "k", "done", answers=answers)
        records.write(made, records.case_folder(tmp_path, "one") / stage)
    show(tmp_path)
    out = capsys.readouterr().out
    assert "4.7 mL" in out and "5.0 mL" in out
    table = records.write_table(tmp_path)
    row, known = table.iloc[0], json.loads((tmp_path / "cases.json").read_text())
    assert [item["name"] for item in known] == list(table)
    assert [item["stage"] for item in known if "volume" in item["name"]] == ["segment", "fuse"]
    assert (row["volume_of_lesion_segment"], row["volume_of_lesion_fuse"], row["class"]) == ("4.7 mL", "5.0 mL", "b")


def test_what_was_found_is_printed_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fault = Fault("E_GAP", "Between [/red] and [bold].", "")
    records.write(
        Record("c", "ingest", "k", "failed", answers={"[i]Class": "[/] b"}, error=fault), tmp_path / "cases/c/x"
    )
    show(tmp_path)
    printed = capsys.readouterr()
    assert "[i]class" in printed.out and "[/] b" in printed.out and "Between [/red] and [bold]." in printed.err


def test_a_run_that_was_stopped_before_its_first_case_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match=r"E_NO_CASES: Expected a run folder, but .* holds"):
        show(tmp_path)
    with pytest.raises(UsageError, match=r"is no folder\. Check"):
        show(tmp_path / "none")
    with pytest.raises(KeyboardInterrupt), events.of_run(tmp_path, ["ingest"]):
        raise KeyboardInterrupt
    assert show(tmp_path) == 1
    assert "Exit code 1: the last run was stopped." in capsys.readouterr().err
