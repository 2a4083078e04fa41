"""The stage: the same labels whatever the order of the axes, on exactly the input's grid; channels that are right."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff
from scipy import ndimage

from pipeline.errors import CaseError, UsageError
from pipeline.segmentation.model import Model
from pipeline.segmentation.predict import Predictor
from pipeline.segmentation.stage import ENTROPY, LABEL, PROBABILITY, Segmentd, images_of
from pipeline.volumes import affine_of, volume
from tests.segmentation.conftest import REGIONS

Toy = Callable[..., Model]
TURNS = [
    np.array([*zip(order, signs, strict=True)])
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
#: RAS+, leaning a little, three voxel sizes.
AFFINE = np.array([[0.99, 0.06, 0, -11], [-0.05, 1.2, 0, 5], [0, 0, 1.4, 3], [0, 0, 0, 1.0]])


def picture(seed: int = 5, shape: tuple[int, ...] = (9, 12, 7)) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1)
    return (50 + 20 * noise).astype(np.float32)


def test_one_volume_in_all_48_orientations_gives_the_same_labels(toy: Toy) -> None:
    segment = Segmentd(Predictor(toy(patch=(8, 8, 8)), mirror=False), {"mr": "mr"}, probabilities=True)
    expected = segment({"mr": volume(picture(), AFFINE)})
    assert len(TURNS) == 48 and len(np.unique(expected[LABEL])) > 1
    for turn in TURNS:
        array, affine = apply_orientation(picture(), turn), AFFINE @ inv_ornt_aff(turn, picture().shape)
        found = segment({"mr": volume(array, affine)})
        for key in (LABEL, ENTROPY, PROBABILITY):
            assert np.array_equal(affine_of(found[key]), affine) and found[key].shape[1:] == array.shape
            turned = np.stack([apply_orientation(channel, turn) for channel in expected[key].numpy()])
            assert np.allclose(found[key].numpy(), turned, atol=0 if key == LABEL else 1e-5)


def test_a_model_that_learned_another_orientation_is_shown_that(toy: Toy) -> None:
    """A model of LPS arrays sees what one of RAS arrays sees of the same array."""
    plain = Segmentd(Predictor(toy()), {"mr": "mr"})
    turned = Segmentd(Predictor(toy(name="3d_lowres", about={"orientation": "LPS"})), {"mr": "mr"})
    flipped = AFFINE @ inv_ornt_aff(np.array([[0, -1], [1, -1], [2, 1]]), picture().shape)
    expected = plain({"mr": volume(picture()[::-1, ::-1].copy(), flipped)})[LABEL].numpy()
    # the array that runs to L and P, as one that is said to run to R and A
    assert np.array_equal(expected, plain({"mr": volume(picture(), AFFINE)})[LABEL].numpy()[:, ::-1, ::-1])
    as_stored = plain({"mr": volume(picture()[::-1, ::-1].copy(), AFFINE)})[LABEL].numpy()
    assert np.array_equal(turned({"mr": volume(picture(), AFFINE)})[LABEL].numpy()[:, ::-1, ::-1], as_stored)


def test_what_it_says(toy: Toy) -> None:
    model = toy()
    segment = Segmentd(Predictor(model), {"mr": "mr"})
    case = segment({"mr": volume(picture(), AFFINE), "flags": ["old"], "measures": {"old": 1}})
    voxel_ml = abs(np.linalg.det(AFFINE[:3, :3])) / 1000
    for name, value in model.label_names.items():
        measured = case["measures"][f"segment_label_{name}_volume_ml"]
        assert measured == pytest.approx(float((case[LABEL] == value).sum()) * voxel_ml, abs=1e-5)
    assert case["measures"]["old"] == 1 and case["flags"] == ["old"]
    assert case["measures"]["segment_calibration"] == "not calibrated" and not case["measures"]["segment_calibrated"]
    assert segment.writes() == {LABEL: "label", ENTROPY: "image"}
    said = segment.sections(case)
    assert [answer.label for answer in said.answers] == ["Volume of head", "Volume of tail"]
    assert said.regions[0].names == {1: "head", 2: "tail"} and said.sections[0].pictures[0].rank > 0


def test_regions_have_their_own_names(toy: Toy) -> None:
    model = toy(labels=REGIONS)
    assert model.label_names == {"whole": 1, "core": 2, "middle": 3} and model.heads == ["whole", "core", "middle"]
    case = Segmentd(Predictor(model), {"mr": "mr"}, True)({"mr": volume(picture(), AFFINE)})
    assert case[PROBABILITY].shape[0] == 3


def two(toy: Toy) -> Segmentd:
    model = toy(channels=("CT", "T1"), about={"channels": ["ct", "mr"]})
    return Segmentd(Predictor(model), {"ct": "ct", "mr": "mr_aligned"})


@pytest.mark.parametrize("given", [["mr", "ct"], ["ct"], ["ct", "mr", "pet"]])
def test_other_channels_than_the_models_are_refused_with_both_lists(toy: Toy, given: list[str]) -> None:
    model = toy(channels=("CT", "T1"), about={"channels": ["ct", "mr"]})
    with pytest.raises(UsageError, match=rf"E_CHANNELS.*ct, mr, in this order, got {', '.join(given)}"):
        Segmentd(Predictor(model), dict.fromkeys(given, "image"))


def test_a_missing_channel_is_refused_with_both_lists(toy: Toy) -> None:
    with pytest.raises(CaseError, match=r"E_CHANNELS.*channels ct, mr, got ct"):
        two(toy)({"ct": volume(picture(), AFFINE)})


@pytest.mark.parametrize("fault", ["shifted", "mirrored", "cut"])
def test_channels_on_two_grids_are_refused(toy: Toy, fault: str) -> None:
    affine, array = AFFINE.copy(), picture(6)
    if fault == "shifted":
        affine[0, 3] += 40
    if fault == "mirrored":
        affine = AFFINE @ inv_ornt_aff(np.array([[0, -1], [1, 1], [2, 1]]), array.shape)
    if fault == "cut":
        array = array[1:]
    with pytest.raises(CaseError, match="E_GRID"):
        two(toy)({"ct": volume(picture(), AFFINE), "mr_aligned": volume(array, affine)})


def test_channels_go_in_in_the_models_order(toy: Toy) -> None:
    """Swapping the images of two channels gives other labels: no channel stands for another."""
    one, other = volume(picture(), AFFINE), volume(100 * picture(6), AFFINE)
    segment = two(toy)
    found, swapped = (segment({"ct": a, "mr_aligned": b})[ENTROPY] for a, b in ((one, other), (other, one)))
    assert not np.allclose(found, swapped, atol=1e-3)


def test_roles_are_found_by_the_data_spec() -> None:
    channels, aligned = {"ct": "CT", "mr": "T1"}, {"ct": "image", "mr_aligned": "image?"}
    assert images_of(channels, aligned) == {"ct": "ct", "mr": "mr_aligned"}
    assert list(images_of(channels, aligned, ["mr", "ct"])) == ["mr", "ct"]
    with pytest.raises(UsageError, match=r"E_CHANNELS.*got pet"):
        images_of(channels, aligned, ["pet"])
