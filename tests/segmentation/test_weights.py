"""Models taken in: lean, the same weights, known by their hashes; what is damaged, changed or holds code is refused."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import UsageError
from pipeline.segmentation.weights import (
    add,
    describe,
    find_model,
    installed,
    load_checkpoint,
    remove,
    unchanged,
    verify,
)
from tests.tandem_process import call

DATASET = {
    "channel_names": {"0": "CT", "1": "MR T1"},
    "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
    "regions_class_order": [1, 2],
}
NAME = "Dataset007_Two-3d_fullres"


def checkpoint(fold: int) -> dict[str, Any]:
    """What nnU-Net's trainer saves (`nnUNetTrainer.save_checkpoint`), with numpy's numbers in its loss curves."""
    weights = {"encoder.weight": torch.randn(300, 70, generator=torch.Generator().manual_seed(fold))}
    state = {"state": {0: {"momentum_buffer": torch.randn(300, 70)}}, "param_groups": [{"lr": 0.01}]}
    return {
        "network_weights": weights,
        "optimizer_state": state,
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float64(0.5), np.float32(0.25)], "lrs": [0.01]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 3,
        "init_args": {
            "plans": {"plans_name": "p"},
            "configuration": "3d_fullres",
            "fold": fold,
            "dataset_json": DATASET,
        },
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TANDEM_HOME", str(tmp_path / "home"))
    folder = tmp_path / "results" / "Dataset007_Two" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    for fold in (0, 1):
        (folder / f"fold_{fold}").mkdir(parents=True)
        torch.save(checkpoint(fold), folder / f"fold_{fold}" / "checkpoint_final.pth")
        (folder / f"fold_{fold}" / "progress.png").write_bytes(b"x")
    (folder / "dataset.json").write_text(json.dumps(DATASET))
    (folder / "plans.json").write_text(json.dumps({"plans_name": "p"}))
    (folder / "postprocessing.pkl").write_bytes(pickle.dumps("code"))
    return folder


def refused(code: str, *arguments: Any, **more: Any) -> str:
    function, *rest = arguments
    with pytest.raises(UsageError) as error:
        function(*rest, **more)
    assert error.value.code == code
    return error.value.message


def test_a_model_is_kept_lean_and_has_the_same_weights(results: Path) -> None:
    (model,) = add(results)
    assert (model.name, model.folds, model.channels) == (NAME, ("0", "1"), ("ct", "mr_t1"))
    assert model.labels == ("whole", "core")
    folder = find_model(NAME)
    assert {path.name for path in folder.iterdir()} == {"dataset.json", "plans.json", "tandem.json", "fold_0", "fold_1"}
    for fold in (0, 1):
        path = folder / f"fold_{fold}" / "checkpoint_final.pth"
        found = load_checkpoint(path)
        assert torch.equal(
            found["network_weights"]["encoder.weight"], checkpoint(fold)["network_weights"]["encoder.weight"]
        )
        assert found["inference_allowed_mirroring_axes"] == (0, 1, 2) and found["init_args"]["fold"] == fold
        assert set(found) == {"network_weights", "trainer_name", "init_args", "inference_allowed_mirroring_axes"}
        assert path.stat().st_size < 0.52 * (results / f"fold_{fold}" / "checkpoint_final.pth").stat().st_size
    assert list(json.loads((folder / "dataset.json").read_text())["labels"]) == [
        "background",
        "whole",
        "core",
        "ignore",
    ]
    about = json.loads((folder / "tandem.json").read_text())
    assert about["label_map"] == {"1": 1, "2": 2, "3": 3} and set(about["sha256"]) == {
        *("dataset.json", "plans.json", "fold_0/checkpoint_final.pth", "fold_1/checkpoint_final.pth"),
    }


def test_what_tandem_knows_of_a_model_goes_with_it(results: Path) -> None:
    describe(results, {"label_map": {"1": 7, "2": 12}, "channels": ["ct", "mr"], "spec": "two", "calibration": None})
    (model,) = add(results, "mine")
    about = json.loads((model.folder / "tandem.json").read_text())
    assert (about["label_map"], about["channels"], about["spec"]) == ({"1": 7, "2": 12}, ["ct", "mr"], "two")
    assert find_model(str(results)) == results
    (results / "plans.json").write_text("{}")
    assert "plans.json" in refused("E_WEIGHTS", add, results, "again")
    assert "plans.json" in refused("E_WEIGHTS", find_model, str(results))


def exported(results: Path, path: Path) -> Path:
    """As nnU-Net's export lays files out."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(results.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(results.parent.parent))
    return path


def test_a_zip_is_a_model_too_and_its_hash_is_asked_for(results: Path, tmp_path: Path) -> None:
    from pipeline.store.files import sha256_file

    path = exported(results, tmp_path / "model.zip")
    assert "another file" in refused("E_WEIGHTS", add, path, sha256="0" * 64)
    (model,) = add(path, sha256=sha256_file(path))
    assert model.name == NAME and verify(NAME) == model.folder
    path.write_bytes(b"no zip" * 99)
    assert "BadZipFile" in refused("E_WEIGHTS", add, path, "other")
    path = exported(results, tmp_path / "model.zip")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    assert "BadZipFile" in refused("E_WEIGHTS", add, path, "other")
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../plans.json", "{}")
    assert "below one folder" in refused("E_WEIGHTS", add, tmp_path / "evil.zip")


@pytest.mark.parametrize("damage", ["byte", "gone", "more", "list"])
def test_what_is_not_as_it_was_taken_in_is_refused(results: Path, damage: str) -> None:
    (model,) = add(results)
    path = model.folder / "fold_1" / "checkpoint_final.pth"
    if damage == "byte":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "gone":
        path.unlink()
    elif damage == "more":
        (model.folder / "fold_2").mkdir()
        (model.folder / "fold_2" / "checkpoint_final.pth").write_bytes(path.read_bytes())
    else:
        (model.folder / "tandem.json").write_text("{}")
    assert NAME in refused("E_WEIGHTS", find_model, NAME)
    done = call("weights", "verify")
    assert done.code == 1 and f"{NAME}: E_WEIGHTS" in done.err


class Code:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_does_not_run(results: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    path = results / "fold_0" / "checkpoint_final.pth"
    torch.save({**checkpoint(0), "logging": Code(ran)}, path)
    assert "holds numbers alone" in refused("E_WEIGHTS", add, results)
    assert not ran.exists() and installed() == []
    torch.load(path, weights_only=False)  # the file is one that does run code
    assert ran.exists()


def test_other_files_are_no_models(results: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "got none" in refused("E_WEIGHTS", add, tmp_path / "empty")
    assert "got no.zip" in refused("E_WEIGHTS", add, tmp_path / "no.zip")
    torch.save({"state_dict": {}}, results / "fold_0" / "checkpoint_final.pth")
    assert "without network_weights" in refused("E_WEIGHTS", add, results)
    torch.save({**checkpoint(0), "network_weights": {}}, results / "fold_0" / "checkpoint_final.pth")
    assert "the weights of a network" in refused("E_WEIGHTS", add, results)
    (results / "dataset.json").write_text("{}")
    torch.save(checkpoint(0), results / "fold_0" / "checkpoint_final.pth")
    assert "labels or channels" in refused("E_WEIGHTS", add, results)
    home = tmp_path / "home" / "weights"
    assert {path.name for path in home.glob("*")} <= {".lock"}
    assert "without tandem.json" in refused("E_WEIGHTS", find_model, str(results))
    assert "Expected an installed model, got nothing." in refused("E_WEIGHTS", find_model, "nothing")


def test_names_are_given_once(results: Path) -> None:
    add(results, "one")
    assert "got one" in refused("E_NAMES", add, results, "one")
    assert "got a/b" in refused("E_NAMES", add, results, "a/b")
    remove("one")
    assert installed() == [] and not (results.parents[2] / "home" / "weights" / "one").exists()
    refused("E_WEIGHTS", remove, "one")
    refused("E_WEIGHTS", verify, "one")


def test_a_name_goes_before_a_folder_of_the_same_name(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model,) = add(results, "one")
    (tmp_path / "one").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_model("one") == model.folder
    assert "got no name" in refused("E_WEIGHTS", find_model, "")


def test_an_ensemble_is_taken_in_whole(results: Path, tmp_path: Path) -> None:
    """By the names that its models get here; without one of them it is not taken in, nor used."""
    other = results.with_name("nnUNetTrainer__nnUNetPlans__2d")
    shutil.copytree(results, other)
    (results / "ensemble.json").write_text(json.dumps({"with": [other.name]}))
    for folder, files in ((results, [results / "ensemble.json"]), (tmp_path / "one.zip", [])):
        if folder.suffix:
            with zipfile.ZipFile(folder, "w") as archive:
                files = [path for path in results.rglob("*") if path.is_file()]
                for path in files:
                    archive.write(path, path.relative_to(results.parent))
        with pytest.raises(UsageError, match=r"E_WEIGHTS.*3d_fullres, got none"):
            add(folder)
    assert installed() == []
    first, second = sorted(add(results.parent), key=lambda model: model.name)[::-1]
    assert json.loads((first.folder / "ensemble.json").read_text()) == {"with": [second.name]}
    assert find_model(first.name) == first.folder == unchanged(first.folder)
    (first.folder / "ensemble.json").write_text('{"with": []}')
    with pytest.raises(UsageError, match=r"E_WEIGHTS.*ensemble.json"):
        find_model(first.name)
    (second.folder / "plans.json").write_text("{}")
    with pytest.raises(UsageError, match=r"E_WEIGHTS.*plans.json"):
        unchanged(second.folder)


def test_plans_keep_their_bytes(results: Path) -> None:
    (results / "plans.json").write_text('{"b": NaN, "a": 1}')
    (model,) = add(results)
    assert (model.folder / "plans.json").read_text() == '{"b": NaN, "a": 1}'


def test_the_commands(results: Path) -> None:
    assert NAME in call("weights", "add", results).out
    said = call("weights", "list").out
    assert "ct, mr_t1" in said and "whole, core" in said and "0, 1" in said
    assert call("weights", "verify").out == f"{NAME}: whole\n"
    assert call("weights", "verify", NAME).code == 0 and call("weights", "verify", "x").code == 2
    assert call("weights", "remove", NAME).code == 0 and NAME not in call("weights", "list").out
