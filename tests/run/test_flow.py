"""Cases on their way through stages: in this process, and in processes that crash, hang or are of another version."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from dask.distributed import Client, Security

from pipeline.errors import UsageError
from pipeline.run import workers as room
from pipeline.run.flow import Group, Task, loaded_for, through
from pipeline.run.plan import Plan
from pipeline.run.workers import Cluster, Here, workers
from pipeline.shipped import code_version
from pipeline.store import records
from tests.run.toy import begun, statuses, toy_check, toy_work

STAGES = ("first", "second", "third")
ALL_DONE = dict.fromkeys(STAGES, "done")


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "work", toy_work)
    monkeypatch.setattr(room, "loaded_for", toy_check)
    monkeypatch.setattr(room, "_check", toy_check)


def run(plan: Plan, *names: str) -> dict[str, Counter[str]]:
    """Bring cases of these names through the three stages."""
    plan.output_dir.mkdir(exist_ok=True)
    with workers(plan, STAGES) as pool:
        found = through(Group(STAGES, pool.plan, "epoch"), [{"case_id": name} for name in names], pool)
    return {stage: Counter(record.status for record in made) for stage, made in found.items()}


@pytest.mark.usefixtures("toys")
def test_a_case_goes_on_without_waiting_for_the_others(tmp_path: Path) -> None:
    found = run(Plan(tmp_path, tmp_path / "out"), "a", "b", "c")
    assert begun(tmp_path / "out") == [(stage, case) for case in "abc" for stage in STAGES]
    assert found == {stage: Counter(done=3) for stage in STAGES}


@pytest.mark.slow
@pytest.mark.usefixtures("toys")
def test_crashes_and_hangs_cost_their_case_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies may be to blame itself: the case is tried again; one that takes too long is not."""
    monkeypatch.setattr(room, "RETRIES", 1)
    (tmp_path / "limits.yaml").write_text("stages: {second: {time_s: 3}}")  # a stage of one's own may be named, too
    out = tmp_path / "out"
    found = run(Plan(tmp_path, out, resources=tmp_path / "limits.yaml"), "case-1", "case-hang", "case-crash", "case-2")
    assert found["second"] == Counter(done=2, failed=2) and found["third"] == Counter(done=4)
    ended = statuses(out)
    assert ended.pop("case-hang") == {**ALL_DONE, "second": "E_TIME"}
    assert ended.pop("case-crash") == {**ALL_DONE, "second": "E_CRASH"}
    assert ended == {"case-1": ALL_DONE, "case-2": ALL_DONE}
    tries = Counter(begun(out))
    assert tries["second", "case-crash"] == 2 and tries["second", "case-hang"] == 1
    said = records.read(out / "cases" / "case-hang" / "second")
    assert said is not None and said.error is not None and "longer than the 3 s" in said.error.message


@pytest.mark.slow
def test_nobody_else_gives_the_processes_of_a_run_work(tmp_path: Path) -> None:
    """Whoever could reach the scheduler would run programs as the user."""
    with workers(Plan(tmp_path, tmp_path / "out", jobs=2), STAGES) as pool:
        assert isinstance(pool, Cluster) and pool.client.run(os.getpid).keys() == pool.client.nthreads().keys()
        address = pool.client.scheduler.address
        assert address.startswith("tls://127.0.0.1:")
        for stranger, security in (
            (address.replace("tls://", "tcp://"), None),
            (address, Security(require_encryption=True)),
            (address, Security.temporary()),
        ):
            with pytest.raises((OSError, TypeError)):
                Client(stranger, security=security, timeout=2)


@pytest.mark.slow
@pytest.mark.usefixtures("toys")
def test_a_run_without_any_process_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LOST_S", 2.0)
    with workers(Plan(tmp_path, tmp_path / "out", jobs=2), STAGES) as pool:
        assert isinstance(pool, Cluster)
        pool.client.cluster.scale(0)
        pool.start(Task(Group(STAGES, pool.plan, "epoch"), 0, {"case_id": "a"}, code_version()))
        with pytest.raises(UsageError, match="E_WORKER: No process is left"):
            pool.finished()


def test_a_process_of_another_version_does_no_work(tmp_path: Path) -> None:
    task = Task(Group(("ingest",), Plan(tmp_path, tmp_path / "out"), "epoch"), 0, {}, "another")
    with pytest.raises(UsageError, match="E_WORKER: Expected a worker of the version another") as refused:
        loaded_for(task)
    assert code_version() in refused.value.message


def test_a_stage_that_cannot_be_loaded_stops_the_run_before_any_case(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "in", tmp_path / "out")
    with pytest.raises(UsageError, match="E_SPEC"):
        through(Group(("ingest", "register"), plan, "epoch"), [{"case_id": "a", "ct": None}], Here(plan))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stages: {regster: {time_s: 3}}", "no stage regster; did you mean `register`"),
        ("stages: {register: {times: 3}}", r"line 1: stages.register.times: unknown key; did you mean `time_s`"),
        ("stages: {register: {time_s: -3}}", "greater than or equal to 0"),
        ("defaults: {time_s: 3}", "did you mean `default`"),
        ("stages: {register: {gpu: 1}}", "gpu"),
        (None, "cannot be read"),
    ],
)
def test_resources_that_are_none(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "limits.yaml"
    if text is not None:
        path.write_text(text)
    with (
        pytest.raises(UsageError, match=words) as refused,
        workers(Plan(tmp_path, tmp_path / "out", resources=path), ("register",)),
    ):
        pass
    assert refused.value.code == "E_RESOURCES"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("need", "words"),
    [("memory_gb: 100000", "needs processes of 100000 GB"), ("gpu: true", "with a GPU of its own, got none")],
)
def test_more_than_a_machine_has(tmp_path: Path, need: str, words: str) -> None:
    (tmp_path / "limits.yaml").write_text(f"stages: {{register: {{{need}}}}}")
    plan = Plan(tmp_path, tmp_path / "out", resources=tmp_path / "limits.yaml")
    with pytest.raises(UsageError, match=f"E_RESOURCES.*{words}"), workers(plan, ("register",)):
        pass


def test_jobs_beside_a_scheduler_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="E_OPTION: Expected --jobs or --scheduler, got 2 jobs"):
        Plan(tmp_path, tmp_path / "out", jobs=2, scheduler="tcp://127.0.0.1:9")


@pytest.mark.parametrize("protocol", ["tcp", "tls"])  # for TLS it lacks a certificate, too
def test_a_scheduler_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    monkeypatch.setattr(room, "CONNECT_S", 0.5)
    address = f"{protocol}://127.0.0.1:9"
    with (
        pytest.raises(UsageError, match=f"E_SCHEDULER: The scheduler at {address} does not answer"),
        workers(Plan(tmp_path, tmp_path / "out", scheduler=address), STAGES),
    ):
        pass


@pytest.mark.slow
@pytest.mark.usefixtures("toys")
def test_workers_that_run_already_do_the_work(tmp_path: Path) -> None:
    from dask.distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, host="127.0.0.1") as cluster:
        found = run(Plan(tmp_path, tmp_path / "out", scheduler=cluster.scheduler_address), "a", "b")
    assert found == {stage: Counter(done=2) for stage in STAGES}
