"""Planning and training in nnU-Net's own process: what is refused before it, and what a training leaves."""

from __future__ import annotations

import csv
import functools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import blosc2
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from pipeline.commands.out_of_fold import OutOfFold
from pipeline.commands.segment import calibration_of
from pipeline.errors import UsageError
from pipeline.segmentation import weights, worker, workspace
from pipeline.segmentation.model import build_network, load_model
from pipeline.segmentation.nnunet import PlansManager
from pipeline.segmentation.predict import Predictor
from pipeline.segmentation.tasks import Planning, Training, TrainingSettings
from pipeline.segmentation.trainers.tandem_trainer import TandemTrainer
from pipeline.segmentation.weights import find_model, load_checkpoint
from pipeline.segmentation.workspace import FOR_NEXT, Workspace, next_stages, plans_name
from pipeline.shipped import shipped
from pipeline.store.files import sha256_file
from tests import warm
from tests.segmentation.conftest import plans_of, write_dataset, write_model

CASCADE = "3d_cascade_fullres"
SETTINGS = TrainingSettings(
    epochs=3, iterations=2, val_iterations=1, optimizer="adamw", rate=0.002, mirror_axes=(), bfloat16=True
)


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


@pytest.mark.parametrize(
    ("patch", "bfloat16", "device", "words"),
    [
        ((8, 8, 8), True, "cpu", "got 2 x 2 x 2: give a larger patch"),
        ((16, 16, 8), True, "cpu", "got 4 x 4 x 2"),
        ((12, 12, 12), True, "cpu", ""),
        ((8, 8, 8), False, "cpu", ""),
        ((8, 8, 8), True, "cuda", ""),
    ],
)
def test_features_too_small_for_bfloat16_are_refused(
    patch: tuple[int, ...], bfloat16: bool, device: str, words: str
) -> None:
    trainer = TandemTrainer.__new__(TandemTrainer)
    trainer.settings, trainer.device = {"bfloat16": bfloat16}, torch.device(device)
    strides = [[1, 1, 1], [2, 2, 2], [2, 2, 2]]
    trainer.configuration_manager = SimpleNamespace(patch_size=patch, network_arch_init_kwargs={"strides": strides})
    if not words:
        return trainer._require_sides()
    with pytest.raises(UsageError, match=f"E_CONFIG.*{words}"):
        trainer._require_sides()


def test_what_is_not_there_is_said_before_a_process_starts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="E_NO_CASES"):
        Planning(str(tmp_path), str(tmp_path / "out"))
    place = str(write_dataset(tmp_path))
    with pytest.raises(UsageError, match=r"E_INPUT.*nnUNetPlans_small"):
        Training(place, str(tmp_path / "out"), SETTINGS, preset="small")
    plans = tmp_path / "out" / "preprocessed" / "Dataset501_Toy" / "nnUNetPlans_small.json"
    plans.parent.mkdir(parents=True)
    plans.write_text(json.dumps({"configurations": {"2d": {}, "3d_cascade_fullres": {"previous_stage": "3d_lowres"}}}))
    with pytest.raises(UsageError, match=r"E_CONFIG.*\(2d, 3d_cascade_fullres\), got 3d_lowres"):
        Training(place, str(tmp_path / "out"), SETTINGS, preset="small", configuration="3d_lowres")
    with pytest.raises(UsageError, match=r"E_INPUT.*2d to be trained in its folds 0, 1, got none of 0, 1\."):
        OutOfFold(place, str(tmp_path / "out"), "small", configurations=["2d"], folds=[0, 1])
    for folds, words in ((["all"], "hold cases out, got all"), (["first"], "from 0 to 1, or all, got first")):
        with pytest.raises(UsageError, match=f"E_FOLD.*{words}"):
            OutOfFold(place, str(tmp_path / "out"), "small", configurations=["2d"], folds=folds)
    assert not (tmp_path / "out" / "results").exists()
    shutil.copy(tmp_path / "raw" / "Dataset501_Toy" / "splits_final.json", plans.parent)
    assert Training(place, str(tmp_path / "out"), SETTINGS, preset="small", configuration="2d").folds == [0, 1]
    second = functools.partial(Training, place, str(tmp_path / "out"), SETTINGS, "small")
    for fold, left in ((None, "0, 1"), (0, "1")):
        if fold is not None:
            done = tmp_path / "out/results/Dataset501_Toy/TandemTrainer__nnUNetPlans_small__3d_lowres" / f"fold_{fold}"
            done.mkdir(parents=True)
            (done / FOR_NEXT).touch()
        with pytest.raises(UsageError, match=rf"E_INPUT.*predictions of each fold of 3d_lowres, got none of {left}\."):
            second(configuration="3d_cascade_fullres")
    with pytest.raises(UsageError, match=r"E_FOLD.*from 0 to 1, or all, got 2\."):
        Training(place, str(tmp_path / "out"), SETTINGS, preset="small", configuration="2d", folds=[0, 1, 2])
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
    worker._adapt(plans["configurations"], name, "small", network, (), 0)
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
        patch.setattr(workspace, "subprocess", subprocess)  # one from nothing
        patch.setattr(subprocess, "Popen", Killed)
        with pytest.raises(SystemExit):
            train.run()
    assert not (folder / "checkpoint_final.pth").is_file()


@dataclass(frozen=True)
class Trained:
    """A raw data set, the folder of plans and results, and the model that one fold has given."""

    place: Path
    out: Path
    model: Path


@pytest.fixture(scope="module", autouse=True)
def spared() -> Iterator[None]:
    """nnU-Net's processes are forked from one that has loaded PyTorch; but for the one that is killed."""

    def run(command: list[str], input: str, env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[:2] == [sys.executable, "-m"]
        return warm.run(*command[2:], env=env, given=input)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workspace, "subprocess", SimpleNamespace(run=run))
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    place, out = write_dataset(folder), folder / "out"
    Planning(str(place), str(out), preset="small", configurations=["3d_fullres"], patch=(12, 12, 12)).run()
    shutil.copytree(out, folder / "planned")
    train = Training(str(place), str(out), SETTINGS, preset="small", folds=[0])
    train.run()
    return Trained(place, out, train.workspace.model("nnUNetPlans_small", "3d_fullres"))


def weights_of(model: Path) -> dict[str, torch.Tensor]:
    """Of its first fold."""
    found: dict[str, torch.Tensor] = load_checkpoint(model / "fold_0" / "checkpoint_final.pth")["network_weights"]
    return found


@pytest.mark.slow
def test_a_model_is_trained_and_gone_on_with(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two trainings with one seed give the same weights, and so does one that was broken off after its first epoch."""
    out = tmp_path / "broken"
    shutil.copytree(trained.out.with_name("planned"), out)
    broken_off(Training(str(trained.place), str(out), SETTINGS, preset="small", folds=[0]), monkeypatch)
    train = Training(str(trained.place), str(out), SETTINGS, preset="small", folds=[0])
    train.run()
    found = weights_of(train.workspace.model("nnUNetPlans_small", "3d_fullres"))
    assert all(torch.equal(value, found[key]) for key, value in weights_of(trained.model).items())
    model = load_model(find_model(str(trained.model)))
    assert model.channels == ["mr"] and model.about["label_map"] == {"1": 3, "2": 8} and model.mirror_axes == ()
    image = np.asarray(nib.load(trained.place / "imagesTr" / "case_0_0000.nii.gz").dataobj).T[None]
    assert Predictor(model)(image, (1.0, 1.0, 1.0)).labels.shape == (16, 16, 16)
    texts = [path for path in trained.model.rglob("*") if path.suffix in (".txt", ".json")]
    assert str(trained.out.parent) not in "".join(path.read_text(errors="ignore") for path in texts)
    again = Training(str(trained.place), str(out), TrainingSettings(epochs=3), preset="small", folds=[0])
    with pytest.raises(SystemExit):  # begun with other settings
        again.run()


@pytest.mark.slow
def test_a_model_is_judged_on_what_it_has_not_seen(trained: Trained) -> None:
    """`evaluate.yaml`: Dice of the held-out cases, a calibration, and what nnU-Net has found to be worth keeping."""
    parser = ConfigParser()
    parser.read_config(str(shipped("bundles", "segment", "configs", "evaluate.yaml")))
    settings = {"dataset_dir": str(trained.place), "output_dir": str(trained.out), "preset": "small", "folds": [0]}
    for key, value in settings.items():
        parser[key] = value
    parser.get_parsed_content("run")
    model = load_model(trained.model)
    scores = []
    for name in ("case_0", "case_1"):
        image, truth = (
            np.asarray(nib.load(trained.place / part).dataobj).T
            for part in (f"imagesTr/{name}_0000.nii.gz", f"labelsTr/{name}.nii.gz")
        )
        labels = Predictor(replace(model, postprocessing=()))(image[None], (1.0, 1.0, 1.0)).labels
        ours = np.asarray(nib.load(trained.model / "out_of_fold" / f"{name}.nii.gz").dataobj).T
        assert np.array_equal(ours, labels)
        both = [np.sum((labels == value) & (truth == value)) for value in (1, 2)]
        sizes = [np.sum(labels == value) + np.sum(truth == value) for value in (1, 2)]
        scores.append(2 * np.divide(both, sizes))
    with (trained.model / "evaluation" / "means.csv").open(newline="") as table:
        rows = [row for row in csv.DictReader(table) if (row["measure"], row["of"]) == ("dice", "all cases")]
    found = {row["region"]: float(row["value"]) for row in rows}
    assert [found["outer"], found["inner"]] == pytest.approx(np.mean(scores, axis=0), abs=1e-3)
    used = find_model(str(trained.model))
    assert {path.name for path in used.glob("*.json")} >= {"calibration.json", "postprocessing.json"}
    calibrated = calibration_of("", used, Predictor(model := load_model(used)))
    assert calibrated is not None and "out-of-fold voxels of Dataset501_Toy" in calibrated.in_words
    assert list(model.about["sha256"]) == sorted(model.about["sha256"])


@pytest.mark.slow
def test_a_training_begins_where_a_pretrained_model_ended(trained: Trained, tmp_path: Path) -> None:
    """Its plans are taken over, and its weights: at a rate of next to nothing the encoder stays what it was."""
    out, settings = str(tmp_path / "out"), replace(SETTINGS, epochs=1, rate=1e-12, weight_decay=0.0)
    pretrained = str(trained.model)
    Planning(str(trained.place), out, preset="pretrained", pretrained=pretrained).run()
    train = Training(str(trained.place), out, settings, preset="pretrained", folds=[0], pretrained=pretrained)
    train.run()
    model = train.workspace.model(train.plans, "3d_fullres")
    before, after = weights_of(trained.model), weights_of(model)
    encoder = [name for name in before if name.startswith("encoder.")]
    assert encoder and all(torch.allclose(before[name], after[name], atol=1e-8) for name in encoder)
    plans = [json.loads((folder / "plans.json").read_text()) for folder in (trained.model, model)]
    architectures = [found["configurations"]["3d_fullres"] for found in plans]
    for found in architectures:
        del found["data_identifier"]  # where the preprocessed cases lie
    assert architectures[0] == architectures[1]


@pytest.mark.slow
def test_a_cascade_learns_from_what_its_first_stage_says(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both stages on one grid. What nnU-Net's own loop has left of held-out cases is what Tandem predicts of them."""
    out = tmp_path / "cascade"
    shutil.copytree(trained.out.with_name("planned"), out)
    path = out / "preprocessed" / "Dataset501_Toy" / "nnUNetPlans_small.json"
    plans = json.loads(path.read_text())
    second = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    plans["configurations"]["3d_lowres"] = {**plans["configurations"]["3d_fullres"], "next_stage": CASCADE}
    path.write_text(json.dumps({**plans, "configurations": {**plans["configurations"], CASCADE: second}}))

    def train(configuration: str, *folds: int) -> Path:
        training = Training(str(trained.place), str(out), SETTINGS, "small", "unet", configuration, folds)
        training.run()
        return training.workspace.model("nnUNetPlans_small", configuration)

    first = train("3d_lowres", 0, 1)
    left = first / "predicted_next_stage" / CASCADE
    assert {file.stem for file in left.iterdir()} == {f"case_{number}" for number in range(4)}
    (left / "case_0.b2nd").unlink()
    (first / "fold_0" / FOR_NEXT).unlink()  # as where it was killed
    (judged := first / "fold_0" / "validation" / "case_0.nii.gz").parent.mkdir()
    judged.write_text("what evaluate.yaml has predicted")
    weights, about = sha256_file(first / "fold_0" / "checkpoint_final.pth"), (first / "tandem.json").read_text()
    train("3d_lowres", 0)
    assert (first / "fold_0" / FOR_NEXT).read_text().strip() == weights
    assert sha256_file(first / "fold_0" / "checkpoint_final.pth") == weights
    assert (judged.read_text(), (first / "tandem.json").read_text()) == ("what evaluate.yaml has predicted", about)
    assert not list(first.rglob("summary.json"))  # it names the machine's folders
    image = np.asarray(nib.load(trained.place / "imagesTr" / "case_0_0000.nii.gz").dataobj).T[None]
    ours = Predictor(load_model(first, [0]))(image, (1.0, 1.0, 1.0)).labels
    theirs = np.asarray(blosc2.open(str(left / "case_0.b2nd"), mode="r")[:]).reshape(ours.shape)
    assert np.mean(ours == theirs) > 0.995  # its sums are half precision
    cascade = train(CASCADE, 0)
    assert next(iter(weights_of(cascade).values())).shape[1] == 1 + 2  # the image, and a channel for each label
    model = load_model(cascade, [0])
    assert model.previous is not None and list(model.previous.networks) == ["0"]
    assert Predictor(model)(image, (1.0, 1.0, 1.0)).labels.shape == image.shape[1:]
    (first / "fold_1" / FOR_NEXT).write_text("of another checkpoint")
    with pytest.raises(SystemExit):
        train(CASCADE, 0)
    assert "E_CHECKPOINT" in capsys.readouterr().err


def test_what_is_not_preprocessed_is_no_next_stage(tmp_path: Path) -> None:
    stages = {"3d_lowres": ([CASCADE], "low"), CASCADE: (None, "full")}
    found = {name: SimpleNamespace(next_stage_names=after, data_identifier=of) for name, (after, of) in stages.items()}
    plans = SimpleNamespace(get_configuration=found.__getitem__)
    assert next_stages(plans, "3d_lowres", tmp_path) == next_stages(plans, CASCADE, tmp_path) == []
    (tmp_path / "full").mkdir()
    assert next_stages(plans, "3d_lowres", tmp_path) == [CASCADE]
