"""Studies that arrive in a folder: taken when nothing of them changes, and again when they grow."""

from __future__ import annotations

import itertools
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom import dcmread

import pipeline.dicom.headers.scan
from pipeline.errors import UsageError
from pipeline.run import events, incoming
from pipeline.run.incoming import Arrivals, Incoming, watch
from pipeline.run.plan import Plan
from pipeline.run.progress import Progress, line_of
from pipeline.run.workers import Here
from pipeline.simulation.dicom import SeriesHeader, write_series
from pipeline.spec.spec import Role, Spec, save_spec
from pipeline.store import records
from pipeline.store.pseudonyms import Pseudonyms
from tests.phantoms.phantom import position_phantom
from tests.tandem_process import command, environment, tandem

QUIET_S = 0.6
SLICES = 6


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Of an empty folder `in`; the studies lie in `from`, of the patients A1, B1 and C1; C1 has a gap."""
    monkeypatch.setattr(incoming, "TROUBLE_S", 0.1)
    for patient in ("A1", "B1", "C1"):
        phantom = position_phantom(shape=(12, 10, SLICES))
        files = write_series(phantom, tmp_path / "from" / patient, SeriesHeader(seed=patient, patient_id=patient))
        if patient == "C1":
            files[2].unlink()
    save_spec(Spec(name="x", description="x", roles={"ct": Role(modality="CT")}), tmp_path / "spec")
    (tmp_path / "in").mkdir()
    return Plan(tmp_path / "in", tmp_path / "out", tmp_path / "spec" / "spec.yaml", ("ingest",))


@pytest.fixture
def rounds(plan: Plan) -> Iterator[Incoming]:
    plan.output_dir.mkdir()
    arrivals = Arrivals(plan.dataset_dir, plan.output_dir, QUIET_S)
    yield Incoming(plan, ("ingest",), Here(plan), arrivals)


def case_of(plan: Plan, patient: str) -> str:
    return Pseudonyms(plan.output_dir).of("case", patient)


def found(plan: Plan) -> dict[str, str]:
    """Patient -> `done` or the code; only of those that have been taken."""
    names = {case_of(plan, patient): patient for patient in ("A1", "B1", "C1")}
    made = records.of_run(plan.output_dir)
    return {names[case]: of[0].error.code if of[0].error else of[0].status for case, of in made.items() if of}


def taken(plan: Plan) -> list[str]:
    """Which cases were worked on, in order; the log is written by who leads the run."""
    log = events.Follower(plan.output_dir).new()
    return [event["case"] for event in log if event["event"] == events.CASE and not event.get("reused")]


def until_quiet(rounds: Incoming) -> None:
    deadline = time.monotonic() + 60
    while not rounds.step(QUIET_S):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def copy_slowly(source: Path, target: Path, pause_s: float) -> None:
    """As a slow network does: each file in three pieces."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        data = path.read_bytes()
        with (target / path.name).open("wb", buffering=0) as stream:
            for start in range(3):
                stream.write(data[start * len(data) // 3 : (start + 1) * len(data) // 3])
                time.sleep(pause_s)


@pytest.mark.parametrize("flat", [False, True])
def test_a_study_that_arrives_is_waited_for_and_the_others_go_on(plan: Plan, rounds: Incoming, flat: bool) -> None:
    """Also where all patients' files lie in one folder."""
    root, source = plan.dataset_dir, plan.dataset_dir.parent / "from"
    for patient in ("A1", "C1"):
        for path in (source / patient).iterdir():
            where = root / f"{patient}-{path.name}" if flat else root / patient / path.name
            where.parent.mkdir(exist_ok=True)
            shutil.copy(path, where)
    target = root if flat else root / "B1"
    copying = threading.Thread(target=copy_slowly, args=(source / "B1", target, 0.2))  # 3.6 s in all
    copying.start()
    others = 0.0
    while copying.is_alive():
        rounds.step(QUIET_S)
        made = found(plan) if (plan.output_dir / ".key").is_file() else {}
        assert "B1" not in made or not copying.is_alive()
        others = others or (time.monotonic() if made == {"A1": "done", "C1": "E_GAP"} else 0.0)
        time.sleep(0.05)
    assert others, "the others were not taken while one study arrived"
    until_quiet(rounds)
    assert found(plan) == {"A1": "done", "B1": "done", "C1": "E_GAP"}
    assert sorted(taken(plan)) == sorted(case_of(plan, patient) for patient in ("A1", "B1", "C1"))
    volume = records.read(plan.output_dir / "cases" / case_of(plan, "B1") / "ingest")
    assert volume is not None
    assert [item.geometry.shape[2] for item in volume.artifacts if item.geometry] == [SLICES]


def test_a_study_that_grows_is_taken_again_and_only_new_files_are_read(
    plan: Plan, rounds: Incoming, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.dicom.headers.cache.SETTLED_S", QUIET_S / 2)
    read: list[Path] = []
    own = pipeline.dicom.headers.scan._read_all
    monkeypatch.setattr(
        "pipeline.dicom.headers.scan._read_all", lambda paths, *more: (read.extend(paths), own(paths, *more))[1]
    )
    source, root = plan.dataset_dir.parent / "from", plan.dataset_dir
    shutil.copytree(source / "A1", root / "A1")
    shutil.copytree(source / "B1", root / "B1")
    heights = {path.name: float(dcmread(path).ImagePositionPatient[2]) for path in (root / "B1").iterdir()}
    missing = sorted(heights, key=lambda name: heights[name])[2]
    (root / "B1" / missing).unlink()
    until_quiet(rounds)
    assert found(plan) == {"A1": "done", "B1": "E_GAP"} and len(read) == 2 * SLICES - 1
    read.clear()
    shutil.copy(source / "B1" / missing, root / "B1" / missing)
    until_quiet(rounds)
    assert found(plan) == {"A1": "done", "B1": "done"} and read == [root / "B1" / missing]
    assert taken(plan).count(case_of(plan, "A1")) == 1
    shutil.rmtree(root / "A1")  # sent on to an archive: what was made of it stays
    rounds.step(QUIET_S)
    assert found(plan) == {"A1": "done", "B1": "done"}


def test_what_is_unknown_holds_its_neighbours_back_but_not_for_ever(tmp_path: Path) -> None:
    for name in ("p/ct/1", "p/mr/half", "q/ct/1", "log"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text("x")
    arrivals = Arrivals(tmp_path / "in", tmp_path / "out", 1.0)
    owners = {tmp_path / "in/p/ct/1": "p", tmp_path / "in/q/ct/1": "q"}
    arrivals.look(0.0)
    assert arrivals.arriving(0.9) == {tmp_path / "in" / name for name in ("p/ct/1", "p/mr/half", "q/ct/1", "log")}
    (tmp_path / "in/p/mr/half").write_text("xx")
    arrivals.look(1.5)
    assert arrivals.arriving(1.5) == {tmp_path / "in/p/mr/half"}
    (first,) = arrivals.whole(owners, arrivals.arriving(1.5), 1.5).items()
    assert first[0] == "q"
    assert arrivals.whole(owners, {tmp_path / "in/log"}, 1.5).keys() == {"p", "q"}
    assert arrivals.whole(owners, {tmp_path / "in/p/mr/half"}, 11.0).keys() == {"p", "q"}  # a log that never ends
    (tmp_path / "in/q/ct/1").write_text("xx")
    arrivals.look(20.0)
    arrivals.look(22.0)
    assert arrivals.whole(owners, set(), 22.0)["q"] != first[1]


def test_stages_without_ingest_and_a_folder_that_is_not_there(plan: Plan) -> None:
    with pytest.raises(UsageError, match="E_OPTION: Expected ingest among the stages"):
        watch(Plan(plan.dataset_dir, plan.output_dir, plan.spec_file, ("report",)), 1)
    with pytest.raises(UsageError, match="E_EMPTY"):
        watch(Plan(plan.dataset_dir / "no", plan.output_dir, plan.spec_file, ("ingest",)), 1)


def test_a_full_disk_is_waited_out(
    plan: Plan, rounds: Incoming, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(plan.dataset_dir.parent / "from" / "A1", plan.dataset_dir / "A1")
    rounds._plan = Plan(
        *(getattr(plan, name) for name in ("dataset_dir", "output_dir", "spec_file", "stages")), min_free_gb=1e9
    )
    free = itertools.count(60 << 30, 1 << 28)  # others write and delete meanwhile
    usage = shutil.disk_usage(plan.output_dir)
    with monkeypatch.context() as disk:
        disk.setattr(shutil, "disk_usage", lambda path: usage._replace(free=next(free)))
        deadline = time.monotonic() + 5 * QUIET_S
        while time.monotonic() < deadline:
            assert not rounds.step(QUIET_S)
            time.sleep(0.1)
    assert capsys.readouterr().err.count("Waiting: E_DISK") == 1
    rounds._plan = plan
    until_quiet(rounds)
    assert found(plan) == {"A1": "done"}


def test_waiting_is_said(tmp_path: Path) -> None:
    progress, now = Progress(), datetime.now(UTC)
    progress.take([{"time": now.isoformat(), "event": events.WAITING}])
    assert line_of(progress, now) == "Waiting for studies."
    progress.take([{"time": now.isoformat(), "event": events.RUN_STARTED, "stages": ["ingest"]}])
    assert line_of(progress, now) == "The run has started."


@pytest.mark.slow
def test_the_command_ends_soon_goes_on_and_has_the_folder_alone(plan: Plan, tmp_path: Path) -> None:
    words = (plan.dataset_dir, "--spec", plan.spec_file, "--out", plan.output_dir, "--stages", "ingest")
    shutil.copytree(tmp_path / "from" / "A1", plan.dataset_dir / "A1")
    home = tmp_path / "home"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command("watch", *words, "--quiet-s", "1"), env=environment(home), **pipes)
    try:
        deadline = time.monotonic() + 90
        while not list(plan.output_dir.glob("cases/*/ingest/record.json")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        for second in ("watch", "run"):
            refused = tandem(home, second, *words)
            assert refused.code == 2 and "E_BUSY" in refused.err
        assert "A run is going on." in tandem(home, "status", plan.output_dir).out
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
    finally:
        process.kill()
    assert time.monotonic() - begun < 10 and process.returncode == 143, said
    assert "Traceback" not in said and "stopped by SIGTERM" in said
    assert tandem(home, "status", plan.output_dir).code == 0
    shutil.copytree(tmp_path / "from" / "B1", plan.dataset_dir / "B1")
    again = tandem(home, "watch", *words, "--quiet-s", "1", "--once")
    assert again.code == 0 and "ingest: 2 done (1 already)" in again.out
