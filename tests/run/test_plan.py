from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.errors import UsageError
from pipeline.run import batch, loading, plan
from pipeline.run.plan import STAGES, Plan, configuration, in_order
from pipeline.spec.spec import Role, Spec, every_volume, load_spec

HERE = Path("in"), Path("out")


def test_stages_run_in_their_order_whatever_was_typed() -> None:
    spec = load_spec("simulated_head")
    assert in_order(("report", "ingest", "register", "ingest"), spec) == ("ingest", "register", "report")
    assert in_order((), spec) == STAGES
    assert in_order((), every_volume()) == ("ingest", "preprocess", "report")
    assert in_order(("report", "own", "ingest"), spec) == ("ingest", "own", "report")


@pytest.mark.parametrize(("typed", "near"), [("registr", "register"), ("ingets", "ingest")])
def test_a_misspelt_stage_is_refused_before_anything_runs(typed: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"E_NO_STAGE.*{typed}; did you mean `{near}`") as refused:
        Plan(*HERE, stages=("ingest", typed))
    assert all(name in refused.value.message for name in STAGES)


def test_every_stage_has_a_configuration() -> None:
    assert all(configuration(name).is_file() for name in STAGES)


def test_a_stage_that_the_spec_has_no_section_for_is_refused() -> None:
    with pytest.raises(UsageError, match=r"E_SPEC.*section `fuse` in the data spec ct_mr_head"):
        in_order(("ingest", "fuse"), load_spec("ct_mr_head"))


def test_pet_alone_has_nothing_to_prepare() -> None:
    pet = Spec(name="pet", description="", roles={"pet": Role(modality=("PT",))})
    assert in_order((), pet) == ("ingest", "report")
    with pytest.raises(UsageError, match=r"E_SPEC: Expected a role of CT or MR in the data spec pet, for the"):
        in_order(("ingest", "preprocess"), pet)


@pytest.mark.parametrize("run", ["run", "load"])
def test_a_run_folder_in_the_input_is_refused_before_anything_is_written(run: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    here = Plan(tmp_path / "in", tmp_path / "in" / "out")
    with pytest.raises(UsageError, match=r"^E_OUT: .* lies in the input folder"):
        batch.run(here) if run == "run" else loading.load("ingest", here)
    assert not list((tmp_path / "in").iterdir())


def machine_with(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    cuda = SimpleNamespace(is_available=lambda: gpus > 0, device_count=lambda: gpus)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))


@pytest.mark.parametrize(("gpus", "name"), [(0, "cpu"), (1, "cuda"), (2, "cuda:1")])
def test_a_device_of_the_machine_passes(monkeypatch: pytest.MonkeyPatch, gpus: int, name: str) -> None:
    machine_with(monkeypatch, gpus)
    assert Plan(*HERE, device=name).device == name


@pytest.mark.parametrize(("gpus", "name"), [(0, "cuda"), (1, "cuda:1"), (2, "gpu"), (2, "cuda:"), (2, "CPU")])
def test_another_is_refused(monkeypatch: pytest.MonkeyPatch, gpus: int, name: str) -> None:
    machine_with(monkeypatch, gpus)
    with pytest.raises(UsageError, match="E_OPTION"):
        Plan(*HERE, device=name)


def test_the_manifest_names_the_device(tmp_path: Path) -> None:
    batch.write_manifest(Plan(tmp_path, tmp_path, device="cpu"), STAGES)
    assert json.loads((tmp_path / "run.json").read_text())["device"] == "cpu"


@pytest.mark.parametrize(("device", "given"), [("", "cpu"), ("cuda:1", "cuda:1")])
def test_a_bundle_with_a_device_gets_the_one_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, given: str
) -> None:
    import torch

    path = tmp_path / "inference.yaml"
    keys = "dataset_dir: .\noutput_dir: out\noverwrite: false\n"
    device_of_its_own = keys + "device: {_target_: torch.device, type: cpu}\n"
    path.write_text(device_of_its_own + "stage: {_target_: dict, where: '@device'}\ncases: []\n")
    monkeypatch.setattr(loading, "configuration", lambda name: path)
    monkeypatch.setattr(plan, "require_device", lambda name: None)
    assert loading.load("own", Plan(*HERE, device=device)).stage == {"where": torch.device(given)}
    path.write_text(keys + "stage: {_target_: dict}\ncases: []\n")
    assert loading.load("own", Plan(*HERE, device=device)).stage == {}
