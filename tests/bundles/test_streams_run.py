"""Streams in a run: pictures and sounds are found, kept without names, fused as in training, explained and reported."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import wavfile
from scipy.special import softmax

from pipeline.cases import Record
from pipeline.commands.calibrate import calibrate
from pipeline.errors import UsageError
from pipeline.fusion.checkpoint_file import Preparation
from pipeline.fusion.network import FusionNet
from pipeline.fusion.stream_net import StreamNet
from pipeline.learning.checkpoint_file import PREPARATION, TRAINING_CASES, write_checkpoint
from pipeline.run.batch import Plan, run
from pipeline.run.loading import load
from pipeline.signals.transforms import ReadPicturesd, ReadSoundsd
from pipeline.spec.spec import Spec, load_spec
from pipeline.spec.streams import plain_streams
from pipeline.words import in_words

STREAMS: dict[str, Any] = {
    "ct": {"kind": "image", "size": [24, 24]},
    "cxr": {"kind": "image", "size": [32, 24]},
    "cough": {"kind": "sound", "size": [32, 40], "seconds": 1.0},
    "mr": {"kind": "volume", "size": [12, 12, 8], "spacing_mm": [2.0]},
}
SPEC = """
name: streams
description: Streams.
roles:
  ct: {modality: CT, files: "**/CT/**/{case}.*", required: false}
  cxr: {modality: DX, files: "**/CXR/**/{case}.*"}
  cough: {modality: AU, files: "**/Cough sound/**/{case}.*", required: false}
  mr: {modality: MR, files: "MR/{case}.nii.gz", required: false}
"""
NAMES = ["healthy", "cancer", "pneumonia", "covid"]
SECRET = "Meier-Anna"


class Fused(NamedTuple):
    """A run folder, the records of its cases by stage, the network, and the records of a second look."""

    folder: Path
    found: dict[str, dict[str, Record]]
    network: StreamNet
    again: list[Record]


def picture(path: Path, shape: tuple[int, int], deep: bool, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).random(shape) * (65535 if deep else 255)
    Image.fromarray(values.astype(np.uint16 if deep else np.uint8)).save(path)


def sound(path: Path, seconds: float, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 0.1, round(seconds * 16_000))
    wavfile.write(path, 16_000, (np.clip(noise, -0.9, 0.9) * 32767).astype(np.int16))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole case, one without cough and MR, and one whose radiograph is in colours."""
    folder = tmp_path_factory.mktemp("streams") / "in"
    for seed, case in enumerate((SECRET, "Schulz-Bernd", "colour")):
        picture(folder / "train" / "CT" / "covid" / f"{case}.png", (40, 40), False, seed)
        picture(folder / "train" / "CXR" / "covid" / f"{case}.png", (48, 40), True, seed + 9)
    sound(folder / "train" / "Cough sound" / "covid" / f"{SECRET}.wav", 1.5, 3)
    (folder / "MR").mkdir()
    values = np.random.default_rng(5).random((10, 12, 6)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.diag([2.0, 2.0, 2.5, 1])), folder / "MR" / f"{SECRET}.nii.gz")
    coloured = np.random.default_rng(0).integers(0, 255, (48, 40, 3)).astype(np.uint8)
    Image.fromarray(coloured).save(folder / "train" / "CXR" / "covid" / "colour.png")
    (folder / "train" / "CXR" / "._covid").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def fused(tree: Path) -> Fused:
    """The run with an untrained network: what it says does not matter, how it is said does."""
    torch.manual_seed(0)
    home = tree.parent
    sizes = {name: stream["size"] for name, stream in STREAMS.items()}
    made = StreamNet(sizes, 4, width=4, levels=2, token=8).eval()
    values = sum(int(np.prod(size)) for size in sizes.values())
    preparation = Preparation(list(STREAMS), [], [40, 400], [values], streams=plain_streams(STREAMS))
    write_checkpoint(home / "model.pt", made, {TRAINING_CASES: [], PREPARATION: preparation.to_plain()})
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (400, 4))
    labels = np.array([random.choice(4, p=softmax(row / 2)) for row in logits])
    np.save(home / "logits.npy", logits)
    np.save(home / "labels.npy", labels)
    calibrate(home / "logits.npy", home / "labels.npy", home / "classes.json", data="drawn numbers", sets=0.1)
    section = {"weights": str(home / "model.pt"), "class_calibration": str(home / "classes.json")}
    section |= {"class_names": NAMES, "explain": ["gradcam", "gates", "occlusion"]}
    (home / "spec.yaml").write_text(f"{SPEC}streams: {json.dumps(STREAMS)}\nfuse: {json.dumps(section)}\n")
    plan = Plan(tree, home / "run", home / "spec.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TANDEM_HOME", str(home / "home"))
        found = run(plan)
        loaded = load("fuse", plan)
        again = [loaded.stage.run_case(case) for case in loaded.find_cases()]
    by_stage = {case: {record.stage: record for record in of_case} for case, of_case in found.items()}
    return Fused(home / "run", by_stage, made, again)


def whole_case(found: dict[str, dict[str, Record]]) -> dict[str, Record]:
    return next(of_case for of_case in found.values() if "fuse" in of_case and "cough" in seen(of_case))


def seen(of_case: dict[str, Record]) -> str:
    return str(of_case["fuse"].measures.get("fused_modalities"))


def artifact(folder: Path, record: Record, key: str) -> Path:
    return next(folder / item.path for item in record.artifacts if item.key == key)


def test_a_picture_becomes_one_slice_as_a_radiograph_does_and_a_sound_stays_what_it_is(
    tree: Path, fused: Fused
) -> None:
    folder, found, *_ = fused
    ingest = whole_case(found)["ingest"]
    image = nib.load(artifact(folder, ingest, "cxr"))
    stored = np.asarray(Image.open(tree / "train" / "CXR" / "covid" / f"{SECRET}.png"))
    # axes to the patient's right and back, as a radiograph's: rows from the bottom, columns from the right
    assert image.shape == (40, 48, 1) and image.get_data_dtype() == np.float32
    assert np.array_equal(image.get_fdata()[:, :, 0], stored.T[::-1, ::-1])
    assert float(image.header["cal_max"]) == 65535  # what is white in it
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    assert any(flag.startswith("N_NO_SPACING: cxr") for flag in ingest.flags)
    rate, samples = wavfile.read(artifact(folder, ingest, "cough"))
    _, recorded = wavfile.read(tree / "train" / "Cough sound" / "covid" / f"{SECRET}.wav")
    assert rate == 16_000 == ingest.measures["cough_rate_hz"] and ingest.measures["cough_seconds"] == 1.5
    assert np.allclose(samples, recorded / 32768 - np.mean(recorded / 32768), atol=1e-5)


def test_it_is_fused_as_the_files_themselves_would_be(tree: Path, fused: Fused) -> None:
    """The streams read from the input's own files, packed by hand, through the network and the calibration by hand."""
    folder, found, made, _ = fused
    parts = tree / "train"
    files = {"ct": parts / "CT", "cxr": parts / "CXR", "cough": parts / "Cough sound"}
    case: dict[str, Any] = {
        name: str(path / "covid" / f"{SECRET}{'.wav' if name == 'cough' else '.png'}") for name, path in files.items()
    }
    for name in ("ct", "cxr"):
        case = dict(ReadPicturesd([name], size=STREAMS[name]["size"])(case))
    case = dict(ReadSoundsd(["cough"], size=STREAMS["cough"]["size"], seconds=1.0)(case))
    fuse = whole_case(found)["fuse"]
    mr = torch.from_numpy(nib.load(artifact(folder, fuse, "fused_seen_mr")).get_fdata(dtype=np.float32))
    rows = [torch.as_tensor(item).float().flatten() for item in (case["ct"], case["cxr"], case["cough"], mr)]
    with torch.inference_mode():
        logits = made(torch.cat(rows)[None, None])[0].double().numpy()
    said = json.loads(artifact(folder, fuse, "fused_class").read_text())
    assert np.allclose(said["logits"], logits, atol=1e-3)
    assert set(said["probabilities"]) == set(NAMES) and said["calibrated"] and said["not_excluded"]
    assert "drawn numbers" in fuse.measures["fused_class_calibration"]
    chances = np.array(list(said["probabilities"].values()))
    assert chances.sum() == pytest.approx(1, abs=1e-5)
    # a temperature above 1 was fitted: less sure than the network itself
    assert chances.max() < softmax(logits).max()


def test_missing_streams_are_flagged_and_faulty_ones_end_their_case_alone(
    fused: Fused,
) -> None:
    folder, found, *_ = fused
    assert len(found) == 3
    without = next(of_case for of_case in found.values() if "fuse" in of_case and "cough" not in seen(of_case))
    flags = without["fuse"].flags
    assert "N_NOT_FUSED: cough: the case has none" in flags
    assert any(flag.startswith("N_NOT_FUSED: mr") for flag in flags)
    assert "fused_class_without_cough" not in without["fuse"].measures
    assert "fused_class_without_cxr" in without["fuse"].measures
    coloured = next(of_case for of_case in found.values() if "fuse" not in of_case)
    assert coloured["ingest"].error is not None and coloured["ingest"].error.code == "E_NOT_SCALAR"
    assert coloured["ingest"].error.message.startswith("cxr: ")
    with (folder / "series.csv").open() as stream:
        rows = {row["role"]: row for row in csv.DictReader(stream) if row["case_id"] in found}
    assert rows["cough"]["verdict"] == "chosen" and rows["cough"]["modality"] == "AU"


def test_reports_show_each_stream_with_what_moved_the_answer(
    fused: Fused,
) -> None:
    fitz = pytest.importorskip("fitz")
    folder, found, *_ = fused
    of_case = whole_case(found)
    keys = {item.key for item in of_case["report"].artifacts}
    assert {"seen_ct", "seen_cxr", "seen_cough", "seen_mr"} <= keys
    with fitz.open(artifact(folder, of_case["report"], "report_pdf")) as document:
        pages = "\n".join(page.get_text() for page in document)
    text = " ".join(pages.split())
    likely = of_case["fuse"].measures["fused_class"]
    assert f"Why {likely}" in text and "does not prove" in text
    assert all(f"\n{in_words(name)}\n" in pages for name in STREAMS)  # a row of the table each


def test_no_name_of_the_input_is_in_any_output(
    fused: Fused,
) -> None:
    folder = fused.folder
    private = {path for path in folder.rglob("*") if "private" in path.parts}
    for path in set(folder.rglob("*")) - private:
        assert SECRET not in path.name
        if path.is_file() and path.suffix in {".json", ".csv", ".html", ".yaml", ".wav"}:
            assert SECRET.encode() not in path.read_bytes(), path


def test_what_is_done_is_not_done_again(fused: Fused) -> None:
    assert len(fused.again) == 2 and all(record.reused for record in fused.again)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("streams", r"E_CHECKPOINT: Expected size \[32, 24\] of the stream cxr, as in the checkpoint, got \[32, 32\]"),
        ("grid", r"E_CHECKPOINT: Expected the checkpoint of a network of streams, got one of modalities on one grid"),
    ],
)
def test_a_checkpoint_of_other_streams_is_refused_before_a_case_is_read(
    tree: Path, fused: Fused, tmp_path: Path, network: str, words: str
) -> None:
    changed = {**STREAMS, "cxr": {"kind": "image", "size": [32, 32]}} if network == "streams" else STREAMS
    weights = fused.folder.parent / "model.pt"
    if network == "grid":
        weights = tmp_path / "model.pt"
        made = FusionNet(list(STREAMS), width=4, levels=2, labels=0)
        preparation = Preparation(list(STREAMS), [], [40, 400], [16, 16, 16])
        write_checkpoint(weights, made, {TRAINING_CASES: [], PREPARATION: preparation.to_plain()})
    section = json.dumps({"weights": str(weights)})
    (tmp_path / "spec.yaml").write_text(f"{SPEC}streams: {json.dumps(changed)}\nfuse: {section}\n")
    with pytest.raises(UsageError, match=words):
        run(Plan(tree, tmp_path / "run", tmp_path / "spec.yaml", ("ingest", "fuse")))


def test_a_network_of_streams_is_not_used_on_one_grid(fused: Fused, tree: Path, tmp_path: Path) -> None:
    section = json.dumps({"weights": str(fused.folder.parent / "model.pt")})
    role = 'roles: {mr: {modality: MR, files: "MR/{case}.nii.gz"}}'
    (tmp_path / "spec.yaml").write_text(f"name: grid\ndescription: d\n{role}\nfuse: {section}\n")
    with pytest.raises(UsageError, match="E_CONFIG: Expected a network of modalities on one grid, got one of streams"):
        run(Plan(tree, tmp_path / "run", tmp_path / "spec.yaml", ("ingest", "fuse")))


@pytest.mark.parametrize("name", ["ct_cxr_cough", "pneumonia_xray", "xray_mr_bone"])
def test_shipped_specs_of_streams_run_without_a_network(name: str) -> None:
    spec = load_spec(name)
    assert set(spec.streams) == set(spec.roles) and spec.fuse is None
    assert not spec.hounsfield_ct


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"streams": {"mr": {"kind": "sound", "size": [8, 8]}}, "roles": {"mr": {"modality": "AU"}}}, "needs `files`"),
        (
            {
                "streams": {"x": {"kind": "image", "size": [8, 8]}},
                "roles": {"x": {"modality": "DX"}, "ct": {"modality": "CT"}},
                "register": {"fixed": "ct", "moving": ["x"]},
            },
            "`register` has the role `x`, which is no volume",
        ),
        (
            {
                "streams": {"x": {"kind": "image", "size": [8, 8]}},
                "roles": {"x": {"modality": "DX", "files": "{case}.png"}},
                "masks": {"m": {"of": "x", "files": "{case}.nii", "values": {"a": 1}}},
            },
            "a mask is of the role `x`",
        ),
    ],
)
def test_what_a_picture_or_sound_cannot_be_is_refused(more: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Spec.model_validate({"name": "s", "description": "", **more})


def test_a_tree_without_anything_that_fits_says_which_kinds_were_looked_for(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    with pytest.raises(UsageError, match="E_EMPTY: Expected NIfTI files, pictures and sounds that fit"):
        run(Plan(tmp_path / "in", tmp_path / "out", Path("ct_cxr_cough"), ("ingest",)))
