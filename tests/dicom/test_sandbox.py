from __future__ import annotations

import _ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.cases import Fault
from pipeline.dicom.sandbox import Sandbox


def test_results_come_in_the_order_of_the_tasks() -> None:
    with Sandbox(time.sleep, workers=2) as box:
        assert list(box.map([0.2, 0.0])) == [None, None]
    with Sandbox(abs, workers=2, chunk=7) as box:
        assert list(box.map(range(-100, 0))) == list(range(100, 0, -1))
        assert list(box.map([])) == []
        assert list(box.map([-3.5])) == [3.5]


def test_an_exception_comes_back_as_a_value() -> None:
    with Sandbox(int, chunk=3) as box:
        one, error, two = box.map(["1", "one", "2"])
    assert (one, two) == (1, 2)
    assert isinstance(error, ValueError) and "invalid literal" in str(error)


@pytest.mark.parametrize("chunk", [1, 5])
def test_a_task_that_kills_its_process_costs_that_task_alone(chunk: int) -> None:
    tasks = [signal.SIG_DFL, 0, 0, signal.SIGSEGV, 0, signal.SIGABRT]
    with Sandbox(signal.raise_signal, chunk=chunk) as box:
        answers = list(box.map(tasks))
    faults = {index: answer for index, answer in enumerate(answers) if isinstance(answer, Fault)}
    assert {index: fault.code for index, fault in faults.items()} == {3: "E_CRASH", 5: "E_CRASH"}
    assert "SIGSEGV" in faults[3].message and "SIGABRT" in faults[5].message


def test_compiled_code_that_reads_wild_memory_is_a_crash() -> None:
    with Sandbox(_ctypes.PyObj_FromPtr) as box:
        (answer,) = box.map([1])
    assert isinstance(answer, Fault) and answer.code == "E_CRASH"


def test_a_task_that_hangs_ends_after_its_time() -> None:
    started = time.perf_counter()
    with Sandbox(time.sleep, timeout_s=0.5, chunk=4) as box:
        answers = list(box.map([0.01, 30, 0.01]))
    assert [getattr(answer, "code", None) for answer in answers] == [None, "E_LIMIT", None]
    assert "time" in answers[1].message
    assert 0.5 < time.perf_counter() - started < 10


def test_a_task_that_eats_memory_is_ended() -> None:
    with Sandbox(bytes, memory_bytes=2**29, chunk=4) as box:
        small, large, again = box.map([3, 2**40, 2])
    assert (small, again) == (bytes(3), bytes(2))
    assert isinstance(large, Fault) and large.code == "E_LIMIT" and "memory" in large.message


def test_large_tasks_and_results_pass() -> None:
    tasks = [bytes([index]) * 3_000_000 for index in range(5)]
    with Sandbox(bytes, workers=2, chunk=2) as box:
        assert list(box.map(tasks)) == tasks


def test_prints_do_not_get_between_the_answers() -> None:
    with Sandbox(print) as box:
        assert list(box.map(["stray", b"x" * 100_000])) == [None, None]


def test_a_function_that_cannot_be_imported_is_told() -> None:
    with Sandbox(Path.cwd, chunk=2) as box, pytest.raises(Exception, match=r"Path\.cwd|no attribute"):
        list(box.map([1, 2]))


def test_the_workers_end_with_the_sandbox(tmp_path: Path) -> None:
    with Sandbox(abs) as box:
        list(box.map([1]))
        pids = [worker._process.pid for worker in box._workers if worker._process]
    assert len(pids) == 1
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_leaving_early_does_not_wait_for_the_rest() -> None:
    started = time.perf_counter()
    with Sandbox(time.sleep, workers=2) as box:
        results = box.map([0.0, 60.0, 60.0, 60.0])
        next(results)
    assert time.perf_counter() - started < 20


PARENT = """
import os, signal, sys, threading, time
from pipeline.dicom.sandbox import Sandbox
box = Sandbox(time.sleep, timeout_s=2)
threading.Thread(target=lambda: list(box.map([float(sys.argv[1])])), daemon=True).start()
while box._workers[0]._process is None:
    time.sleep(0.01)
time.sleep(1)
print(box._workers[0]._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("task_s", [0, 600])
def test_a_worker_does_not_outlive_a_killed_parent(task_s: float) -> None:
    """Neither an idle one nor one that hangs."""
    done = subprocess.run([sys.executable, "-c", PARENT, str(task_s)], capture_output=True, text=True, timeout=60)
    child = int(done.stdout)
    for _ in range(200):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":  # ended; nobody has asked how
            return
        time.sleep(0.1)
    pytest.fail("the worker is still there after 20 s")
