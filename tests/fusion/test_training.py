"""Training: it learns, it is reproducible, a resumed one is the one that never stopped, and what is wrong ends it."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow

from pipeline.errors import pipeline_cause
from pipeline.fusion.checkpoint_file import load_trained
from pipeline.fusion.network import FusionNet
from pipeline.fusion.training import learner
from pipeline.learning.checkpoint_file import read_checkpoint
from pipeline.learning.encoders import UnetEncoder

Make = Callable[..., ConfigWorkflow]


def curves(folder: Path) -> list[dict[str, float]]:
    with (folder / "curves.csv").open() as stream:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(path)["network"]


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_it_learns_to_segment_and_keeps_the_best(workflow: Make, tmp_path: Path) -> None:
    """The ellipsoid is 2.5 standard deviations of the noise brighter: a few epochs find it."""
    workflow(max_epochs=8, classes=0, rate=0.01, batch=1, cache_rate=1.0).run()
    found = curves(tmp_path / "out")
    assert [row["epoch"] for row in found] == list(range(1, 9))
    assert found[-1]["training_loss"] < 0.5 * found[0]["training_loss"]
    assert found[0]["learning_rate"] == pytest.approx(0.001) and found[1]["learning_rate"] == pytest.approx(0.01)
    assert found[-1]["learning_rate"] < 0.002
    best = min(found, key=lambda row: row["validation_loss"])
    assert best["validation_loss"] < 0.6
    assert len(read_checkpoint(tmp_path / "out" / "model.pt")["history"]) == best["epoch"]
    assert load_trained(tmp_path / "out" / "model.pt").preparation.patch == [16, 16, 16]


def test_the_same_seed_gives_the_same_weights(workflow: Make, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        workflow(output_dir=str(tmp_path / name), max_epochs=1, seed=seed).run()
    first, again, other = (weights(tmp_path / name / "last.pt") for name in "abc")
    assert same(first, again) and not same(first, other)


@pytest.mark.slow
def test_a_resumed_training_is_the_one_that_never_stopped(workflow: Make, tmp_path: Path) -> None:
    workflow(output_dir=str(tmp_path / "whole")).run()
    stopped = {"output_dir": str(tmp_path / "parts"), "resume": True}
    workflow(**stopped, **{"train::trainer::max_epochs": 2}).run()
    assert len(curves(tmp_path / "parts")) == 2
    workflow(**stopped).run()
    whole, parts = (tmp_path / name / "last.pt" for name in ("whole", "parts"))
    assert same(weights(whole), weights(parts))
    timeless = [
        [{key: value for key, value in row.items() if key != "seconds"} for row in curves(path.parent)]
        for path in (whole, parts)
    ]
    assert timeless[0] == timeless[1] and len(timeless[0]) == 3
    before = parts.read_bytes()
    workflow(**stopped).run()
    assert parts.read_bytes() == before


def test_it_ends_when_it_no_longer_gets_better(workflow: Make, tmp_path: Path) -> None:
    """At a rate of 0 nothing changes: the first epoch stays the best, and two more are waited for."""
    workflow(max_epochs=9, patience=2, rate=0.0).run()
    assert len(curves(tmp_path / "out")) == 3
    assert len(read_checkpoint(tmp_path / "out" / "model.pt")["history"]) == 1


def test_epochs_between_validations_are_learned_from_too(workflow: Make, tmp_path: Path) -> None:
    """And the last one, whose number need not fit, is validated and kept."""
    workflow(max_epochs=5, val_interval=2).run()
    assert [row["epoch"] for row in curves(tmp_path / "out")] == [2, 4, 5]
    assert read_checkpoint(tmp_path / "out" / "last.pt")["history"][-1]["epoch"] == 5


def test_a_loss_that_is_not_finite_names_the_cases_and_keeps_the_last_checkpoint(
    workflow: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workflow(max_epochs=1).run()
    before = (tmp_path / "out" / "last.pt").read_bytes()
    broken = workflow(resume=True, class_weights=[float("nan"), 1.0])
    with pytest.raises(SystemExit) as ended:
        broken.run()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "E_NAN_LOSS" in said and "case-0" in said
    assert (tmp_path / "out" / "last.pt").read_bytes() == before


def test_a_checkpoint_of_another_architecture_is_refused(
    workflow: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workflow(max_epochs=1).run()
    with pytest.raises(SystemExit) as ended:
        workflow("early", resume=True).run()
    assert ended.value.code == 2
    assert "E_CHECKPOINT: Expected mode intermediate as in the checkpoint, got early." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"fold": 1}, "the checkpoint's 8 training cases, got 4 that are not the same"),
        ({"ct_window": [40, 400]}, r"ct_window \[140, 800\] as in the checkpoint, got \[40, 400\]"),
    ],
)
def test_a_training_goes_on_with_the_data_that_it_began_with(
    workflow: Make, capsys: pytest.CaptureFixture[str], settings: dict[str, Any], words: str
) -> None:
    """Else a checkpoint would not name all whom it has learned from, and they would pass as unseen."""
    workflow(max_epochs=1).run()
    with pytest.raises(SystemExit) as ended:
        workflow(resume=True, **settings).run()
    assert ended.value.code == 2
    assert re.search(f"E_CHECKPOINT: Expected {words}", capsys.readouterr().err)


def test_a_training_without_an_epoch_or_a_validation_is_refused(
    workflow: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        workflow(max_epochs=0).run()
    assert ended.value.code == 2 and "E_CONFIG: Expected max_epochs of one or more, got 0" in capsys.readouterr().err
    with pytest.raises(RuntimeError) as raised:
        workflow(val_interval=0).run()
    assert "E_CONFIG: Expected a val_interval of one epoch or more, got 0" in str(pipeline_cause(raised.value))
    assert not (tmp_path / "out" / "model.pt").exists()


@pytest.mark.parametrize(
    "patch", [[18, 16, 16], [4, 4, 4], [16, 16]], ids=["not a multiple", "one voxel left", "two sides"]
)
def test_a_patch_that_cannot_be_halved_is_refused(workflow: Make, patch: list[int]) -> None:
    with pytest.raises(RuntimeError) as raised:
        workflow(patch=patch).run()
    known = pipeline_cause(raised.value)
    needed = f"three sides, each a multiple of 4 and one of them 8 or more, got {patch}. Give other sides, such as"
    assert known is not None and known.code == "E_CONFIG" and needed in str(known)


@pytest.mark.parametrize("overlay", ["early", "late", "ct_only", "mr_only", "intermediate_cross_attention", "sgd"])
def test_every_kind_of_fusion_trains(workflow: Make, tmp_path: Path, overlay: str) -> None:
    workflow(overlay, max_epochs=1).run()
    assert np.isfinite(curves(tmp_path / "out")[0]["validation_loss"])


@pytest.mark.slow
@pytest.mark.parametrize("encoder", [{}, {"network_def::encoder": "resnet10", "patch": [32, 32, 64], "batch": 2}])
def test_frozen_encoders_wait(workflow: Make, encoder: dict[str, Any]) -> None:
    """With all their statistics: a ResNet's batch normalisations count what they see while they learn."""
    made = workflow(max_epochs=2, freeze_epochs=1, **encoder)
    network = made.network_def
    before = {name: item.clone() for name, item in network.state_dict().items()}
    seen = []
    made.trainer.add_event_handler(
        Events.EPOCH_COMPLETED,
        lambda: seen.append({n: not torch.equal(t, before[n]) for n, t in network.state_dict().items()}),
    )
    made.run()
    assert not any(moved for name, moved in seen[0].items() if name.startswith("encoders."))
    assert any(moved for name, moved in seen[0].items() if name.startswith("class_heads."))
    assert any(moved for name, moved in seen[1].items() if name.startswith("encoders."))


def test_an_encoder_starts_from_a_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(4)
    source = UnetEncoder(3, 1, 8, 3)
    torch.save(source.state_dict(), tmp_path / "mr.pt")
    network = FusionNet(["ct", "mr"], width=8, levels=3)
    ct = {name: item.clone() for name, item in network.encoders[0].state_dict().items()}
    learner(network, "cpu", {"mr": str(tmp_path / "mr.pt")})
    assert same(dict(network.encoders[1].state_dict()), dict(source.state_dict()))
    assert same(dict(network.encoders[0].state_dict()), ct)
    early = FusionNet(["ct", "mr"], mode="early", width=8, levels=3)
    with pytest.raises(Exception, match=r"E_MODALITY.*an encoder of all, got mr"):
        learner(early, "cpu", {"mr": str(tmp_path / "mr.pt")})


def test_cases_may_miss_modalities_masks_and_labels(workflow: Make, additive: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(additive, tmp_path / "holes")
    with (folder / "cases.csv").open() as stream:
        rows: list[dict[str, Any]] = list(csv.DictReader(stream))
    for number, row in enumerate(rows):
        row |= {"mr": "" if number % 3 == 0 else row["mr"], "mask": "" if number % 4 == 0 else row["mask"]}
        row |= {"age": "" if number % 5 == 0 else 40 + number}
    with (folder / "cases.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    workflow(dataset_dir=str(folder), max_epochs=1, table_columns=["age"]).run()
    assert np.isfinite(curves(tmp_path / "out")[0]["training_loss"])


def test_an_unaligned_case_is_refused(
    workflow: Make, additive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(additive, tmp_path / "moved")
    for path in folder.glob("*_mr.nii"):
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.array(image.dataobj)[:12], image.affine), path)
    with pytest.raises(SystemExit) as ended:
        workflow(dataset_dir=str(folder), max_epochs=1).run()
    assert ended.value.code == 2 and "E_GRID" in capsys.readouterr().err


def test_what_is_not_random_is_kept_in_memory(workflow: Make) -> None:
    """Read, normalised and stacked once; without a cache there is nothing to draw patches from but the files."""
    dataset = workflow(cache_rate=1.0).parser.get_parsed_content("train::dataset")
    kept = dataset._cache[0]
    assert kept["image"].shape == (2, 16, 16, 16)
    assert float(kept["image"][1].mean()) == pytest.approx(0, abs=0.5)  # MR in standard deviations, not as it was
    assert any((kept["image"] != dataset[0]["image"]).any() for _ in range(20))  # augmented from there on
