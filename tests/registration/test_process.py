"""The children that register: what may happen to them, and to the process that forks them."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from pipeline.errors import CaseError
from pipeline.registration import process
from pipeline.registration.process import Registrar, move_in


def load() -> None:
    """What a server of these tests does first: count how often it is started."""
    with Path(os.environ["TANDEM_TEST_LOADED"]).open("a") as stream:
        stream.write("loaded\n")


def load_nothing() -> None:
    raise SystemExit("no itk here")


def work(request: tuple[Path, int]) -> None:
    move_in(*request)
    exec((request[0] / "work.py").read_text(), {"folder": request[0], "os": os, "sys": sys, "time": time})


@pytest.fixture
def registrar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TANDEM_TEST_LOADED", str(tmp_path / "loaded.txt"))
    made = Registrar(f"{__name__}:work", f"{__name__}:load")
    yield made
    made.close()


def run(registrar: Registrar, folder: Path, code: str, timeout_s: float = 60) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "work.py").write_text(code)
    registrar.run(folder, 1, timeout_s)


def loaded(tmp_path: Path) -> int:
    return len((tmp_path / "loaded.txt").read_text().splitlines())


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("print('itk::Abort', flush=True); os.kill(os.getpid(), 11)", r"SIGSEGV.*itk::Abort"),
        ("raise RuntimeError('ITK could not allocate')", "ITK could not allocate"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("os._exit(3)", "code 3"),
        ("time.sleep(60)", "within 1 s"),
    ],
)
def test_a_childs_end_is_an_error_and_the_next_one_works(
    registrar: Registrar, tmp_path: Path, code: str, words: str
) -> None:
    with pytest.raises(CaseError, match=words) as caught:
        run(registrar, tmp_path / "bad", code, timeout_s=1 if "sleep" in code else 60)
    assert caught.value.code == "E_CRASH"
    run(registrar, tmp_path / "good", "(folder / 'done').write_text('x')")
    assert (tmp_path / "good/done").is_file()
    assert loaded(tmp_path) == 1


def test_every_child_is_a_fresh_copy_of_one_process(registrar: Registrar, tmp_path: Path) -> None:
    code = "seen = getattr(sys, 'seen', 0); sys.seen = seen + 1; (folder / 'o').write_text(f'{seen} {os.getppid()}')"
    found = set()
    for name in ("a", "b", "c"):
        run(registrar, tmp_path / name, code)
        found.add((tmp_path / name / "o").read_text())
    assert len(found) == 1
    assert found.pop().startswith("0 ")


def test_a_child_has_as_many_threads_as_it_was_given(registrar: Registrar, tmp_path: Path) -> None:
    run(registrar, tmp_path / "a", "assert os.environ['ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS'] == '1'")


def test_what_children_print_is_no_answer(registrar: Registrar, tmp_path: Path) -> None:
    run(registrar, tmp_path / "a", "print('{\"code\": 9}'); sys.stdout.flush(); os.write(1, b'noise\\n')")
    assert (tmp_path / "a" / process.ERRORS).read_text() == '{"code": 9}\nnoise\n'
    run(registrar, tmp_path / "b", "pass")


def test_a_process_that_died_is_started_again(registrar: Registrar, tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="ended") as caught:
        run(registrar, tmp_path / "a", f"os.kill(os.getppid(), {int(signal.SIGKILL)}); time.sleep(60)")
    assert caught.value.code == "E_CRASH"
    run(registrar, tmp_path / "b", "(folder / 'done').write_text('x')")
    assert (tmp_path / "b/done").is_file()
    assert loaded(tmp_path) == 2


def test_libraries_that_do_not_load_are_an_error(tmp_path: Path) -> None:
    broken = Registrar(f"{__name__}:work", f"{__name__}:load_nothing")
    with pytest.raises(CaseError, match="no itk here"):
        run(broken, tmp_path / "a", "pass")
    broken.close()


def test_one_registrar_for_one_pipeline() -> None:
    assert process.registrar() is process.registrar()
