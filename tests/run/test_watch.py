"""`tandem status --watch` follows the log until the run ends."""

from __future__ import annotations

import io
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.run import events, status
from pipeline.run.progress import Progress
from pipeline.store.files import run_lock

EVENTS = [
    {"event": events.RUN_STARTED, "stages": ["ingest"]},
    {"event": events.STAGE_STARTED, "stage": "ingest", "cases": 2},
    {"event": events.CASE, "stage": "ingest", "case": "a", "status": "done", "seconds": 2},
    {"event": events.CASE, "stage": "ingest", "case": "b", "status": "failed", "code": "E_CRASH", "seconds": 2},
]


def test_plain_lines_until_the_folder_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status, "LINE_S", 0.0)
    monkeypatch.setattr(status, "SCREEN_S", 0.01)
    held = threading.Event()

    def run() -> None:
        with run_lock(tmp_path):
            held.set()
            for event in EVENTS:
                events.note(tmp_path, **event)  # type: ignore[arg-type]
                time.sleep(0.2)

    other = threading.Thread(target=run)
    other.start()
    held.wait()
    status.follow(tmp_path)
    other.join()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "The run has started." and lines[1].startswith("ingest: 0 of 2")
    assert lines[-1].startswith("ingest: 2 of 2, 1 failed") and len(lines) == 4


def test_without_a_run_it_ends_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status.follow(tmp_path)
    assert capsys.readouterr().out == ""


def test_the_screen_has_a_row_for_each_stage() -> None:
    progress = Progress()
    now = datetime.now(UTC)
    progress.take([{"time": now.isoformat(), **event} for event in EVENTS])
    console = Console(file=io.StringIO(), width=160)
    console.print(status.screen(progress, now))
    rows = [line.split() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert rows[1] == ["ingest", "2", "of", "2", "0", "1", "-", "-", "1", "-"]
