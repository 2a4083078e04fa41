"""Bad input gets one sentence with a code, exit code 2, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from pipeline.shipped import shipped
from pipeline.simulation.dicom import SeriesHeader, write_series
from pipeline.store.files import run_of
from tests.phantoms.phantom import position_phantom
from tests.tandem_process import Run, call, command, environment, started_tandem, tandem

SPEC = shipped("data_specs", "ct_mr_head.yaml")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write_series(position_phantom(shape=(12, 10, 6)), tmp_path / "dicom" / "ct", SeriesHeader())
    return tmp_path / "dicom"


def refused(run: Run, code: str) -> str:
    assert run.code == 2, (run.out, run.err)
    assert run.err.startswith(code), run.err
    assert "Traceback" not in run.err and len(run.err.strip().splitlines()) == 1
    return run.err


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "dicom").mkdir()
    refused(call("run", tmp_path / "dicom", "--spec", SPEC, "--out", tmp_path / "out"), "E_EMPTY")


def test_a_folder_of_text_files(tmp_path: Path) -> None:
    (tmp_path / "dicom").mkdir()
    for index in range(3):
        (tmp_path / "dicom" / f"{index}.dcm").write_text("not DICOM at all " * 20)
    run = call("run", tmp_path / "dicom", "--spec", SPEC, "--out", tmp_path / "out")
    assert "3 files, none of them DICOM" in refused(run, "E_NO_DICOM")


def test_a_spec_with_a_typo(tree: Path, tmp_path: Path) -> None:
    spec = tmp_path / "typo.yaml"
    spec.write_text(SPEC.read_text().replace("min_instances: 20", "min_instance: 20", 1))
    error = refused(call("run", tree, "--spec", spec, "--out", tmp_path / "out"), "E_SPEC")
    line = spec.read_text().splitlines().index("    min_instance: 20") + 1
    assert f"line {line}: roles.ct.min_instance: unknown key; did you mean `min_instances`?" in error
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_to(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    run = call("run", tree, "--spec", SPEC, "--out", tmp_path / "file" / "out")
    refused(run, "E_OUT")


def test_an_unknown_stage(tree: Path, tmp_path: Path) -> None:
    run = call("run", tree, "--spec", SPEC, "--out", tmp_path / "out", "--stages", "ingets")
    refused(run, "E_NO_STAGE")


def test_a_status_of_nothing(tmp_path: Path) -> None:
    refused(call("status", tmp_path), "E_NO_CASES")


def test_an_unreadable_file_is_reported_and_the_rest_is_done(tree: Path, tmp_path: Path) -> None:
    (tree / "dangling").symlink_to(tree / "nowhere")
    run = call("ingest", tree, "--out", tmp_path / "out")
    assert run.code == 1
    assert "ingest: 1 done" in run.out and "1 file or folder could not be read: see " in run.err
    assert str(tree) not in run.err
    assert len(list((tmp_path / "out").glob("cases/*/ingest/image.nii.gz"))) == 1


@pytest.mark.slow
def test_the_second_run_in_one_folder_refuses(tree: Path, tmp_path: Path, tandem_home: Path) -> None:
    """The first run is stopped (not killed) as soon as it holds the folder."""
    out = tmp_path / "out"
    first = subprocess.Popen(
        command("ingest", tree, "--out", out), env=environment(tandem_home), stdout=subprocess.DEVNULL
    )
    try:
        while not run_of(out):  # it leaves its name in the lock once it holds it
            time.sleep(0.005)
            assert first.poll() is None
        os.kill(first.pid, signal.SIGSTOP)
        refused(tandem(tandem_home, "ingest", tree, "--out", out), "E_BUSY")
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert first.wait() == 0
    assert tandem(tandem_home, "ingest", tree, "--out", out).out.startswith("ingest: 1 done (1 already)")


def test_help_answers_at_once_and_names_the_commands(tandem_home: Path) -> None:
    run = started_tandem(tandem_home, "--help")
    assert run.code == 0
    for name in ("run", "ingest", "register", "status", "demo"):
        assert name in run.out


def test_no_text_that_a_person_or_a_file_gives_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tandem_home: Path
) -> None:
    """Names of folders, texts of the spec and of tags that MONAI's parser, rich or a report could take for code."""
    monkeypatch.chdir(tmp_path)
    hostile = "$__import__('pathlib').Path('made').touch() or 'x'"
    root, out, spec = Path(hostile), Path("@run#1::x"), Path("%spec#1.yaml")
    write_series(
        position_phantom(shape=(12, 10, 6)), root, SeriesHeader(series_description=f"{hostile} [/red] {{{{1}}}}"[:64])
    )
    role = {"modality": ["CT"], "any": [{"tag": "SeriesDescription", "matches": "^\\$__import__"}]}
    text = {"name": "hostile", "description": f"{hostile} [/red] <script>", "roles": {"ct": role}}
    spec.write_text(yaml.safe_dump({**text, "ct_windows": {"$made": [40.0, 400.0], "@ct": [0.0, 10.0]}}))
    found = call("run", root, "--out", out, "--spec", spec, "--stages", "ingest,preprocess,report")
    assert (found.code, found.err) == (0, ""), (found.out, found.err)
    assert call("status", out).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(map(str, (root, out, spec)))
