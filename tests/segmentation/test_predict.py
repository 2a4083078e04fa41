"""Predictions: what nnU-Net's own predictor says where its sums are float32 too."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from scipy import ndimage

from pipeline.errors import CaseError, UsageError
from pipeline.inference import tiles
from pipeline.segmentation import predict
from pipeline.segmentation.model import Model, load_model
from pipeline.segmentation.predict import Predictor, outcome
from tests.segmentation.conftest import LABELS, REGIONS, write_model

Toy = Callable[..., Model]
SHAPE, SPACING = (14, 19, 11), (1.0, 1.0, 1.0)


def image(channels: int = 1, shape: tuple[int, ...] = SHAPE, rim: int = 0) -> Any:
    """Smooth noise; with a rim of zeros, so that it is cropped."""
    noise = np.random.default_rng(5).normal(size=(channels, *shape))
    values = 50 + 20 * ndimage.gaussian_filter(noise, (0, 1, 1, 1))
    inside = np.zeros(shape, bool)
    inside[tuple(slice(rim, side - rim) for side in shape)] = True
    return (values * inside).astype(np.float32)


def theirs(model: Model, array: Any, spacing: Any, mirror: bool = True, step: float = 0.5, before: Any = None) -> Any:
    """nnU-Net's own predictor: labels and probabilities."""
    predictor = nnUNetPredictor(step, True, mirror, False, torch.device("cpu"), allow_tqdm=False)
    network = next(iter(model.networks.values()))
    weights = [{name: value.clone() for name, value in item.state_dict().items()} for item in model.networks.values()]
    name = next(iter(model.plans.plans["configurations"]))
    configuration = model.plans.get_configuration(name)
    arguments = (model.plans, configuration, weights, dict(model.dataset), "TandemTrainer", model.mirror_axes)
    predictor.manual_initialization(network, *arguments)
    found = predictor.predict_single_npy_array(array, {"spacing": list(spacing)}, before, None, True)
    network.load_state_dict(weights[0])
    return found


@contextmanager
def whole_sums() -> Iterator[None]:
    """nnU-Net's sums in float32: its half precision alone costs more than we allow ourselves."""
    whole = partial(compute_gaussian, dtype=torch.float32)
    whole.cache_clear = compute_gaussian.cache_clear  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "half", torch.float32)
        patch.setattr(predict_from_raw_data, "compute_gaussian", whole)
        yield


@pytest.mark.parametrize(
    ("options", "rim", "spacing"),
    [
        ({}, 0, SPACING),
        ({"mirror": ()}, 0, SPACING),
        ({"channels": ("CT", "MR")}, 2, SPACING),
        ({"labels": REGIONS}, 2, SPACING),
        ({"folds": 2}, 0, SPACING),
        ({"name": "2d", "patch": (8, 8), "spacing": (1.3, 0.8), "mirror": (0, 1)}, 0, (2.0, 1.0, 1.0)),
        ({"spacing": (4.0, 0.9, 0.9)}, 1, (5.0, 1.0, 1.1)),
        ({"spacing": (0.8, 1.2, 0.7), "transpose": (2, 0, 1)}, 1, SPACING),
    ],
    ids=["mirrored", "plain", "two channels, cropped", "regions", "folds", "2d", "anisotropic", "transposed"],
)
def test_it_says_what_nnunets_own_loop_says(
    toy: Toy, options: dict[str, Any], rim: int, spacing: tuple[float, ...]
) -> None:
    model = toy(**options)
    array = image(len(model.channels), rim=rim)
    with whole_sums():
        expected, chances = theirs(model, array, spacing, bool(model.mirror_axes))
    found = Predictor(model, mirror=True)(array, spacing, probabilities=True)
    assert found.probabilities is not None
    assert np.abs(found.probabilities - chances).max() <= 1e-4
    assert (found.labels == expected).mean() >= 0.999 and len(np.unique(expected)) > 1
    without = Predictor(model)(array, spacing)
    assert np.array_equal(without.labels, found.labels) and np.allclose(without.entropy, found.entropy, atol=1e-4)


def test_half_precision_sums_are_as_near_as_they_can_be(toy: Toy) -> None:
    """Away from the corners of tiles, where nnU-Net's weights are hardly more than the least number there is."""
    model, array = toy(), image(shape=(5, 8, 5))
    _, chances = theirs(model, array, SPACING)
    found = Predictor(model)(array, SPACING, probabilities=True)
    assert 1e-4 < np.abs(found.probabilities - chances).max() <= 5e-3


@pytest.mark.parametrize("options", [{"step": 0.25}, {"mirror": False}, {"batch": 5}])
def test_settings_are_nnunets(toy: Toy, options: dict[str, Any]) -> None:
    model = toy()
    with whole_sums():
        _, chances = theirs(model, image(), SPACING, options.get("mirror", True), options.get("step", 0.5))
    found = Predictor(model, **options)(image(), SPACING, probabilities=True)
    assert np.abs(found.probabilities - chances).max() <= 1e-4


@pytest.mark.parametrize("options", [{"engine": "openvino"}, {"bfloat16": True}])
def test_faster_ways_say_nearly_the_same(toy: Toy, options: dict[str, Any]) -> None:
    model = toy()
    exact = Predictor(model)(image(), SPACING, probabilities=True)
    found = Predictor(model, **options)(image(), SPACING, probabilities=True)
    apart = np.abs(found.probabilities - exact.probabilities).max()  # type: ignore[operator]
    assert 0 < apart <= (1e-3 if "engine" in options else 0.3)
    assert (found.labels == exact.labels).mean() > (0.999 if "engine" in options else 0.97)


def test_entropy_is_that_of_the_probabilities(toy: Toy) -> None:
    found = Predictor(toy())(image(rim=2), SPACING, probabilities=True)
    chances = found.probabilities.astype(float)  # type: ignore[union-attr]
    expected = -(chances * np.log(np.clip(chances, 1e-30, 1))).sum(0) / np.log(len(LABELS))
    assert np.allclose(found.entropy, expected, atol=1e-4)
    assert np.allclose(chances.sum(0), 1, atol=1e-5)
    assert (found.labels[:2] == 0).all() and (chances[0, :2] == 1).all() and (found.entropy[:2] == 0).all()


class Halved:
    """A calibration of temperature 2."""

    in_words = "halving"

    def apply(self, logits: Any) -> Any:
        odds = np.exp(logits / 2)
        return odds / odds.sum(0)


def test_a_calibration_is_applied_to_resampled_logits(toy: Toy) -> None:
    predictor = Predictor(toy())
    plain = predictor(image(), SPACING, probabilities=True)
    found = predictor(image(), SPACING, probabilities=True, calibration=Halved())
    odds = np.sqrt(plain.probabilities)  # type: ignore[arg-type, call-overload]
    assert np.allclose(found.probabilities, odds / odds.sum(0), atol=1e-5)
    assert np.array_equal(found.labels, plain.labels) and found.entropy.mean() > plain.entropy.mean()


def test_regions_are_not_calibrated(toy: Toy) -> None:
    with pytest.raises(UsageError, match="E_CAL_CLASSES"):
        Predictor(toy(labels=REGIONS))(image(), SPACING, calibration=Halved())


def test_an_image_of_zeros_is_refused(toy: Toy) -> None:
    with pytest.raises(CaseError, match="E_BLANK"):
        Predictor(toy())(0 * image(), SPACING)


@pytest.mark.parametrize("options", [{"step": 0}, {"step": 1.1}, {"batch": 0}, {"engine": "other"}])
def test_settings_that_cannot_be_are_refused(toy: Toy, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="E_CONFIG"):
        Predictor(toy(), **options)


def test_too_little_memory_is_said_and_the_result_is_the_same(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    model, full = toy(), []

    class Full(tiles.TileSum):
        def __init__(self, *arguments: Any) -> None:
            if not full:
                full.append(True)
                raise torch.OutOfMemoryError
            super().__init__(*arguments)

    expected = Predictor(model)(image(), SPACING)
    monkeypatch.setattr(predict, "TileSum", Full)
    found = Predictor(model)(image(), SPACING)
    assert found.flags and found.flags[0].startswith("N_MEMORY") and not expected.flags
    assert np.allclose(found.entropy, expected.entropy, atol=1e-5)


def test_the_largest_piece_is_kept_where_nnunet_found_that_to_help(toy: Toy) -> None:
    model = toy()
    logits = torch.zeros(3, *SHAPE)
    logits[1, 1:4, 1:4, 1:4] = logits[1, 8, 8, 8] = logits[2, 12, 2, 2] = 9
    box = [[0, side] for side in SHAPE]
    properties: dict[str, Any] = {"spacing": SPACING, "bbox_used_for_cropping": box, "shape_before_cropping": SHAPE}
    properties["shape_after_cropping_and_before_resampling"] = SHAPE
    for steps, pieces in (((), 28), ((1,), 27)):
        found = outcome(Model(**{**vars(model), "postprocessing": steps}), logits, properties)
        assert (found.labels == 1).sum() == pieces and (found.labels == 2).sum() == 1


def test_the_cascade_sees_what_its_first_stage_says(toy: Toy) -> None:
    """The second network is given the first one's labels, one channel each."""
    first = toy(name="3d_lowres", spacing=(1.5, 1.5, 1.5))
    second = toy(name="3d_cascade_fullres", previous_stage="3d_lowres")
    labels = Predictor(first)(image(), SPACING).labels
    with whole_sums():
        _, chances = theirs(second, image(), SPACING, before=labels[None].astype(np.int16))
    found = Predictor(second)(image(), SPACING, probabilities=True)
    assert np.abs(found.probabilities - chances).max() <= 1e-4


@pytest.mark.parametrize("options", [{}, {"labels": REGIONS}], ids=["labels", "regions"])
def test_an_ensemble_averages_its_models_probabilities(toy: Toy, options: dict[str, Any]) -> None:
    second = toy(name="3d_lowres", spacing=(1.5, 1.5, 1.5), **options)
    first = toy(**options)
    found = Predictor(replace(first, partners=(second,)))(image(), SPACING, probabilities=True)
    one, other = (Predictor(model)(image(), SPACING, probabilities=True).probabilities for model in (first, second))
    mean = (one + other) / 2  # type: ignore[operator]
    assert found.probabilities is not None and np.allclose(found.probabilities, mean, atol=1e-6)
    assert np.array_equal(found.labels, first.labels.convert_probabilities_to_segmentation(mean))


def test_the_largest_piece_is_kept_as_nnunets_own_file_says(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "TandemTrainer__nnUNetPlans__3d_fullres")
    partner = write_model(
        tmp_path / "TandemTrainer__nnUNetPlans__2d", name="2d", patch=(8, 8), spacing=(1.0, 1.0), mirror=()
    )
    name = "remove_all_but_largest_component_from_segmentation"
    steps = {"postprocessing_fns": [name], "postprocessing_kwargs": [{"labels_or_regions": [1, 2]}]}
    (folder / "postprocessing.json").write_text(json.dumps(steps))
    (folder / "ensemble.json").write_text(json.dumps({"with": [partner.name]}))
    model = load_model(folder)
    assert model.postprocessing == ([1, 2],) and [len(item.patch) for item in model.partners] == [2]
    (folder / "postprocessing.json").write_text(json.dumps({**steps, "postprocessing_fns": ["os.system"]}))
    with pytest.raises(UsageError, match=r"E_WEIGHTS.*got os\.system"):
        load_model(folder)
    (folder / "ensemble.json").write_text(json.dumps({"with": ["../elsewhere"]}))
    with pytest.raises(UsageError, match="E_WEIGHTS"):
        load_model(folder)
