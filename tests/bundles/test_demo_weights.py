"""The weights that come with Tandem, on simulated heads that neither they nor their calibrations have seen."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.commands.demo import SEGMENTED_LESION
from pipeline.commands.demo import SPEC as DEMO_SPEC
from pipeline.fusion.checkpoint_file import load_trained
from pipeline.run.batch import Plan, run
from pipeline.segmentation.model import load_model
from pipeline.segmentation.weights import find_model
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
segment: {model: demo_head, channels: {ct: CT, mr: T1}, mirroring: false}
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


def test_the_segmentation_says_what_it_is() -> None:
    segment = load_spec(shipped(*DEMO_SPEC)).segmentation
    folder = find_model(segment.model)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 4e6
    model = load_model(folder)
    assert model.channels == list(segment.channels) and model.label_names == {"brain": 1, "lesion": SEGMENTED_LESION}
    assert model.plans.dataset_name == "Dataset502_DemoHead"


@pytest.mark.slow
def test_they_find_lesions_and_classes_of_new_heads(tmp_path: Path) -> None:
    write_head_cases(tmp_path / "in", "cases.csv", range(7000, 7003), 1, seed=77)
    (tmp_path / "spec.yaml").write_text(SPEC)
    found = run(Plan(tmp_path / "in", tmp_path / "run", tmp_path / "spec.yaml", stages=("ingest", "segment", "fuse")))
    names = Pseudonyms(tmp_path / "run")
    with (tmp_path / "in" / "cases.csv").open() as stream:
        truth = {names.of("case", row["case_id"]): row for row in csv.DictReader(stream)}
    apart, dice = [], []
    for case_id, records in found.items():
        stages = {record.stage: record for record in records}
        fused, segmented = stages["fuse"], stages["segment"]
        assert (fused.status, segmented.status) == ("done", "done") and fused.flags == () == segmented.flags
        assert fused.measures["fused_class_calibrated"] and not segmented.measures["segment_calibrated"]
        paths = {item.key: tmp_path / "run" / item.path for item in (*fused.artifacts, *segmented.artifacts)}
        anatomy = tmp_path / "in" / truth[case_id]["mask"].replace("_mask", "_anatomy")
        true = nib.as_closest_canonical(nib.load(anatomy))
        scores = []
        for key, value, wanted in (("fused_label", 1, 2), ("segment_label", 2, 2), ("segment_label", 1, 1)):
            label = nib.as_closest_canonical(nib.load(paths[key]))
            assert np.allclose(label.affine, true.affine, atol=1e-4)
            first, second = np.asarray(label.dataobj) == value, np.asarray(true.dataobj) == wanted
            scores.append(2 * (first & second).sum() / (first.sum() + second.sum()))
        dice.append(scores)
        chance = json.loads(paths["fused_class"].read_text())["probabilities"]["kind_b"]
        apart.append(abs(chance - float(truth[case_id]["posterior"])))
    fusion, lesions, brain = np.mean(dice, axis=0)
    assert fusion > 0.3 and lesions > 0.4 and brain > 0.97 and np.mean(apart) < 0.25, (dice, apart)
