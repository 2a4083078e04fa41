"""Edited code is new work: a stage runs again after an edit of the package's sources, and not without one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline
from pipeline.shipped import code_version
from pipeline.store import records

TRANSFORM = """\
class Tell:
    def writes(self):
        return {"told": "measure"}

    def __call__(self, case):
        return {**case, "told": {"number": 1.0}}
"""
RUN = """\
import json, sys
from pathlib import Path
from pipeline.preprocessing.tell import Tell
from pipeline.run.stage import Stage

root = Path(sys.argv[1])
stage = Stage("tell", Tell(), reads={"note": "document"}, output_dir=root / "out")
record = stage.run_case({"case_id": "one", "note": root / "note.txt"})
assert record.status == "done", record.error
number = json.loads((root / "out" / record.artifacts[0].path).read_text())["number"]
print(json.dumps([record.reused, number, record.versions["tandem-imaging"]]))
"""


def run(root: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", RUN, str(root)]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@pytest.mark.slow
def test_an_edit_of_a_transform_is_new_work(tmp_path: Path) -> None:
    package = tmp_path / "pipeline"
    shutil.copytree(Path(pipeline.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    transform = package / "preprocessing" / "tell.py"
    transform.write_text(TRANSFORM)
    (tmp_path / "note.txt").write_text("an input")
    first = run(tmp_path)
    assert first.startswith("[false, 1.0, ") and pipeline.__version__ in first
    assert run(tmp_path) == first.replace("false", "true")
    transform.write_text(TRANSFORM.replace("1.0", "2.0"))
    edited = run(tmp_path)
    assert edited.startswith("[false, 2.0, ") and edited.split(", ")[2] != first.split(", ")[2]
    transform.write_text(TRANSFORM)
    assert run(tmp_path) == first  # the code of before has the version of before


def test_records_name_the_code_that_wrote_them() -> None:
    assert records.versions()["tandem-imaging"] == code_version() != pipeline.__version__
