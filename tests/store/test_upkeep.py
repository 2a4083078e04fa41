"""A run folder is checked against its records, and what no record names is found; nothing else is touched."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pipeline.cases import Artifact, Fault, Record
from pipeline.errors import UsageError
from pipeline.store import records, upkeep
from pipeline.store.files import run_lock
from pipeline.store.upkeep import Checked, Stray, check, checked, outputs, remove, strays


def case(out: Path, name: str, stage: str = "ingest", **changes: object) -> Path:
    """A finished stage with one output."""
    folder = out / "cases" / name / stage
    folder.mkdir(parents=True)
    data = f"{name} {stage}".encode()
    (folder / "ct.nii.gz").write_bytes(data)
    path = f"cases/{name}/{stage}/ct.nii.gz"
    made = Artifact("ct", "image", path, hashlib.sha256(data).hexdigest())
    records.write(
        Record(**({"case_id": name, "stage": stage, "key": "k", "status": "done", "artifacts": (made,)} | changes)),
        folder,
    )
    return folder


def verify(out: Path) -> Checked:
    return checked(out, check(out, outputs(out), 2))


def test_a_whole_folder_is_whole(tmp_path: Path) -> None:
    for name in "abc":
        case(tmp_path, name)
    case(tmp_path, "a", "register")
    assert verify(tmp_path) == Checked(4)
    assert verify(tmp_path).is_whole and strays(tmp_path) == []


def test_what_is_missing_changed_or_not_recorded_is_told_apart(tmp_path: Path) -> None:
    (case(tmp_path, "a") / "ct.nii.gz").unlink()
    path = case(tmp_path, "b") / "ct.nii.gz"
    path.write_bytes(path.read_bytes()[:-1] + b"T")  # one bit
    (case(tmp_path, "c") / "extra.txt").write_text("x")
    (case(tmp_path, "d") / "record.json").write_text("{")
    found = verify(tmp_path)
    assert found.whole == 1 and not found.is_whole
    assert (found.missing, found.changed) == (("cases/a/ingest/ct.nii.gz",), ("cases/b/ingest/ct.nii.gz",))
    assert found.unreadable == ("cases/d/ingest/record.json",)
    assert found.unrecorded == ("cases/c/ingest/extra.txt",)


def test_a_stale_record_still_owns_its_files(tmp_path: Path) -> None:
    case(tmp_path, "a")
    gone = (Artifact("ct", "image", "cases/a/ingest/ct.nii.gz", "of before"),)
    folder = case(tmp_path, "a", "register", inputs=gone)
    assert len(records.of_case(tmp_path / "cases" / "a")) == 1
    assert verify(tmp_path) == Checked(2) and strays(tmp_path) == [] and folder.is_dir()


def test_strays_are_found_with_their_reason_and_size(tmp_path: Path) -> None:
    folder = case(tmp_path, "a")
    (folder / ".tmp-12-x.nii.gz").write_bytes(b"123")
    (folder / "error.log").write_text("old")  # of a case that is done
    case(tmp_path, "b", status="failed", artifacts=(), error=Fault("E_INTERNAL", "x")).joinpath("error.log").touch()
    (tmp_path / "cases" / "a" / "segment").mkdir()
    (tmp_path / "cases" / "a" / "segment" / "label.nii.gz").write_bytes(b"12")
    case(tmp_path, "c", status="quarantined", artifacts=(), error=Fault("E_WITHDRAWN", "x"))
    (tmp_path / "cases" / "d").mkdir()
    kept = case(tmp_path, "c", "register")
    size = sum(path.stat().st_size for path in kept.parent.rglob("*") if path.is_file())
    assert {(item.path, item.reason, item.size) for item in strays(tmp_path)} == {
        ("cases/c", upkeep.GONE, size),
        ("cases/b/ingest/ct.nii.gz", upkeep.NO_RECORD, 8),
        ("cases/a/ingest/.tmp-12-x.nii.gz", upkeep.TEMPORARY, 3),
        ("cases/a/ingest/error.log", upkeep.NO_RECORD, 3),
        ("cases/a/segment/label.nii.gz", upkeep.NO_RECORD, 2),
        ("cases/d", upkeep.EMPTY, 0),
    }
    remove(tmp_path, strays(tmp_path))
    assert strays(tmp_path) == [] and verify(tmp_path).is_whole
    left = {path.relative_to(tmp_path / "cases").as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"a/ingest/ct.nii.gz", "a/ingest/record.json", "b/ingest/record.json", "b/ingest/error.log"}
    assert not (tmp_path / "cases" / "a" / "segment").exists()


def test_what_a_later_version_may_have_made_is_left_alone(tmp_path: Path) -> None:
    folder = case(tmp_path, "a")
    (folder / "record.json").write_text('{"schema": 9}')
    (folder / "new.bin").write_bytes(b"1")
    assert strays(tmp_path) == []


def test_links_are_not_entered(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "x"
    elsewhere.mkdir(parents=True)
    (elsewhere / "precious.txt").touch()
    folder = case(tmp_path / "out", "a")
    (folder.parent / "link").symlink_to(elsewhere)
    (folder / "file.txt").symlink_to(elsewhere / "precious.txt")
    found = strays(tmp_path / "out")
    assert [item.path for item in found] == ["cases/a/ingest/file.txt"]
    remove(tmp_path / "out", found)
    assert (elsewhere / "precious.txt").exists() and not (folder / "file.txt").is_symlink()


@pytest.mark.parametrize("path", ["run.json", "cases", "cases/../run.json", "../x", "cases/a/link/precious.txt"])
def test_nothing_outside_the_cases_is_deleted(path: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    folder = case(out, "a")
    (tmp_path / "away").mkdir()
    for other in (out / "run.json", tmp_path / "x", tmp_path / "away" / "precious.txt"):
        other.touch()
    (folder.parent / "link").symlink_to(tmp_path / "away")
    with pytest.raises(UsageError, match="E_OUT"):
        remove(out, [Stray(path, upkeep.NO_RECORD, 0)])
    assert all(other.exists() for other in (out / "run.json", tmp_path / "x", tmp_path / "away" / "precious.txt"))


def test_a_folder_that_a_run_holds_is_busy(tmp_path: Path) -> None:
    case(tmp_path, "a")
    upkeep.require_free(tmp_path)
    with run_lock(tmp_path), pytest.raises(UsageError, match="E_BUSY"):
        upkeep.require_free(tmp_path)
    upkeep.require_free(tmp_path)
    with pytest.raises(UsageError, match="E_NO_CASES"):
        upkeep.require_free(tmp_path / "other")
