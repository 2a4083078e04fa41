"""The process that registers: what may happen to its children, and to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.errors import CaseError
from pipeline.registration import process
from pipeline.registration.process import Zygote

#: Serves requests with a work of the test's own; `loaded` counts how often the program was started.
PROGRAM = """
import os, pathlib, sys, time
from pipeline.registration.zygote import serve
with open(sys.argv[1], "a") as stream:
    stream.write("loaded\\n")
def work(folder):
    exec((folder / "work.py").read_text())
serve(work)
"""


@pytest.fixture
def zygote(tmp_path: Path):
    made = Zygote((sys.executable, "-c", PROGRAM, str(tmp_path / "loaded.txt")))
    yield made
    made.close()


def run(zygote: Zygote, folder: Path, code: str, timeout_s: float = 60) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "work.py").write_text(code)
    zygote.run(folder, 1, timeout_s)


def loaded(tmp_path: Path) -> int:
    return len((tmp_path / "loaded.txt").read_text().splitlines())


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("os.kill(os.getpid(), 11)", "code -11"),
        ("raise RuntimeError('ITK could not allocate')", "ITK could not allocate"),
        ("import ctypes; ctypes.string_at(0)", "code -11"),
        ("os._exit(3)", "code 3"),
        ("time.sleep(60)", "within 1 s"),
    ],
)
def test_a_childs_end_is_an_error_and_the_next_one_works(zygote: Zygote, tmp_path: Path, code: str, words: str) -> None:
    with pytest.raises(CaseError, match=words) as caught:
        run(zygote, tmp_path / "bad", code, timeout_s=1 if "sleep" in code else 60)
    assert caught.value.code == "E_CRASH"
    run(zygote, tmp_path / "good", "(folder / 'done').write_text('x')")
    assert (tmp_path / "good/done").is_file()
    assert loaded(tmp_path) == 1


def test_every_child_is_a_fresh_copy_of_one_process(zygote: Zygote, tmp_path: Path) -> None:
    code = "seen = getattr(sys, 'seen', 0); sys.seen = seen + 1; (folder / 'o').write_text(f'{seen} {os.getppid()}')"
    found = set()
    for name in ("a", "b", "c"):
        run(zygote, tmp_path / name, code)
        found.add((tmp_path / name / "o").read_text())
    assert len(found) == 1
    assert found.pop().startswith("0 ")


def test_what_children_print_is_no_answer(zygote: Zygote, tmp_path: Path) -> None:
    run(zygote, tmp_path / "a", "print('{\"code\": 9}'); sys.stdout.flush(); os.write(1, b'noise\\n')")
    run(zygote, tmp_path / "b", "pass")


def test_a_process_that_died_is_started_again(zygote: Zygote, tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="ended or hung") as caught:
        run(zygote, tmp_path / "a", "os.kill(os.getppid(), 9); time.sleep(60)")
    assert caught.value.code == "E_CRASH"
    run(zygote, tmp_path / "b", "(folder / 'done').write_text('x')")
    assert (tmp_path / "b/done").is_file()
    assert loaded(tmp_path) == 2


def test_a_program_that_does_not_start_gives_its_last_words(tmp_path: Path) -> None:
    broken = Zygote((sys.executable, "-c", "raise SystemExit('no itk here')"))
    with pytest.raises(CaseError, match="no itk here"):
        run(broken, tmp_path / "a", "pass")


def test_nothing_is_left_when_the_pipeline_is_killed(tmp_path: Path) -> None:
    """Neither the process nor the child that is at work outlives the pipeline."""
    (tmp_path / "work.py").write_text("(folder / 'pids').write_text(f'{os.getppid()} {os.getpid()}'); time.sleep(60)")
    code = (
        "import sys; from pathlib import Path; from pipeline.registration.process import Zygote;"
        "Zygote((sys.executable, '-c', sys.argv[1], sys.argv[2] + '/loaded.txt')).run(Path(sys.argv[2]), 1, 60)"
    )
    pipeline = subprocess.Popen([sys.executable, "-c", code, PROGRAM, str(tmp_path)])
    pids = tmp_path / "pids"
    _wait(lambda: pids.is_file() and len(pids.read_text().split()) == 2)
    family = [int(pid) for pid in pids.read_text().split()]
    assert all(alive(pid) for pid in family)
    os.kill(pipeline.pid, signal.SIGKILL)
    pipeline.wait()
    _wait(lambda: not any(alive(pid) for pid in family))


def test_one_process_for_one_pipeline() -> None:
    assert process.zygote() is process.zygote()


def _wait(condition) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)
