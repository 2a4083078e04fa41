"""A stage's promises: resume by key, isolation of failures, verified outputs, the record last."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.transforms import Compose, LoadImaged, ScaleIntensityd

from pipeline import volumes
from pipeline.cases import Instance, Record, Series
from pipeline.errors import CaseError, QuarantineError, UsageError
from pipeline.run import stage, status
from pipeline.run.stage import Stage
from pipeline.store import records
from pipeline.store.artifacts import save

Case = dict[str, Any]
AFFINE = np.array([[0.0, -2.0, 0.0, 5.0], [1.5, 0.0, 0.0, -7.0], [0.0, 0.0, 3.0, 11.0], [0.0, 0.0, 0.0, 1.0]])


@dataclass
class Add:
    """A five-line chain: adds a number, counts how often it was called."""

    number: float
    log: Path

    def __call__(self, case: Case) -> Case:
        with self.log.open("a") as stream:
            stream.write(case["case_id"] + "\n")
        image = nib.load(case["ct"])
        if "bad" in case["case_id"]:
            raise QuarantineError("E_GAP", "2 of 9 slices are missing near z = 4.0 mm.")
        if "defect" in case["case_id"]:
            raise ZeroDivisionError("float division by zero")
        return {
            **case,
            "sum": volumes.volume(np.asarray(image.dataobj) + self.number, image.affine),
            "measures": {"added": self.number},
            "flags": ["N_TEST"],
        }


@pytest.fixture
def make_case(tmp_path: Path) -> Callable[[str], Case]:
    def make(case_id: str, value: float = 1.0) -> Case:
        image = volumes.volume(np.arange(24, dtype=np.float32).reshape(2, 3, 4) * value, AFFINE)
        path, _ = save("ct", "image", image, tmp_path / "in" / case_id)
        return {"case_id": case_id, "ct": path}

    return make


def make_stage(tmp_path: Path, number: float = 0.5, **changes: Any) -> Stage:
    settings = {"reads": {"ct": "image"}, "writes": {"sum": "image"}, "output_dir": tmp_path / "out"} | changes
    return Stage("add", Add(number, tmp_path / "calls.txt"), **settings)


def calls(tmp_path: Path) -> int:
    return len((tmp_path / "calls.txt").read_text().split())


def test_the_output_is_right_and_the_record_says_so(tmp_path: Path, make_case: Callable[[str], Case]) -> None:
    record = make_stage(tmp_path).run_case(make_case("case-1"))
    assert (record.status, record.error, record.flags) == ("done", None, ("N_TEST",))
    artifact = record.artifacts[0]
    assert artifact.path == "cases/case-1/add/sum.nii.gz"
    image = nib.load(tmp_path / "out" / artifact.path)
    np.testing.assert_array_equal(np.asarray(image.dataobj), np.arange(24).reshape(2, 3, 4) + 0.5)
    for code in (image.get_sform(), image.get_qform(), artifact.geometry.affine):
        np.testing.assert_allclose(code, AFFINE, atol=1e-5)
    stored = json.loads((tmp_path / "out/cases/case-1/add/record.json").read_text())
    assert Record.from_json(stored) == record
    assert record.measures["added"] == 0.5
    assert record.measures["seconds"] > 0


def test_a_second_run_does_no_work(tmp_path: Path, make_case: Callable[[str], Case]) -> None:
    case = make_case("case-1")
    first = make_stage(tmp_path).run_case(case)
    second = make_stage(tmp_path).run_case(case)
    assert second.reused and second == first
    assert calls(tmp_path) == 1


@pytest.mark.parametrize("change", ["configuration", "input", "weights", "overwrite"])
def test_what_matters_is_done_again(tmp_path: Path, make_case: Callable[..., Case], change: str) -> None:
    weights = tmp_path / "net.pt"
    weights.write_bytes(b"one")
    make_stage(tmp_path, weights=[weights]).run_case(make_case("case-1"))
    case = make_case("case-1", value=2.0 if change == "input" else 1.0)
    weights.write_bytes(b"two" if change == "weights" else b"one")
    number = 0.75 if change == "configuration" else 0.5
    record = make_stage(tmp_path, number, weights=[weights], overwrite=change == "overwrite").run_case(case)
    assert record.status == "done" and not record.reused
    assert calls(tmp_path) == 2


def test_an_output_that_was_changed_is_made_again(tmp_path: Path, make_case: Callable[[str], Case]) -> None:
    case = make_case("case-1")
    made = tmp_path / "out" / make_stage(tmp_path).run_case(case).artifacts[0].path
    before = made.read_bytes()
    made.write_bytes(before[:-10])
    assert not make_stage(tmp_path).run_case(case).reused
    assert made.read_bytes() == before


def test_a_bad_case_does_not_stop_the_others(tmp_path: Path, make_case: Callable[[str], Case]) -> None:
    cases = [make_case(name) for name in ("case-1", "case-bad", "case-defect", "case-2")]
    (tmp_path / "in" / "case-2" / "ct.nii.gz").unlink()
    cases.append(make_case("case-3"))
    found = make_stage(tmp_path).run(cases)
    assert [record.status for record in found] == ["done", "quarantined", "failed", "failed", "done"]
    assert [record.error.code for record in found if record.error] == ["E_GAP", "E_INTERNAL", "E_INPUT"]
    assert found[2].error.message == "ZeroDivisionError: float division by zero"
    assert "ZeroDivisionError" in (tmp_path / "out/cases/case-defect/add/error.log").read_text()
    assert status.summary("add", found) == "add: 2 done, 2 failed, 1 quarantined"


def test_a_failure_takes_the_former_result_back(tmp_path: Path, make_case: Callable[..., Case]) -> None:
    made = make_stage(tmp_path)
    made.run_case(make_case("case-1"))
    (tmp_path / "in/case-1/ct.nii.gz").write_bytes(b"no image")
    record = made.run_case({"case_id": "case-1", "ct": tmp_path / "in/case-1/ct.nii.gz"})
    assert record.status == "failed"
    assert sorted(path.name for path in (tmp_path / "out/cases/case-1/add").iterdir()) == ["error.log", "record.json"]


def test_a_missing_output_is_the_stages_fault(tmp_path: Path, make_case: Callable[[str], Case]) -> None:
    record = make_stage(tmp_path, writes={"sum": "image", "label": "label"}).run_case(make_case("case-1"))
    assert record.error.code == "E_OUTPUT"
    optional = make_stage(tmp_path, writes={"sum": "image", "label": "label?"}).run_case(make_case("case-1"))
    assert [artifact.key for artifact in optional.artifacts] == ["sum"]


def test_an_input_that_differs_from_its_record_is_refused(tmp_path: Path, make_case: Callable[[str], Case]) -> None:
    first = make_stage(tmp_path)
    first.run_case(make_case("case-1"))
    second = Stage("twice", Add(1, tmp_path / "calls.txt"), {"ct": "image"}, {"sum": "image"}, tmp_path / "out")
    found = records.of_case(tmp_path / "out/cases/case-1")
    path = tmp_path / "out" / found[0].artifacts[0].path
    save("sum", "image", volumes.volume(np.zeros((2, 3, 4)), AFFINE), path.parent)
    record = second.run_case({"case_id": "case-1", "ct": path, "records": found})
    assert record.error.code == "E_CHANGED"


def test_stray_temporary_files_are_swept(tmp_path: Path, make_case: Callable[[str], Case]) -> None:
    folder = tmp_path / "out/cases/case-1/add"
    folder.mkdir(parents=True)
    (folder / ".tmp-12345678-sum.nii.gz").write_bytes(b"half")
    make_stage(tmp_path).run_case(make_case("case-1"))
    assert sorted(path.name for path in folder.iterdir()) == ["record.json", "sum.nii.gz"]


def test_main_exits_with_one_when_a_case_failed(
    tmp_path: Path, make_case: Callable[[str], Case], capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [make_case("case-1")]
    make_stage(tmp_path).main(lambda: cases)
    with pytest.raises(SystemExit) as failed:
        make_stage(tmp_path).main(lambda: [*cases, make_case("case-bad")])
    assert failed.value.code == 1
    assert "add: 1 done (1 already), 1 quarantined" in capsys.readouterr().out


def test_main_exits_with_two_when_it_cannot_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def nothing() -> list[Case]:
        raise UsageError("E_EMPTY", "Expected DICOM files, got no file.")

    with pytest.raises(SystemExit) as failed:
        make_stage(tmp_path).main(nothing)
    assert failed.value.code == 2
    assert capsys.readouterr().err.startswith("E_EMPTY: Expected DICOM files")


def test_errors_from_inside_a_monai_chain_keep_their_code(tmp_path: Path, make_case: Callable[[str], Case]) -> None:
    def refuse(_case: Case) -> Case:
        raise CaseError("E_BLANK", "The image is blank.")

    made = Stage("add", Compose([refuse]), {"ct": "image"}, {}, tmp_path / "out")
    assert made.run_case(make_case("case-1")).error.code == "E_BLANK"


def test_a_monai_chain_resumes_too(tmp_path: Path, make_case: Callable[[str], Case]) -> None:
    """The key is made from the chain's objects, so it has to be the same for two instances of one chain."""

    def build(maximum: float) -> Stage:
        chain = Compose([LoadImaged("ct", ensure_channel_first=True), ScaleIntensityd("ct", maxv=maximum)])
        return Stage("scale", chain, {"ct": "image"}, {"ct": "image"}, tmp_path / "out")

    case = make_case("case-1")
    assert build(1.0).run_case(case).artifacts[0].geometry.shape == (2, 3, 4)
    assert build(1.0).run_case(case).reused
    assert not build(2.0).run_case(case).reused


def test_a_stage_travels_to_another_process(tmp_path: Path, make_case: Callable[[str], Case]) -> None:
    copy = pickle.loads(pickle.dumps(make_stage(tmp_path)))
    case = make_case("case-1")
    assert copy.run_case(case).status == "done"
    assert make_stage(tmp_path).run_case(case).reused


def test_a_short_identifier_is_scrubbed_as_a_word() -> None:
    """A patient whose ID is B: the unit Bq/ml is none of it."""
    case = {"pet": Series("B", "1.2", "1.2.1", "PT", ())}
    assert stage.scrub("Expected Bq/ml of B, got CNTS.", case) == "Expected Bq/ml of <input>, got CNTS."


def test_identifiers_and_paths_are_scrubbed() -> None:
    path = Path("/data/hospital/DOE^JANE/1.dcm")
    instance = Instance(path, "1.2.3", None, None, None, 1, 1, None, None)
    case = {"ct": Series("MRN-77", "1.2.840.1", "1.2.840.2", "CT", (instance,))}
    text = stage.scrub(f"cannot open {path} of MRN-77 in 1.2.840.2", case)
    assert text == "cannot open <input>/1.dcm of <input> in <input>"


class Measure:
    """A chain that gives one measure."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __call__(self, case: Case) -> Case:
        return {**case, "measures": {"volume_ml": self.value}}


def _too_much(library: str) -> None:
    """Ask a library for 864 TB."""
    if library == "numpy":
        np.zeros((60_000,) * 3, np.float32)
    elif library == "torch":
        torch.zeros((60_000,) * 3)
    else:
        sitk.Image([60_000] * 3, sitk.sitkFloat32)


@pytest.mark.parametrize("library", ["numpy", "torch", "SimpleITK"])
def test_memory_that_runs_out_is_no_defect(tmp_path: Path, make_case: Callable[[str], Case], library: str) -> None:
    def chain(_: Case) -> Case:
        try:
            _too_much(library)
        except Exception as error:
            raise RuntimeError("applying transform") from error  # as MONAI does
        raise AssertionError("expected to run out of memory")

    record = Stage("big", chain, {"ct": "image"}, {}, tmp_path / "out").run_case(make_case("case-1"))
    assert (record.status, record.error.code) == ("failed", "E_MEMORY")


def test_measures_become_plain_numbers_and_nan_is_refused(tmp_path: Path, make_case: Callable[[str], Case]) -> None:
    made = Stage("measure", Measure(np.float32(1.5)), {"ct": "image"}, {}, tmp_path / "out")
    assert made.run_case(make_case("case-1")).measures["volume_ml"] == 1.5
    wrong = Stage("measure", Measure(float("nan")), {"ct": "image"}, {}, tmp_path / "out")
    assert wrong.run_case(make_case("case-1")).error.code == "E_DTYPE"


def test_a_record_that_cannot_be_written_is_a_failed_case(
    tmp_path: Path, make_case: Callable[[str], Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise CaseError("E_DISK", "Expected room to write record.json, but the disk is full.")

    monkeypatch.setattr(records, "write", full)
    record = make_stage(tmp_path).run_case(make_case("case-1"))
    assert (record.status, record.error.code) == ("failed", "E_DISK")
    assert records.of_run(tmp_path / "out") == {"case-1": []}


@pytest.mark.parametrize("case_id", ["../out", "a/b", "", ".hidden", "=x"])
def test_a_case_id_is_never_a_path(tmp_path: Path, case_id: str) -> None:
    with pytest.raises(UsageError, match="E_CASE_ID"):
        make_stage(tmp_path).run_case({"case_id": case_id})
