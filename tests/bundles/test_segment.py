"""The stage `segment` as `tandem run` loads it: a run folder in, records out; a case without a channel fails alone."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from pipeline.calibration.record import About
from pipeline.calibration.rows import Rows
from pipeline.calibration.scaling import Temperature
from pipeline.cases import Record
from pipeline.commands.segment import calibration_of, output_of
from pipeline.errors import UsageError
from pipeline.run import loading
from pipeline.run.plan import Plan, stages_for
from pipeline.segmentation.model import load_model
from pipeline.segmentation.predict import Predictor
from pipeline.segmentation.weights import describe
from pipeline.spec.spec import Role, Spec, save_spec
from pipeline.spec.stages import Segment
from pipeline.store import artifacts, files, records
from pipeline.store.artifacts import save
from pipeline.volumes import volume
from tests.segmentation.conftest import write_model

AFFINE = np.diag([1.1, 1.0, 1.3, 1.0])


def spec_of(model: Path) -> Spec:
    section = Segment(model=str(model), channels={"ct": "CT", "mr": "T1"}, mirroring=False)
    roles = {"ct": Role(modality=("CT",)), "mr": Role(modality=("MR",), required=False)}
    return Spec(name="toy", description="A toy.", roles=roles, segment=section)


def ingested(out: Path, case_id: str, keys: tuple[str, ...]) -> None:
    """What ingest leaves of a case."""
    folder, made = records.case_folder(out, case_id) / "ingest", []
    folder.mkdir(parents=True)
    for number, key in enumerate(keys):
        noise = ndimage.gaussian_filter(np.random.default_rng(number).normal(size=(9, 12, 8)), 1)
        path, artifact = save(key, "image", volume((50 + 20 * noise).astype(np.float32), AFFINE), folder)
        made.append(SimpleNamespace(path=path, artifact=artifact))
    kept = tuple(
        type(item.artifact)(**{**vars(item.artifact), "path": item.path.relative_to(out).as_posix()}) for item in made
    )
    records.write(Record(case_id, "ingest", "key", "done", artifacts=kept), folder)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    model = write_model(tmp_path / "model", channels=("CT", "T1"), about={"channels": ["ct", "mr"]})
    out = tmp_path / "out"
    for case_id, keys in (("case-whole", ("ct", "mr")), ("case-cut", ("ct",))):
        ingested(out, case_id, keys)
    save_spec(spec_of(model), out)
    return out


def test_a_run_segments_its_cases_and_goes_on_where_it_ended(run_folder: Path) -> None:
    loaded = loading.load("segment", Plan(run_folder, run_folder))
    found = {record.case_id: record for record in loaded.stage.run(loaded.find_cases())}
    whole, cut = found["case-whole"], found["case-cut"]
    kinds = {item.key: item.kind for item in whole.artifacts}
    assert whole.status == "done" and kinds == {
        **{"segment_label": "label", "segment_entropy": "image", "segment_probability": "probability"},
        **{"segment_seg": "document", "sections": "measure"},
    }
    assert cut.error is not None and cut.error.code == "E_CHANNELS" and "ct, mr, got ct" in cut.error.message
    label = nib.load(run_folder / "cases" / "case-whole" / "segment" / "segment_label.nii.gz")
    assert label.shape == (9, 12, 8) and np.allclose(label.affine, AFFINE)
    voxels = (np.asarray(label.dataobj) == 1).sum()
    assert whole.measures["segment_label_head_volume_ml"] == pytest.approx(voxels * 1.43e-3, abs=1e-6)
    again = {record.case_id: record for record in loaded.stage.run(loaded.find_cases())}
    assert again["case-whole"].reused and not again["case-cut"].reused


@pytest.mark.parametrize("full", ["segment_label.nii.gz", "segment_probability.nii.gz", "segment_seg.dcm"])
def test_a_full_disk_fails_the_case_and_leaves_nothing_half_written(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    """The next case is segmented; once there is room, the case is, too."""
    ingested(run_folder, "case-next", ("ct", "mr"))
    loaded, first = loading.load("segment", Plan(run_folder, run_folder)), []
    write = files.write_atomic

    def on_a_full_disk(path: Path, fill: Any, *check: Any) -> str:
        case_id = path.parent.parent.name
        if path.name == full and case_id in (first or [case_id]):
            first.append(case_id)
            fill = no_room
        return write(path, fill, *check)

    monkeypatch.setattr(artifacts, "write_atomic", on_a_full_disk)
    found = {record.case_id: record for record in loaded.stage.run(loaded.find_cases())}
    (failed,) = [case for case in found.values() if case.error is not None and case.error.code == "E_DISK"]
    assert found["case-next" if failed.case_id == "case-whole" else "case-whole"].status == "done"
    left = {path.name for path in (run_folder / "cases" / failed.case_id / "segment").iterdir()}
    assert not {name for name in left if name.startswith(("segment_", "."))}
    monkeypatch.undo()
    again = {record.case_id: record for record in loaded.stage.run(loaded.find_cases())}
    assert again[failed.case_id].status == "done" and not again[failed.case_id].reused


def no_room(path: Path) -> None:
    """Half a file."""
    path.write_bytes(b"half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def test_the_stage_runs_where_the_spec_names_a_model(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    assert "segment" in stages_for(spec)
    assert spec.segment is not None
    assert "segment" not in stages_for(
        spec.model_copy(update={"segment": spec.segment.model_copy(update={"model": ""})})
    )


def test_a_calibration_of_other_logits_is_refused(tmp_path: Path) -> None:
    """That of the model itself is found in its folder, applied, and said."""
    folder = write_model(tmp_path / "model", folds=2)
    model = load_model(folder)
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (400, 3))
    odds = np.exp(logits / 2)
    labels = (rng.random((400, 1)) > (odds / odds.sum(1, keepdims=True)).cumsum(1)).sum(1)
    about = About("out-of-fold voxels", "2026-01-02", "out_of_fold", output_of(model))
    fitted = Temperature.fit_rows(Rows.of(logits, labels, None), about)
    (folder / "calibration.json").write_text(json.dumps(fitted.to_json()))
    assert calibration_of("", folder, Predictor(model)) is None
    describe(folder, {"calibration": "calibration.json"})
    found = calibration_of("", folder, Predictor(load_model(folder)))
    assert found is not None and found.in_words == "temperature: out-of-fold voxels, 400 cases, 2026-01-02"
    with pytest.raises(UsageError, match="E_CAL_NETWORK"):
        calibration_of("", folder, Predictor(load_model(folder, [0])))
