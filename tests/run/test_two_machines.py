"""Workers joined over TCP, each in a working directory of its own, do one cohort together; one of them is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from pipeline.run import events
from pipeline.simulation.dicom import SeriesHeader, write_series
from pipeline.spec.spec import Role, Spec, save_spec
from pipeline.store import records
from tests.phantoms.phantom import position_phantom
from tests.tandem_process import command, environment, tandem

pytestmark = pytest.mark.slow
PATIENTS = tuple(f"P{number}" for number in range(8))
ROOT = Path(__file__).parent.parent.parent


def wait_for(what: Callable[[], object], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def machines(folder: Path, **more: dict[str, str]) -> Iterator[tuple[str, dict[str, subprocess.Popen[bytes]]]]:
    """A scheduler, and workers in folders of their own: name -> what its environment has beside; each its session."""
    with ExitStack() as stack:

        def start(name: str, env: dict[str, str], *words: str) -> subprocess.Popen[bytes]:
            (folder / name).mkdir()
            log = stack.enter_context((folder / name / "log").open("wb"))
            line = [sys.executable, "-m", "dask", *words]
            env = environment(folder / name / "home") | {"PYTHONPATH": str(ROOT)} | env
            process = subprocess.Popen(line, cwd=folder / name, env=env, stdout=log, stderr=log, start_new_session=True)
            stack.callback(process.wait)
            stack.callback(lambda: process.poll() is None and os.killpg(process.pid, signal.SIGKILL))
            return process

        where = folder / "scheduler.json"
        start("scheduler", {}, "scheduler", "--port", "0", "--host", "127.0.0.1", "--scheduler-file", str(where))
        wait_for(where.is_file)
        words = ("worker", "--nthreads", "1", "--no-dashboard", "--scheduler-file", str(where))
        started = {name: start(name, env, *words, "--name", name) for name, env in more.items()}
        address = json.loads(where.read_text())["address"]
        yield address, started


def cohort(folder: Path) -> tuple[str, ...]:
    """Eight patients as DICOM; the words of a run over them, with paths that only its own folder knows."""
    for patient in PATIENTS:
        header = SeriesHeader(seed=patient, patient_id=patient)
        write_series(position_phantom(shape=(64, 64, 16)), folder / "in" / patient, header)
    save_spec(Spec(name="x", description="x", roles={"ct": Role(modality="CT")}), folder / "spec")
    return ("run", "in", "--spec", "spec/spec.yaml", "--stages", "ingest,preprocess,report")


def hashes(out: Path) -> dict[str, str]:
    """What the stages made that does not tell the time."""
    made = [record for found in records.of_run(out).values() for record in found if record.stage != "report"]
    assert {record.status for record in made} == {"done"}
    return {item.path: item.sha256 for record in made for item in record.artifacts}


def test_two_machines_do_one_cohort_and_one_is_killed(tmp_path: Path) -> None:
    words, home, out = cohort(tmp_path), tmp_path / "home", tmp_path / "out"
    with machines(tmp_path, first={}, second={}) as (address, started):
        line = command(*words, "--out", "out", "--scheduler", address)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        run = subprocess.Popen(line, cwd=tmp_path, env=environment(home) | {"PYTHONPATH": str(ROOT)}, **pipes)
        log = events.Follower(out)
        done: list[str] = []

        def some_are_done() -> bool:
            assert run.poll() is None, run.communicate()
            done.extend(event["case"] for event in log.new() if event["event"] == events.CASE)
            return len(done) >= 3

        wait_for(some_are_done)
        os.killpg(started["second"].pid, signal.SIGKILL)
        said, errors = run.communicate(timeout=240)
    assert run.returncode == 0, said + errors
    alone = [tmp_path / word if (tmp_path / word).exists() else word for word in words]
    assert tandem(home, *alone, "--out", tmp_path / "alone").code == 0
    assert len(records.case_ids(out)) == len(PATIENTS) and hashes(out) == hashes(tmp_path / "alone")
    assert tandem(home, "verify", out).code == 0
