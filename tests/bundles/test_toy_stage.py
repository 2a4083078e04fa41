"""A new stage is three files: its configuration, its metadata and one module. No other room has to know of it.

This is the example of docs/how-to/extend.md.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.run import batch, plan
from pipeline.shipped import shipped

SPEC = """
name: toy
description: One CT as NIfTI.
roles:
  ct: {modality: CT, unit: HU, files: "{case}_ct.nii"}
"""
CONFIGURATION = """
dataset_dir: out          # a run folder
output_dir: out           # where the results go
spec_file: ""             # a data spec; empty: the one that the run was ingested with
overwrite: false          # true: do the work again even where it is done
above_hu: 300             # bone begins here

reads: {ct: image}
chain:
  _target_: Compose
  transforms:
    - _target_: LoadImaged
      keys: ct
      reader: NibabelReader
      ensure_channel_first: true
    - _target_: toy_bone.Boned
      key: ct
      above_hu: "@above_hu"

stage:
  _target_: pipeline.run.stage.Stage
  name: toy
  chain: "@chain"
  reads: "@reads"
  output_dir: "@output_dir"
  overwrite: "@overwrite"
cases:
  _target_: pipeline.store.records.FindCases
  dataset_dir: "@dataset_dir"
  reads: "@reads"

initialize:
  - _target_: pipeline.run.options.start   # wrong input or an unknown key: one sentence and exit code 2
run: "$@stage.main(@cases)"
"""
MODULE = '''
"""How much bone there is."""

import numpy as np
from monai.transforms import Transform

from pipeline.store.sections import Answer, Regions, Section, Sections
from pipeline.volumes import affine_of, volume


class Boned(Transform):
    """Label all voxels above a threshold in HU, and measure their volume in ml."""

    def __init__(self, key, above_hu):
        self.key, self.above_hu = key, above_hu

    def writes(self):
        return {"bone": "label"}

    def __call__(self, data):
        affine = affine_of(data[self.key])
        bone = volume((data[self.key].numpy() > self.above_hu).astype(np.uint8), affine)
        volume_ml = float(bone.sum()) * abs(np.linalg.det(affine[:3, :3])) / 1000
        return {**data, "bone": bone, "measures": {**data.get("measures", {}), "bone_ml": round(volume_ml, 3)}}

    def sections(self, case):
        found = f"{case['measures']['bone_ml']:.1f} ml"
        return Sections(
            (Section("What the toy found", (f"There are {found} of bone.",)),),
            (Answer("Bone", found),),
            regions=(Regions("bone", (self.key,), {1: "bone"}),),
        )
'''


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The three files of the stage, and one case with 6 x 5 x 4 voxels of bone, of 2 x 1 x 3 mm each: 0.72 ml."""
    configs = tmp_path / "bundles" / "toy" / "configs"
    configs.mkdir(parents=True)
    (configs / "inference.yaml").write_text(CONFIGURATION)
    metadata = json.loads(shipped("bundles", "preprocess", "configs", "metadata.json").read_text())
    (configs / "metadata.json").write_text(json.dumps({**metadata, "name": "tandem_toy", "task": "Bone"}))
    (tmp_path / "toy_bone.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "toy_bone", raising=False)
    monkeypatch.setattr(plan, "shipped", lambda *parts: (tmp_path if "toy" in parts else shipped()).joinpath(*parts))
    (tmp_path / "in").mkdir()
    values = np.full((24, 30, 20), 40, np.int16)
    values[4:10, 7:12, 8:12] = 700
    nib.save(nib.Nifti1Image(values, np.diag([2.0, 1.0, 3.0, 1.0])), tmp_path / "in" / "one_ct.nii")
    (tmp_path / "spec.yaml").write_text(SPEC)
    return tmp_path


def test_a_toy_stage_is_three_files_and_has_its_section_in_the_report(toy: Path) -> None:
    of_three = batch.Plan(toy / "in", toy / "out", toy / "spec.yaml", stages=("ingest", "toy", "report"))
    ((case_id, found),) = batch.run(of_three).items()
    by_stage = {record.stage: record for record in found}
    assert {name: record.status for name, record in by_stage.items()} == dict.fromkeys(of_three.stages, "done")
    made = {item.key: toy / "out" / item.path for record in found for item in record.artifacts}
    assert np.asarray(nib.load(made["bone"]).dataobj).sum() == 6 * 5 * 4
    assert by_stage["toy"].measures["bone_ml"] == pytest.approx(0.72)
    assert by_stage["toy"].answers == {"Bone": "0.7 ml"}
    page = made["report_page"].read_text()
    assert "What the toy found" in page and "There are 0.7 ml of bone." in page
    assert "0.7 ml" in (toy / "out" / "report.html").read_text() and case_id in (toy / "out" / "cases.csv").read_text()


def test_what_the_transform_writes_is_named_nowhere_else(toy: Path) -> None:
    """The key, renamed in the module, is renamed on the disk."""
    module = toy / "toy_bone.py"
    module.write_text(MODULE.replace('"bone"', '"skeleton"'))
    of_three = batch.Plan(toy / "in", toy / "out", toy / "spec.yaml", stages=("ingest", "toy"))
    ((_, found),) = batch.run(of_three).items()
    assert next(Path(item.path).name for item in found[1].artifacts) == "skeleton.nii.gz"
