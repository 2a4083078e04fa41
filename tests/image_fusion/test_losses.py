"""The terms against formulas, other implementations and pictures whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.metrics import structural_similarity
from torch import Tensor

from pipeline.errors import UsageError
from pipeline.image_fusion import losses
from pipeline.image_fusion.encoders import SmallEncoder
from pipeline.image_fusion.losses import WEIGHTS, Answer, ImageFusionLoss
from pipeline.image_fusion.metrics import bone_kept
from pipeline.image_fusion.terms import qabf, scd, ssim, vif


def picture(seed: int, *sides: int) -> Tensor:
    """Smooth noise (1, 1, …) of 0 to 1, with a black border on one side."""
    values = ndimage.gaussian_filter(np.random.default_rng(seed).random(sides), 1.2)
    values = (values - values.min()) / (values.max() - values.min())
    values[:6] = 0
    return torch.tensor(values)[None, None]


@pytest.mark.parametrize("sides", [(60, 52), (20, 24, 18)], ids=["2D", "3D"])
@pytest.mark.parametrize("data_range", [1.0, 2 / 255])
def test_ssim_is_that_of_scikit_image(sides: tuple[int, ...], data_range: float) -> None:
    a, b = picture(0, *sides), picture(1, *sides)
    expected = structural_similarity(a[0, 0].numpy(), b[0, 0].numpy(), data_range=data_range)
    assert float(ssim(a, b, data_range)) == pytest.approx(expected, abs=1e-9)


def vif_by_hand(reference: np.ndarray, distorted: np.ndarray) -> float:
    """The published program, pixel by pixel: full 2D Gaussians, valid parts."""
    kept = whole = 0.0
    x, y = reference * 255, distorted * 255
    for scale in range(1, 5):
        side = 2 ** (4 - scale + 1) + 1
        axis = np.exp(-((np.arange(side) - side // 2) ** 2) / (2 * (side / 5) ** 2))
        kernel = np.outer(axis, axis) / np.outer(axis, axis).sum()

        def blur(image: np.ndarray, kernel: np.ndarray = kernel, side: int = side) -> np.ndarray:
            half = side // 2
            return ndimage.correlate(image, kernel)[half:-half, half:-half]

        if scale > 1:
            x, y = blur(x)[::2, ::2], blur(y)[::2, ::2]
        mx, my = blur(x), blur(y)
        vx, vy = np.maximum(blur(x * x) - mx * mx, 0), np.maximum(blur(y * y) - my * my, 0)
        both = blur(x * y) - mx * my
        gain = both / (vx + 1e-8)
        noise = vy - gain * both
        gain[vx < 1e-8], noise[vx < 1e-8], vx[vx < 1e-8] = 0, vy[vx < 1e-8], 0
        gain[vy < 1e-8], noise[vy < 1e-8] = 0, 0
        noise[gain < 0] = vy[gain < 0]
        gain = np.maximum(gain, 0)
        kept += np.log10(1 + gain**2 * vx / (np.maximum(noise, 1e-8) + 2)).sum()
        whole += np.log10(1 + vx / 2).sum()
    return (kept + 1e-8) / (whole + 1e-8)


def test_vif_is_the_published_programs() -> None:
    """And that of piq 0.8.0 (`piq.vif_p(b, a)`, data range 1)."""
    a, b = picture(0, 96, 88), picture(1, 96, 88) * 0.4 + 0.5 * picture(0, 96, 88)
    assert float(vif(a, b)) == pytest.approx(vif_by_hand(a[0, 0].numpy(), b[0, 0].numpy()), abs=1e-6)
    assert float(vif(a, b)) == pytest.approx(0.1736060, abs=1e-7)
    assert float(vif(a, a)) == pytest.approx(1, abs=1e-6)


def test_vif_of_volumes() -> None:
    a, b = picture(0, 24, 40, 26), picture(1, 24, 40, 26)
    assert float(vif(a, a)) == pytest.approx(1, abs=1e-6)
    assert 0 < float(vif(a, b)) < 0.2
    turned = vif(a.permute(0, 1, 4, 2, 3), b.permute(0, 1, 4, 2, 3))
    assert float(turned) == pytest.approx(float(vif(a, b)), rel=1e-9)


def test_qabf_of_a_copy_and_of_nothing() -> None:
    """A picture of itself keeps strength and angle: the sigmoids of 1. Of nothing, those of 0."""
    a = picture(0, 40, 44)
    kept = 0.9994 / (1 + np.exp(-15 * 0.5)) * 0.9879 / (1 + np.exp(-22 * 0.2))
    assert float(qabf(a, a, a)) == pytest.approx(kept, abs=1e-4)
    assert float(qabf(1 - a, a, a)) == pytest.approx(kept, abs=1e-4)  # an edge turned round is the same line
    assert float(qabf(torch.zeros_like(a), a, a)) < 1e-3


def test_qabf_of_known_angles() -> None:
    """A ramp fused of two: of equal strength along the one axis, turned by 90 degrees to the other."""
    rows, columns = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij")
    down, across = rows[None, None] / 20, columns[None, None] / 20
    strength = 0.9994 / (1 + np.exp(-15 * 0.5))
    angle = [0.9879 / (1 + np.exp(-22 * (part - 0.8))) for part in (1.0, 0.0)]
    inside = qabf(down[..., 1:-1, 1:-1], down[..., 1:-1, 1:-1], across[..., 1:-1, 1:-1])
    assert float(inside) == pytest.approx(strength * sum(angle) / 2, abs=0.03)  # the borders are flat


@pytest.mark.parametrize("sides", [(30, 34), (12, 14, 16)], ids=["2D", "3D"])
def test_scd_is_the_mean_over_the_batch_of_two_correlations(sides: tuple[int, ...]) -> None:
    """And a copy of MR, from which CT is not to be had, counts 0 where the measure is undefined."""
    fused, ct, mr = (torch.cat([picture(seed, *sides), picture(seed + 3, *sides)]) for seed in (0, 1, 2))
    wanted = [
        np.corrcoef((f - m).ravel(), c.ravel())[0, 1] + np.corrcoef((f - c).ravel(), m.ravel())[0, 1]
        for f, c, m in zip(*(item.numpy() for item in (fused, ct, mr)), strict=True)
    ]
    assert float(scd(fused, ct, mr)) == pytest.approx(np.mean(wanted), abs=1e-6)
    copy = [np.corrcoef((m - c).ravel(), m.ravel())[0, 1] for c, m in zip(ct.numpy(), mr.numpy(), strict=True)]
    assert float(scd(mr, ct, mr)) == pytest.approx(np.mean(copy), abs=1e-6)


def test_simple_terms_are_their_formulas() -> None:
    fused, ct, mr = (picture(seed, 30, 34) for seed in (0, 1, 2))
    f, c, m = (item[0, 0].numpy() for item in (fused, ct, mr))
    assert float(losses.content(fused, ct, mr)) == pytest.approx(np.abs(f - np.maximum(c, m)).mean())
    lap = [ndimage.laplace(item, mode="reflect") for item in (f, c, m)]
    wanted = np.where(np.abs(lap[1]) >= np.abs(lap[2]), lap[1], lap[2])
    assert float(losses.detail(fused, ct, mr)) == pytest.approx(np.abs(lap[0] - wanted).mean())
    steep = [np.hypot(*(ndimage.sobel(item, axis, mode="reflect") / 8 for axis in (0, 1))) for item in (f, c, m)]
    assert float(losses.gradient(fused, ct, mr)) == pytest.approx(
        np.abs(steep[0] - np.maximum(steep[1], steep[2])).mean(), abs=1e-6
    )


def test_bone_is_that_of_ct() -> None:
    ct = torch.zeros(1, 1, 10, 10)
    ct[..., :4, :5] = 0.95
    fused = torch.full_like(ct, 0.7)
    assert float(losses.bone(fused, ct)) == pytest.approx(0.25, abs=1e-6)
    assert float(losses.bone(fused, ct * 0.5)) == 0  # no bone


@pytest.mark.parametrize("sides", [(40, 36), (20, 18, 16)], ids=["2D", "3D"])
def test_bone_and_soft_tissue_are_learned_where_they_are_measured(sides: tuple[int, ...]) -> None:
    """A change anywhere else is seen neither by the terms nor by the measures; one inside is seen by both."""
    ct, mr = 255 * picture(1, *sides), 255 * picture(2, *sides)
    bones = ct.flip(2) > 0.7 * 255
    ct[bones] = 240
    c, m = ct[0, 0].numpy(), mr[0, 0].numpy()
    for rim, mask in ((1, c >= 230), (2, (c > 30) & (c < 160) & (m > 20))):
        inside = ndimage.binary_erosion(mask, iterations=rim, border_value=1)
        assert 0 < inside.sum() < mask.sum()
        assert np.array_equal(losses._inside(torch.tensor(mask)[None, None], rim)[0, 0].numpy(), inside)
    f = np.where(ndimage.binary_erosion(c >= 230, border_value=1), 0.8 * c, c)
    assert bone_kept(f, c) == pytest.approx(0.8)
    assert float(losses.bone(torch.tensor(f)[None, None] / 255, ct / 255)) == pytest.approx(0.2 * 240 / 255)


@pytest.mark.parametrize("sides", [(40, 36), (20, 18, 16)], ids=["2D", "3D"])
def test_where_nothing_has_an_edge_the_larger_source_is_wanted(sides: tuple[int, ...]) -> None:
    ct, mr, fused = (255 * picture(seed, *sides)[0, 0].numpy() for seed in (1, 2, 3))
    ct[: sides[0] // 2], mr[:, : sides[1] // 2] = 240, 90 + mr[:, : sides[1] // 2] / 25
    ct[0, 0], ct[-3:, :5], mr[-3:, :5] = 237, 0, 0  # neighbours of a corner are apart; a black place counts nowhere
    flat = ndimage.maximum_filter(ct, 3) - ndimage.minimum_filter(ct, 3) <= 2.5
    gradient = [ndimage.sobel(mr, axis, mode="reflect") / 2 ** (2 * mr.ndim - 1) for axis in range(mr.ndim)]
    steep = np.sqrt(np.sum(np.square(gradient), 0))
    where = flat & (ndimage.maximum_filter(steep, 3) < 10) & (np.maximum(ct, mr) > 10)
    assert 0.05 < where.mean() < 0.6 and not where[0, 0].any()
    expected = np.abs(fused - np.maximum(ct, mr))[where].mean() / 255
    found = losses.even(*(torch.tensor(item)[None, None] / 255 for item in (fused, ct, mr)))
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_structure_may_be_that_of_the_picture_as_it_is_saved() -> None:
    sources = torch.round(255 * torch.cat([picture(1, 40, 40), picture(2, 40, 40)], 1)) / 255
    sources[..., :20, :] = 0
    near = 0.8 * torch.rand(sources[:, :1].shape, generator=torch.Generator().manual_seed(0)) - 0.4  # no half grey
    fused = (sources[:, :1] + near / 255).requires_grad_()
    answer, copy = Answer(fused, torch.zeros(())), Answer(sources[:, :1].clone().requires_grad_(), torch.zeros(()))
    only = {term: float(term == "structure") for term in WEIGHTS}
    exact, saved = (ImageFusionLoss(only, 2 / 255, greys) for greys in (0, 256))
    rounded, unrounded = saved(answer, sources).item(), exact(answer, sources).item()
    assert rounded == pytest.approx(exact(copy, sources).item(), abs=1e-9) and unrounded > rounded + 0.01
    (taught,) = torch.autograd.grad(saved(answer, sources), fused)
    (wanted,) = torch.autograd.grad(exact(copy, sources), copy.fused)
    torch.testing.assert_close(taught, wanted)


def test_a_checkpoint_keeps_what_counted_and_how() -> None:
    loss = ImageFusionLoss({"content": 0.0, "qabf": 2.0}, 2 / 255, 256)
    same = {"structure": 8, "detail": 5, "consistency": 3, "gradient": 2, "medical": 10, "qabf": 2}
    assert loss.counted == {**same, "ssim_range": 2 / 255, "ssim_greys": 256}
    assert ImageFusionLoss({**dict.fromkeys(same, 0.0), "content": 1.0}, 2 / 255).counted == {"content": 1}


@pytest.mark.parametrize("greys", [-1, 1])
def test_greys_that_cannot_be_are_refused(greys: int) -> None:
    with pytest.raises(UsageError, match="E_CONFIG"):
        ImageFusionLoss(ssim_greys=greys)


def test_soft_tissue_compares_contrast_not_brightness() -> None:
    mr = 0.2 + 0.6 * picture(3, 40, 40)
    ct = torch.full_like(mr, 0.3)
    assert float(losses.soft_tissue(0.5 * mr + 0.2, ct, mr)) < 0.05
    assert float(losses.soft_tissue(1 - mr, ct, mr)) > 1.8
    assert float(losses.soft_tissue(mr, torch.ones_like(ct), mr)) == 0  # all bone


def test_consistency_teaches_the_picture_and_not_the_encoders() -> None:
    encoders = torch.nn.ModuleList([SmallEncoder(2, 3, 3), SmallEncoder(2, 1, 3)])
    sources = torch.cat([picture(0, 24, 24), picture(1, 24, 24)], 1).float()
    fused = sources[:, 1:].clone().requires_grad_()
    found = losses.consistency(encoders, fused, sources)
    found.backward()
    assert found > 0.05 and fused.grad is not None and fused.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in encoders.parameters())
    twice = torch.cat([sources[:, :1], sources[:, :1]], 1)
    assert float(losses.consistency(encoders, sources[:, :1], twice)) == 0


def test_terms_are_weighted_and_those_without_weight_are_not_counted() -> None:
    fused, sources = picture(0, 48, 48), torch.cat([picture(1, 48, 48), picture(2, 48, 48)], 1)
    answer = Answer(fused, torch.tensor(0.25))
    assert list(WEIGHTS.values()) == [15, 8, 5, 3, 2, 10, 0, 0, 0, 0, 0]
    loss = ImageFusionLoss()
    terms = loss.terms(answer, sources)
    assert list(terms) == ["content", "structure", "detail", "consistency", "gradient", "medical"]
    expected = sum(weight * float(terms[name]) for name, weight in loss.weights.items() if weight)
    assert float(loss(answer, sources)) == pytest.approx(expected)
    two = ImageFusionLoss({**dict.fromkeys(terms, 0.0), "qabf": 2.0, "vif": 1.0})
    found = two.terms(answer, sources)
    assert list(found) == ["qabf", "vif"]
    assert float(found["qabf"]) == pytest.approx(1 - float(qabf(fused, sources[:, :1], sources[:, 1:])))
    assert float(two(answer, sources)) == pytest.approx(2 * float(found["qabf"]) + float(found["vif"]))


@pytest.mark.parametrize("name", ["content", "structure", "detail", "gradient", "medical", "qabf", "vif"])
@pytest.mark.parametrize("sides", [(48, 48), (44, 44, 44)], ids=["2D", "3D"])
def test_every_term_can_be_learned_from(name: str, sides: tuple[int, ...]) -> None:
    """Gradients are finite where the picture is black or flat, and a step along them lowers the term."""
    sources = torch.cat([picture(1, *sides), picture(2, *sides)], 1)
    loss = ImageFusionLoss({term: float(term == name) for term in WEIGHTS})
    fused = sources.mean(1, keepdim=True).requires_grad_()
    first = loss(Answer(fused, torch.zeros(())), sources)
    (steep,) = torch.autograd.grad(first, fused)
    assert torch.isfinite(steep).all() and steep.abs().max() > 0
    step = 1e-4 * steep / steep.abs().max()
    assert loss(Answer(fused - step, torch.zeros(())), sources) < first


@pytest.mark.parametrize("weights", [{"contents": 1.0}, {"content": -1.0}])
def test_what_is_no_weight_is_refused(weights: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="E_CONFIG: Expected weights of 0 or more for content, structure"):
        ImageFusionLoss(weights)
