"""The log of a run: whole lines or none, and what it says of how far a run is."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.cases import Fault, Record, Verdict
from pipeline.errors import UsageError
from pipeline.run import events
from pipeline.run.events import Follower
from pipeline.run.progress import Progress, duration, line_of

START = datetime(2026, 11, 29, 8, tzinfo=UTC)


def said(out: Path) -> list[dict[str, object]]:
    found = Follower(out).new()
    return [{key: value for key, value in event.items() if key not in ("time", "seconds")} for event in found]


def test_a_run_is_told_from_its_start_to_its_end(tmp_path: Path) -> None:
    fault = Fault("E_GAP", "Slices are missing near DOE^JANE.", "Export again.")
    with events.of_run(tmp_path, ["ingest"], jobs=2), events.of_stage(tmp_path, "ingest", 2):
        events.of_case(tmp_path, Record("a", "ingest", "k", "done", verdict=Verdict("warn", ("Look.",))))
        events.of_case(tmp_path, Record("b", "ingest", "k", "quarantined", error=fault, reused=True))
    assert said(tmp_path) == [
        {"event": "run started", "stages": ["ingest"], "jobs": 2},
        {"event": "stage started", "stage": "ingest", "cases": 2},
        {"event": "case", "stage": "ingest", "case": "a", "status": "done", "verdict": "warn"},
        {"event": "case", "stage": "ingest", "case": "b", "status": "quarantined", "code": "E_GAP", "reused": True},
        {"event": "stage ended", "stage": "ingest"},
        {"event": "run ended"},
    ]
    text = (tmp_path / events.LOG).read_text()
    assert "DOE" not in text and str(tmp_path) not in text


@pytest.mark.parametrize(
    ("error", "code"),
    [(UsageError("E_SPEC", "No."), "E_SPEC"), (KeyboardInterrupt(), "stopped"), (OSError(), "E_INTERNAL")],
)
def test_a_run_that_does_not_come_to_its_end_says_why(error: BaseException, code: str, tmp_path: Path) -> None:
    with pytest.raises(type(error)), events.of_run(tmp_path, ["ingest"]):
        raise error
    assert said(tmp_path)[-1] == {"event": "run ended", "code": code}


def test_a_line_that_was_cut_costs_that_line_alone(tmp_path: Path) -> None:
    events.note(tmp_path, "one")
    with (tmp_path / events.LOG).open("a") as stream:
        stream.write('{"time": "2026-11-29T08:00:00+00:00", "event": "cu')
    assert [event["event"] for event in said(tmp_path)] == ["one"]
    events.note(tmp_path, "two")
    assert [event["event"] for event in said(tmp_path)] == ["one", "two"]


@pytest.mark.parametrize(
    "line", ["", "[]", "7", '{"event": "x"}', '{"time": "now", "event": "x"}', '{"time": 3}', "\0\0"]
)
def test_a_line_of_something_else_is_left_out(line: str, tmp_path: Path) -> None:
    (tmp_path / events.LOG).write_text(f"{line}\n")
    assert said(tmp_path) == []


def test_a_reader_follows_a_log_as_it_grows(tmp_path: Path) -> None:
    log = Follower(tmp_path)
    assert log.new() == []
    events.note(tmp_path, "one")
    assert [event["event"] for event in log.new()] == ["one"]
    assert log.new() == []
    with (tmp_path / events.LOG).open("a") as stream:
        stream.write('{"time": "2026-11-29T08:00:00+00:00", ')
        stream.flush()
        assert log.new() == []
        stream.write('"event": "two"}\n')
    assert [event["event"] for event in log.new()] == ["two"]


def test_a_log_that_has_grown_large_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LARGEST_BYTES", 10)
    log = Follower(tmp_path)
    for _ in range(3):
        with events.of_run(tmp_path, ["ingest"]):
            assert log.new()[-1]["event"] == "run started"
    assert sorted(path.name for path in tmp_path.iterdir()) == [events.LOG, events.OLD]
    assert len(said(tmp_path)) == 2


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / events.LOG).mkdir()
    with events.of_run(tmp_path, ["ingest"]):
        events.note(tmp_path, "one")
    assert Follower(tmp_path).new() == []


def at(second: float, event: str, **more: object) -> dict[str, object]:
    return {"time": (START + timedelta(seconds=second)).isoformat(), "event": event, **more}


def test_speed_and_time_left_are_what_the_log_gives() -> None:
    """Two processes: 4 cases of 20 s each in 40 s, 6 to come; register takes 10 s a case, as a former run has shown."""
    progress = Progress()
    former = [at(-99, "run started", stages=["register"]), at(-98, "case", stage="register", status="done", seconds=10)]
    now = [at(0, "run started", stages=["ingest", "register", "report"], jobs=2)]
    now += [at(0, "stage started", stage="ingest", cases=11)]
    now += [at(1, "case", stage="ingest", case="z", status="done", reused=True)]
    now += [at(20 * (n // 2 + 1), "case", stage="ingest", case=str(n), status="done", seconds=20) for n in range(3)]
    now += [at(40, "case", stage="ingest", case="3", status="quarantined", code="E_GAP", seconds=20)]
    assert progress.take(former + now)
    moment = START + timedelta(seconds=40)
    assert progress.per_minute(moment) == 6
    seconds, untimed = progress.seconds_left(moment)
    assert (seconds, untimed) == ((6 * 20 + 10 * 10) / 2, ["report"])
    assert line_of(progress, moment) == (
        "ingest: 5 of 11, 1 quarantined; 6 a minute; about 2 min left (report not yet timed)"
    )
    assert progress.found["ingest"] == {"done": 4, "quarantined": 1} and progress.reused["ingest"] == 1


def test_what_is_in_hand_does_not_count_as_standing_still() -> None:
    """20 s into a run of one process: three cases were stopped at once, register is at the first of the others."""
    progress = Progress()
    former = [at(-99, "run started", stages=["register"]), at(-98, "case", stage="register", status="done", seconds=30)]
    now = [at(0, "run started", stages=["ingest", "register"], jobs=1)]
    now += [at(0, "stage started", stage=name, cases=6) for name in ("ingest", "register")]
    ends = ["quarantined"] * 3 + ["done"] * 3
    now += [at(1, "case", stage="ingest", case=str(n), status=end, seconds=0.1) for n, end in enumerate(ends)]
    assert progress.take(former + now)
    assert progress.seconds_left(START + timedelta(seconds=20))[0] == 6 * 30  # the last stage may take those three, too
    assert line_of(progress, START + timedelta(seconds=20)).startswith("register: 0 of 6")


def test_a_run_without_events_has_no_speed() -> None:
    progress = Progress()
    assert progress.seconds_left(START) == (0, []) and progress.per_minute(START) == 0
    assert line_of(progress, START) == "The run has started."


@pytest.mark.parametrize(("seconds", "text"), [(4.4, "4 s"), (99, "99 s"), (150, "2 min"), (9000, "2.5 h")])
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_lines_are_json(tmp_path: Path) -> None:
    events.note(tmp_path, "one", code='"\n')
    (line,) = (tmp_path / events.LOG).read_text().splitlines()
    assert json.loads(line)["code"] == '"\n'
