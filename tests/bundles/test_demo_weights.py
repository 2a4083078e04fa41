"""The weights that come with Tandem, on simulated heads that neither they nor their calibrations have seen."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.commands.demo import SPEC as DEMO_SPEC
from pipeline.fusion.checkpoint_file import load_trained
from pipeline.run.batch import Plan, run
from pipeline.shipped import shipped
from pipeline.spec.spec import load_spec
from pipeline.store.pseudonyms import Pseudonyms
from scripts.head_files import write_head_cases

MODELS = shipped("bundles", "fuse", "models")
SPEC = """
name: heads
description: CT and MR on one grid.
roles:
  ct: {modality: CT, unit: HU, files: "{case}_ct.nii.gz"}
  mr: {modality: MR, files: "{case}_mr.nii.gz"}
fuse:
  weights: demo_model.pt
  class_calibration: demo_calibration_classes.json
  voxel_calibration: demo_calibration_voxels.json
  class_names: [kind_a, kind_b]
  label_names: [lesion]
"""


def test_they_say_what_they_are() -> None:
    fuse = load_spec(shipped(*DEMO_SPEC)).fusion
    assert Path(fuse.file("weights")) == MODELS / "demo_model.pt"
    assert Path(fuse.file("weights")).stat().st_size < 4e6
    trained = load_trained(fuse.file("weights"))
    assert len(trained.training_cases) == 200 and list(trained.preparation.spacing_mm) == [4.0]
    for key in ("class_calibration", "voxel_calibration"):
        found = json.loads(Path(fuse.file(key)).read_text())
        assert (found["cases"], found["source"]) == (120, "validation") and "simulated heads" in found["data"]


@pytest.mark.slow
def test_they_find_lesions_and_classes_of_new_heads(tmp_path: Path) -> None:
    write_head_cases(tmp_path / "in", "cases.csv", range(7000, 7003), 1, seed=77)
    (tmp_path / "spec.yaml").write_text(SPEC)
    found = run(Plan(tmp_path / "in", tmp_path / "run", tmp_path / "spec.yaml", stages=("ingest", "fuse")))
    names = Pseudonyms(tmp_path / "run")
    with (tmp_path / "in" / "cases.csv").open() as stream:
        truth = {names.of("case", row["case_id"]): row for row in csv.DictReader(stream)}
    dice, apart = [], []
    for case_id, records in found.items():
        fused = next(record for record in records if record.stage == "fuse")
        assert fused.status == "done" and fused.flags == () and fused.measures["fused_class_calibrated"]
        paths = {item.key: tmp_path / "run" / item.path for item in fused.artifacts}
        label = nib.load(paths["fused_label"])
        mask = nib.as_closest_canonical(nib.load(tmp_path / "in" / truth[case_id]["mask"]))
        assert np.allclose(label.affine, mask.affine, atol=1e-4)
        first, second = (np.asarray(image.dataobj) > 0 for image in (label, mask))
        dice.append(2 * (first & second).sum() / (first.sum() + second.sum()))
        chance = json.loads(paths["fused_class"].read_text())["probabilities"]["kind_b"]
        apart.append(abs(chance - float(truth[case_id]["posterior"])))
    assert np.mean(dice) > 0.3 and np.mean(apart) < 0.25, (dice, apart)
