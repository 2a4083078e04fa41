"""From a trained network to calibrated outputs: evaluate, calibrate, and the stage `fuse` on a run folder."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from scipy.special import softmax

from pipeline.cases import Record
from pipeline.errors import pipeline_cause
from pipeline.learning.checkpoint_file import DEFINITION, TRAINING_CASES, read_checkpoint
from pipeline.run.batch import Plan
from pipeline.run.batch import run as run_stages
from pipeline.shipped import shipped
from pipeline.store import records
from tests.phantoms.mechanism_files import write_mechanism_cases

CONFIGS = shipped("bundles", "fuse", "configs")
META = str(CONFIGS / "metadata.json")
SMALL: dict[str, Any] = {
    "bundle_root": str(CONFIGS.parent),
    "device": "cpu",
    "patch": [16, 16, 16],
    "network_def::width": 8,
    "network_def::levels": 3,
    "network_def::deep": 1,
    "ct_window": [140, 800],
    "max_epochs": 5,
    "warmup": 1,
    "folds": 2,
    "rate": 0.01,
    "cache_rate": 1.0,
}
SPEC = """
name: mechanisms
description: Simulated cases as NIfTI.
roles:
  ct: {modality: CT, unit: HU, files: "{case}_ct.nii", required: false}
  t1: {modality: MR, files: "{case}_mr.nii"}
"""


def workflow(*names: str, kind: str = "train", **settings: Any) -> ConfigWorkflow:
    files = [str(CONFIGS / f"{name}.yaml") for name in names]
    made = ConfigWorkflow(files, META, False, workflow_type=kind, **settings)
    made.initialize()
    return made


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated cases, a network trained on a half of them, its evaluation and calibration, and an ingested run."""
    folder = tmp_path_factory.mktemp("fuse")
    write_mechanism_cases(folder / "data", "additive", 16, seed=7, size=20)
    paths = {"dataset_dir": str(folder / "data"), "output_dir": str(folder / "out")}
    workflow("train", **SMALL, **paths).run()
    tried = {**SMALL, **paths, "output_dir": str(folder / "evaluation"), "weights": str(folder / "out" / "model.pt")}
    workflow("train", "evaluate", **tried, resamples=100).run()
    workflow("calibrate", kind=None, output_dir=str(folder / "evaluation")).run()
    (folder / "spec.yaml").write_text(SPEC)
    for path in folder.glob("data/case-00[0-3]*"):
        (folder / "nifti").mkdir(exist_ok=True)
        shutil.copy(path, folder / "nifti" / path.name)
    (folder / "nifti" / "case-002_ct.nii").unlink()
    return folder


@pytest.fixture
def ingested(home: Path, tmp_path: Path) -> Path:
    run_stages(Plan(home / "nifti", tmp_path / "run", home / "spec.yaml", stages=("ingest",)))
    return tmp_path / "run"


def fuse(home: Path, run: Path, **settings: Any) -> dict[str, Record]:
    """Run the stage; the records by case."""
    calibrations = {
        f"{part}_calibration": str(home / "evaluation" / f"calibration_{name}.json")
        for part, name in (("class", "classes"), ("voxel", "voxels"))
    }
    options = {"roles": {"mr": "t1"}, "weights": str(home / "out" / "model.pt"), **calibrations, **settings}
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / "inference.yaml"))
    for key, value in {"dataset_dir": str(run), "output_dir": str(run), "device": "cpu", **options}.items():
        parser[key] = value
    stage, cases = (parser.get_parsed_content(part) for part in ("stage", "cases"))
    return {record.case_id: record for record in stage.run(cases())}


def read(run: Path, record: Record) -> tuple[np.ndarray, np.ndarray, dict[str, Any], Any]:
    paths = {artifact.key: run / artifact.path for artifact in record.artifacts}
    chances, label = nib.load(paths["fused_probability"]), nib.load(paths["fused_label"])
    return np.asarray(chances.dataobj), np.asarray(label.dataobj), json.loads(paths["fused_class"].read_text()), label


def test_either_engine_fuses_and_evaluates_alike(home: Path, ingested: Path, tmp_path: Path) -> None:
    tried = {**SMALL, "dataset_dir": str(home / "data"), "output_dir": str(tmp_path), "report": False}
    workflow("train", "evaluate", **tried, weights=str(home / "out" / "model.pt"), engine="openvino").run()
    for name in ("class_logits", "voxel_logits"):
        ours, theirs = (np.load(folder / f"{name}.npy") for folder in (tmp_path, home / "evaluation"))
        assert not np.array_equal(ours, theirs) and np.allclose(ours, theirs, atol=1e-3)
    with_torch = {case: read(ingested, record) for case, record in fuse(home, ingested).items()}
    for case, record in fuse(home, ingested, engine="openvino", overwrite=True).items():
        chances, labels, said, _ = read(ingested, record)
        assert np.allclose(chances, with_torch[case][0], atol=1e-3)
        assert np.mean(labels == with_torch[case][1]) > 0.999
        assert said["logits"] == pytest.approx(with_torch[case][2]["logits"], abs=1e-3)


def test_the_evaluation_keeps_what_it_says(home: Path) -> None:
    folder = home / "evaluation"
    logits, labels = np.load(folder / "class_logits.npy"), np.load(folder / "class_labels.npy")
    assert np.allclose(np.load(folder / "class_probabilities.npy"), softmax(logits.astype(float), 1))
    with (folder / "class_cases.csv").open() as stream:
        judged = [row["case_id"] for row in csv.DictReader(stream)]
    with (home / "data" / "cases.csv").open() as stream:
        truth = {row["case_id"]: int(row["label"]) for row in csv.DictReader(stream)}
    assert [truth[name] for name in judged] == labels.tolist()
    learned = read_checkpoint(home / "out" / "model.pt")["training_cases"]
    assert set(judged).isdisjoint(learned) and len(judged) + len(learned) == 16
    assert Counter(np.load(folder / "voxel_cases.npy").tolist()) == dict.fromkeys(judged, 2000)
    with (folder / "dice.csv").open() as stream:
        dice, iou = np.array([(float(row["dice"]), float(row["iou"])) for row in csv.DictReader(stream)]).T
    assert dice.mean() > 0.5
    np.testing.assert_allclose(iou, dice / (2 - dice))


def test_cases_that_were_learned_from_are_not_calibrated_on(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = {"dataset_dir": str(home / "data"), "output_dir": str(tmp_path), "weights": str(home / "out" / "model.pt")}
    with pytest.raises(SystemExit) as ended:
        workflow("train", "evaluate", **SMALL, **paths, fold=1).run()
    assert ended.value.code == 2 and "E_CAL_TRAINING" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        workflow("calibrate", kind=None, output_dir=str(home / "evaluation"), source="training").run()
    assert ended.value.code == 2 and "E_CAL_TRAINING" in capsys.readouterr().err


def test_the_calibrations_say_where_they_come_from(home: Path) -> None:
    """The units of the classes are patients, those of the voxels cases."""
    with (home / "evaluation" / "class_cases.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    units = {"classes": len({row["patient_id"] for row in rows}), "voxels": len(rows)}
    for name, count in units.items():
        found = json.loads((home / "evaluation" / f"calibration_{name}.json").read_text())
        assert found["method"] == "temperature" and found["source"] == "validation" and found["cases"] == count
        assert found["date"] and found["data"] and found["nll_after"] <= found["nll_before"]


def test_the_stage_gives_calibrated_probabilities_on_the_images_grid(home: Path, ingested: Path) -> None:
    found = fuse(home, ingested)
    assert [record.status for record in found.values()] == ["done"] * 4
    raw = fuse(home, ingested, class_calibration="", voxel_calibration="", overwrite=True)
    temperature = {
        name: json.loads((home / "evaluation" / f"calibration_{name}.json").read_text())["parameters"]["temperature"]
        for name in ("classes", "voxels")
    }
    assert all(record.measures["fused_class_calibrated"] is False for record in raw.values())
    for record in raw.values():
        chances, label, case, image = read(ingested, record)
        ingest = next(item for item in records.of_case(ingested / "cases" / record.case_id) if item.stage == "ingest")
        assert np.allclose(nib.load(ingested / ingest.artifacts[0].path).affine, image.affine)
        assert chances.shape == (20, 20, 20, 2) and np.allclose(chances.sum(3), 1, atol=1e-5)
        assert np.array_equal(label, chances.argmax(3))
        voxel_ml = abs(np.linalg.det(image.affine[:3, :3])) / 1000
        assert record.measures["fused_label_label_1_volume_ml"] == pytest.approx(label.sum() * voxel_ml, abs=1e-5)
        assert np.allclose(list(case["probabilities"].values()), softmax(case["logits"]), atol=1e-5)
    again = fuse(home, ingested, overwrite=True)
    for name, record in again.items():
        chances, _, case, _ = read(ingested, record)
        assert record.measures["fused_class_calibrated"] and record.measures["fused_label_calibrated"]
        expected = softmax(np.array(case["logits"]) / temperature["classes"])
        assert np.allclose(list(case["probabilities"].values()), expected, atol=1e-5)
        assert case["pooling"].startswith("mean of the class logits of the 3 tiles") and name == record.case_id


def test_a_missing_modality_is_done_without(home: Path, ingested: Path) -> None:
    seen = sorted(record.measures["fused_modalities"] for record in fuse(home, ingested).values())
    assert seen == ["ct, mr", "ct, mr", "ct, mr", "mr"]


def test_what_is_done_is_not_done_again_unless_the_weights_change(home: Path, ingested: Path, tmp_path: Path) -> None:
    fuse(home, ingested)
    assert all(record.reused for record in fuse(home, ingested).values())
    other = shutil.copy(home / "out" / "last.pt", tmp_path / "other.pt")
    assert not any(record.reused for record in fuse(home, ingested, weights=str(other)).values())


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"roles": {"pet": "t1"}}, "E_MODALITY"),
        ({"weights": "no.pt"}, "E_INPUT"),
        ({"class_names": ["benign"]}, "E_NAMES"),
        ({"pooling": "mean"}, "E_CONFIG"),
        ({"explain": ["saliency"]}, "E_EXPLAIN"),
        ({"class_calibration": "no.json"}, "E_INPUT"),
    ],
)
def test_a_stage_that_cannot_be_is_refused(home: Path, ingested: Path, settings: dict[str, Any], code: str) -> None:
    with pytest.raises(RuntimeError) as raised:
        fuse(home, ingested, **settings)
    known = pipeline_cause(raised.value)
    assert known is not None and known.code == code


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"class_calibration": "voxels"}, "calibration of classes of the network .*, got one of voxels"),
        ({"voxel_calibration": "classes"}, "calibration of voxels of the network .*, got one of classes"),
        ({"weights": "other.pt"}, "calibration of voxels of the network"),
        ({"mirror": True}, "mirrored, got one of voxels"),
        ({"top_k": 1, "voxel_calibration": ""}, "the 1 tiles .*, got one of .* the 3 tiles"),
    ],
)
def test_a_calibration_of_other_logits_is_refused(
    home: Path, ingested: Path, tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    """With two classes and two labels both files would fit, and the probabilities would be wrong without a word."""
    for part in ("class_calibration", "voxel_calibration"):
        if settings.get(part):
            settings = {**settings, part: str(home / "evaluation" / f"calibration_{settings[part]}.json")}
    if "weights" in settings:
        found = read_checkpoint(home / "out" / "model.pt")
        found["network"]["class_heads.0.out.bias"] += 1
        torch.save(found, tmp_path / "other.pt")
        settings = {"weights": str(tmp_path / "other.pt")}
    with pytest.raises(RuntimeError) as raised:
        fuse(home, ingested, **settings)
    known = pipeline_cause(raised.value)
    assert known is not None and known.code == "E_CAL_NETWORK" and re.search(words, known.message)


def test_weights_are_the_same_in_whatever_checkpoint_they_stand(home: Path, ingested: Path, tmp_path: Path) -> None:
    found = read_checkpoint(home / "out" / "model.pt")
    torch.save({**found, "history": []}, tmp_path / "copy.pt")
    assert all(record.status == "done" for record in fuse(home, ingested, weights=str(tmp_path / "copy.pt")).values())


def test_an_evaluation_leaves_nothing_of_the_one_before(home: Path, tmp_path: Path) -> None:
    """Masks are gone: no voxel may be calibrated on what an earlier evaluation has left."""
    folder = Path(shutil.copytree(home / "evaluation", tmp_path / "evaluation"))
    data = Path(shutil.copytree(home / "data", tmp_path / "data"))
    with (data / "cases.csv").open() as stream:
        rows = [{**row, "mask": ""} for row in csv.DictReader(stream)]
    with (data / "cases.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    paths = {"dataset_dir": str(data), "output_dir": str(folder), "weights": str(home / "out" / "model.pt")}
    workflow("train", "evaluate", **SMALL, **paths, report=False).run()
    assert (folder / "class_logits.npy").is_file() and not list(folder.glob("voxel_*"))
    assert not (folder / "dice.csv").exists()


def test_an_evaluation_knows_from_the_checkpoint_that_no_class_is_judged(home: Path, tmp_path: Path) -> None:
    """A table without labels needs no `--classes 0` where the network was trained with it."""
    found = read_checkpoint(home / "out" / "model.pt")
    found[DEFINITION] = json.dumps({**json.loads(found[DEFINITION]), "classes": 0})
    found[TRAINING_CASES] = ()  # folds were balanced by the labels
    found["network"] = {key: value for key, value in found["network"].items() if not key.startswith("class_heads")}
    torch.save(found, tmp_path / "model.pt")
    data = Path(shutil.copytree(home / "data", tmp_path / "data"))
    with (data / "cases.csv").open() as stream:
        rows = [{key: value for key, value in row.items() if key != "label"} for row in csv.DictReader(stream)]
    with (data / "cases.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    paths = {"dataset_dir": str(data), "output_dir": str(tmp_path / "out"), "weights": str(tmp_path / "model.pt")}
    workflow("train", "evaluate", **SMALL, **paths, report=False).run()
    assert (tmp_path / "out" / "dice.csv").is_file() and not (tmp_path / "out" / "class_logits.npy").exists()


@pytest.mark.parametrize("kept", [8, 9000])
@pytest.mark.parametrize("fold", [0, 1])
@pytest.mark.parametrize("cached", [0.0, 1.0])
def test_an_image_that_cannot_be_read_is_named(
    home: Path, tmp_path: Path, kept: int, fold: int, cached: float, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(home / "data", tmp_path / "data"))
    (data / "case-003_ct.nii").write_bytes((data / "case-003_ct.nii").read_bytes()[:kept])
    paths = {"dataset_dir": str(data), "output_dir": str(tmp_path / "out"), "fold": fold}
    said = ""
    try:
        workflow("train", **{**SMALL, "cache_rate": cached}, **paths).run()
    except SystemExit as ended:
        said, code = capsys.readouterr().err, ended.code
        assert code == 2
    except RuntimeError as error:  # while it is built: `end_plainly` says it
        said = str(pipeline_cause(error))
    assert "E_NIFTI: An image of the table cannot be read" in said and "case-003_ct.nii" in said


def test_monai_s_clients_find_the_standard_ids(home: Path, ingested: Path) -> None:
    """And their evaluator makes what the stage makes."""
    options = {"dataset_dir": str(ingested), "weights": str(home / "out" / "model.pt"), "roles": {"mr": "t1"}}
    made = workflow("inference", kind="infer", **options, device="cpu", bundle_root=str(CONFIGS.parent))
    assert made.check_properties() == []
    made.evaluator.run()
    last = made.evaluator.state.output[0]
    record = list(fuse(home, ingested, class_calibration="", voxel_calibration="").values())[-1]
    chances, *_ = read(ingested, record)
    assert np.allclose(np.moveaxis(last["fused_probability"].numpy(), 0, -1), chances, atol=1e-5)


def test_the_stage_explains_itself_when_asked(home: Path, ingested: Path) -> None:
    """The class stays what it was, and what a missing modality changes is what a case without it says."""
    plain = fuse(home, ingested)
    found = fuse(home, ingested, explain=["gates", "gradcam", "occlusion"], occlusion_parts=2)
    assert [record.status for record in found.values()] == ["done"] * 4
    for name, record in found.items():
        images = {item.key: nib.load(ingested / item.path) for item in record.artifacts if item.geometry is not None}
        assert {"fused_gradcam", "fused_gates", "fused_occlusion"} <= images.keys()
        affine = images["fused_label"].affine
        assert all(np.allclose(image.affine, affine) for image in images.values())
        measures, before = record.measures, plain[name].measures
        assert before.items() - {("seconds", before["seconds"])} <= measures.items()
        assert measures["fused_explained_class"] == measures["fused_class"]
        gates = np.asarray(images["fused_gates"].dataobj)
        assert gates.shape == (20, 20, 20, 2)
        assert np.allclose(gates.sum(3)[gates.sum(3) > 0], 1, atol=1e-5)
        if measures["fused_modalities"] == "mr":
            assert gates[..., 0].max() == 0 and measures["fused_gate_share_ct"] == 0
            assert measures["fused_gradcam_share_ct"] == 0 and "fused_class_without_mr" not in measures
        else:
            change = measures["fused_class_probability_without_mr"] - measures["fused_class_probability"]
            assert measures["fused_class_probability_change_without_mr"] == pytest.approx(change, abs=2e-6)
