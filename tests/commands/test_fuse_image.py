"""`tandem fuse-image`: volumes, DICOM and pictures; what is written, and what is refused before anything is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import api
from pipeline.errors import PipelineError
from pipeline.image_fusion.network import ImageFusionNet
from pipeline.image_fusion.weights import Preparation
from pipeline.learning.checkpoint_file import PREPARATION, TRAINING_CASES, write_checkpoint
from pipeline.simulation.dicom import SeriesHeader, write_series
from pipeline.store.files import sha256_file
from pipeline.volumes import volume
from tests.image_fusion.conftest import head
from tests.tandem_process import call

AXES = np.diag([3.0, 3.0, 3.0, 1.0])


def pair() -> dict[str, np.ndarray]:
    ct, mr = head(0, 44, 42, 20)
    return {"ct": np.where(ct + mr > 0.1, 1000 * ct - 150, -1000), "mr": 900 * mr}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A pair of volumes, one of pictures."""
    for name, values in pair().items():
        save(tmp_path / f"{name}.nii.gz", values)
    for name, values in zip(("ct", "mr"), head(1, 61, 53), strict=True):
        Image.fromarray(np.rint(255 * values).astype(np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


def save(path: Path, values: np.ndarray, affine: np.ndarray = AXES, kind: Any = np.int16) -> None:
    nib.save(nib.Nifti1Image(values.astype(kind), affine), path)


def checkpoint(path: Path) -> Path:
    torch.manual_seed(0)
    windows = ((150.0, 500.0), (40.0, 80.0), (600.0, 2000.0))
    kept = {PREPARATION: Preparation(("ct", "mr"), windows, (72, 72)).to_plain(), TRAINING_CASES: ()}
    write_checkpoint(path, ImageFusionNet(2, "small"), kept)
    return path


def test_two_volumes_give_one_and_its_measures(files: Path) -> None:
    done = call("fuse-image", files / "ct.nii.gz", files / "mr.nii.gz", "-o", files / "f.nii.gz", "--picture")
    assert done.code == 0, done.err
    assert "Method: à trous. Nothing of it is learned" in done.out and "larger of both" in done.out
    found, about = nib.load(files / "f.nii.gz"), json.loads((files / "f.json").read_text())
    ct = np.clip((np.asarray(nib.load(files / "ct.nii.gz").dataobj) + 100) / 500, 0, 1).astype(np.float32)
    assert found.get_data_dtype() == np.float32 and np.array_equal(found.affine, AXES)
    bright = np.asarray(found.dataobj)[ct == 1]
    assert np.median(bright) > 0.9 and 0 <= np.asarray(found.dataobj).min() <= np.asarray(found.dataobj).max() <= 1
    assert list(about["measures"]) == ["atrous", "ct", "mean", "max"] and about["windows"] == [[150.0, 500.0]]
    assert about["inputs_sha256"] == {name: sha256_file(files / f"{name}.nii.gz") for name in ("ct", "mr")}
    assert f"Beside its sources: {files / 'f_picture.png'}" in done.out
    assert (files / "f_picture.png").stat().st_size > 1000 and not (files / "f_weights.nii.gz").exists()


def test_nothing_of_another_run_stays_beside_a_picture(files: Path) -> None:
    given, kept = (files / "ct.nii.gz", files / "mr.nii.gz", files / "f.nii.gz"), {"f.nii.gz", "f.json"}
    api.fuse_image(*given, weights=checkpoint(files / "model.pt"), measures=False, picture=True)
    assert len({path.name for path in files.glob("f[._]*")} - kept) == 3
    found = api.fuse_image(*given, method="max", measures=False)
    assert {path.name for path in files.glob("f[._]*")} == kept and not found.measures


def test_the_verdict_of_the_alignment_is_said_again(files: Path) -> None:
    """`tandem register` has left it beside the MR that it has moved."""
    moved = (files / "mr.nii.gz").rename(files / "moved.nii.gz")
    (files / "quality.json").write_text(json.dumps({"verdict": "fail", "reason": "Two starts end 8.5 mm apart."}))
    found = api.fuse_image(files / "ct.nii.gz", moved, files / "f.nii.gz", measures=False)
    assert found.notes[-1] == "Verdict of the alignment: fail. Two starts end 8.5 mm apart."
    assert found.notes[-1] in json.loads((files / "f.json").read_text())["notes"]


def test_weights_of_simulated_heads_say_so(files: Path) -> None:
    given = files / "ct.nii.gz", files / "mr.nii.gz", files / "f.nii.gz"
    found = api.fuse_image(*given, weights="heads.pt", measures=False)
    assert "It has learned from simulated heads alone, and is not for patients." in found.notes


def test_one_image_twice_is_refused(files: Path) -> None:
    with pytest.raises(PipelineError, match=r"E_OPTION.*one image twice"):
        api.fuse_image(files / "mr.nii.gz", files / "mr.nii.gz", files / "f.nii.gz")
    assert not list(files.glob("f.*"))


def test_pictures_give_a_picture(files: Path) -> None:
    found = api.fuse_image(files / "ct.png", files / "mr.png", files / "f.png", "max", picture=True)
    ct, mr = (np.asarray(Image.open(files / f"{name}.png")) for name in ("ct", "mr"))
    np.testing.assert_array_equal(np.asarray(Image.open(files / "f.png")), np.maximum(ct, mr))
    assert Image.open(files / "f_picture.png").size == (3 * 53, 61)
    assert (found.method, found.measures["max"]["Qabf_evaluator"] is None) == ("max", False)


def test_grey_saved_in_colours_with_a_palette_or_in_sixteen_bits_is_the_same_picture(files: Path) -> None:
    ct = Image.open(files / "ct.png")
    deep = np.asarray(ct).astype(np.uint16) * 257
    for name, image in {"rgb": ct.convert("RGB"), "palette": ct.convert("P"), "deep": Image.fromarray(deep)}.items():
        image.save(files / f"{name}.png")
        api.fuse_image(files / f"{name}.png", files / "mr.png", files / f"f_{name}.png", "gradient")
    api.fuse_image(files / "ct.png", files / "mr.png", files / "f.png", "gradient")
    expected = np.asarray(Image.open(files / "f.png"))
    for name in ("rgb", "palette", "deep"):
        np.testing.assert_array_equal(np.asarray(Image.open(files / f"f_{name}.png")), expected)


def test_a_network_says_where_the_picture_comes_from(files: Path) -> None:
    weights = checkpoint(files / "model.pt")
    given = (files / "ct.nii.gz", files / "mr.nii.gz", files / "f.nii.gz")
    found = api.fuse_image(*given, weights=weights, sha256=sha256_file(weights), measures=False)
    shares = np.asarray(nib.load(files / "f_weights.nii.gz").dataobj)
    assert shares.shape == (44, 42, 20, 5) and np.allclose(shares[20:24, 20:24, 8:12].sum(-1), 1, atol=1e-5)
    assert nib.load(files / "f_attention.nii.gz").shape == (44, 42, 20, 4)
    assert found.measures == json.loads((files / "f.json").read_text())["measures"] == {}
    assert found.method == "network" and sha256_file(weights) in found.notes[0]


def test_folders_of_dicom_on_one_grid(files: Path) -> None:
    header = SeriesHeader(series_description="HEAD")
    for name, values in pair().items():
        series = replace(header, modality=name.upper(), series_number=3 if name == "ct" else 4)
        write_series(volume(values.astype(np.float32), AXES), files / name, series)
    found = api.fuse_image(files / "ct", files / "mr", files / "f.nii.gz", "max")
    made = np.asarray(nib.load(found.out).dataobj)
    ct = np.clip((pair()["ct"] + 100) / 500, 0, 1)
    assert made.shape == ct.shape and np.abs(made - np.maximum(ct, made)).max() < 0.01  # never below CT
    with pytest.raises(PipelineError, match="E_MODALITY: Expected a series of CT, got one of MR"):
        api.fuse_image(files / "mr", files / "ct", files / "g.nii.gz", "max")


def test_what_cannot_be_fused_is_refused_with_its_remedy(files: Path) -> None:
    values = pair()
    shifted = AXES.copy()
    shifted[0, 3] = 4
    save(files / "off.nii.gz", values["mr"], shifted)
    save(files / "blank.nii.gz", np.full((44, 42, 20), 5.0))
    save(files / "nan.nii.gz", np.where(values["mr"] > 500, np.nan, values["mr"]), kind=np.float32)
    colours = np.stack([np.asarray(Image.open(files / f"{name}.png")) for name in ("ct", "mr", "ct")], -1)
    Image.fromarray(colours).save(files / "colour.png")
    (files / "broken.png").write_bytes((files / "ct.png").read_bytes()[:200])
    for ct, mr, code, words in (
        ("ct.nii.gz", "off.nii.gz", "E_GRID", "tandem register CT MR --out DIR"),
        ("mr.nii.gz", "ct.nii.gz", "E_MODALITY", "Give the CT, in HU, as CT, and the MR as MR."),
        ("ct.nii.gz", "blank.nii.gz", "E_BLANK", "holds one value only"),
        ("ct.nii.gz", "nan.nii.gz", "E_NIFTI", "NaN or infinite"),
        ("ct.nii.gz", "none.nii.gz", "E_INPUT", "does not exist"),
        ("ct.nii.gz", "mr.png", "E_OPTION", "two volumes or two pictures"),
        ("ct.png", "colour.png", "E_NOT_SCALAR", "got colours"),
        ("ct.png", "broken.png", "E_PICTURE", "broken.png: Expected a whole picture, but it cannot be read"),
    ):
        out = files / ("f.png" if ct.endswith("png") else "f.nii.gz")
        done = call("fuse-image", files / ct, files / mr, "-o", out)
        assert done.code == 2 and done.err.startswith(code) and words in done.err, (mr, done.err)
        assert not out.exists()


@pytest.mark.parametrize(
    ("out", "more", "code", "words"),
    [
        ("f.png", (), "E_OUT", "Expected a file .nii.gz to write"),
        ("f.nii", (), "E_OUT", "Name it such as fused.nii.gz"),
        (".nii.gz", (), "E_OUT", "Expected a file .nii.gz"),
        ("ct.nii.gz", (), "E_OUT", "another file than the input"),
        ("f.nii.gz", ("--method", "mx"), "E_OPTION", "did you mean `max`"),
        ("f.nii.gz", ("--method", "network"), "E_OPTION", "no `weights` are named"),
        ("f.nii.gz", ("--window", "40,0"), "E_OPTION", "a width above 0"),
        ("f.nii.gz", ("--window", "40"), "E_OPTION", "LEVEL,WIDTH, got 40"),
        ("f.nii.gz", ("--window", "40,80", "--window", "600,2800"), "E_OPTION", "atrous looks at CT in one"),
        ("f.nii.gz", ("--weights", "model.pt", "--sha256", "0" * 64), "E_WEIGHTS", "not the expected ones"),
        ("f.nii.gz", ("--device", "gpu"), "E_OPTION", "cuda:N"),
    ],
)
def test_settings_are_refused_before_anything_is_read(
    files: Path, monkeypatch: pytest.MonkeyPatch, out: str, more: tuple[str, ...], code: str, words: str
) -> None:
    monkeypatch.chdir(files)
    checkpoint(files / "model.pt")
    before = {path: path.read_bytes() for path in files.iterdir()}
    (files / "mr.nii.gz").write_bytes(b"not read")
    done = call("fuse-image", "ct.nii.gz", "mr.nii.gz", "-o", out, *more)
    assert done.code == 2 and done.err.startswith(code) and words in done.err, done.err
    assert {path for path in files.iterdir()} == set(before)


def test_a_window_with_a_level_below_zero(files: Path) -> None:
    found = ("fuse-image", files / "ct.nii.gz", files / "mr.nii.gz", "-o", files / "f.nii.gz", "--method", "ct")
    assert call(*found, "--window", "-600,1500").code == 0
    ct = np.asarray(nib.load(files / "ct.nii.gz").dataobj, np.float64)
    made = np.asarray(nib.load(files / "f.nii.gz").dataobj)
    np.testing.assert_allclose(made, np.clip((ct + 1350) / 1500, 0, 1), atol=1e-6)
