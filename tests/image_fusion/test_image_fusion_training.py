"""Training: it learns, says every term, goes on exactly, in two phases, from pictures and from volumes."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from PIL import Image

from pipeline.errors import CaseError, UsageError
from pipeline.image_fusion.data import MiddleOfPaird, PatchOfPaird, ReadPaird, cut
from pipeline.image_fusion.encoders import SmallEncoder
from pipeline.image_fusion.network import ImageFusionNet
from pipeline.image_fusion.pictures import read_picture, windowed
from pipeline.image_fusion.weights import Preparation, load_trained
from pipeline.learning.checkpoint_file import read_checkpoint, write_checkpoint
from pipeline.store.files import sha256_file

Make = Callable[..., ConfigWorkflow]
TERMS = ["content", "structure", "detail", "consistency", "gradient", "medical"]


def curves(folder: Path) -> list[dict[str, float]]:
    with (folder / "curves.csv").open() as stream:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]


def timeless(path: Path) -> dict[str, Any]:
    """A checkpoint without what the clock says."""
    found = read_checkpoint(path)
    found["history"] = [{key: value for key, value in row.items() if key != "seconds"} for row in found["history"]]
    return found


def same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def test_it_learns_and_logs_every_term(workflow: Make, tmp_path: Path) -> None:
    workflow(max_epochs=5).run()
    found = curves(tmp_path / "out")
    assert list(found[0]) == ["epoch", "training_loss", "validation_loss", "learning_rate", "seconds", *TERMS]
    assert found[-1]["training_loss"] < 0.9 * found[0]["training_loss"]
    assert found[-1]["validation_loss"] < found[0]["validation_loss"]
    weights = dict(zip(TERMS, (15, 8, 5, 3, 2, 10), strict=True))
    for row in found:
        assert row["validation_loss"] == pytest.approx(sum(weights[name] * row[name] for name in TERMS))
    trained = load_trained(tmp_path / "out" / "model.pt")
    assert trained.preparation.windows == [[0.5, 1.0], [0.25, 0.5], [0.75, 0.5]]
    assert len(trained.training_cases) == 4 and trained.preparation.learned_measures == ["SSIM", "bone", "soft"]
    assert not trained.network.training


def test_two_runs_give_the_same_and_a_resumed_one_is_the_one_that_never_stopped(workflow: Make, tmp_path: Path) -> None:
    options = {"loss_weights": {"qabf": 3.0, "vif": 1.0}}
    workflow(output_dir=str(tmp_path / "whole"), **options).run()
    workflow(output_dir=str(tmp_path / "again"), **options).run()
    stopped = {"output_dir": str(tmp_path / "parts"), "resume": True, **options}
    workflow(**stopped, **{"train::trainer::max_epochs": 2}).run()
    assert len(curves(tmp_path / "parts")) == 2
    workflow(**stopped).run()
    whole, again, parts = (timeless(tmp_path / name / "last.pt") for name in ("whole", "again", "parts"))
    assert same(whole, again) and same(whole, parts)
    workflow(output_dir=str(tmp_path / "other"), seed=1, **options).run()
    assert not same(whole["network"], timeless(tmp_path / "other" / "last.pt")["network"])


def test_two_phases(workflow: Make, tmp_path: Path) -> None:
    """The second starts from the first's weights, at a tenth of the rate, and its encoders wait."""
    workflow(output_dir=str(tmp_path / "pre"), loss_weights={"medical": 0.0}, max_epochs=1).run()
    first = read_checkpoint(tmp_path / "pre" / "model.pt")
    assert "medical" not in first["history"][0] and "medical" not in first["preparation"]["loss"]
    made = workflow("finetune", weights=str(tmp_path / "pre" / "model.pt"), freeze_epochs=1, max_epochs=2, rate=0.001)
    made.parser.get_parsed_content("network")
    network, seen = made.network_def, []
    before = {name: item.clone() for name, item in network.state_dict().items()}
    assert same(before, first["network"])
    made.trainer.add_event_handler(
        Events.EPOCH_COMPLETED,
        lambda: seen.append({n for n, t in network.state_dict().items() if not torch.equal(t, before[n])}),
    )
    made.run()
    assert seen[0] and not any(name.startswith("encoders.") for name in seen[0])
    assert any(name.startswith("encoders.") for name in seen[1])


@pytest.mark.parametrize("patch", [[32, 30], [16, 16, 16]], ids=["slices", "volumes"])
def test_volumes_are_learned_from(workflow: Make, heads: Path, tmp_path: Path, patch: list[int]) -> None:
    options = {"dataset_dir": str(heads), "patch": patch, "draws": 2, "batch": 1, "max_epochs": 1}
    workflow("volumes", **options).run()
    trained = load_trained(tmp_path / "out" / "model.pt")
    assert trained.network.spatial_dims == len(patch)
    assert trained.preparation.windows == [[150, 500], [40, 80], [600, 2000]]
    assert np.isfinite(curves(tmp_path / "out")[0]["validation_loss"])


def test_encoders_start_from_a_file(workflow: Make, tmp_path: Path) -> None:
    torch.manual_seed(5)
    source = SmallEncoder(2, 3, 4)
    torch.save(source.state_dict(), tmp_path / "encoder.pt")
    digest = sha256_file(tmp_path / "encoder.pt")
    made = workflow(encoder_weights=str(tmp_path / "encoder.pt"), encoder_sha256=digest)
    made.parser.get_parsed_content("network")
    ct, mr = made.network_def.encoders
    assert same(dict(ct.state_dict()), dict(source.state_dict()))
    stem = source.stages[0][0].weight
    assert torch.equal(mr.stages[0][0].weight, stem.sum(1, keepdim=True))
    with pytest.raises(RuntimeError) as raised:
        workflow(encoder_weights=str(tmp_path / "encoder.pt"), encoder_sha256="0" * 64).run()
    assert "E_WEIGHTS" in str(raised.value) or "E_WEIGHTS" in str(raised.value.__cause__)


def test_weights_that_are_not_the_expected_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    write_checkpoint(path, torch.nn.Linear(1, 1), {"preparation": {}, "training_cases": []})
    with pytest.raises(UsageError, match=r"E_WEIGHTS: The weights .* are not the expected ones"):
        load_trained(path, sha256="0" * 64)
    with pytest.raises(UsageError, match="E_CHECKPOINT: Expected the definition of an image fusion network"):
        load_trained(path, sha256=sha256_file(path))
    with pytest.raises(UsageError, match="E_INPUT"):
        load_trained(tmp_path / "none.pt")


def test_a_checkpoint_holds_what_was_learned(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = ImageFusionNet(2, levels=3, residual=0.2).eval()
    prepared = Preparation(["ct", "mr"], [[0.5, 1.0]] * 3, [72, 72], {"vif": 0.8, "qabf": 3.0, "bone": 1.0})
    about = {"preparation": prepared.to_plain(), "training_cases": ["a"]}
    write_checkpoint(tmp_path / "model.pt", network, about)
    trained = load_trained(tmp_path / "model.pt")
    given = torch.rand(1, 4, 24, 24)
    assert torch.equal(trained.network(given), network(given))
    assert trained.preparation.learned_measures == ["Qabf", "VIF", "bone"] and trained.training_cases == ("a",)


def test_pictures_are_read_grey_whatever_they_are_saved_as(tmp_path: Path) -> None:
    values = np.arange(60, dtype=np.uint8).reshape(6, 10) * 4
    grey = Image.fromarray(values)
    palette = grey.convert("P")
    deep = Image.fromarray(values.astype(np.uint16) * 257)
    for name, image in {"grey": grey, "rgb": grey.convert("RGB"), "palette": palette, "deep": deep}.items():
        image.save(tmp_path / f"{name}.png")
        assert np.allclose(read_picture(tmp_path / f"{name}.png"), values / 255, atol=1e-6), name
    Image.fromarray(np.stack([values, values, 255 - values], -1)).save(tmp_path / "colour.png")
    with pytest.raises(CaseError, match=r"E_NOT_SCALAR: colour\.png: Expected a grey picture, got colours"):
        read_picture(tmp_path / "colour.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(CaseError, match=r"E_PICTURE: text\.png: Expected a picture"):
        read_picture(tmp_path / "text.png")


def test_windows_are_those_of_dicom() -> None:
    found = windowed(np.array([-1000.0, 0.0, 40.0, 60.0, 3000.0], dtype=np.float32), [[40, 80], [0, 2000]])
    assert np.allclose(found, [[0, 0, 0.5, 0.75, 1], [0, 0.5, 0.52, 0.53, 1]])
    for windows in ([], [[40, 0]], [[40]]):
        with pytest.raises(UsageError, match="E_CONFIG: Expected windows of a level and a width above 0"):
            windowed(np.zeros(3, dtype=np.float32), windows)


def test_pairs_are_stacked_and_what_does_not_fit_is_refused(pictures: Path, heads: Path, tmp_path: Path) -> None:
    read = ReadPaird(["ct", "mr"], [[0.5, 1.0], [0.25, 0.5]])
    found = read({"ct": pictures / "ct0.png", "mr": pictures / "mr0.png"})["image"]
    assert found.shape == (3, 60, 52)
    assert np.allclose(found[0], read_picture(pictures / "ct0.png")) and np.allclose(
        found[2], read_picture(pictures / "mr0.png")
    )
    solid = ReadPaird(["ct", "mr"], [[150, 500]])({"ct": heads / "ct0.nii", "mr": heads / "mr0.nii"})["image"]
    mr = np.asarray(nib.load(heads / "mr0.nii").dataobj)
    assert solid.shape == (2, 32, 30, 28) and solid[1].max() == 1 and solid[1][torch.tensor(mr == 0)].max() == 0
    with pytest.raises(CaseError, match="E_MISSING_ROLE: Expected ct and mr, got no mr"):
        read({"ct": pictures / "ct0.png"})
    Image.new("L", (10, 10)).save(tmp_path / "other.png")
    with pytest.raises(CaseError, match="E_GRID"):
        read({"ct": pictures / "ct0.png", "mr": tmp_path / "other.png"})


def test_volumes_are_read_alike_however_they_are_stored(heads: Path, tmp_path: Path) -> None:
    read = ReadPaird(["ct", "mr"], [[150, 500]])
    expected = read({"ct": heads / "ct0.nii", "mr": heads / "mr0.nii"})["image"]
    stored = nib.orientations.axcodes2ornt("ILP")
    for name in ("ct0", "mr0"):
        nib.save(nib.load(heads / f"{name}.nii").as_reoriented(stored), tmp_path / f"{name}.nii")
    assert nib.load(tmp_path / "ct0.nii").shape != tuple(expected.shape[1:])
    for mr in (tmp_path / "mr0.nii", heads / "mr0.nii"):
        assert torch.equal(read({"ct": tmp_path / "ct0.nii", "mr": mr})["image"], expected)
    moved = nib.load(heads / "mr0.nii")
    nib.save(nib.Nifti1Image(moved.dataobj, moved.affine + np.eye(4, k=3) * 5), tmp_path / "moved.nii")
    with pytest.raises(CaseError, match=r"E_GRID: Expected images on one grid, got one that lies 5\.00 mm off"):
        read({"ct": heads / "ct0.nii", "mr": tmp_path / "moved.nii"})


def test_patches_show_something_and_lie_within() -> None:
    image = torch.zeros(2, 40, 50, 20)
    image[1, 30:34, 10:14, 7:9] = 1
    patches = PatchOfPaird([16, 16])
    patches.set_random_state(0)
    found = [patches({"image": image})["image"] for _ in range(60)]
    assert all(item.shape == (2, 16, 16) for item in found)
    middle = MiddleOfPaird([16, 16])({"image": image})["image"]
    assert middle.shape == (2, 40, 50) and torch.equal(middle, image[..., 7])
    assert MiddleOfPaird([8, 8, 8])({"image": image})["image"].shape == (2, 8, 8, 8)
    assert torch.equal(cut(image, [0, 49, 10], [16, 16, 4]), image[:, :16, 34:, 8:12])
    small = cut(torch.ones(1, 4, 30), [2, 10], [8, 8])
    assert small.sum() == 32 and small[0, :4].all()
