from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import CaseError, UsageError
from pipeline.store.files import (
    LINK,
    require_file,
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
