"""Fusion without learning: values known beforehand, published code's steps, symmetries, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, signal

from pipeline.errors import CaseError, UsageError
from pipeline.image_fusion import baselines
from pipeline.image_fusion.baselines import BASELINES, fuse
from tests.image_fusion.test_metrics import scene


@pytest.mark.parametrize("shape", [(40, 37), (24, 22, 20)])
def test_copies_mean_and_max(shape: tuple[int, ...]) -> None:
    _, ct, mr = scene(*shape)
    wanted = {"ct": ct, "mr": mr, "mean": (ct + mr) / 2, "max": np.maximum(ct, mr)}
    for name, image in wanted.items():
        assert np.array_equal(fuse(ct, mr, name), image)


@pytest.mark.parametrize("method", BASELINES)
def test_fused_images_are_within_both_and_of_their_shape(method: str) -> None:
    _, ct, mr = scene(30, 28)
    fused = fuse(ct[:, None], mr[:, None], method)
    assert fused.shape == (30, 1, 28) and fused.dtype == np.float32
    assert fused.min() >= min(ct.min(), mr.min()) and fused.max() <= max(ct.max(), mr.max())


@pytest.mark.parametrize("method", BASELINES)
@pytest.mark.parametrize("axis", [0, 2])
def test_volumes_are_fused_alike_when_they_are_mirrored(method: str, axis: int) -> None:
    _, ct, mr = scene(25, 17, 33)  # at each level odd: the pyramid takes every second voxel from the first on
    mirrored = np.flip(fuse(np.flip(ct, axis), np.flip(mr, axis), method), axis)
    assert mirrored == pytest.approx(fuse(ct, mr, method), abs=0.02)


@pytest.mark.parametrize("method", BASELINES)
def test_volumes_are_fused_alike_when_their_axes_are_permuted(method: str) -> None:
    _, ct, mr = scene(25, 21, 23)
    turned = fuse(ct.transpose(2, 0, 1), mr.transpose(2, 0, 1), method).transpose(1, 2, 0)
    assert turned == pytest.approx(fuse(ct, mr, method), abs=0.02)


@pytest.mark.parametrize("method", ["gradient", "atrous", "max"])
def test_a_volume_constant_along_an_axis_is_fused_as_its_slice(method: str) -> None:
    _, ct, mr = scene(30, 28)
    deep = fuse(np.repeat(ct[..., None], 9, 2), np.repeat(mr[..., None], 9, 2), method)
    assert deep == pytest.approx(np.repeat(fuse(ct, mr, method)[..., None], 9, 2), abs=0.01)


@pytest.mark.parametrize("method", BASELINES)
def test_of_two_equal_images_nothing_is_changed(method: str) -> None:
    _, ct, _ = scene(40, 37)
    assert fuse(ct, ct, method) == pytest.approx(ct, abs=0.05)


def test_atrous_is_its_definition() -> None:
    _, ct, mr = scene(40, 37)

    def smoothed(image: np.ndarray) -> np.ndarray:
        for holes in (1, 2):
            line = np.zeros(4 * holes + 1)
            line[::holes] = np.array([1, 4, 6, 4, 1]) / 16
            reach = 2 * holes
            image = signal.convolve2d(np.pad(image, reach, mode="symmetric"), np.outer(line, line), "valid")
        return image

    def energy(image: np.ndarray) -> np.ndarray:
        squares = ndimage.sobel(image, 0) ** 2 + ndimage.sobel(image, 1) ** 2
        return ndimage.gaussian_filter(squares, 1.0)

    bases, energies = [smoothed(image) for image in (ct, mr)], [energy(image) for image in (ct, mr)]
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = 1 / (1 + (energies[1] / energies[0]) ** 4)
    weight[energies[0] + energies[1] == 0] = 0.5
    details = weight * (ct - bases[0]) + (1 - weight) * (mr - bases[1])
    assert fuse(ct, mr, "atrous") == pytest.approx((np.maximum(*bases) + details).clip(0, 255), abs=0.02)
    assert fuse(ct, mr, "gradient") == pytest.approx(weight * ct + (1 - weight) * mr, abs=0.02)


def test_the_sharper_image_prevails() -> None:
    """Left CT has edges, right MR: the gradient field takes them from where they are."""
    stripes = np.tile([0.0, 0.0, 200.0, 200.0], (32, 16))
    half = np.arange(64) < 32
    ct, mr = np.where(half, stripes, 90.0), np.where(half, 90.0, stripes)
    assert fuse(ct, mr, "gradient")[:, 6:-6] == pytest.approx(stripes[:, 6:-6], abs=25)
    assert np.abs(fuse(ct, mr, "gradient") - stripes)[:, [*range(24), *range(40, 64)]].max() < 1


def test_the_laplacian_pyramid_gives_back_an_image() -> None:
    _, ct, _ = scene(64, 49)
    assert baselines.laplacian_pyramid(ct.astype(np.float32), ct.astype(np.float32)) == pytest.approx(ct, abs=1e-3)


def test_pieces_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    _, ct, mr = scene(90, 20, 22)
    whole = [fuse(ct, mr, name) for name in ("gradient", "atrous")]
    monkeypatch.setattr(baselines, "_PIECE", 1)
    for image, name in zip(whole, ("gradient", "atrous"), strict=True):
        assert fuse(ct, mr, name) == pytest.approx(image, abs=1e-3)


@pytest.mark.parametrize(
    ("ct", "code"),
    [
        (np.ones((20, 22)), "E_BLANK"),
        (np.eye(20, 21), "E_GRID"),
        (np.where(np.eye(20, 22) > 0, np.nan, 1), "E_NIFTI"),
        (np.full((20, 22), "a"), "E_GRID"),
    ],
)
def test_bad_input_is_refused(ct: np.ndarray, code: str) -> None:
    with pytest.raises(CaseError) as raised:
        fuse(ct, scene(20, 22)[2], "max")
    assert raised.value.code == code


def test_a_misspelt_method_is_named() -> None:
    with pytest.raises(UsageError, match="did you mean `atrous`") as raised:
        fuse(np.eye(9), np.eye(9), "atrou")
    assert raised.value.code == "E_OPTION"
