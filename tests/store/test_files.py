from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from pipeline.errors import CaseError, UsageError, pipeline_cause
from pipeline.store.files import (
    LINK,
    full_disk_named,
    require_file,
    require_given,
    run_lock,
    sha256_file,
    sweep,
    walk,
    writable_folder,
    write_atomic,
    write_text,
)


def refusing(closed: Path, scandir: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`os.scandir` for a user who may not open one folder; the tests' own user may be allowed everything."""

    def opened(path: Any) -> Any:
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    return opened


def test_every_entry_of_a_tree_is_given_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, those behind links to folders, and what was not entered: a closed folder, a loop, a second link."""
    root, store = tmp_path / "in", tmp_path / "store"
    for folder in (root / "a", root / "closed", store / "deep"):
        folder.mkdir(parents=True)
    for file in (root / "1", root / "a" / "2", root / "closed" / "3", store / "4", store / "deep" / "5"):
        file.write_bytes(b"x")
    for link, target in {"z": store, "y": store / "deep", "a/up": root, "b": root / "a", "none": store / "6"}.items():
        (root / link).symlink_to(target)
    monkeypatch.setattr(os, "scandir", refusing(root / "closed", os.scandir))
    found = sorted(path.relative_to(root).as_posix() for path in walk(root))
    assert found == ["1", "a/2", "a/up", "b", "closed", "none", "y/5", "z/4", "z/deep"]
    assert [require_file(root / name) for name in ("1", "a/up", "b", "z/deep")] == ["", LINK, LINK, LINK]
    for name in ("closed", "none"):
        with pytest.raises(OSError, match=r"denied|No such"):
            require_file(root / name)


def test_a_link_of_the_input_may_not_lead_to_the_output(tmp_path: Path) -> None:
    root, out = tmp_path / "in", tmp_path / "far" / "out"
    for folder in (root, out / "cases"):
        folder.mkdir(parents=True)
    for target in (tmp_path / "far", out, out / "cases"):
        (root / "link").symlink_to(target)
        with pytest.raises(UsageError, match=r"E_OUT: .*in or above .*link"):
            list(walk(root, out))
        (root / "link").unlink()


def test_a_name_is_bytes(tmp_path: Path) -> None:
    name = os.fsdecode(b"M\xfcller")
    write_text(tmp_path / "a", name)
    assert (tmp_path / "a").read_bytes() == b"M\\udcfcller"
    with pytest.raises(UsageError, match=r"E_OUT: .*UTF-8 text"):
        writable_folder(tmp_path / name)


def test_the_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"tandem" * 100_000)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"tandem" * 100_000).hexdigest()


def test_a_failed_write_leaves_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, lambda target: write_text(target, "first"))

    def broken(target: Path) -> None:
        write_text(target, "sec")
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        write_atomic(path, broken)
    assert path.read_text() == "first"
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]


def test_a_failed_check_keeps_the_name_free(tmp_path: Path) -> None:
    def refuse(_path: Path) -> None:
        raise CaseError("E_VERIFY", "Not what was written.")

    with pytest.raises(CaseError, match="E_VERIFY"):
        write_atomic(tmp_path / "a.txt", lambda target: write_text(target, "x"), refuse)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_has_its_own_code(tmp_path: Path) -> None:
    def full(_path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(CaseError, match="E_DISK"):
        write_atomic(tmp_path / "a.txt", full)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_device(tmp_path: Path) -> None:
    def full(path: Path) -> None:
        path.symlink_to("/dev/full")
        write_text(path, "x")

    with pytest.raises(CaseError, match="E_DISK"):
        write_atomic(tmp_path / "a.txt", full)


def test_a_file_that_is_named_is_there_is_a_file_and_can_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("x")
    require_given(tmp_path / "a", "a table")
    with pytest.raises(UsageError, match=f"^E_INPUT: Expected a table, but {tmp_path}/b does not exist."):
        require_given(tmp_path / "b", "a table")
    with pytest.raises(UsageError, match=f"^E_INPUT: Expected a table, but {tmp_path} is not a file."):
        require_given(tmp_path, "a table")
    monkeypatch.setattr(Path, "open", _closed)
    with pytest.raises(
        UsageError, match=f"^E_UNREADABLE: .*{tmp_path}/a cannot be opened .Permission denied.. Check the"
    ):
        require_given(tmp_path / "a", "a table")


def _closed(path: Path, *_: object) -> None:
    raise PermissionError(errno.EACCES, "Permission denied", str(path))


def test_a_new_folder_goes_where_a_command_cannot_start(tmp_path: Path) -> None:
    """One that was there stays, and so does one in which work was done, or that another run has."""

    def refused(folder: Path, code: str = "E_SPEC", *made: str) -> list[str]:
        with suppress(UsageError), run_lock(folder):
            for name in ("run.json", *made):
                (folder / name).write_text("x")
            raise UsageError(code, "Wrong.")
        return sorted(path.name for path in tmp_path.rglob("*"))

    assert refused(tmp_path / "a" / "b") == []
    (tmp_path / "old").mkdir()
    assert refused(tmp_path / "old") == ["old"]
    assert refused(tmp_path / "old", "E_SPEC", "series.csv") == [".lock", "old", "run.json", "series.csv"]
    (tmp_path / "old" / "series.csv").unlink()
    assert refused(tmp_path / "old") == [".lock", "old", "run.json"]
    assert refused(tmp_path / "new", "E_BUSY")[-2:] == ["run.json", "run.json"]


def test_sweep_takes_only_temporary_files(tmp_path: Path) -> None:
    (tmp_path / ".tmp-1-a").write_text("x")
    (tmp_path / ".tmp-2").mkdir()
    (tmp_path / "keep").write_text("x")
    sweep(tmp_path)
    assert [item.name for item in tmp_path.iterdir()] == ["keep"]


def test_one_run_at_a_time(tmp_path: Path) -> None:
    code = f"from pipeline.store.files import Path, run_lock\nwith run_lock(Path(r'{tmp_path}')): pass"
    with run_lock(tmp_path):
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert other.returncode == 1 and "E_BUSY" in other.stderr
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="E_OUT"):
        writable_folder(tmp_path / "file" / "out")


def test_a_full_disk_is_named_wherever_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file's whole path says which disk it is: that of the run folder, or that of the key."""
    with pytest.raises(CaseError, match=rf"^E_DISK: .*{tmp_path}/a/b.txt"):
        write_atomic(tmp_path / "a" / "b.txt", lambda path: _full(path))
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device", "/full/x.csv")
    assert str(pipeline_cause(wrapped)).startswith("E_DISK: Expected room to write /full/x.csv")
    monkeypatch.setattr(Path, "write_bytes", lambda path, _: _full(path))
    with pytest.raises(UsageError, match=rf"^E_DISK: .*{tmp_path}/out"):
        writable_folder(tmp_path / "out")


def _full(path: Path) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_pipe_is_no_file_to_wait_for(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    with socket.socket(socket.AF_UNIX) as listening:
        os.mkfifo(path) if kind == "pipe" else listening.bind(str(path))
        with pytest.raises(OSError, match="not a file"):
            sha256_file(path)


def _unknown(*_: object) -> None:
    raise OSError(errno.ENOSYS, "Function not implemented")


HOLD = """
import sys
from contextlib import suppress
from pathlib import Path
from pipeline.store import files
{without}
with files.run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
#: What a disk may not know; the lock of the process that is killed counts no more.
WITHOUT = {
    "flock": "files.fcntl.flock = lambda *_: (_ for _ in ()).throw(OSError(38, ''))",
    "locks": "files.fcntl.flock = files.fcntl.lockf = lambda *_: (_ for _ in ()).throw(OSError(95, ''))",
}


@pytest.mark.parametrize("without", WITHOUT)
def test_a_disk_without_flock_is_locked_in_another_way(
    without: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = HOLD.format(without=WITHOUT[without])
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    monkeypatch.setattr("pipeline.store.files.fcntl.flock", _unknown)
    if without == "locks":
        monkeypatch.setattr("pipeline.store.files.fcntl.lockf", _unknown)
    with pytest.raises(UsageError, match="E_BUSY"), run_lock(tmp_path):
        pass
    other.kill()
    other.communicate()
    with run_lock(tmp_path):
        pass
    assert not (tmp_path / ".lock-owner").exists()


def test_a_lock_of_another_machine_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("flock", "lockf"):
        monkeypatch.setattr(f"pipeline.store.files.fcntl.{name}", _unknown)
    for owner, where in (("elsewhere\n17", "elsewhere"), ("", "a machine yet unnamed")):  # it is about to be written
        (tmp_path / ".lock-owner").write_text(owner)
        with pytest.raises(UsageError, match=rf"E_BUSY: A run on {where} .* delete .*/.lock-owner"), run_lock(tmp_path):
            pass


def test_a_full_disk_leaves_no_lock_of_nobody_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("flock", "lockf"):
        monkeypatch.setattr(f"pipeline.store.files.fcntl.{name}", _unknown)
    with monkeypatch.context() as full:
        full.setattr(Path, "write_text", Mock(side_effect=OSError(errno.ENOSPC, "full")))
        with pytest.raises(CaseError, match="E_DISK"), run_lock(tmp_path):
            pass
    assert not (tmp_path / ".lock-owner").exists()
    with run_lock(tmp_path):
        pass


@pytest.mark.parametrize("error", [RuntimeError("ITK ERROR"), OSError("9 requested"), CaseError("E_VERIFY", "Cut.")])
def test_a_full_disk_is_named_where_a_library_hides_it(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(_path: Path) -> None:
        raise error

    with pytest.raises(type(error), match=re.escape(str(error))):
        write_atomic(tmp_path / "a.npy", write)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4096))
    with pytest.raises(CaseError, match=f"^E_DISK: Expected room to write {tmp_path}/a.npy, but its disk is full."):
        write_atomic(tmp_path / "a.npy", write)
    with pytest.raises(CaseError, match="E_DTYPE"), full_disk_named(tmp_path / "a.npy"):
        raise CaseError("E_DTYPE", "Wrong values, whatever the disk is.")
