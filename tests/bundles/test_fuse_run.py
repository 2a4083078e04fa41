"""`fuse` as a stage of a run: the data spec says with what; grids, flags, tables and reports say what came of it."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from scipy.special import softmax

from pipeline.cases import Record, Verdict
from pipeline.commands.calibrate import calibrate
from pipeline.errors import UsageError
from pipeline.fusion.checkpoint_file import Preparation
from pipeline.fusion.network import FusionNet
from pipeline.learning.checkpoint_file import PREPARATION, TRAINING_CASES, write_checkpoint
from pipeline.run import status
from pipeline.run.batch import Plan, run
from pipeline.shipped import shipped
from pipeline.spec.spec import load_spec
from pipeline.store import records
from pipeline.store.artifacts import save
from pipeline.volumes import volume
from tests.phantoms.mechanism_files import write_mechanism_cases

SPEC = """
name: fused
description: Simulated cases as NIfTI.
roles:
  ct: {modality: CT, unit: HU, files: "{case}_ct.nii"}
  t1: {modality: MR, files: "{case}_mr.nii", required: false}
"""
SHAPE = (20, 20, 20)
CONFIGS = shipped("bundles", "fuse", "configs")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cases, the second without MR, and a calibration of classes with a temperature of about 2."""
    folder = tmp_path_factory.mktemp("fuse_run")
    write_mechanism_cases(folder / "all", "additive", 2, seed=1, size=SHAPE[0])
    (folder / "in").mkdir()
    for name in ("case-000_ct.nii", "case-000_mr.nii", "case-001_ct.nii"):
        shutil.copy(folder / "all" / name, folder / "in" / name)
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (300, 2))
    labels = (random.random(300) < softmax(logits / 2, 1)[:, 1]).astype(np.int64)
    np.save(folder / "logits.npy", logits)
    np.save(folder / "labels.npy", labels)
    calibrate(folder / "logits.npy", folder / "labels.npy", folder / "classes.json", data="drawn numbers")
    return folder


def network(
    folder: Path, spacing_mm: Sequence[float] = (), table: dict[str, Any] | None = None, **options: Any
) -> FusionNet:
    """An untrained network's checkpoint in `folder/model.pt`: what it says does not matter, how it is said does."""
    torch.manual_seed(0)
    standard = table or {}
    made = FusionNet(["ct", "mr"], width=4, levels=3, table_features=len(standard.get("columns", ())), **options)
    preparation = Preparation(["ct", "mr"], ["ct"], [140, 800], [16, 16, 16], spacing_mm, [1.0, 2.1], standard)
    write_checkpoint(folder / "model.pt", made, {TRAINING_CASES: [], PREPARATION: preparation.to_plain()})
    return made.eval()


def spec_file(folder: Path, more: str = "", **fuse: Any) -> Path:
    section = {"weights": str(folder / "model.pt"), "roles": {"mr": "t1"}, **fuse}
    path = folder / "spec.yaml"
    path.write_text(f"{SPEC}{more}fuse: {json.dumps(section)}\n")
    return path


def run_all(home: Path, folder: Path, **fuse: Any) -> dict[str, dict[str, Record]]:
    found = run(Plan(home / "in", folder / "run", spec_file(folder, **fuse)))
    return {case_id: {record.stage: record for record in of_case} for case_id, of_case in found.items()}


def artifact(folder: Path, record: Record, key: str) -> Path:
    return next(folder / "run" / item.path for item in record.artifacts if item.key == key)


def test_a_run_fuses_where_the_spec_names_weights_and_every_table_says_so(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network(tmp_path)
    options = {"class_calibration": str(home / "classes.json"), "class_names": ["dull", "bright"]}
    found = run_all(home, tmp_path, **options)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["stages"] == [
        "ingest",
        "preprocess",
        "fuse",
        "report",
    ]
    date = json.loads((home / "classes.json").read_text())["date"]
    sentence = f"calibrated by temperature: drawn numbers, 300 cases, {date}"
    with (tmp_path / "run" / "cases.csv").open() as stream:
        table = {row["case_id"]: row for row in csv.DictReader(stream)}
    status.show(tmp_path / "run")
    shown = capsys.readouterr().out
    for case_id, of_case in found.items():
        fused = of_case["fuse"]
        chances = json.loads(artifact(tmp_path, fused, "fused_class").read_text())
        assert chances["calibration"] == fused.measures["fused_class_calibration"] == sentence
        likely, value = max(chances["probabilities"].items(), key=lambda item: item[1])
        # of 300 cases the temperature is not known well, and a case without MR is another one than one with it
        without = "" if "mr" in fused.measures["fused_modalities"] else ", without MR"
        words = f"{likely}, probability {value:.2f}, calibrated, with a caveat{without}"
        assert table[case_id]["class"] == words and words in shown
        assert float(table[case_id]["fuse_fused_class_bright_probability"]) == chances["probabilities"]["bright"]
        page = artifact(tmp_path, of_case["report"], "report_page").read_text()
        assert f"Fusion: {likely}" in page and "Labels of the fusion network" in page
        rows = page[page.index(f"Fusion: {likely}</h2>") :].partition("</table>")[0]
        assert (
            rows.count(f"<td>{sentence}</td>") == 2
            and "<td>by the fusion network; voxel probabilities not calibrated</td>" in rows
        )


@pytest.mark.slow
def test_the_spec_chooses_the_engine(home: Path, tmp_path: Path) -> None:
    """In processes that are handed the network with every case, too."""
    network(tmp_path)
    with_torch = run_all(home, tmp_path)
    again = run(Plan(home / "in", tmp_path / "run", spec_file(tmp_path, engine="openvino"), jobs=2))
    for case_id, of_case in again.items():
        theirs, ours = with_torch[case_id]["fuse"], next(record for record in of_case if record.stage == "fuse")
        assert ours.key != theirs.key and not ours.reused
        for name, value in theirs.measures.items():
            if name.endswith("_probability"):
                assert ours.measures[name] == pytest.approx(value, abs=1e-4)


def test_a_network_of_one_modality_says_that_it_saw_one(home: Path, tmp_path: Path) -> None:
    """And does not miss the others."""
    network(tmp_path, mode="single", only="ct")
    fused = [of_case["fuse"] for of_case in run_all(home, tmp_path).values()]
    assert [record.measures["fused_modalities"] for record in fused] == ["ct", "ct"]
    assert not any(record.flags for record in fused)


def test_a_modality_that_is_not_there_is_flagged(home: Path, tmp_path: Path) -> None:
    network(tmp_path)
    found = run_all(home, tmp_path)
    flags = sorted(of_case["fuse"].flags for of_case in found.values())
    assert flags == [(), ("N_NOT_FUSED: mr: there is no aligned image of it",)]
    page = next(
        artifact(tmp_path, item["report"], "report_page").read_text() for item in found.values() if item["fuse"].flags
    )
    assert "The network saw CT." in page and "N_NOT_FUSED" in page


@pytest.mark.parametrize("spacing", [[2.5], [1.0, 1.0, 1.5]])
def test_what_the_network_says_at_its_voxel_size_lies_on_the_fixed_grid(
    home: Path, tmp_path: Path, spacing: list[float]
) -> None:
    network(tmp_path, spacing)
    for of_case in run_all(home, tmp_path).values():
        fixed = nib.load(artifact(tmp_path, of_case["ingest"], "ct"))
        chances, labels = (
            nib.load(artifact(tmp_path, of_case["fuse"], key)) for key in ("fused_probability", "fused_label")
        )
        assert chances.shape == (*SHAPE, 2) and labels.shape == SHAPE
        assert np.array_equal(chances.affine, fixed.affine) and np.array_equal(labels.affine, fixed.affine)
        values = np.asarray(chances.dataobj)
        assert np.allclose(values.sum(3), 1, atol=1e-5) and np.array_equal(np.asarray(labels.dataobj), values.argmax(3))
        assert values[..., 1].std() > 0


def table_shift(made: FusionNet, number: float) -> list[float]:
    """What a standardised number adds to the class logits beside none: the head's table branch, by hand."""
    linear = next(module for module in made.class_heads[0].table if isinstance(module, torch.nn.Linear))
    known, missing = (
        torch.nn.functional.leaky_relu(linear(torch.tensor([pair])), 0.01) for pair in ([number, 0.0], [0.0, 1.0])
    )
    weight = made.class_heads[0].out.weight[:, -known.shape[1] :]
    return ((known - missing) @ weight.T)[0].tolist()


def test_evaluation_gives_the_table_s_numbers_as_in_training(tmp_path: Path) -> None:
    made = network(tmp_path, table={"columns": ["age"], "means": [50.0], "deviations": [10.0]})
    write_mechanism_cases(tmp_path / "data", "additive", 8, seed=2)
    with (tmp_path / "data" / "cases.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    logits = []
    for name, ages in (("with", range(40, 48)), ("without", [""] * 8)):
        rows = [
            {**line, "age": age, "fold": number // 4}
            for number, (line, age) in enumerate(zip(lines, ages, strict=True))
        ]
        with (tmp_path / "data" / "cases.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        paths = {"dataset_dir": tmp_path / "data", "output_dir": tmp_path / name, "weights": tmp_path / "model.pt"}
        settings = {"bundle_root": str(CONFIGS.parent), "device": "cpu", "report": False}
        files = [str(CONFIGS / f"{config}.yaml") for config in ("train", "evaluate")]
        options = {**settings, **{key: str(path) for key, path in paths.items()}}
        evaluation = ConfigWorkflow(files, str(CONFIGS / "metadata.json"), False, workflow_type=None, **options)
        evaluation.initialize()
        evaluation.run()
        logits.append(np.load(tmp_path / name / "class_logits.npy"))
    shifts = [table_shift(made, (age - 50) / 10) for age in range(40, 44)]
    assert np.allclose(logits[0] - logits[1], shifts, atol=1e-4) and np.ptp(shifts) > 1e-3


def test_the_table_s_numbers_reach_the_network_as_in_training(home: Path, tmp_path: Path) -> None:
    columns = {"columns": ["age"], "means": [50.0], "deviations": [10.0]}
    made = network(tmp_path, table=columns)
    first = next(iter(run(Plan(home / "in", tmp_path / "run", spec_file(tmp_path), stages=("ingest",)))))
    (tmp_path / "numbers.csv").write_text(f"case_id,age\n{first},75\n")
    found = run_all(home, tmp_path, table_file=str(tmp_path / "numbers.csv"))
    fused = found[first]["fuse"]
    said = json.loads(artifact(tmp_path, fused, "fused_class").read_text())["logits"]
    shift = table_shift(made, (75 - 50) / 10)
    (tmp_path / "numbers.csv").write_text(f"case_id,age\n{first},\n")
    without = run_all(home, tmp_path, table_file=str(tmp_path / "numbers.csv"))[first]["fuse"]
    assert not without.reused
    before = json.loads(artifact(tmp_path, without, "fused_class").read_text())["logits"]
    assert np.allclose(np.subtract(said, before), shift, atol=1e-4) and abs(shift[0]) > 1e-3
    failed = [of_case["fuse"] for case_id, of_case in found.items() if case_id != first]
    assert [record.error.code for record in failed if record.error] == ["E_TABLE"]


@pytest.mark.parametrize("on_fail", ["flag", "stop"])
def test_a_failed_alignment_is_fused_without_or_not_at_all(home: Path, tmp_path: Path, on_fail: str) -> None:
    network(tmp_path)
    register = f"register: {{fixed: ct, moving: [t1], on_fail: {on_fail}}}\n"
    path = spec_file(tmp_path, register)
    plan = Plan(home / "in", tmp_path / "run", path, stages=("ingest",))
    case_id = next(name for name, found in run(plan).items() if any(a.key == "t1" for r in found for a in r.artifacts))
    folder = tmp_path / "run" / "cases" / case_id / "register"
    if on_fail == "stop":
        records.write(Record(case_id, "register", "", "failed"), folder)
    else:
        moved, item = save("t1_aligned", "image", volume(np.zeros(SHAPE, np.float32), np.eye(4)), folder)
        bad = Verdict("fail", ("apart",), ("t1_aligned",))
        item = item.__class__(**{**item.__dict__, "path": moved.relative_to(tmp_path / "run").as_posix()})
        records.write(Record(case_id, "register", "", "done", artifacts=(item,), verdict=bad), folder)
    found = run(Plan(home / "in", tmp_path / "run", path, stages=("fuse",)))[case_id]
    fused = [record for record in found if record.stage == "fuse"]
    if on_fail == "stop":
        assert fused == []
    else:
        assert fused[0].status == "done" and fused[0].measures["fused_modalities"] == "ct"
        assert fused[0].flags == ("N_NOT_FUSED: mr: there is no aligned image of it",)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({}, "names no `weights`"),
        ({"weights": "a.pt", "roles": {"mr": "t2"}}, "has the role `t2` as `mr`"),
        ({"weights": "a.pt", "wights": "b"}, "wights"),
        ({"weights": "a.pt", "explain": ["dream"]}, "gradcam"),
        ({"weights": "a.pt", "engine": "tensorrt"}, "openvino"),
    ],
)
def test_a_section_that_cannot_be_is_named(tmp_path: Path, section: dict[str, Any], words: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(f"{SPEC}fuse: {json.dumps(section)}\n")
    with pytest.raises(UsageError, match=f"E_SPEC.*{words}"):
        load_spec(path)


def test_weights_that_nobody_names_are_asked_for(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    with pytest.raises(UsageError, match=r"E_SPEC: Expected a section `fuse` in the data spec"):
        run(Plan(home / "in", tmp_path / "run", path, stages=("ingest", "fuse")))
