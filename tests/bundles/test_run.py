"""Each bundle runs alone with `python -m monai.bundle run`, and gives what the batch gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.shipped import shipped
from pipeline.store import records
from tests import warm
from tests.whole_run import SPEC, WholeRun

STAGES = ("ingest", "register", "preprocess", "report")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(whole_run: WholeRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_run.own_home(tmp_path_factory.mktemp("keys") / "home")


def bundle(name: str, home: Path, dataset_dir: Path, output_dir: Path, *more: str) -> subprocess.CompletedProcess[str]:
    config = f"bundles/{name}/configs/inference.yaml"
    folders = ("--dataset_dir", dataset_dir, "--output_dir", output_dir)
    words = ("run", "--config_file", config, *folders, *more)
    return warm.run("monai.bundle", *words, env=os.environ | {"TANDEM_HOME": str(home)})


@pytest.fixture(scope="module")
def alone(whole_run: WholeRun, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder that the bundles filled one by one."""
    out = tmp_path_factory.mktemp("alone") / "out"
    for name in STAGES:
        source = whole_run.small.dicom if name == "ingest" else out
        more = ("--spec_file", str(SPEC)) if name == "ingest" else ()
        done = bundle(name, home, source, out, *more)
        assert done.returncode == 0, done.stderr[-3000:]
        assert f"{name}: 1 done" in done.stdout
    return out


def test_each_stage_leaves_its_outputs(alone: Path) -> None:
    ((case_id, found),) = records.of_run(alone).items()
    assert [record.stage for record in found] == list(STAGES)
    for record in found:
        assert record.status == "done" and record.artifacts
        assert records.intact(record, alone)
        assert {item.path.split("/")[1] for item in record.artifacts} == {case_id}


def test_the_batch_gives_the_same_bytes(alone: Path, whole_run: WholeRun) -> None:
    """The same file is the stage in both; and each stage is deterministic across processes and cohorts."""
    ((case_id, found),) = records.of_run(alone).items()
    assert case_id == whole_run.small_case
    of_batch = whole_run.found[case_id]
    assert [record.stage for record in of_batch] == list(STAGES)
    for ours, theirs in zip(found[:3], of_batch, strict=False):
        assert {item.key: item.sha256 for item in ours.artifacts} == {
            item.key: item.sha256 for item in theirs.artifacts
        }


def test_a_second_run_of_a_bundle_does_no_work(alone: Path, home: Path) -> None:
    done = bundle("preprocess", home, alone, alone)
    assert done.returncode == 0
    assert "preprocess: 1 done (1 already)" in done.stdout


def test_a_bundle_without_cases_exits_with_two(home: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    words = ("--config_file", "bundles/ingest/configs/inference.yaml", "--dataset_dir", tmp_path / "empty")
    command = [sys.executable, "-m", "monai.bundle", "run", *words, "--output_dir", tmp_path / "out"]
    environment = os.environ | {"TANDEM_HOME": str(home)}
    done = subprocess.run(command, cwd=shipped(), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "E_EMPTY" in done.stderr


def test_an_override_changes_the_stage(alone: Path, home: Path, tmp_path: Path) -> None:
    """`--key value`, as MONAI's users know it: the resume key notices, and what it changes is in the image."""
    images = {}
    for mode in ("never", "always"):
        done = bundle("preprocess", home, alone, tmp_path, "--bias_correction", mode)
        assert done.stdout.endswith("preprocess: 1 done\n"), done.stderr[-3000:]
        (path,) = tmp_path.glob("cases/*/preprocess/mr_normalised.nii.gz")
        images[mode] = np.asarray(nib.load(path).dataobj)
    assert np.abs(images["always"] - images["never"]).mean() > 0.01
