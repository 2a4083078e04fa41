"""The bundle of image fusion is one of MONAI's: its training's properties, its network, its exported checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow, ckpt_export, verify_net_in_out

from pipeline.image_fusion.network import ImageFusionNet
from pipeline.image_fusion.weights import Preparation
from pipeline.learning.checkpoint_file import write_checkpoint
from pipeline.shipped import shipped

CONFIGS = shipped("bundles", "fuse_image", "configs")
META, TRAIN = str(CONFIGS / "metadata.json"), str(CONFIGS / "train.yaml")
OVERLAYS = sorted(path.stem for path in (CONFIGS / "overlays").glob("*.yaml"))


@pytest.mark.parametrize("overlay", ["", *OVERLAYS])
def test_a_training_has_the_standard_ids(tmp_path: Path, overlay: str) -> None:
    files = [TRAIN, *([str(CONFIGS / "overlays" / f"{overlay}.yaml")] if overlay else [])]
    rows = [f"{number},p{number},image.png,image.png" for number in range(4)]
    names = "visible,infrared" if overlay == "pretrain" else "ct,mr"
    (tmp_path / "cases.csv").write_text("\n".join([f"case_id,patient_id,{names}", *rows]))
    (tmp_path / "image.png").touch()
    folders = {"dataset_dir": str(tmp_path), "output_dir": str(tmp_path), "cache_rate": 0.0, "folds": 2}
    workflow = ConfigWorkflow(files, META, False, init_id="none", device="cpu", **folders)
    workflow.initialize()
    assert workflow.check_properties() == []


def test_the_network_takes_and_gives_what_the_metadata_say() -> None:
    verify_net_in_out("network_def", meta_file=META, config_file=TRAIN, device="cpu", n=1)
    with pytest.raises(ValueError, match="doesn't match"):
        verify_net_in_out(
            "network_def", meta_file=META, config_file=TRAIN, device="cpu", n=1, **{"network_def::levels": 3}
        )


@pytest.mark.parametrize("encoder", ["small", "efficientnet_lite0", "resnet34"])
def test_the_exported_checkpoint_says_what_the_network_says(tmp_path: Path, encoder: str) -> None:
    torch.manual_seed(2)
    network = ImageFusionNet(2, encoder).eval()
    torch.nn.init.normal_(network.head.weight)
    prepared = Preparation(["ct", "mr"], [[0.5, 1.0]] * 3, [64, 64])
    write_checkpoint(tmp_path / "model.pt", network, {"preparation": prepared.to_plain(), "training_cases": []})
    exported, model = tmp_path / "model.ts", str(tmp_path / "model.pt")
    options = {"key_in_ckpt": "network", "bundle_root": str(CONFIGS.parent), "network_def::encoder": encoder}
    ckpt_export("network_def", exported, model, META, TRAIN, **options)
    image = torch.rand(1, 4, 40, 57)
    with torch.no_grad():
        assert torch.allclose(torch.jit.load(exported)(image), network(image), atol=1e-5)
