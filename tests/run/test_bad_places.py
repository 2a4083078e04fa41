"""A run folder on a full or a read-only disk, and an input that changes while it is read: each has its code."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import PipelineError
from pipeline.run import batch, loading
from pipeline.run.plan import Plan
from pipeline.simulation.dicom import SeriesHeader, write_series
from pipeline.store import records
from tests.phantoms.phantom import position_phantom
from tests.tandem_process import call


@contextmanager
def disk(folder: Path, size: str) -> Iterator[None]:
    """A small disk of its own at a folder."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def dicom(tmp_path: Path) -> Path:
    for patient in ("A1", "B1"):
        header = SeriesHeader(seed=patient, patient_id=patient)
        write_series(position_phantom(shape=(48, 40, 6)), tmp_path / "in" / patient, header)
    return tmp_path / "in"


def test_a_disk_that_is_full_at_the_start(dicom: Path, tmp_path: Path) -> None:
    with disk(tmp_path / "small", "16k"):
        (tmp_path / "small" / "filler").write_bytes(b"x" * 4096 * 3)
        done = call("ingest", dicom, "--out", tmp_path / "small" / "out", "--min-free", "0")
        assert done.code == 2 and done.err.startswith("E_DISK: Expected room to write"), done.err


def test_a_disk_that_fills_up_and_is_emptied(dicom: Path, tmp_path: Path) -> None:
    """Nothing counts as done that is not whole, and the next run goes on."""
    with disk(tmp_path / "small", "256k"):
        out, filler = tmp_path / "small" / "out", tmp_path / "small" / "filler"
        plan = Plan(dicom, out, stages=("ingest",))
        filler.write_bytes(b"x" * (256 - 64) * 1024)
        with pytest.raises(PipelineError) as full:
            batch.run(plan)
        assert full.value.code == "E_DISK"
        for case in records.of_run(out).values():
            assert all(records.intact(record, out) for record in case if record.status == "done")
        filler.unlink()
        assert [case[0].status for case in batch.run(plan).values()] == ["done", "done"]


def test_a_read_only_disk(dicom: Path, tmp_path: Path) -> None:
    with disk(tmp_path / "small", "1m"):
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "small")], check=True)
        done = call("ingest", dicom, "--out", tmp_path / "small" / "out")
        assert done.code == 2 and done.err.startswith("E_OUT: "), done.err
        assert "Read-only file system" in done.err


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda path: path.unlink(), "E_UNREADABLE"),
        (lambda path: path.write_bytes(path.read_bytes()[:2000]), "E_PIXEL_LENGTH"),
        (lambda path: path.write_bytes(b""), "E_CHANGED"),
    ],
)
def test_a_tree_that_changes_while_it_is_read(
    change: Callable[[Path], Any], code: str, dicom: Path, tmp_path: Path
) -> None:
    """Between the reading of headers and that of voxels; the other case goes on."""
    loaded = loading.load("ingest", Plan(dicom, tmp_path / "out", stages=("ingest",)))
    cases = loaded.find_cases()
    change(cases[0]["image"].files[2])
    found = loaded.stage.run(cases)
    assert found[1].status == "done" and found[0].error is not None
    assert found[0].error.code == code
