"""Runs over a whole tree: a second one, a killed one, several processes, and folders that cannot be used."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.dicom.confidentiality.options import Options
from pipeline.dicom.confidentiality.tree import deidentify_tree
from pipeline.errors import UsageError
from pipeline.simulation.dicom import SeriesHeader, write_series
from tests.dicom.confidentiality.deidentified import changed, copies, table, write
from tests.phantoms.phantom import position_phantom
from tests.store.test_files import refusing
from tests.tandem_process import command, environment


def test_a_second_run_does_only_what_is_missing_or_changed(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    deidentify_tree(tree, out, Options())
    first = {path: path.stat().st_mtime_ns for path in out.rglob("*.dcm")}
    lost, cut, *_ = sorted(first)
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:-10])
    source = sorted((tree / "Jane" / "ct").iterdir())[0]
    changed(source, KVP="80")
    found = deidentify_tree(tree, out, Options())
    assert found.count("copied") == 12 and 9 <= found.reused <= 10
    second = {path: path.stat().st_mtime_ns for path in out.rglob("*.dcm")}
    assert set(second) == set(first)
    assert sum(first[path] == second[path] for path in first) == found.reused
    assert {str(data.get("KVP")) for data in copies(out) if data.Modality == "CT"} == {"80", "120"}
    assert deidentify_tree(tree, out, Options()).reused == 12


def test_a_source_that_is_no_longer_fit_loses_its_copy(tree: Path, tmp_path: Path) -> None:
    deidentify_tree(tree, tmp_path / "out", Options())
    changed(sorted((tree / "Jane" / "ct").iterdir())[0], BurnedInAnnotation="YES")
    found = deidentify_tree(tree, tmp_path / "out", Options())
    assert found.codes() == {"E_BURNED_IN": 1} and len(copies(tmp_path / "out")) == 11


def test_a_killed_run_leaves_nothing_that_counts(tmp_path: Path, tandem_home: Path) -> None:
    """`kill -9` when some copies are there: the next run gives what an undisturbed one gives, and no stray file."""
    for number in range(12):
        write_series(
            position_phantom(shape=(12, 10, 30)), tmp_path / "in" / str(number), SeriesHeader(study=str(number))
        )
    arguments = ("deidentify", tmp_path / "in", "--out", tmp_path / "out", "--jobs", "1")
    run = subprocess.Popen(command(*arguments), env=environment(tandem_home), start_new_session=True)
    while len(list((tmp_path / "out").rglob("image-*.dcm"))) < 40:
        time.sleep(0.002)
        assert run.poll() is None
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert not (tmp_path / "out" / "deidentified.csv").exists()
    stray = next((tmp_path / "out").rglob("image-*.dcm")).parent / ".tmp-0-image.dcm"
    stray.write_bytes(b"half a file")
    deidentify_tree(tmp_path / "in", tmp_path / "out", Options())
    deidentify_tree(tmp_path / "in", tmp_path / "whole", Options())
    assert table(tmp_path / "out") == table(tmp_path / "whole")
    files = [{p.relative_to(o) for p in o.rglob("*") if p.is_file()} for o in (tmp_path / "out", tmp_path / "whole")]
    assert files[0] == files[1] and len(files[0]) == 360 + 3


def test_other_options_ask_for_overwrite(tree: Path, tmp_path: Path) -> None:
    deidentify_tree(tree, tmp_path / "out", Options())
    with pytest.raises(UsageError, match=r"E_OPTION.*--overwrite"):
        deidentify_tree(tree, tmp_path / "out", Options(shift_dates=True))
    found = deidentify_tree(tree, tmp_path / "out", Options(shift_dates=True), overwrite=True)
    assert found.reused == 0
    assert all(data.StudyDate for data in copies(tmp_path / "out"))


def test_many_processes_give_the_same_as_one(tree: Path, tmp_path: Path) -> None:
    for number in range(3):
        write(tree / str(number), patient_id=f"Q{number}")
    deidentify_tree(tree, tmp_path / "one", Options())
    deidentify_tree(tree, tmp_path / "two", Options(), jobs=2)
    assert table(tmp_path / "one") == table(tmp_path / "two")


def test_folders_that_cannot_be_used(tree: Path, tmp_path: Path) -> None:
    for root, out, code in (
        (tree, tree / "out", "E_OUT"),
        (tree, tree.parent, "E_OUT"),
        (tmp_path / "nowhere", tmp_path / "out", "E_EMPTY"),
    ):
        with pytest.raises(UsageError, match=code):
            deidentify_tree(root, out, Options())
    (tmp_path / "texts").mkdir()
    with pytest.raises(UsageError, match="E_EMPTY"):
        deidentify_tree(tmp_path / "texts", tmp_path / "out", Options())
    (tmp_path / "texts" / "a").write_text("x" * 500)
    with pytest.raises(UsageError, match="E_NO_DICOM"):
        deidentify_tree(tmp_path / "texts", tmp_path / "out", Options())
    with pytest.raises(UsageError, match="E_OPTION"):
        Options(shift_dates=True, retain_dates=True)


def test_folders_that_are_links_are_copied_and_closed_ones_have_failed(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "store", patient_id="P9")
    (tree / "linked").symlink_to(tmp_path / "store")
    closed = tree / "John" / "mr"
    monkeypatch.setattr(os, "scandir", refusing(closed, os.scandir))
    found = deidentify_tree(tree, tmp_path / "out", Options())
    assert (found.count("copied"), found.codes()) == (12, {"E_UNREADABLE": 1})
    assert [row.source.path for row in found.outcomes if row.verdict == "failed"] == [closed]
