"""Workers joined over TCP, each in a working directory of its own, do one cohort together; one of them is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from dask.distributed import Client

from pipeline.run import events
from pipeline.run import workers as room
from pipeline.run.flow import Group, through
from pipeline.run.plan import Plan
from pipeline.run.workers import workers
from pipeline.simulation.dicom import SeriesHeader, write_series
from pipeline.spec.spec import Role, Spec, save_spec
from pipeline.store import records, upkeep
from pipeline.store.files import run_lock, run_of
from tests.phantoms.phantom import position_phantom
from tests.run.sleeper import sleepy_work
from tests.run.toy import toy_check
from tests.tandem_process import command, environment, tandem

pytestmark = pytest.mark.slow
Started = dict[str, subprocess.Popen[bytes]]
PATIENTS = tuple(f"P{number}" for number in range(8))
ROOT = Path(__file__).parent.parent.parent


def wait_for(what: Callable[[], object], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def machines(folder: Path, **more: dict[str, str]) -> Iterator[tuple[str, Started]]:
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
        at = ("--port", "0", "--host", "127.0.0.1", "--scheduler-file", str(where))
        start("scheduler", {}, "scheduler", *at)
        wait_for(where.is_file)
        # what takes long to load is loaded before they are known: they do not answer meanwhile
        words = ("worker", "--nthreads", "1", "--no-dashboard", "--preload", "tests.run.sleeper")
        words += ("--scheduler-file", str(where))
        started = {name: start(name, env, *words, "--name", name) for name, env in more.items()}
        address = json.loads(where.read_text())["address"]
        with Client(address) as client:
            client.wait_for_workers(len(more), timeout=90)
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


async def take_for_dead(dask_scheduler: Any, where: str) -> None:
    """In the scheduler."""
    await dask_scheduler.remove_worker(where, stimulus_id="test", close=False)


@pytest.mark.parametrize("woken", ["before the other has ended", "after the run"])
def test_a_frozen_worker_that_wakes_commits_nothing_twice(
    woken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped in the middle of a case, and the scheduler takes it for dead, as after minutes without a word."""
    monkeypatch.setattr(room, "work", sleepy_work)
    monkeypatch.setattr(room, "_check", toy_check)
    out = tmp_path / "out"
    out.mkdir()

    def wake(process: int) -> None:
        (out / "wake").touch()
        os.kill(process, signal.SIGCONT)
        wait_for((out / f"through-{process}").exists)

    def freeze(address: str) -> None:
        wait_for(lambda: (out / "asleep").exists() and (out / "asleep").read_text())
        number, where = (out / "asleep").read_text().split()
        process = int(number)
        os.kill(process, signal.SIGSTOP)
        try:
            with Client(address) as client:
                client.run_on_scheduler(take_for_dead, where=where)
            wait_for((out / "second").exists)
            if woken != "after the run":
                wake(process)
        finally:
            (out / "go").touch()

    with machines(tmp_path, first={}, second={}) as (address, _), ThreadPoolExecutor() as threads:
        plan = Plan(tmp_path, out, scheduler=address)
        with run_lock(out), workers(plan, ("add",)) as pool:
            frozen = threads.submit(freeze, address)
            found = through(Group(("add",), pool.plan, "epoch", run_of(out)), [{"case_id": "case-1"}], pool)
            frozen.result()
            asleep = int((out / "asleep").read_text().split()[0])
            if woken == "after the run":
                before = records.read(out / "cases/case-1/add")
                wake(asleep)
                assert records.read(out / "cases/case-1/add") == before
    assert [record.status for record in found["add"]] == ["done"]
    assert len(list(out.glob("through-*"))) == 2, "both processes came to their end"
    (record,) = records.of_run(out)["case-1"]
    (made,) = record.artifacts
    process = json.loads((out / made.path).read_text())["process"]
    assert (process == asleep) == (woken != "after the run")
    assert record.status == "done" and records.intact(record, out) and upkeep.strays(out) == []


def test_a_worker_of_another_version_is_refused(tmp_path: Path) -> None:
    """It runs a copy of Tandem in which one line differs."""
    shutil.copytree(ROOT / "pipeline", tmp_path / "copy" / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("bundles", "data_specs", "tests"):
        (tmp_path / "copy" / name).symlink_to(ROOT / name)
    with (tmp_path / "copy" / "pipeline" / "words.py").open("a") as stream:
        stream.write("# edited\n")
    words = [tmp_path / word if word in ("in", "spec/spec.yaml") else word for word in cohort(tmp_path)]
    with machines(tmp_path, other={"PYTHONPATH": str(tmp_path / "copy")}) as (address, _):
        refused = tandem(tmp_path / "home", *words, "--out", tmp_path / "out", "--scheduler", address)
    assert refused.code == 2 and "E_WORKER: Expected a worker of the version" in refused.err, refused.err
    assert not (tmp_path / "out" / "cases").exists()
