from __future__ import annotations

import errno
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import CaseError, UsageError
from pipeline.store.files import run_lock, sha256_file, sweep, writable_folder, write_atomic, write_text


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
