"""What failed is done again, with what comes after it, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.cases import Artifact, Fault, Record
from pipeline.commands.cohort import retry
from pipeline.errors import UsageError
from pipeline.run import events
from pipeline.run.loading import Loaded
from pipeline.run.plan import Plan
from pipeline.run.retry import find
from pipeline.run.stage import Stage
from pipeline.shipped import shipped
from pipeline.spec.spec import load_spec, save_spec
from pipeline.store import records
from tests.run.stand_in import put_in_place


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A run of ingest, register and report: one case done, two crashed, one quarantined, one withdrawn."""
    folder = tmp_path / "out"
    folder.mkdir()
    save_spec(load_spec(shipped("data_specs", "ct_mr_head.yaml")), folder)
    (folder / "run.json").write_text(json.dumps({"stages": ["ingest", "register", "report"]}))
    for case, stage, code in [
        *[(case, "ingest", "") for case in ("good", "crashed", "full")],
        *[("good", "register", ""), ("crashed", "register", "E_CRASH"), ("full", "register", "E_DISK")],
        *[("gap", "ingest", "E_GAP"), ("gone", "ingest", "E_WITHDRAWN")],
    ]:
        fault = Fault(code, "It went wrong.", "") if code else None
        status = "done" if not code else "failed" if stage == "register" else "quarantined"
        records.write(Record(case, stage, "k", status, error=fault), folder / "cases" / case / stage)
    return folder


def test_what_went_wrong_is_found_with_what_comes_after(out: Path) -> None:
    found = find(out)
    assert found.cases == {"crashed", "full", "gap"} and found.stages == ("ingest", "register", "report")
    assert found.codes == {"E_CRASH": 1, "E_DISK": 1, "E_GAP": 1} and found.first == {"register": 2, "ingest": 1}


@pytest.mark.parametrize(
    ("asked", "cases", "stages"),
    [
        ({"codes": ["E_CRASH"]}, {"crashed"}, ("register", "report")),
        ({"codes": ["E_CRASH", "E_GAP"]}, {"crashed", "gap"}, ("ingest", "register", "report")),
        ({"stages": ["register"]}, {"crashed", "full"}, ("register", "report")),
        ({"cases": ["full", "good"]}, {"full"}, ("register", "report")),
        ({"codes": ["E_WITHDRAWN"]}, {"gone"}, ("ingest", "register", "report")),
        ({"codes": ["E_TILT"]}, set(), ()),
        ({"cases": ["good"]}, set(), ()),
    ],
)
def test_less_can_be_asked_for(asked: dict[str, Any], cases: set[str], stages: tuple[str, ...], out: Path) -> None:
    found = find(out, **asked)
    assert (found.cases, found.stages) == (cases, stages)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"codes": ["E_CRAHS"]}, "a code that there is, got E_CRAHS; did you mean `E_CRASH`"),
        ({"cases": ["god"]}, "a case that there is, got god; did you mean `good`"),
        ({"stages": ["registre"]}, "a stage that there is, got registre; did you mean `register`"),
        ({"stages": ["fuse"]}, "a stage that there is, got fuse"),
    ],
)
def test_what_there_is_not_is_refused(asked: dict[str, Any], said: str, out: Path) -> None:
    with pytest.raises(UsageError, match=f"E_OPTION: Expected {said}"):
        find(out, **asked)


def test_ingest_needs_the_input_again(out: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="E_OPTION: Expected the input folder, for ingest of 1 case") as caught:
        find(out).plan(out, None)
    assert "--input ROOT" in caught.value.remedy
    plan = find(out).plan(out, tmp_path / "in", jobs=2, device="cpu", min_free_gb=0.5)
    assert (plan.dataset_dir, plan.jobs, plan.device, plan.min_free_gb) == (tmp_path / "in", 2, "cpu", 0.5)
    assert plan.spec_file == out / "spec.yaml" and plan.cases == {"crashed", "full", "gap"}


def test_what_took_too_long_is_given_more_time(out: Path, tmp_path: Path) -> None:
    """E_TIME's remedy is a file of resources: `retry` takes one, and refuses two who are to do the work."""
    with pytest.raises(UsageError, match="E_RESOURCES"):
        retry(out, ["E_DISK"], resources=tmp_path / "none.yaml", jobs=2)
    with pytest.raises(UsageError, match="E_OPTION"):
        retry(out, ["E_DISK"], scheduler="tcp://127.0.0.1:9", slurm=tmp_path / "none.yaml")


def test_the_cases_run_again_and_no_other(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a real run of stages, whose bundles are replaced by one line."""
    worked: list[tuple[str, str]] = []

    def load(name: str, plan: Plan) -> Loaded:
        def chain(case: dict[str, Any]) -> dict[str, Any]:
            worked.append((name, case["case_id"]))
            return case

        find_cases = records.FindCases(plan.output_dir, {}, after=["ingest"])
        return Loaded(Stage(name, chain, {}, {}, plan.output_dir), find_cases, ())

    put_in_place(load, monkeypatch.setattr)
    before = (out / "run.json").read_text()
    found = retry(out, codes=["E_CRASH"])
    assert worked == [("register", "crashed"), ("report", "crashed")]
    assert [(record.stage, record.status) for record in found["crashed"]] == [
        *[("ingest", "done"), ("register", "done"), ("report", "done")]
    ]
    assert found["full"][1].error is not None and (out / "run.json").read_text() == before
    assert events.Follower(out).new()[0]["stages"] == ["register", "report"]


def test_a_stage_of_somebody_else_is_left_to_its_own_command(out: Path) -> None:
    made = (Artifact("x", "image", "cases/good/toy/x", "0"),)
    records.write(Record("good", "toy", "k", "done", artifacts=made), out / "cases" / "good" / "toy")
    assert find(out).stages == ("ingest", "register", "report")
