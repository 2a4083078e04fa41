"""Streams through the fuse bundle: MONAI's checks, training, resuming, evaluation, calibration, cached features."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow, ckpt_export, verify_net_in_out

from pipeline.errors import UsageError, pipeline_cause
from pipeline.fusion.checkpoint_file import load_trained
from pipeline.fusion.stream_net import EARLY_CAVEAT, StreamNet
from pipeline.learning.checkpoint_file import read_checkpoint, write_checkpoint
from pipeline.run.options import workflow as checked
from pipeline.shipped import shipped
from tests.phantoms.stream_cases import READERS, STREAMS, write_stream_cases

CONFIGS = shipped("bundles", "fuse", "configs")
TRAIN, STREAMS_YAML = CONFIGS / "train.yaml", CONFIGS / "overlays" / "streams.yaml"
META = [str(CONFIGS / "metadata.json"), str(CONFIGS / "metadata_streams.json")]
FLAT = {name: STREAMS[name] for name in ("cxr", "cough")}
SMALL: dict[str, Any] = {
    "bundle_root": str(CONFIGS.parent),
    "streams": STREAMS,
    "network_def::width": 4,
    "network_def::levels": 2,
    "network_def::token": 16,
    "batch": 6,
    "max_epochs": 2,
    "warmup": 0,
    "rate": 0.01,
    "folds": 2,
    "device": "cpu",
    **READERS,
}
#: Without chance.
STILL: dict[str, Any] = {"augmentation": False, "freeze_epochs": 2}
Make = Callable[..., ConfigWorkflow]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four cases, some of them without a cough or a volume."""
    folder = tmp_path_factory.mktemp("data")
    write_stream_cases(folder, 24, missing={"cough": [1, 2, 3, 7, 20], "mr": [4, 21]})
    return folder


@pytest.fixture
def make(data: Path, tmp_path: Path) -> Make:
    """A configuration of streams with overlays and files over it, ready to run: names, then settings."""

    def made(*names: str, **settings: Any) -> ConfigWorkflow:
        files = [TRAIN, STREAMS_YAML, *(CONFIGS / f"{name}.yaml" for name in names)]
        settings = {**SMALL, "dataset_dir": str(data), "output_dir": str(tmp_path / "out"), **settings}
        if "evaluate" in names:  # the checkpoint knows them
            del settings["streams"]
        found = checked(files, settings)
        found.initialize()
        return found

    return made


@pytest.mark.parametrize(
    "overlay", ["", "late", "intermediate_concat", "intermediate_cross_attention", "sgd", "multi_gpu_train", "early"]
)
def test_a_training_has_the_standard_ids(data: Path, tmp_path: Path, overlay: str) -> None:
    files = [str(TRAIN), str(STREAMS_YAML), *([str(CONFIGS / "overlays" / f"{overlay}.yaml")] if overlay else [])]
    settings = {**SMALL, "streams": FLAT if overlay == "early" else STREAMS}
    paths = {"dataset_dir": str(data), "output_dir": str(tmp_path)}
    workflow = ConfigWorkflow(files, META, False, init_id="none", **paths, **settings)
    workflow.initialize()
    assert workflow.check_properties() == []


def test_the_network_takes_and_gives_what_the_metadata_say() -> None:
    given = {"config_file": [str(TRAIN), str(STREAMS_YAML)], "device": "cpu", "streams": STREAMS}
    verify_net_in_out("network_def", meta_file=META, **given)
    with pytest.raises(ValueError, match="doesn't match"):
        verify_net_in_out("network_def", meta_file=META, classes=3, **given)


def test_a_trained_network_is_exported_evaluated_and_calibrated(make: Make, tmp_path: Path) -> None:
    make(max_epochs=6).run()
    weights = tmp_path / "out" / "model.pt"
    trained = load_trained(weights)
    assert isinstance(trained.network, StreamNet) and trained.preparation.patch == [760]
    assert trained.preparation.streams["cxr"] == {**STREAMS["cxr"], "intensity": "full"}
    exported = tmp_path / "model.ts"
    network = {key: value for key, value in SMALL.items() if key.startswith(("network_def", "streams", "bundle"))}
    files = [str(TRAIN), str(STREAMS_YAML)]
    ckpt_export("network_def", exported, str(weights), META[0], files, key_in_ckpt="network", **network)
    image = torch.randn(2, 1, 760)
    with torch.no_grad():
        assert torch.allclose(torch.jit.load(exported)(image), trained.network(image), atol=1e-6)

    judged = {"weights": str(weights), "output_dir": str(tmp_path / "judged"), "resamples": 100}
    make("evaluate", **judged).run()
    logits = np.load(tmp_path / "judged" / "class_logits.npy")
    assert len(logits) == 12 and (tmp_path / "judged" / "classes" / "report.pdf").is_file()
    about = json.loads((tmp_path / "judged" / "outputs.json").read_text())
    assert about["classes"].endswith("one look at all streams")
    checked([CONFIGS / "calibrate.yaml"], {"output_dir": str(tmp_path / "judged")}).run()
    assert (tmp_path / "judged" / "calibration_classes.json").is_file()

    make("evaluate", **judged, report=False, hidden_modalities=["cough"]).run()
    assert not np.allclose(np.load(tmp_path / "judged" / "class_logits.npy"), logits)
    with pytest.raises(RuntimeError) as error:
        make("evaluate", **judged, report=False, hidden_modalities=["pet"]).run()
    assert pipeline_cause(error.value).code == "E_MODALITY"  # type: ignore[union-attr]
    with pytest.raises(RuntimeError) as error:
        make("evaluate", **judged, mirror=True).run()
    assert "not mirrored" in str(pipeline_cause(error.value))


@pytest.mark.slow
def test_a_resumed_training_is_the_one_that_never_stopped(make: Make, tmp_path: Path) -> None:
    """The statistics of the batches, too."""
    make(output_dir=str(tmp_path / "whole")).run()
    stopped = {"output_dir": str(tmp_path / "parts"), "resume": True}
    make(**stopped, **{"train::trainer::max_epochs": 1}).run()
    make(**stopped).run()
    whole, parts = (read_checkpoint(tmp_path / name / "last.pt")["network"] for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    with pytest.raises(SystemExit):
        make(**stopped, streams={**STREAMS, "mr": {**STREAMS["mr"], "intensity": "zscore"}}).run()


def test_cached_features_change_nothing(make: Make, tmp_path: Path) -> None:
    """Of every level, and of every place of the coarsest one, which attention looks at."""
    names, kept = ("overlays/intermediate_cross_attention", "overlays/sgd"), str(tmp_path / "features")
    more = {**STILL, "network_def::dropout": 0.0}
    make(*names, **more, output_dir=str(tmp_path / "plain")).run()
    make(*names, **more, output_dir=str(tmp_path / "cached"), cache_features=True, feature_dir=kept).run()
    files = {path: path.stat().st_mtime_ns for path in Path(kept).iterdir()}
    make(*names, **more, output_dir=str(tmp_path / "again"), cache_features=True, feature_dir=kept).run()
    assert {path: path.stat().st_mtime_ns for path in Path(kept).iterdir()} == files
    # a stream that is missing is one of zeros, the same for all
    assert len(files) == 24 * 3 - 7 + 2
    plain, cached, again = (read_checkpoint(tmp_path / name / "last.pt") for name in ("plain", "cached", "again"))
    for name, tensor in plain["network"].items():
        assert torch.allclose(cached["network"][name], tensor, atol=1e-5), name
        assert torch.equal(cached["network"][name], again["network"][name])
    losses = [[row["validation_loss"] for row in found["history"]] for found in (plain, cached)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize("wrong", [{"augmentation": True}, {"freeze_epochs": 1}])
def test_features_of_what_changes_are_not_cached(make: Make, wrong: dict[str, Any]) -> None:
    with pytest.raises(RuntimeError) as error:
        make(**{**STILL, **wrong}, cache_features=True).run()
    assert "E_CONFIG: Expected frozen encoders of the same images" in str(pipeline_cause(error.value))


def test_one_stream_alone_and_early_fusion(make: Make, tmp_path: Path) -> None:
    make(modalities=["cxr"], **{"network_def::mode": "single"}).run()
    trained = load_trained(tmp_path / "out" / "model.pt")
    assert trained.network.sees == ["cxr"] and list(trained.preparation.streams) == ["cxr"]
    make("overlays/early", streams=FLAT, output_dir=str(tmp_path / "early")).run()
    judged = {"weights": str(tmp_path / "early" / "model.pt"), "output_dir": str(tmp_path / "judged")}
    make("evaluate", **judged, resamples=100).run()
    assert EARLY_CAVEAT in (tmp_path / "judged" / "classes" / "report.html").read_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"streams": {}}, "E_CONFIG: Expected streams"),
        ({"spec_file": "ct_mr_head"}, "E_CONFIG: Expected either streams or a spec_file"),
        ({"modalities": ["cx"]}, "E_TABLE: Expected the columns .*got no cx"),
        ({"network_def::mode": "early"}, "E_EARLY: Expected streams of one dimension"),
        ({"batch": 1}, "E_CONFIG: Expected a batch of two or more cases"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    make: Make, settings: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((RuntimeError, SystemExit, UsageError)) as error:
        make(**settings).run()
    found = pipeline_cause(error.value)
    said = str(found) if found else capsys.readouterr().err
    assert message.split(":")[0] in said
    assert all(part in said for part in message.split(": ")[1].split(".*"))


def test_a_checkpoint_of_an_unknown_class_is_refused(tmp_path: Path) -> None:
    network = StreamNet({"a": [8, 8], "b": [8, 8]}, width=4, levels=2, token=8)
    write_checkpoint(tmp_path / "x.pt", network, {})
    found = read_checkpoint(tmp_path / "x.pt")
    found["definition"] = json.dumps({**json.loads(found["definition"]), "class": "OtherNet"})
    torch.save(found, tmp_path / "x.pt")
    with pytest.raises(UsageError, match="E_CHECKPOINT"):
        load_trained(tmp_path / "x.pt")
