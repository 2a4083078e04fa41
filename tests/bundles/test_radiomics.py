"""The stage `radiomics` in a run: what it measures, in which masks, and what the run folder then holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml
from scipy import ndimage

from pipeline.cases import Record
from pipeline.errors import UsageError
from pipeline.learning.table import read_numbers
from pipeline.radiomics import extract, preset
from pipeline.radiomics.table import read_csv
from pipeline.run import loading
from pipeline.run.batch import run
from pipeline.run.options import workflow
from pipeline.run.plan import Plan, stages_for
from pipeline.shipped import shipped
from pipeline.spec.spec import load_spec
from pipeline.spec.stages import Fuse

SPEC: dict[str, Any] = {
    "name": "toy",
    "description": "CT and MR with a mask on each.",
    "roles": {
        "ct": {"modality": "CT", "unit": "HU", "files": "{case}_ct.nii.gz"},
        "mr": {"modality": "MR", "files": "{case}_mr.nii.gz", "required": False},
    },
    "masks": {
        "lesion": {"of": "ct", "files": "{case}_lesion.nii.gz", "values": {"core": 1, "rim": 2}},
        "bone": {"of": "mr", "files": "{case}_bone.nii.gz", "values": {"bone": 1}, "required": False},
    },
    "register": {"fixed": "ct", "moving": ["mr"], "transform": "headers"},
    "radiomics": {
        "images": {"ct": "small", "mr": ["small", "ibsi_mr"]},
        "configurations": {"small": {"families": ["stat", "morph"]}},
        "robustness": {"chain": ["translation"], "versions": 2},
    },
}
CT = np.diag([1.5, 1.5, 2.0, 1.0])
MR = np.array([[0.0, 0, 2.0, 1], [2.0, 0, 0, -3], [0, 2.0, 0, 2], [0, 0, 0, 1]])


def body(shape: tuple[int, ...], seed: int) -> Any:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    inside = np.zeros(shape)
    inside[4:-4, 4:-4, 3:-3] = 1
    return np.where(inside, 60 + 300 * noise, -1000).astype(np.float32)


def save(path: Path, values: Any, affine: Any) -> None:
    nib.save(nib.Nifti1Image(values, affine), path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Record]]]:
    """Two cases, of which one has no MR; ingested, registered, measured and reported."""
    folder = tmp_path_factory.mktemp("radiomics")
    (folder / "in").mkdir()
    for case in ("a", "b"):
        save(folder / "in" / f"{case}_ct.nii.gz", body((40, 40, 30), 1), CT)
        lesion = np.zeros((40, 40, 30), np.uint8)
        lesion[12:22, 14:24, 10:20] = 1
        lesion[22:24, 14:24, 10:20] = 2
        save(folder / "in" / f"{case}_lesion.nii.gz", lesion, CT)
    save(folder / "in" / "a_mr.nii.gz", body((30, 30, 30), 2), MR)
    bone = np.zeros((30, 30, 30), np.uint8)
    bone[8:14, 9:16, 8:15] = 1
    save(folder / "in" / "a_bone.nii.gz", bone, MR)
    (folder / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    stages = ("ingest", "register", "radiomics", "report")
    return folder, run(Plan(folder / "in", folder / "out", folder / "spec.yaml", stages))


def case_a(found: dict[str, list[Record]]) -> str:
    return next(name for name, made in found.items() if any(item.key == "mr" for one in made for item in one.artifacts))


def test_each_image_is_measured_in_each_mask_of_its_body(finished: tuple[Path, dict[str, list[Record]]]) -> None:
    folder, found = finished
    rows = read_csv(folder / "out" / "radiomics.csv")
    of_a = [row for row in rows if row["case_id"] == case_a(found)]
    kinds = [(row["image"], row["mask"], row["region"], row["configuration"], row["flags"]) for row in of_a]
    drawn = [kind for kind in kinds if "carried" not in kind[4] and "not_aligned" not in kind[4]]
    assert {kind[:4] for kind in drawn} == {
        *(("ct", "lesion", region, "small") for region in ("core", "rim")),
        *(("mr", "bone", "bone", name) for name in ("small", "ibsi_mr")),
    }
    assert {kind[:3] for kind in kinds if kind not in drawn} == {
        *(("mr", "lesion", region) for region in ("core", "rim")),
        ("ct", "bone", "bone"),
    }
    assert len([row for row in rows if row["case_id"] != case_a(found)]) == 2  # no MR, no bone


def test_values_are_those_of_the_original_image_on_its_own_grid(finished: tuple[Path, dict[str, list[Record]]]) -> None:
    folder, _ = finished
    image, bone = (nib.load(folder / "in" / f"a_{name}.nii.gz") for name in ("mr", "bone"))
    settings = preset("ibsi_mr")
    expected = extract(np.asarray(image.dataobj), np.asarray(bone.dataobj), image.affine, settings).values
    rows = read_csv(folder / "out" / "radiomics.csv")
    (row,) = [row for row in rows if row["mask"] == "bone" and row["configuration"] == "ibsi_mr"]
    for tag in ("stat_mean", "cm_joint_entr_3D_comb", "szm_zs_entr_3D", "morph_volume"):
        assert float(row[tag]) == pytest.approx(expected[tag], rel=1e-6)


def test_the_run_folder_explains_its_table(finished: tuple[Path, dict[str, list[Record]]]) -> None:
    folder, found = finished
    out = folder / "out"
    for name in ("radiomics_dictionary.csv", "radiomics_reporting.md", "radiomics.html", "radiomics.pdf"):
        assert (out / name).stat().st_size > 200
    columns = ["ct_lesion_core_small_stat_mean", "mr_bone_ibsi_mr_stat_mean"]
    numbers = read_numbers(out / "radiomics_by_case.csv", columns)
    assert np.isfinite(numbers[case_a(found)]).all() and len(numbers) == 2
    named = Fuse(table_file="radiomics_by_case.csv").file("table_file", out)
    assert named == str(out / "radiomics_by_case.csv")


def test_how_well_features_agree_is_told_of_the_cohort(finished: tuple[Path, dict[str, list[Record]]]) -> None:
    rows = read_csv(finished[0] / "out" / "radiomics_robustness.csv")
    (mean,) = [
        row for row in rows if row["region"] == "core" and row["image"] == "ct" and row["feature"] == "stat_mean"
    ]
    assert float(mean["icc_1_1"]) == -1  # two cases of one image: -1 / (versions - 1), the least there can be
    assert {row["region"] for row in rows} >= {"core", "rim", "bone"}


def test_the_report_says_what_was_measured(finished: tuple[Path, dict[str, list[Record]]]) -> None:
    folder, found = finished
    record = next(one for one in found[case_a(found)] if one.stage == "radiomics")
    path = next(item.path for item in record.artifacts if item.key == "sections")
    said = json.loads((folder / "out" / path).read_text())
    (section,) = said["sections"]
    assert section["title"] == "Radiomics" and "small" in section["sentences"][0]
    assert len(section["tables"][0]["rows"]) == record.measures["rows"] > 4
    assert {picture["key"] for picture in section["pictures"]} == {"radiomics_ct", "radiomics_mr"}
    page = (
        folder / "out" / next(a.path for one in found[case_a(found)] for a in one.artifacts if a.key == "report_page")
    )
    assert "Radiomics" in page.read_text()


def test_what_is_done_is_not_done_again_but_other_settings_are(
    finished: tuple[Path, dict[str, list[Record]]], tmp_path: Path
) -> None:
    folder, _ = finished
    before = (folder / "out" / "radiomics.csv").read_bytes()
    plan = Plan(folder / "in", folder / "out", folder / "spec.yaml", ("radiomics",))
    stage, cases = (loaded := loading.load("radiomics", plan)).stage, loaded.find_cases()
    assert [record.reused for record in stage.run(cases)] == [True, True]
    run(plan)
    assert (folder / "out" / "radiomics.csv").read_bytes() == before
    other = yaml.safe_load((folder / "out" / "spec.yaml").read_text())
    other["radiomics"]["configurations"]["small"]["whole_numbers"] = True
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    settings = {"dataset_dir": folder / "out", "output_dir": tmp_path, "spec_file": tmp_path / "other.yaml"}
    files = [shipped("bundles", "radiomics", "configs", "inference.yaml")]
    changed = workflow(files, {key: str(value) for key, value in settings.items()}).parser.get_parsed_content("stage")
    assert changed._description != stage._description


def test_a_later_stage_runs_with_the_spec_that_it_is_given(
    finished: tuple[Path, dict[str, list[Record]]], tmp_path: Path
) -> None:
    folder, _ = finished
    out = tmp_path / "out"
    shutil.copytree(folder / "out", out)
    other = {**SPEC, "radiomics": {**SPEC["radiomics"], "images": {"ct": "ibsi_ct"}, "robustness": False}}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    run(Plan(folder / "in", out, tmp_path / "other.yaml", ("radiomics",)))
    assert {(row["image"], row["configuration"]) for row in read_csv(out / "radiomics.csv")} == {("ct", "ibsi_ct")}
    assert not (out / "radiomics_robustness.csv").exists()


def test_stages_and_settings_are_checked_before_anything_runs(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(SPEC))
    assert "radiomics" in stages_for(load_spec(path))
    wrong = {**SPEC, "radiomics": {"images": {"ct": "ibsi_ctt"}}}
    path.write_text(yaml.safe_dump(wrong))
    with pytest.raises(UsageError, match="did you mean `ibsi_ct`") as caught:
        run(Plan(tmp_path, tmp_path / "out", path))
    assert caught.value.code == "E_CONFIG" and not (tmp_path / "out" / "cases").exists()


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"images": {"pet": "ibsi_pet"}}, "`pet`, which `roles` does not define"),
        ({"images": {"ct": "ibsi_ct"}, "masks": ["lesionn"]}, "`lesionn`, which `masks`"),
        ({"images": {}}, "images"),
        ({"images": {"ct": "ibsi_ct"}, "mask": []}, "did you mean `masks`"),
    ],
)
def test_a_section_that_says_nothing_sensible(tmp_path: Path, section: dict[str, Any], words: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump({**SPEC, "radiomics": section}))
    with pytest.raises(UsageError, match=words) as caught:
        load_spec(path)
    assert caught.value.code == "E_SPEC"


def test_an_image_without_a_mask_of_its_body(tmp_path: Path) -> None:
    spec = {key: value for key, value in SPEC.items() if key != "register"}
    spec["radiomics"] = {"images": {"mr": "ibsi_mr"}, "masks": ["lesion"]}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    with pytest.raises(UsageError, match="no mask is of it"):
        load_spec(tmp_path / "spec.yaml")
