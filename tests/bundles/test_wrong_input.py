"""What is wrong with a configuration ends a bundle with one sentence and exit code 2, though MONAI builds it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from pipeline.shipped import shipped
from tests import warm

FIRST = "pipeline.run.options.start"
#: `evaluate.yaml` lies over `train.yaml`, and keeps its first step.
RUNNABLE = sorted(
    path
    for path in shipped("bundles").glob("*/configs/**/*.yaml")
    if {"run", "initialize"} & ConfigParser.load_config_file(str(path)).keys() and path.stem != "evaluate"
)


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_every_bundle_looks_at_what_was_typed_before_anything_is_built(path: Path) -> None:
    first = ConfigParser.load_config_file(str(path))["initialize"][0]
    assert first == {"_target_": FIRST}


def test_there_are_bundles_of_every_stage() -> None:
    found = {path.relative_to(shipped("bundles")).parts[0] for path in RUNNABLE}
    assert found == {path.name for path in shipped("bundles").iterdir() if path.is_dir()}


def python(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=shipped(), env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("config", "options", "code"),
    [
        (
            "fuse/configs/inference.yaml",
            ("--weights", "no.pt", "--spec_file", "data_specs/ct_mr_head.yaml"),
            "E_INPUT",
        ),
        ("ingest/configs/inference.yaml", ("--spec_file", "no.yaml"), "E_SPEC"),
        ("fuse/configs/train.yaml", ("--resume", "false"), "E_OPTION"),
        ("preprocess/configs/inference.yaml", ("--clahe_clip_limt=0.02",), "E_OPTION"),
        ("ingest/configs/inference.yaml", ("--spec_file", "$__import__('pathlib').Path('made').touch()"), "E_OPTION"),
        ("report/configs/inference.yaml", ("--output_dir", "run#1"), "E_OPTION"),
    ],
)
def test_it_says_one_sentence(config: str, options: tuple[str, ...], code: str, tmp_path: Path) -> None:
    folders = ("--dataset_dir", tmp_path, "--output_dir", tmp_path)
    words = ("run", "--config_file", f"bundles/{config}", *folders, *options)
    done = python("-m", "monai.bundle", *words) if code == "E_INPUT" else warm.run("monai.bundle", *words)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr[-2000:]
    (said,) = [line for line in done.stderr.splitlines() if line.startswith(code)]
    assert said.startswith(f"{code}: ") and said == done.stderr.splitlines()[-1]
    assert not shipped("made").exists()


HOOKED = "import sys; from pipeline.console import end_plainly; {before}; end_plainly(); {then}"


def test_a_defect_keeps_its_traceback_and_another_hook_stays() -> None:
    done = python("-c", HOOKED.format(before="pass", then="raise ValueError('a defect')"))
    assert done.returncode == 1 and "Traceback" in done.stderr and "ValueError: a defect" in done.stderr
    done = python("-c", HOOKED.format(before="sys.excepthook = print", then="assert sys.excepthook is print"))
    assert done.returncode == 0
