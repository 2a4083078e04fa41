"""Children that crash, hang, eat memory or lose their parent: each costs its own task alone."""

from __future__ import annotations

import _ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.cases import Fault
from pipeline.child import Children, Server, name_of

PLACE = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_results_come_in_the_order_of_the_tasks() -> None:
    with Children(time.sleep, workers=2) as children:
        assert list(children.map([0.2, 0.0])) == [None, None]
    with Children(abs, workers=2, chunk=7) as children:
        assert list(children.map(range(-100, 0))) == list(range(100, 0, -1))
        assert list(children.map([])) == []
        assert list(children.map([-3.5])) == [3.5]


def test_an_exception_comes_back_as_a_value() -> None:
    with Children(int, chunk=3) as children:
        one, error, two = children.map(["1", "one", "2"])
    assert (one, two) == (1, 2)
    assert isinstance(error, ValueError) and "invalid literal" in str(error)


@pytest.mark.parametrize("chunk", [1, 5])
def test_a_task_that_kills_its_process_costs_that_task_alone(chunk: int) -> None:
    tasks = [signal.SIG_DFL, 0, 0, signal.SIGSEGV, 0, signal.SIGABRT]
    with Children(signal.raise_signal, chunk=chunk) as children:
        answers = list(children.map(tasks))
    faults = {index: answer for index, answer in enumerate(answers) if isinstance(answer, Fault)}
    assert {index: fault.code for index, fault in faults.items()} == {3: "E_CRASH", 5: "E_CRASH"}
    assert "SIGSEGV" in faults[3].message and "SIGABRT" in faults[5].message


def test_compiled_code_that_reads_wild_memory_is_a_crash() -> None:
    with Children(_ctypes.PyObj_FromPtr) as children:
        (answer,) = children.map([1])
    assert isinstance(answer, Fault) and answer.code == "E_CRASH"


def test_a_task_that_hangs_ends_after_its_time() -> None:
    started = time.perf_counter()
    with Children(time.sleep, timeout_s=0.5, chunk=4) as children:
        answers = list(children.map([0.01, 30, 0.01]))
    assert [getattr(answer, "code", None) for answer in answers] == [None, "E_LIMIT", None]
    assert "time" in answers[1].message
    assert 0.5 < time.perf_counter() - started < 10


def test_a_task_that_eats_memory_is_ended() -> None:
    with Children(bytes, memory_bytes=2**29, chunk=4) as children:
        small, large, again = children.map([3, 2**40, 2])
    assert (small, again) == (bytes(3), bytes(2))
    assert isinstance(large, Fault) and large.code == "E_LIMIT" and "memory" in large.message


def test_large_tasks_and_results_pass() -> None:
    tasks = [bytes([index]) * 3_000_000 for index in range(5)]
    with Children(bytes, workers=2, chunk=2) as children:
        assert list(children.map(tasks)) == tasks


def test_prints_do_not_get_between_the_answers() -> None:
    with Children(print) as children:
        assert list(children.map(["stray", b"x" * 100_000])) == [None, None]


def test_a_function_that_cannot_be_imported_is_told() -> None:
    with Children(Path.cwd, chunk=2) as children, pytest.raises(Exception, match=r"Path\.cwd|no attribute"):
        list(children.map([1, 2]))


def test_the_processes_end_with_the_block() -> None:
    with Children(family, workers=2) as children:
        ((server, child),) = children.map([0])
        assert alive(server) and alive(child)
    assert not alive(server) and not alive(child)


def test_leaving_early_does_not_wait_for_the_rest() -> None:
    started = time.perf_counter()
    with Children(time.sleep, workers=2) as children:
        results = children.map([0.0, 60.0, 60.0, 60.0])
        next(results)
    assert time.perf_counter() - started < 20


PARENT = """
import os, signal, sys, threading, time
from pathlib import Path
from pipeline.child import Children
from tests.test_child import family
print("main", flush=True)
children = Children(family, timeout_s=600)
print(*next(children.map([0])), flush=True)
if sys.argv[1] != "idle":
    threading.Thread(target=lambda: list(children.map([600])), daemon=True).start()
    time.sleep(0.5)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("state", ["idle", "hangs"])
def test_nothing_is_left_when_the_parent_is_killed(state: str, tmp_path: Path) -> None:
    """Neither the server nor a child, long before the time of its task is over; nor does any of them run the script."""
    script = tmp_path / "script.py"
    script.write_text(PARENT)
    done = subprocess.run([sys.executable, script, state], capture_output=True, text=True, timeout=60, env=PLACE)
    main, pids = done.stdout.splitlines()
    assert main == "main"
    until = time.monotonic() + 10
    while any(alive(int(pid)) for pid in pids.split()):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_daemonic_process_may_have_children() -> None:
    """As the workers of dask are."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=absolute, args=(theirs,), daemon=True)
    process.start()
    assert ours.poll(60) and ours.recv() == [3]
    process.join()


def absolute(pipe) -> None:
    with Children(abs) as children:
        pipe.send(list(children.map([-3])))


def test_the_forked_copy_of_a_process_with_children_may_have_its_own() -> None:
    server = Server(name_of(abs))
    with Children(server) as children:
        assert list(children.map([-1])) == [1]
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=absolute, args=(theirs,))
    process.start()
    assert ours.poll(60) and ours.recv() == [3]
    process.join()
    with Children(server) as children:
        assert list(children.map([-2])) == [2]
    server.close()


def test_a_server_forks_fresh_children_without_loading_again() -> None:
    server = Server(name_of(family))
    found = []
    for _ in range(2):
        with Children(server) as children:
            found += children.map([0])
    server.close()
    assert found[0][0] == found[1][0] and found[0][1] != found[1][1]
    assert not alive(found[0][0])


def test_linear_algebra_has_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with Children(os.getenv) as children:
        assert list(children.map(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"])) == ["1", "1"]


def family(seconds: float) -> tuple[int, int]:
    """In a child: the server's process and its own."""
    time.sleep(seconds)
    return os.getppid(), os.getpid()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
