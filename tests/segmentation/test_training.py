"""Planning and training in nnU-Net's own process: what is refused before it, and what a training leaves."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from scipy import ndimage

from pipeline.errors import UsageError
from pipeline.segmentation import weights, worker
from pipeline.segmentation.model import build_network, load_model
from pipeline.segmentation.nnunet import PlansManager
from pipeline.segmentation.predict import Predictor
from pipeline.segmentation.tasks import Planning, Training, TrainingSettings
from pipeline.segmentation.trainers.tandem_trainer import TandemTrainer
from pipeline.segmentation.weights import find_model, load_checkpoint
from pipeline.segmentation.workspace import Workspace, plans_name
from tests.segmentation.conftest import plans_of, write_model

SETTINGS = TrainingSettings(
    epochs=3, iterations=2, val_iterations=1, optimizer="adamw", rate=0.002, mirror_axes=(), bfloat16=True
)


def write_dataset(folder: Path, cases: int = 4) -> Path:
    """A raw data set: blobs whose labels are their brighter parts; two folds."""
    place = folder / "raw" / "Dataset501_Toy"
    rng = np.random.default_rng(1)
    for part in ("imagesTr", "labelsTr"):
        (place / part).mkdir(parents=True)
    names = [f"case_{number}" for number in range(cases)]
    for name in names:
        image = ndimage.gaussian_filter(rng.normal(size=(16, 16, 16)), 2)
        label = (image > np.quantile(image, 0.7)).astype(np.uint8) + (image > np.quantile(image, 0.9))
        nib.save(
            nib.Nifti1Image((100 * image + 500).astype(np.float32), np.eye(4)),
            place / "imagesTr" / f"{name}_0000.nii.gz",
        )
        nib.save(nib.Nifti1Image(label.astype(np.uint8), np.eye(4)), place / "labelsTr" / f"{name}.nii.gz")
    dataset = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "outer": 1, "inner": 2}, "numTraining": cases}
    (place / "dataset.json").write_text(json.dumps({**dataset, "file_ending": ".nii.gz"}))
    folds = [{"train": names[2:], "val": names[:2]}, {"train": names[:2], "val": names[2:]}]
    (place / "splits_final.json").write_text(json.dumps(folds))
    (place / "tandem.json").write_text(json.dumps({"spec": "toy", "channels": ["mr"], "label_map": {"1": 3, "2": 8}}))
    return place


def test_presets_and_networks_have_plans_of_their_own() -> None:
    assert plans_name("small", "dynunet") == "nnUNetPlans_small_dynunet"
    assert len({plans_name(preset) for preset in worker.PLANS}) == len(worker.PLANS)
    for wrong in (("tiny", "unet"), ("small", "vnet")):
        with pytest.raises(UsageError, match=r"E_CONFIG.*got (tiny|vnet)"):
            plans_name(*wrong)


def test_nothing_of_the_environment_reaches_nnunet_but_what_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_wandb_enabled", "1")
    found = Workspace(write_dataset(tmp_path), tmp_path / "out", 3, 2).environment({"seed": 1})
    assert "nnUNet_wandb_enabled" not in found and found["nnUNet_raw"] == str(tmp_path / "raw")
    assert (found["nnUNet_def_n_proc"], found["OMP_NUM_THREADS"], found["nnUNet_compile"]) == ("3", "2", "f")
    assert found["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "1"


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"iterations": 0}, {"rate": 0.0}, {"optimizer": "adam"}, {"mirror_axes": (3,)}, {"seed": -1}],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="E_CONFIG"):
        TrainingSettings(**wrong)


def test_what_is_not_there_is_said_before_a_process_starts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="E_NO_CASES"):
        Planning(str(tmp_path), str(tmp_path / "out"))
    place = str(write_dataset(tmp_path))
    with pytest.raises(UsageError, match=r"E_INPUT.*nnUNetPlans_small"):
        Training(place, str(tmp_path / "out"), SETTINGS, preset="small")
    with pytest.raises(UsageError, match=r"E_CONFIG.*pretrained"):
        Planning(place, str(tmp_path / "out"), preset="pretrained")


def test_a_loss_that_is_not_finite_names_the_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = object.__new__(TandemTrainer)
    trainer.settings, trainer.device = asdict(SETTINGS), torch.device("cpu")
    for loss in (0.5, float("nan"), float("inf")):
        monkeypatch.setattr(nnUNetTrainer, "train_step", lambda self, batch, loss=loss: {"loss": np.float32(loss)})
        if np.isfinite(loss):
            assert trainer.train_step({"keys": ["a", "b"]})["loss"] == loss
            continue
        with pytest.raises(UsageError, match=r"E_NAN_LOSS.*cases a, b"):
            trainer.train_step({"keys": ["a", "b"]})


@pytest.mark.parametrize("network", ["unet", "dynunet", "segresnet"])
@pytest.mark.parametrize("name", ["2d", "3d_fullres"])
def test_small_plans_make_networks_of_any_kind_that_fit_their_patch(name: str, network: str) -> None:
    """Logits of the labels, on every voxel of a patch; MONAI's networks in nnU-Net's place."""
    dims = 2 if name == "2d" else 3
    plans = plans_of(name, (70, 30, 21)[:dims], (1.0, 1.0, 1.0)[:dims], 1)
    own = plans["configurations"][name]
    arguments = own["architecture"]["arch_kwargs"]
    arguments |= {"n_stages": 4, "kernel_sizes": [[3] * dims] * 4, "n_conv_per_stage": [2] * 4}
    arguments |= {"strides": [[1] * dims, *[[2] * dims] * 3], "n_conv_per_stage_decoder": [2] * 3}
    worker._adapt(plans["configurations"], name, "small", network, ((), 0))
    assert own["batch_size"] == 2 and max(own["patch_size"]) <= 64
    manager = PlansManager(plans)
    dataset = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "a": 1, "b": 2}}
    net = build_network(manager, manager.get_configuration(name), dataset).eval()
    with torch.no_grad():
        found = net(torch.zeros(1, 1, *own["patch_size"]))
    assert found.shape == (1, 3, *own["patch_size"])


def test_pretrained_weights_of_another_shape_are_refused_before_training(tmp_path: Path) -> None:
    small, large = (write_model(tmp_path / name, patch=patch) for name, patch in (("a", (8, 8, 8)), ("b", (8, 8, 8))))
    model = load_model(small)
    network = build_network(model.plans, model.configuration, model.dataset)
    assert worker._fitting(large, network) == large / "fold_0" / "checkpoint_final.pth"
    assert worker._fitting(Path(), network) is None
    other = write_model(tmp_path / "c", channels=("CT", "MR"))
    with pytest.raises(UsageError, match=r"E_WEIGHTS.*differs.*preset: pretrained"):
        worker._fitting(other, network)
    with pytest.raises(UsageError, match=r"E_WEIGHTS.*got none"):
        worker._fitting(tmp_path, network)


def test_a_network_of_a_strange_class_is_not_built(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["architecture"]["network_class_name"] = "os.system"
    (folder / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(UsageError, match=r"E_WEIGHTS.*got os.system"):
        load_model(folder)


@pytest.mark.parametrize(("folds", "code"), [([3], "E_FOLD"), (["all"], "E_FOLD")])
def test_a_fold_that_was_not_trained_is_refused(tmp_path: Path, folds: list[Any], code: str) -> None:
    with pytest.raises(UsageError, match=code):
        load_model(write_model(tmp_path / "model"), folds)


def test_a_model_that_comes_with_tandem_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_HOME", str(tmp_path / "home"))
    write_model(tmp_path / "demo_head")
    monkeypatch.setattr(weights, "shipped", lambda *parts: tmp_path / parts[-1])
    assert find_model("demo_head") == tmp_path / "demo_head"
    (tmp_path / "demo_head" / "plans.json").write_text("{}")
    with pytest.raises(UsageError, match=r"E_WEIGHTS.*plans.json"):
        find_model("demo_head")


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    folder, other = write_model(tmp_path / "model"), write_model(tmp_path / "other", channels=("CT", "MR"))
    (other / "fold_0" / "checkpoint_final.pth").rename(folder / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(UsageError, match=r"E_WEIGHTS.*another"):
        load_model(folder)


def broken_off(train: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a training that is killed once its first epoch has left a checkpoint."""
    folder = train.workspace.model(train.plans, train.configuration) / "fold_0"
    started = subprocess.Popen

    class Killed(started):  # type: ignore[type-arg, misc, valid-type]
        def communicate(self, words: Any = None, timeout: Any = None) -> Any:
            self.stdin.write(words)
            self.stdin.close()
            self.stdin = None
            while self.poll() is None and not (folder / "checkpoint_latest.pth").is_file():
                time.sleep(0.02)
            self.kill()
            return super().communicate()

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", Killed)
        with pytest.raises(SystemExit):
            train.run()
    assert not (folder / "checkpoint_final.pth").is_file()


@pytest.mark.slow
def test_a_model_is_planned_trained_and_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two trainings with one seed give the same weights, and so does one that was broken off after its first epoch."""
    place = write_dataset(tmp_path)
    found = []
    whole = str(tmp_path / "whole")
    Planning(str(place), whole, preset="small", configurations=["3d_fullres"], patch=(8, 8, 8)).run()
    shutil.copytree(whole, tmp_path / "broken")
    for name in ("whole", "broken"):
        out = str(tmp_path / name)
        train = Training(str(place), out, SETTINGS, preset="small", folds=[0])
        if name == "broken":
            broken_off(train, monkeypatch)
            train = Training(str(place), out, SETTINGS, preset="small", folds=[0])
        train.run()
        folder = train.workspace.model("nnUNetPlans_small", "3d_fullres")
        found.append(load_checkpoint(folder / "fold_0" / "checkpoint_final.pth")["network_weights"])
    assert all(torch.equal(value, found[1][key]) for key, value in found[0].items())
    model = load_model(find_model(str(folder)))
    assert model.channels == ["mr"] and model.about["label_map"] == {"1": 3, "2": 8} and model.mirror_axes == ()
    image = np.asarray(nib.load(place / "imagesTr" / "case_0_0000.nii.gz").dataobj).T[None]
    assert Predictor(model)(image, (1.0, 1.0, 1.0)).labels.shape == (16, 16, 16)
    text = "".join(path.read_text(errors="ignore") for path in folder.rglob("*") if path.suffix in (".txt", ".json"))
    assert str(tmp_path) not in text
    again = Training(str(place), str(tmp_path / "whole"), TrainingSettings(epochs=3), preset="small", folds=[0])
    with pytest.raises(SystemExit):  # begun with other settings
        again.run()
