"""A key that a transform writes is renamed in one place: all later stages, and the report, follow."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.preprocessing import branches
from pipeline.registration import dictionary
from pipeline.run import batch
from pipeline.shipped import shipped
from pipeline.simulation.cohort import simulate_cohort


@pytest.mark.slow
def test_a_key_renamed_in_one_file_is_renamed_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = simulate_cohort(tmp_path / "cohort", cases=1, spacing_mm=6.0, faulty=0)
    monkeypatch.setattr(dictionary, "aligned_key", lambda name: f"{name}_moved_here")
    stages = ("ingest", "register", "preprocess", "report")
    spec = shipped("data_specs", "ct_mr_head.yaml")
    found = batch.run(batch.Plan(cohort.dicom, tmp_path / "out", spec, stages=stages))
    (case,) = found.values()
    assert [(record.stage, record.status) for record in case] == [(name, "done") for name in stages]
    keys = {record.stage: {item.key for item in record.artifacts} for record in case}
    inputs = {record.stage: {item.key for item in record.inputs} for record in case}
    assert "mr_moved_here" in keys["register"] and not any("aligned" in key for made in keys.values() for key in made)
    assert inputs["preprocess"] == {"ct", "mr_moved_here"}
    assert {"mr_normalised", "mr_enhanced", "ct_windows"} <= keys["preprocess"]
    assert "mr_after" in keys["report"]


def test_a_branch_is_named_once() -> None:
    made = branches.Branchd({"ct": "image", "mr_aligned": "image?"}, ["ct", "mr"], "edges")
    assert made.writes() == {"ct_edges": "image", "mr_edges": "image?"}
