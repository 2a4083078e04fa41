"""What the stage is told before it looks: roles that fit the network, and images that it can look at."""

from __future__ import annotations

import pytest
import torch

from pipeline.errors import CaseError, UsageError
from pipeline.fusion.network import FusionNet
from pipeline.fusion.predict import FusedOutputsd, Predictd, roles_of
from pipeline.fusion.tiles import TiledInferer
from pipeline.volumes import volume

NETWORK = ["ct", "mr"]


def test_roles_stand_for_modalities_in_the_network_s_order() -> None:
    assert roles_of(NETWORK, ["t1", "ct"], {"mr": "t1"}) == ["ct", "t1"]
    assert roles_of(NETWORK, ["ct"], {}) == ["ct", "mr"]


@pytest.mark.parametrize(
    ("known", "roles", "words"),
    [
        (["ct", "t1"], {"pet": "t1"}, "modalities of the network .*, got pet"),
        (["ct", "t1"], {"mr": "t2"}, "roles of the run .*, got t2"),
        (["ct", "t1"], {"mr": "ct"}, "got ct twice"),
        (["scan"], {"ct": "scan", "mr": "scan"}, "got scan twice"),
        (["pet"], {}, "a role for one of ct, mr"),
    ],
)
def test_roles_that_would_leave_a_modality_out_unseen_are_refused(
    known: list[str], roles: dict[str, str], words: str
) -> None:
    with pytest.raises(UsageError, match=f"E_MODALITY.*{words}"):
        roles_of(NETWORK, known, roles)


@pytest.mark.parametrize("seen", ["ct", "mr"])
def test_a_network_of_one_modality_says_nothing_without_it(seen: str) -> None:
    """Of zeros in its place it would give a class all the same."""
    network = FusionNet(NETWORK, mode="single", only=seen, width=4, levels=2).eval()
    image = volume(torch.randn(2, 8, 8, 8), torch.eye(4))
    predict = Predictd(network, TiledInferer((8, 8, 8)))
    there = torch.tensor([name == seen for name in NETWORK])
    assert predict({"image": image, "available": there})["pred"].shape == (4, 8, 8, 8)
    with pytest.raises(CaseError, match=f"E_MISSING_ROLE.*Expected {seen}"):
        predict({"image": image, "available": ~there})


class Flat:
    """A calibration that believes nothing: a temperature of a million."""

    name, in_words, record = "flat", "flat: none, 0 cases, 2026-01-01", None

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.softmax(logits / 1e6, 0)


def test_air_that_was_not_looked_at_is_background_whatever_the_calibration() -> None:
    network = FusionNet(NETWORK, classes=0, width=4, levels=2).eval()
    image, body = torch.randn(2, 24, 8, 8), torch.zeros(1, 24, 8, 8)
    body[:, :8] = 1
    case = {
        "image": volume(image, torch.eye(4)),
        "body": volume(body, torch.eye(4)),
        "available": torch.tensor([True, True]),
        "grid_affine": torch.eye(4),
        "grid_shape": torch.tensor([24, 8, 8]),
    }
    case = Predictd(network, TiledInferer((8, 8, 8), overlap=0.0))(case)
    fused = FusedOutputsd(NETWORK, labels=2, classes=0, voxel_calibration=Flat())(case)["fused_probability"]
    assert torch.allclose(fused[:, :8], torch.full((2, 8, 8, 8), 0.5), atol=1e-4)
    assert torch.equal(fused[:, 8:].as_tensor(), torch.tensor([1.0, 0.0])[:, None, None, None].expand(2, 16, 8, 8))
