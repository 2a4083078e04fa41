"""What is known of the two images besides their voxels: masks and landmarks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.errors import CaseError
from pipeline.geometry import apply
from pipeline.registration import Landmarks, Method, RegistrationSettings, Side
from pipeline.registration.register import register
from pipeline.volumes import affine_of, volume
from tests.registration.answers import RIGID, answered, searched, sides
from tests.registration.phantom import HeadPair, rigid

MARKS = np.array([[0, 97, -30], [-80, -6, -14], [12, 6, 16], [-20, -50, -30], [22, 34, 22]], float)


# ---- masks -----------------------------------------------------------------------------------------------------------


def boxed(image: torch.Tensor, value: int = 1) -> torch.Tensor:
    mask = np.zeros(image.shape[1:], np.uint8)
    mask[10:-10, 12:-12, 8:-8] = value
    return volume(mask, affine_of(image))


def dot(image: torch.Tensor) -> np.ndarray:
    mask = np.zeros(image.shape[1:], np.uint8)
    mask[24:27, 22:25, 20:23] = 1
    return mask


def test_a_mask_takes_the_place_of_the_body(pair: HeadPair, monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch, searched(pair.truth), searched(pair.truth))
    fixed, moving = sides(pair)
    whole = register(fixed, moving, RIGID)
    part = register(replace(fixed, mask=boxed(pair.ct, 255)), moving, RIGID)
    assert part.quality["nmi_after"] != whole.quality["nmi_after"]
    assert part.quality["overlap_dice_after"] < whole.quality["overlap_dice_after"]


@pytest.mark.parametrize(
    ("mask", "code"),
    [
        (lambda image: volume(boxed(image).numpy()[0, 1:], affine_of(image)), "E_GRID"),
        (lambda image: volume(boxed(image).numpy(), rigid((0, 0, 0), (0.5, 0, 0)) @ affine_of(image)), "E_GRID"),
        (lambda image: boxed(image, 0), "E_BLANK"),
        (lambda image: volume(dot(image), affine_of(image)), "E_BLANK"),
        (lambda image: volume(boxed(image).numpy() + 3 * (image.numpy() > 500), affine_of(image)), "E_DTYPE"),
    ],
)
@pytest.mark.parametrize("role", [0, 1])
def test_masks_that_are_refused(
    pair: HeadPair, monkeypatch: pytest.MonkeyPatch, role: int, mask: Callable, code: str
) -> None:
    answered(monkeypatch)
    given = list(sides(pair))
    given[role] = replace(given[role], mask=mask(given[role].image))
    with pytest.raises(CaseError) as caught:
        register(given[0], given[1], RIGID)
    assert caught.value.code == code


# ---- landmarks -------------------------------------------------------------------------------------------------------


def marked(pair: HeadPair, apart_mm: float = 0.0) -> tuple[Side, Side]:
    shift = apart_mm * np.array([0.6, 0.0, 0.8])
    fixed, moving = sides(pair)
    return (
        replace(fixed, landmarks=Landmarks(MARKS)),
        replace(moving, landmarks=Landmarks(apply(pair.truth, MARKS) + shift)),
    )


def test_landmarks_alone_give_the_pose_and_no_process_is_started(
    pair: HeadPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answered(monkeypatch)
    found = register(*marked(pair), RegistrationSettings(Method("landmarks_rigid")))
    assert asked.requests == []
    np.testing.assert_allclose(found.warp.matrix, pair.truth, atol=1e-9)
    assert found.quality["verdict"] == "pass", found.quality["reason"]
    assert found.quality["landmark_fre_mm"] == pytest.approx(0, abs=1e-9)
    assert found.quality["landmark_tre_mm"] == pytest.approx(0, abs=1e-9)
    assert "start_disagreement_mm" not in found.quality


def test_an_affine_map_by_landmarks(pair: HeadPair) -> None:
    truth = pair.truth @ np.diag([1.05, 1.0, 0.95, 1.0])
    fixed, moving = sides(pair)
    given = replace(fixed, landmarks=Landmarks(MARKS)), replace(moving, landmarks=Landmarks(apply(truth, MARKS)))
    found = register(*given, RegistrationSettings(Method("landmarks_affine")))
    np.testing.assert_allclose(found.warp.matrix, truth, atol=1e-9)
    assert found.quality["transform"] == "affine"


@pytest.mark.parametrize(("apart_mm", "verdict"), [(0.0, "pass"), (4.0, "warn"), (9.0, "fail")])
def test_landmarks_check_what_the_images_gave(
    pair: HeadPair, monkeypatch: pytest.MonkeyPatch, apart_mm: float, verdict: str
) -> None:
    asked = answered(monkeypatch, searched(pair.truth, pair.truth))
    found = register(*marked(pair, apart_mm), RIGID)
    assert found.quality["landmark_tre_mm"] == pytest.approx(apart_mm, abs=1e-6)
    assert found.quality["landmarks"] == len(MARKS)
    assert found.quality["verdict"] == verdict
    assert asked.requests[0]["landmarks"] is not None
    if verdict != "pass":
        assert f"landmarks lie {apart_mm:.1f} mm apart" in found.quality["reason"]


def test_landmarks_of_one_image_alone_are_refused(pair: HeadPair, monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch)
    fixed, moving = marked(pair)
    for given in ((fixed, replace(moving, landmarks=None)), (replace(fixed, landmarks=None), moving)):
        with pytest.raises(CaseError, match="of one") as caught:
            register(*given, RIGID)
        assert caught.value.code == "E_LANDMARKS"
    with pytest.raises(CaseError, match="got none"):
        register(*sides(pair), RegistrationSettings(Method("landmarks_rigid")))
