"""A pair as one picture: windows, networks of slices and of pictures, values that are not what they are called."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import CaseError, UsageError
from pipeline.image_fusion import applying
from pipeline.image_fusion.baselines import fuse
from pipeline.image_fusion.candidates import candidates
from pipeline.image_fusion.network import ImageFusionNet
from pipeline.image_fusion.pair import EXCHANGED, NO_AIR, Recipe, fuse_pictures, fuse_volumes, measured, recipe
from pipeline.image_fusion.pictures import windowed
from pipeline.image_fusion.weights import Preparation
from pipeline.inference.engine import compiled
from pipeline.learning.checkpoint_file import PREPARATION, TRAINING_CASES, write_checkpoint
from tests.image_fusion.conftest import head

AXES = np.diag([2.0, 2.0, 3.0, 1.0])
IN_HU = ((150.0, 500.0), (40.0, 80.0), (600.0, 2000.0))
OF_PICTURES = ((0.5, 1.0), (0.25, 0.5), (0.75, 0.5))


def volumes(seed: int = 0, *sides: int) -> tuple[np.ndarray, np.ndarray]:
    """CT in HU with air around, and MR in a scale of its own."""
    ct, mr = head(seed, *(sides or (28, 26, 12)))
    return np.where(ct + mr > 0.1, 1000 * ct - 150, -1000).astype(np.float32), (900 * mr).astype(np.float32)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Networks that have not learned: of windows in HU, of pictures, and one whose head is not 0."""
    folder, made = tmp_path_factory.mktemp("weights"), {}
    for name, windows in (("hu", IN_HU), ("pictures", OF_PICTURES), ("spread", IN_HU)):
        torch.manual_seed(0)
        network = ImageFusionNet(2, "small").eval()
        if name == "spread":
            torch.nn.init.normal_(network.head.weight, std=0.5)
        loss = {"structure": 8.0, "qabf": 3.0} if name == "pictures" else {}
        kept = {PREPARATION: Preparation(("ct", "mr"), windows, (72, 72), loss).to_plain(), TRAINING_CASES: ()}
        write_checkpoint(folder / f"{name}.pt", network, kept)
        made[name] = str(folder / f"{name}.pt")
    return made


def test_without_weights_it_is_a_trous_of_ct_in_its_window_and_that_is_said() -> None:
    ct, mr = volumes()
    how = recipe()
    made = fuse_volumes(ct, mr, AXES, how)
    assert made.ct.min() == 0 and made.ct.max() == 1
    np.testing.assert_allclose(made.ct, np.clip((ct + 100) / 500, 0, 1), atol=1e-6)
    np.testing.assert_array_equal(made.image, fuse(made.ct, made.mr, "atrous"))
    assert (how.method, made.weights, made.notes) == ("atrous", None, ())
    assert how.sentences == ("Method: à trous. Nothing of it is learned: no weights of a network were named.",)


def test_before_it_has_learned_a_network_gives_its_candidates_mean(weights: dict[str, str]) -> None:
    ct, mr = volumes()
    how = recipe(weights=weights["hu"])
    made = fuse_volumes(ct, mr, AXES, how)
    share = np.exp([0, 0, 0, 1, 0]) / np.exp([0, 0, 0, 1, 0]).sum()
    for k in (4, 8):
        shown = [torch.from_numpy(item[None, None, :, :, k]) for item in (made.ct, made.mr)]
        expected = np.tensordot(share, candidates(*shown)[0].numpy(), 1)
        np.testing.assert_allclose(made.image[..., k], expected, atol=1e-5)
        assert made.weights is not None and made.attention is not None
        np.testing.assert_allclose(made.weights[:, 12:16, 12:16, k].sum(0), 1, atol=1e-5)
    assert made.attention.shape == (4, *ct.shape)
    digest = hashlib.sha256(Path(weights["hu"]).read_bytes()).hexdigest()
    assert how.sentences == (
        f"Method: network, weights with the sha256 {digest}.",
        "The network sees each axial slice by itself.",
    )


def test_slices_are_axial_whatever_the_order_of_the_axes(weights: dict[str, str]) -> None:
    ct, mr = volumes()
    how = recipe(weights=weights["spread"])
    made = fuse_volumes(ct, mr, AXES, how)
    turned = AXES[:, [2, 0, 1, 3]]  # axes to the head, the right and the front
    other = fuse_volumes(np.moveaxis(ct, 2, 0), np.moveaxis(mr, 2, 0), turned, how)
    np.testing.assert_allclose(np.moveaxis(other.image, 0, 2), made.image, atol=1e-5)
    assert made.weights is not None and other.weights is not None
    np.testing.assert_allclose(np.moveaxis(other.weights, 1, 3), made.weights, atol=1e-5)


def test_a_network_of_pictures_is_shown_ct_in_a_window_and_the_reverse(weights: dict[str, str]) -> None:
    """What it sees of a volume is what it sees of a picture of it; a picture's windows are those in HU, rescaled."""
    of_volumes, of_pictures = recipe(weights=weights["pictures"]), recipe(weights=weights["hu"], pictures=True)
    assert (of_volumes.windows, of_volumes.learned) == (((150.0, 500.0),), OF_PICTURES)
    assert "It has learned from pictures, not from HU." in of_volumes.sentences
    assert "It was trained on SSIM, Qabf: its figures of these are no surprise." in of_volumes.sentences
    assert of_pictures.sentences[1:] == (
        "It has learned from CT in HU: the picture is taken to show its first window.",
    )  # and nothing of axial slices
    hu = np.linspace(-100, 400, 501)  # within the first window, nothing is lost
    picture = windowed(hu, IN_HU[:1])[0]
    np.testing.assert_allclose(windowed(picture, of_pictures.windows), windowed(hu, IN_HU), atol=1e-5)
    ct, mr = volumes()
    made = fuse_volumes(ct, mr, AXES, of_volumes)
    slice_ = fuse_pictures(made.ct[..., 6], made.mr[..., 6], recipe(weights=weights["pictures"], pictures=True))
    np.testing.assert_allclose(made.image[..., 6], slice_.image, atol=1e-5)


def test_one_slice_is_a_picture_of_any_size() -> None:
    ct, mr = (image[..., None] for image in volumes(1, 41, 33))
    made = fuse_volumes(ct, mr, AXES, recipe("max"))
    assert made.image.shape == (41, 33, 1)
    np.testing.assert_array_equal(made.image[..., 0], np.maximum(made.ct, made.mr)[..., 0])


def test_measures_stand_beside_those_of_pictures_without_skill() -> None:
    ct, mr = volumes(2, 48, 46, 44)
    how = recipe("atrous")
    found = measured(fuse_volumes(ct, mr, AXES, how), how)
    assert list(found) == ["atrous", "ct", "mean", "max"]
    assert found["ct"]["bone"] == found["max"]["bone"] == 1 and found["ct"]["SCD"] is None
    assert found["atrous"]["soft"] > 0.6 > found["ct"]["soft"]
    assert list(measured(fuse_volumes(ct, mr, AXES, recipe("max")), recipe("max"))) == ["max", "ct", "mean"]


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda ct, mr: (mr, ct), "E_MODALITY", "Expected MR, got values below -500 HU"),
        (lambda ct, mr: (ct, np.full_like(mr, 7)), "E_BLANK", "MR with contrast, got 7"),
        (lambda ct, mr: (np.where(ct > 0, -600, ct), mr), "E_BLANK", "varies in the window 150,500, got 0"),
        (lambda ct, mr: (np.where(ct > 0, np.nan, ct), mr), "E_NIFTI", "finite values of CT"),
        (lambda ct, mr: (ct[1:], mr), "E_GRID", "of one shape"),
    ],
)
def test_images_that_cannot_be_fused(change: object, code: str, words: str) -> None:
    ct, mr = change(*volumes())  # type: ignore[operator]
    with pytest.raises(CaseError) as refused:
        fuse_volumes(ct, mr, AXES, recipe())
    assert refused.value.code == code and words in refused.value.message
    assert code != "E_MODALITY" or refused.value.remedy.startswith("Give the CT, in HU, as CT")


def test_a_ct_without_air_is_fused_and_flagged() -> None:
    ct, mr = volumes()
    made = fuse_volumes(np.maximum(ct, -100), mr, AXES, recipe())
    assert made.notes == (NO_AIR,)
    exchanged = fuse_volumes(mr, np.maximum(ct, -120), AXES, recipe())
    assert exchanged.notes == (EXCHANGED,)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.97])
def test_an_mr_of_a_part_of_the_body_is_said(share: float) -> None:
    """A share of a block's slices that an MR shows is the share of its body; little is not worth a word."""
    ct = np.full((40, 40, 100), -1000.0, np.float32)
    ct[8:32, 8:32] = 300 * np.random.default_rng(0).random((24, 24, 100)) - 60
    mr = np.where(np.arange(100) < 100 * share, 500 + ct, 0).astype(np.float32)
    notes = fuse_volumes(ct, mr, AXES, recipe("max")).notes
    expected = f"N_PART_SHOWN: the MR reaches over {share:.0%} of the body on the CT; elsewhere the picture is the CT's"
    assert notes == ((expected,) if share < 0.95 else ())


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ({"method": "atrus"}, "E_OPTION", "did you mean `atrous`"),
        ({"windows": ((40.0, 0.0),)}, "E_OPTION", "a width above 0"),
        ({"method": "network"}, "E_OPTION", "no `weights` are named"),
        ({"weights": "hu", "windows": ((40.0, 80.0),)}, "E_OPTION", "Expected 3 windows for this network, got 1"),
        ({"weights": "hu", "sha256": "0" * 64}, "E_WEIGHTS", "not the expected ones: sha256"),
        ({"weights": "none.pt"}, "E_INPUT", "does not exist"),
        ({"engine": "openvino"}, "E_OPTION", "`engine` is openvino, but atrous is no network"),
        ({"weights": "hu", "engine": "onnx"}, "E_CONFIG", "Expected torch or openvino as the engine, got onnx"),
    ],
)
def test_recipes_that_are_none(given: dict[str, object], code: str, words: str, weights: dict[str, str]) -> None:
    named = {**given, **({"weights": weights[str(given["weights"])]} if given.get("weights") in weights else {})}
    with pytest.raises(UsageError) as refused:
        recipe(**named)  # type: ignore[arg-type]
    assert refused.value.code == code and words in refused.value.message


def test_an_engine_says_what_the_network_says(weights: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    ct, mr = volumes(0, 28, 26, 12)
    plain = fuse_volumes(ct, mr, AXES, recipe(weights=weights["spread"]))
    used: list[str] = []
    monkeypatch.setattr(applying, "compiled", lambda task: used.append(task.identity) or compiled(task))
    fast = fuse_volumes(ct, mr, AXES, recipe(weights=weights["spread"], engine="openvino"))
    np.testing.assert_allclose(fast.image, plain.image, atol=1e-4)
    assert used and not np.array_equal(fast.image, plain.image)


def test_the_ends_of_a_window() -> None:
    assert Recipe("max", ((150.0, 500.0),)).ends == (-100.0, 400.0)


@pytest.mark.parametrize("flipped", [(0,), (1, 2), (0, 1)])
def test_a_network_is_shown_all_volumes_alike(weights: dict[str, str], flipped: tuple[int, ...]) -> None:
    """The same pair stored along other axes, or the other way round, gives the same picture there."""
    ct, mr = volumes(0, 28, 26, 12)
    how, order = recipe(weights=weights["spread"]), (2, 0, 1)
    whole = fuse_volumes(ct, mr, AXES, how)
    axes = AXES.copy()
    for axis in flipped:
        axes[:3, 3] += axes[:3, axis] * (ct.shape[axis] - 1)
        axes[:3, axis] *= -1
    stored = [np.flip(item, flipped).transpose(order) for item in (ct, mr)]
    turned = fuse_volumes(stored[0], stored[1], axes[:, [*order, 3]], how)
    np.testing.assert_allclose(turned.image, np.flip(whole.image, flipped).transpose(order), atol=1e-5)
    assert turned.weights is not None and whole.weights is not None
    np.testing.assert_allclose(turned.weights[0], np.flip(whole.weights[0], flipped).transpose(order), atol=1e-5)
    assert np.ptp(whole.weights[0]) > 0.05


def test_a_dark_picture_and_a_window_in_hu_are_told() -> None:
    ct, mr = head(0, 28, 26)
    assert [note[:6] for note in fuse_pictures(ct, mr / 16, recipe("max", pictures=True)).notes] == ["N_DARK"]
    with pytest.raises(
        UsageError, match="E_OPTION: Expected windows of pictures in parts of white, 0 to 1, got 150,500"
    ):
        recipe("max", ((150.0, 500.0),), pictures=True)
