"""The stage `fuse_image` in a run: aligned, shifted, failed and missing MR, and what the run folder then says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml
from scipy import ndimage

from pipeline.cases import Record
from pipeline.image_fusion.baselines import fuse
from pipeline.image_fusion.metrics import measure
from pipeline.image_fusion.pictures import scaled
from pipeline.run import loading
from pipeline.run.batch import run
from pipeline.run.options import workflow
from pipeline.run.plan import Plan
from pipeline.shipped import shipped
from pipeline.simulation.head import load_head_template
from pipeline.simulation.protocol import scan_pair
from pipeline.simulation.subject import random_subject
from pipeline.store import records
from pipeline.store.pseudonyms import Pseudonyms
from pipeline.volumes import affine_of

SPEC: dict[str, Any] = {
    "name": "heads",
    "description": "CT and MR, aligned by landmarks.",
    "roles": {
        "ct": {"modality": "CT", "unit": "HU", "files": "{case}_ct.nii.gz"},
        "t1": {"modality": "MR", "files": "{case}_t1.nii.gz", "required": False},
    },
    "register": {
        **{"fixed": "ct", "moving": ["t1"], "transform": "landmarks_rigid"},
        "landmarks": {"ct": "{case}_ct.csv", "t1": "{case}_t1.csv"},
    },
    "fuse_image": {"roles": {"mr": "t1"}, "windows": [[150, 500]]},
}
STAGES = ("ingest", "register", "fuse_image")
SHIFT_MM = 5.0


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Record]]]:
    """A simulated head; its MR placed 5 mm beside; with MR of nothing; and without MR. Records by case and stage."""
    folder = tmp_path_factory.mktemp("fuse_image")
    rng = np.random.default_rng(4)
    subject = random_subject(load_head_template(2), rng, 0.0, 0.0, 2)
    ct, mr = scan_pair(subject, 5.0, rng)
    noise = 900 * np.abs(ndimage.gaussian_filter(rng.normal(size=mr.shape[1:]), 2))
    (folder / "in").mkdir()
    pairs = {"sound": (mr[0], 0.0), "shifted": (mr[0], SHIFT_MM), "noise": (noise, 0.0), "alone": None}
    for name, found in pairs.items():
        write_case(folder / "in" / name, "ct", ct[0], affine_of(ct), subject.landmarks_ct())
        if found:
            beside = subject.landmarks_ct() + np.array([found[1], 0, 0])
            write_case(folder / "in" / name, "t1", found[0], affine_of(mr), beside)
    (folder / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    run(Plan(folder / "in", folder / "out", folder / "spec.yaml", STAGES))
    ids = {Pseudonyms(folder / "out").of("case", name): name for name in pairs}
    loaded = loading.load("report", Plan(folder / "out", folder / "out"))
    loaded.stage.run([case for case in loaded.find_cases() if ids[case["case_id"]] in ("sound", "alone")])
    made = records.of_run(folder / "out")
    return folder / "out", {ids[case]: {item.stage: item for item in done} for case, done in made.items()}


def write_case(path: Path, role: str, values: Any, affine: np.ndarray, points: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(np.asarray(values).astype(np.int16), affine), f"{path}_{role}.nii.gz")
    rows = "\n".join(f"{number},{x},{y},{z}" for number, (x, y, z) in enumerate(points))
    Path(f"{path}_{role}.csv").write_text(f"# convention: RAS\nname,x,y,z\n{rows}\n")


def image(out: Path, record: Record, key: str) -> Any:
    return nib.load(out / next(item.path for item in record.artifacts if item.key == key))


def values(out: Path, record: Record, key: str) -> np.ndarray:
    return np.asarray(image(out, record, key).dataobj, np.float32)


def sources(out: Path, case: dict[str, Record]) -> tuple[np.ndarray, np.ndarray]:
    """CT and MR of a case as they are fused, made anew from what registration has left."""
    ct = np.clip((values(out, case["ingest"], "ct") + 100) / 500, 0, 1)
    mr = values(out, case["register"], "t1_aligned")
    return ct, scaled(mr, image(out, case["register"], "t1_aligned").affine)


def test_the_picture_is_what_the_method_makes_of_the_aligned_pair(
    finished: tuple[Path, dict[str, dict[str, Record]]],
) -> None:
    out, found = finished
    case = found["sound"]
    record = case["fuse_image"]
    made, ct, mr = values(out, record, "fused_image"), *sources(out, case)
    assert image(out, record, "fused_image").get_data_dtype() == np.float32
    np.testing.assert_array_equal(image(out, record, "fused_image").affine, image(out, case["ingest"], "ct").affine)
    np.testing.assert_allclose(made, fuse(ct, mr, "atrous"), atol=1e-5)
    assert made.min() >= 0 and made.max() <= 1
    expected = {f"fused_{name}": value for name, value in measure(made, ct, mr, 1.0).items() if value is not None}
    assert {name: record.measures[name] for name in expected} == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert record.measures["max_bone"] == record.measures["ct_bone"] == 1 and record.measures["ct_SCD"] is None
    assert record.measures["fused_method"] == "atrous" and record.measures["fused_weights_sha256"] is None
    assert record.verdict is None


def test_five_millimetres_show_in_the_edges_kept_and_in_the_verdict(
    finished: tuple[Path, dict[str, dict[str, Record]]],
) -> None:
    """Beside the true pair; beside its own sources a shifted picture is as good, so that only the verdict can tell."""
    out, found = finished
    ct, mr = sources(out, found["sound"])
    kept = {}
    for name in ("sound", "shifted"):
        made = fuse(*sources(out, found[name]), "atrous")
        kept[name] = measure(made, ct, mr, 1.0)
    assert kept["shifted"]["Qabf"] < kept["sound"]["Qabf"] - 0.05
    assert kept["shifted"]["soft"] < kept["sound"]["soft"] - 0.1
    grades = {name: found[name]["register"].verdict.grade for name in found if name != "alone"}  # type: ignore[union-attr]
    assert grades == {"sound": "pass", "shifted": "fail", "noise": "fail"}


def test_a_case_that_cannot_be_fused_says_so_and_goes_on(finished: tuple[Path, dict[str, dict[str, Record]]]) -> None:
    out, found = finished
    assert found["alone"]["fuse_image"].flags == ("N_NOT_FUSED: there is no T1",)
    for name in ("shifted", "noise"):
        assert found[name]["fuse_image"].flags[0].startswith("N_NOT_FUSED: the alignment has failed: ")
    for name in ("alone", "shifted", "noise"):
        record = found[name]["fuse_image"]
        assert record.status == "done" and {item.key for item in record.artifacts} == {"sections"}
        assert record.verdict and record.verdict.grade == "warn" and record.verdict.reasons[0].startswith("Not fused: ")
    page = (out / next(a.path for a in found["alone"]["report"].artifacts if a.key == "report_page")).read_text()
    assert "Not fused: there is no T1" in page


def test_an_alignment_to_look_at_is_a_picture_to_look_at(
    finished: tuple[Path, dict[str, dict[str, Record]]], tmp_path: Path
) -> None:
    out, found = finished
    loaded = loading.load("fuse_image", Plan(out, out))
    case = next(case for case in loaded.find_cases() if case["case_id"] == found["sound"]["ingest"].case_id)
    (tmp_path / "quality.json").write_text(json.dumps({"verdict": "warn", "reason": "Two starts disagree."}))
    verdict = loaded.stage.chain({**case, "t1_quality": tmp_path / "quality.json"})["verdict"]
    reason = "The picture is of an alignment to look at: Two starts disagree."
    assert (verdict.grade, verdict.reasons, verdict.unfit) == ("warn", (reason,), ())


def test_what_is_strange_in_the_values_is_flagged(
    finished: tuple[Path, dict[str, dict[str, Record]]], tmp_path: Path
) -> None:
    """A CT without air; an MR of the lower half."""
    out, found = finished
    assert found["sound"]["fuse_image"].flags == ()
    loaded = loading.load("fuse_image", Plan(out, out))
    case = next(case for case in loaded.find_cases() if case["case_id"] == found["sound"]["ingest"].case_id)
    for key, change, code in (("ct", without_air, "N_NO_AIR"), ("t1_aligned", lower_half, "N_PART_SHOWN")):
        given, path = nib.load(case[key]), tmp_path / f"{key}.nii.gz"
        nib.save(nib.Nifti1Image(change(np.asarray(given.dataobj, np.float32)), given.affine), path)
        flags = loaded.stage.chain({**case, key: path})["flags"]
        assert [flag.split(":")[0] for flag in flags] == [code]


def without_air(ct: np.ndarray) -> np.ndarray:
    return np.maximum(ct, -100)


def lower_half(mr: np.ndarray) -> np.ndarray:
    return np.where(np.arange(mr.shape[2]) < mr.shape[2] // 2, mr, 0)


def test_the_report_shows_the_picture_beside_others(finished: tuple[Path, dict[str, dict[str, Record]]]) -> None:
    out, found = finished
    record = found["sound"]["fuse_image"]
    said = json.loads((out / next(item.path for item in record.artifacts if item.key == "sections")).read_text())
    (section,) = said["sections"]
    assert "no weights of a network were named" in section["sentences"][0]
    (table,) = section["tables"]
    assert table["columns"] == ["Measure", "This picture", "CT alone", "Mean of both", "Larger of both", "Meaning"]
    assert [row[0] for row in table["rows"]] == ["SD", "SF", "MI", "SCD", "VIF", "Qabf", "SSIM", "bone", "soft"]
    assert dict((row[0], row[4]) for row in table["rows"])["bone"] == "1"
    (picture,) = section["pictures"]
    assert [panel["image"] for panel in picture["panels"]] == ["ct", "t1_aligned", "fused_image"]
    assert picture["panels"][0]["window"] == [-100, 400]
    assert "fused_image" in {item.key for item in found["sound"]["report"].artifacts}


def test_what_is_done_is_not_done_again_but_another_method_is(
    finished: tuple[Path, dict[str, dict[str, Record]]], tmp_path: Path
) -> None:
    out, _ = finished
    loaded = loading.load("fuse_image", Plan(out, out, stages=("fuse_image",)))
    assert all(record.reused for record in loaded.stage.run(loaded.find_cases()))
    settings = {"dataset_dir": str(out), "output_dir": str(tmp_path), "method": "max"}
    files = [shipped("bundles", "fuse_image", "configs", "inference.yaml")]
    changed = workflow(files, settings).parser.get_parsed_content("stage")
    assert changed._description != loaded.stage._description
