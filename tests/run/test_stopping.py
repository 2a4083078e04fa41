"""Ctrl-C and SIGTERM end a run within seconds, with its children, and the next run goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline.run import events
from pipeline.run.stopping import Stopped, code_of, sentence, stoppable
from pipeline.store import records
from pipeline.store.files import is_held
from tests.run.slow_run import CASES


def start(folder: Path, how: str, jobs: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.run.slow_run", "ingest", str(folder / "in"), "-o", str(folder / "out")]
    how_to = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "preexec_fn": heard}
    return subprocess.Popen(
        [*command, "-j", str(jobs)], env=os.environ | {"HOW": how}, start_new_session=True, **how_to
    )


def heard() -> None:
    """Let Ctrl-C be heard, also where these tests are run in the background of a shell, which ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def done(folder: Path) -> list[str]:
    found = records.of_run(folder / "out")
    return [case for case, made in found.items() if [record.status for record in made] == ["done"]]


@pytest.mark.parametrize(
    ("how", "number", "jobs"),
    [
        pytest.param("easy", signal.SIGINT, 1, marks=pytest.mark.slow),
        pytest.param("deaf", signal.SIGTERM, 1, marks=pytest.mark.slow),
        pytest.param("easy", signal.SIGINT, 2, marks=pytest.mark.slow),
        pytest.param("deaf", signal.SIGTERM, 2, marks=pytest.mark.slow),
    ],
)
def test_a_run_ends_soon_and_the_next_goes_on(how: str, number: signal.Signals, jobs: int, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    run = start(tmp_path, how, jobs)
    while not ((tmp_path / "out/cases").is_dir() and done(tmp_path) and len(list((tmp_path / "in").iterdir())) > 1):
        assert run.poll() is None, run.communicate()
        time.sleep(0.1)
    assert is_held(tmp_path / "out")
    children = psutil.Process(run.pid).children(recursive=True)
    begin = time.monotonic()
    if number == signal.SIGINT:
        os.killpg(run.pid, number)  # as a terminal does
    else:
        run.send_signal(number)
    _, said = run.communicate()
    assert time.monotonic() - begin < 10
    assert run.returncode == 128 + number
    assert said.splitlines()[-1] == sentence(128 + number) and "Traceback" not in said
    psutil.wait_procs(children, 2)
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert not is_held(tmp_path / "out") and done(tmp_path) == [CASES[0]]
    if jobs == 1 and how == "easy":
        (tmp_path / "in" / "go").touch()
        again = start(tmp_path, how, jobs)
        assert "ingest: 3 done (1 already)" in again.communicate()[0] and again.returncode == 0
        log = events.Follower(tmp_path / "out").new()
        assert [event.get("code") for event in log if event["event"] == "run ended"] == ["stopped", None]


def test_a_signal_becomes_an_exception_and_the_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with stoppable():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_signal_that_the_shell_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stoppable():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_exit_codes_are_those_of_shells() -> None:
    assert [code_of(stop) for stop in (KeyboardInterrupt(), Stopped(2), Stopped(15))] == [130, 130, 143]
    assert sentence(143).startswith("Exit code 143: stopped by SIGTERM")
