"""`kill -9` of a running `tandem run` at random moments: nothing that is half done ever counts as done.

tests/run/test_wounds.py kills a stage at every write point, and more often.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.store import records
from tests.tandem_process import command, environment, started_tandem, tandem
from tests.whole_run import SPEC, WholeRun

KILLS = 4
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def hashes(out: Path, case_id: str) -> dict[str, str]:
    """Every output of every finished stage of a case that does not tell the time."""
    found = [record for record in records.of_run(out)[case_id] if record.stage != "report"]
    return {item.path: item.sha256 for record in found if record.status == "done" for item in record.artifacts}


def require_nothing_wrong(out: Path, truth: dict[str, str]) -> int:
    """Whatever counts as done is whole, readable, and what an undisturbed run gives."""
    done = 0
    for case in records.of_run(out).values() if (out / "cases").is_dir() else ():
        for record in case:
            assert record.status == "done"
            assert records.intact(record, out)
            for item in record.artifacts:
                assert record.stage == "report" or truth[item.path] == item.sha256
                if item.geometry is not None:
                    image = nib.load(out / item.path)
                    assert image.shape[:3] == item.geometry.shape
                    assert np.isfinite(np.asarray(image.dataobj)).all()
            done += 1
    return done


def test_kills_at_random_moments(whole_run: WholeRun, tmp_path: Path) -> None:
    """Beside what the run of the whole cohort made of the same patient."""
    home, arguments = whole_run.own_home(tmp_path / "home"), ("run", whole_run.small.dicom, "--spec", SPEC, "--out")
    truth = hashes(whole_run.out, whole_run.small_case)
    started = time.perf_counter()
    assert started_tandem(home, *arguments, tmp_path / "whole").code == 0
    seconds = time.perf_counter() - started
    assert hashes(tmp_path / "whole", whole_run.small_case) == truth
    chance, out, seen = random.Random(2), tmp_path / "out", set()
    for number in range(4 * KILLS):  # more of them where other work has slowed the runs down
        if number >= KILLS and len(seen) > 1:
            break
        process = subprocess.Popen(
            command(*arguments, out),
            env=environment(home),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(timeout=chance.uniform(0.1, 0.9) * seconds)
            finished = True
        except subprocess.TimeoutExpired:
            finished = False
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        seen.add(require_nothing_wrong(out, truth))
        if finished:
            shutil.rmtree(out)
    assert len(seen) > 1, "the kills hit the run at different stages"
    assert tandem(home, *arguments, out).code == 0
    assert require_nothing_wrong(out, truth) == 4
    assert hashes(out, whole_run.small_case) == truth
    assert not list(out.rglob(".tmp-*"))
