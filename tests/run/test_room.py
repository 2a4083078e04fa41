"""A stage that the disk has no room for does not start; when there is room, the run goes on."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.cases import Artifact, Record
from pipeline.errors import UsageError
from pipeline.run import batch
from pipeline.run.loading import Loaded
from pipeline.run.plan import Plan
from pipeline.run.room import require_room
from pipeline.run.stage import Stage
from pipeline.store import records
from tests.run.stand_in import Cases, put_in_place


def free(monkeypatch: pytest.MonkeyPatch, gigabytes: float) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=gigabytes * 1e9))


def earlier_case(out: Path, case_id: str, size: int) -> None:
    """A case whose output is a file with a hole of that size."""
    folder = out / "cases" / case_id / "ingest"
    folder.mkdir(parents=True)
    with (folder / "ct.nii.gz").open("wb") as stream:
        stream.truncate(size)
    made = Artifact("ct", "image", f"cases/{case_id}/ingest/ct.nii.gz", "0")
    records.write(Record(case_id, "ingest", "k", "done", artifacts=(made,)), folder)


def test_the_least_room_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 0.9)
    with pytest.raises(UsageError, match=r"E_DISK: Expected 1.00 GB of free room before ingest, got 0.90 GB"):
        require_room(tmp_path, ["ingest"], ["a"], 1)
    require_room(tmp_path, ["ingest"], ["a"], 0.8)
    require_room(tmp_path, ["ingest"], ["a"], 0)


def test_earlier_cases_say_what_the_others_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier_case(tmp_path, "a", 1_000_000_000)
    earlier_case(tmp_path, "b", 2_000_000_000)
    free(monkeypatch, 4)
    require_room(tmp_path, ["ingest"], ["a", "b", "c", "d"], 1)  # 2 to do, of 1.5 GB each
    with pytest.raises(UsageError, match=r"Expected 4.50 GB .*ingest: 3 cases like the earlier ones, got 4.00 GB"):
        require_room(tmp_path, ["ingest"], ["a", "b", "c", "d", "e"], 1)
    require_room(tmp_path, ["register"], ["a", "b"], 1)  # of which nothing is known


def test_what_is_done_takes_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier_case(tmp_path, "a", 1)
    free(monkeypatch, 0)
    require_room(tmp_path, ["ingest"], ["a"], 1)


def test_a_run_starts_when_there_is_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    plan = Plan(tmp_path / "in", tmp_path / "out", stages=("ingest",), min_free_gb=1)

    def load(_name: str, plan: Plan) -> Loaded:
        stage = Stage("ingest", lambda case: case, {}, {}, plan.output_dir)
        return Loaded(stage, Cases(("a",)), ())

    put_in_place(load, monkeypatch.setattr)
    free(monkeypatch, 0.2)
    with pytest.raises(UsageError, match="E_DISK"):
        batch.run(plan)
    assert not (tmp_path / "out").exists()  # a run that cannot start leaves nothing
    free(monkeypatch, 2)
    assert [record.status for record in batch.run(plan)["a"]] == ["done"]
