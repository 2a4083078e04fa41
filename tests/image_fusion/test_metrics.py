"""Measures of fusion against other implementations, values known beforehand, and their own symmetries."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import ndimage, signal
from skimage.metrics import structural_similarity

from pipeline.errors import CaseError
from pipeline.image_fusion.edges import laplacian, qabf
from pipeline.image_fusion.images import checked, eight_bit, pieces
from pipeline.image_fusion.metrics import MEASURES, bone_kept, measure, soft_tissue_correlation
from pipeline.image_fusion.structure import piella, ssim, vif
from pipeline.image_fusion.windows import box, filtered, gaussian, windows

Image = np.ndarray[Any, np.dtype[Any]]
#: What a single slice of a volume cannot tell as a picture does.
OF_VALUES = ("SF", "SD", "EN", "EN_CT", "EN_MR", "MI", "SCD")


def scene(*shape: int, seed: int = 0) -> tuple[Image, Image, Image]:
    """The larger of two textures with black around, and these: whole numbers from 0 to 255."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(2):
        image = ndimage.gaussian_filter(random.random(shape), 1.5)
        image = (image - image.min()) / np.ptp(image) * 255
        image[: shape[0] // 5] = 0
        found.append(np.rint(image))
    found[0][shape[0] // 2 :, : shape[1] // 2] = 240
    return np.maximum(*found), found[0], found[1]


def shape_of(number: int) -> tuple[int, ...]:
    return (96, 83) if number == 2 else (45, 43, 41)


def same(first: dict[str, float | None], second: dict[str, float | None], near: float = 1e-9) -> None:
    for name, value in first.items():
        assert second[name] == (None if value is None else pytest.approx(value, rel=near, abs=near)), name


def test_analytic_values() -> None:
    """Rows of 0 and 200 in turn, against columns of 0 and 100 in turn."""
    fused = np.tile([[0.0], [200.0]], (24, 48))
    other = np.tile([[0.0, 100.0]], (48, 24))
    found = measure(fused, other, fused)
    assert found["EN"] == pytest.approx(1.0) and found["EN_CT"] == pytest.approx(1.0)
    assert found["SD"] == pytest.approx(100.0)
    assert found["SF"] == pytest.approx(200.0)  # each step down is 200, none to the right
    assert found["MI"] == pytest.approx(np.log(2))  # nats: all of MR's, none of CT's
    assert found["CC"] == pytest.approx(0.5, abs=1e-6)
    assert found["SCD"] is None  # a copy of MR
    # differences from CT: 0, -100, 200, 100; from MR 0
    assert found["PSNR"] == pytest.approx(10 * np.log10(255**2 / (15000 / 2)))
    assert found["EPI"] == pytest.approx(0.5, abs=1e-6)


def test_average_gradient_of_a_ramp() -> None:
    ramp = 2.0 * np.arange(60)[:, None] + 1.0 * np.arange(50)
    assert measure(ramp, ramp, ramp[::-1])["AG"] == pytest.approx(np.sqrt((2**2 + 1**2) / 2), rel=1e-6)


def test_scd_is_the_sum_of_two_correlations() -> None:
    fused, ct, mr = scene(50, 60)
    wanted = np.corrcoef((fused - mr).ravel(), ct.ravel())[0, 1] + np.corrcoef((fused - ct).ravel(), mr.ravel())[0, 1]
    assert measure(fused, ct, mr)["SCD"] == pytest.approx(wanted, rel=1e-5)


def test_scd_of_a_copy_that_rounding_has_changed_is_undefined() -> None:
    _, ct, mr = scene(50, 60)
    copy = np.float32(255) * (ct / 255).astype(np.float32)
    assert measure(copy, ct, mr)["SCD"] is None


def test_information_is_that_of_histograms() -> None:
    from sklearn.metrics import mutual_info_score

    fused, ct, mr = scene(50, 60)
    wanted = sum(mutual_info_score(fused.ravel().astype(int), other.ravel().astype(int)) for other in (ct, mr))
    assert measure(fused, ct, mr)["MI"] == pytest.approx(wanted)


@pytest.mark.parametrize("axes", [2, 3])
def test_ssim_is_that_of_scikit_image(axes: int) -> None:
    fused, ct, mr = scene(*shape_of(axes))
    found = ssim(fused, [ct, mr], (255.0, 2.0))
    assert found is not None
    for (row, width), (column, source) in itertools.product(enumerate((255, 2)), enumerate((ct, mr))):
        assert found[row, column] == pytest.approx(structural_similarity(fused, source, data_range=width), abs=1e-7)


def direct_vif(source: Image, fused: Image) -> float:
    """VIFp with 2D convolutions, as its authors' code has it."""
    above = below = 0.0
    for scale in range(1, 5):
        side = 2 ** (5 - scale) + 1
        grid = np.stack(np.meshgrid(*[np.arange(side) - side // 2] * 2))
        window = np.exp(-(grid**2).sum(0) / (2 * (side / 5) ** 2))
        window /= window.sum()
        if scale > 1:
            source, fused = (signal.convolve2d(image, window, "valid")[::2, ::2] for image in (source, fused))
        mean = [signal.convolve2d(image, window, "valid") for image in (source, fused)]
        squares = [signal.convolve2d(image**2, window, "valid") for image in (source, fused)]
        one, two = (np.maximum(square - part**2, 0) for square, part in zip(squares, mean, strict=True))
        both = signal.convolve2d(source * fused, window, "valid") - mean[0] * mean[1]
        gain, rest = both / (one + 1e-10), two - both**2 / (one + 1e-10)
        gain[one < 1e-10], rest[one < 1e-10], one[one < 1e-10] = 0, two[one < 1e-10], 0
        gain[two < 1e-10], rest[two < 1e-10] = 0, 0
        rest[gain < 0], gain[gain < 0] = two[gain < 0], 0
        above += np.log10(1 + gain**2 * one / (np.maximum(rest, 1e-10) + 2)).sum()
        below += np.log10(1 + one / 2).sum()
    return float(above / below)


def test_vif_is_that_of_direct_convolutions() -> None:
    fused, ct, mr = scene(96, 83)
    found = vif(fused, [ct, mr])
    assert found is not None
    assert found == pytest.approx([direct_vif(ct, fused), direct_vif(mr, fused)], abs=1e-6)


#: piq.vif_p(fused, source, data_range=255.0) of piq 0.8.0 for `scene(96, 83)` in double precision; no dependency.
PIQ = (0.1646859186309943, 0.25768828599740723)


def test_vif_is_that_of_piq() -> None:
    fused, ct, mr = scene(96, 83)
    found = vif(fused, [ct, mr])
    assert found is not None and found == pytest.approx(PIQ, abs=1e-6)


def direct_qabf(fused: Image, ct: Image, mr: Image, as_evaluated: bool) -> float:
    """Xydeas and Petrovic by 2D convolutions."""
    down = np.array([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]])

    def gradient(image: Image) -> tuple[Image, Image, Image]:
        wide = np.pad(image, 1, mode="edge")
        rows, columns = (signal.convolve2d(wide, kernel, "valid") for kernel in (down, down.T))
        with np.errstate(divide="ignore", invalid="ignore"):
            # a line's angle, its sign that of the array whose rows go down
            angle = np.where(columns == 0, np.pi / 2, np.arctan(-rows / columns))
        return np.hypot(rows, columns), angle, np.arctan2(rows, columns)

    strength, line, direction = gradient(fused)
    above = below = 0.0
    for other, other_line, other_direction in (gradient(ct), gradient(mr)):
        larger = np.maximum(other, strength)
        ratio = np.divide(np.minimum(other, strength), larger, out=np.zeros_like(larger), where=larger > 0)
        turned = np.abs(line - other_line)
        if as_evaluated:
            ratio = np.where(other == strength, other, ratio)
        else:
            turned = np.abs(np.angle(np.exp(2j * (direction - other_direction)))) / 2
            turned[strength * other == 0] = np.pi / 2  # no edge has no direction
        with np.errstate(over="ignore"):
            kept = 0.9994 / (1 + np.exp(-15 * (ratio - 0.5)))
            kept *= 0.9879 / (1 + np.exp(-22 * (1 - turned / (np.pi / 2) - 0.8)))
        above, below = above + (other * kept).sum(), below + other.sum()
    return float(above / below)


def test_qabf_is_that_of_direct_convolutions() -> None:
    fused, ct, mr = scene(60, 50)
    exact, evaluated = qabf(fused, [ct, mr])
    assert exact == pytest.approx(direct_qabf(fused, ct, mr, False), abs=1e-6)
    assert evaluated == pytest.approx(direct_qabf(fused, ct, mr, True), abs=1e-6)
    assert evaluated < exact


def test_qabf_of_lines_that_are_one() -> None:
    """A negative has the same lines; of an image itself ratio and angle are as good as they can be."""
    _, ct, _ = scene(60, 50)
    assert qabf(255 - ct, [ct, ct])[0] == pytest.approx(qabf(ct, [ct, ct])[0], abs=1e-9)
    assert qabf(ct, [ct, ct])[0] == pytest.approx(0.9994 / (1 + np.exp(-7.5)) * 0.9879 / (1 + np.exp(-4.4)), abs=1e-6)


def direct_piella(fused: Image, ct: Image, mr: Image) -> float:
    """Q_W, window by window."""
    above = below = 0.0
    for corner in np.ndindex(*(side - 7 for side in fused.shape)):
        place = tuple(slice(start, start + 8) for start in corner)
        f, a, b = (image[place].ravel() for image in (fused, ct, mr))
        weight = max(a.var(), b.var())
        total = a.var() + b.var()
        quality = 0.0
        for part in (a, b):
            if part.var() > 1e-9:
                index = 4 * np.cov(part, f, bias=True)[0, 1] * part.mean() * f.mean()
                index /= (part.mean() ** 2 + f.mean() ** 2) * (part.var() + f.var())
                quality += part.var() / total * index
        above, below = above + weight * quality, below + weight
    return above / below


def test_piella_is_that_of_windows_one_by_one() -> None:
    fused, ct, mr = scene(25, 21)
    assert piella(fused, [ct, mr]) == pytest.approx(direct_piella(fused, ct, mr), abs=1e-9)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_measures_of_a_volume_are_equal_when_it_is_mirrored(axis: int) -> None:
    images = scene(*shape_of(3))
    same(measure(*images), measure(*(np.flip(image, axis) for image in images)), 1e-6)


@pytest.mark.parametrize("axes", [(1, 2, 0), (2, 1, 0)])
def test_measures_of_a_volume_are_equal_when_its_axes_are_permuted(axes: tuple[int, ...]) -> None:
    images = scene(*shape_of(3))
    same(measure(*images), measure(*(image.transpose(axes) for image in images)), 1e-6)


def test_a_volume_constant_along_an_axis_measures_as_its_slice() -> None:
    images = scene(50, 60)
    flat, deep = measure(*images), measure(*(np.repeat(image[..., None], 8, 2) for image in images))
    same({name: flat[name] for name in OF_VALUES}, deep, 1e-6)


def test_an_axis_of_one_voxel_is_left_out() -> None:
    images = scene(50, 60)
    same(measure(*images), measure(*(image[:, None] for image in images)))


@pytest.mark.parametrize("axes", [2, 3])
def test_a_copy_of_ct_keeps_all_of_it(axes: int) -> None:
    _, ct, mr = scene(*shape_of(axes))
    found = measure(ct, ct, mr)
    assert found["VIF_CT"] == pytest.approx(1.0, abs=1e-6)
    assert found["SSIM_CT"] == pytest.approx(1.0, abs=1e-9)
    assert found["bone"] == pytest.approx(1.0)
    assert found["SCD"] is None


def test_values_do_not_depend_on_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    images = scene(*shape_of(3))
    whole = measure(*images)
    monkeypatch.setattr("pipeline.image_fusion.images._PIECE", 1)
    same(whole, measure(*images), 1e-7)


def test_both_scales_give_the_same() -> None:
    images = scene(60, 50)
    same(measure(*images), measure(*(image / 255 for image in images), top=1.0), 1e-4)


def test_bone_and_soft_tissue() -> None:
    """Bone is bright CT without its rim; soft tissue is middling CT where MR shows something, without its rim."""
    ct, mr = np.full((30, 40), 100.0), np.tile(np.linspace(30, 200, 40), (30, 1))
    ct[:10] = 240
    fused = np.where(ct > 200, 120.0, 250 - mr)
    fused[9] = 0  # the rim
    assert bone_kept(fused, ct) == pytest.approx(0.5)
    fused[10:12] = 0  # the rim of soft tissue
    assert soft_tissue_correlation(fused, ct, mr) == pytest.approx(-1.0)
    assert bone_kept(fused, ct.clip(0, 200)) is None
    assert soft_tissue_correlation(fused, ct.clip(200), mr) is None


def test_what_is_too_small_for_windows_is_undefined() -> None:
    found = measure(*scene(6, 40))
    assert [name for name in MEASURES if found[name] is None and name not in ("bone", "soft")] == [
        *("VIF", "VIF_CT", "VIF_MR", "SSIM", "SSIM_CT", "SSIM_MR", "SSIM_evaluator", "FQI")
    ]
    assert measure(*scene(41, 41))["VIF"] is not None and measure(*scene(40, 41))["VIF"] is None


def test_every_measure_is_named_and_explained() -> None:
    assert set(measure(*scene(45, 45))) == set(MEASURES)


def bad(**changed: Image) -> dict[str, Image]:
    return dict(zip(("fused", "ct", "mr"), scene(20, 22), strict=True)) | changed


@pytest.mark.parametrize(
    ("images", "code", "words"),
    [
        (bad(mr=np.ones((20, 21))), "E_GRID", "of one shape, got (20, 22) of the fused image"),
        (dict.fromkeys(("fused", "ct", "mr"), np.arange(5.0)), "E_GRID", "as numbers (I, J) or (I, J, K)"),
        (dict.fromkeys(("fused", "ct", "mr"), np.random.default_rng(0).random((3, 4, 5, 6))), "E_GRID", "(3, 4, 5, 6)"),
        (bad(ct=np.full((20, 22), "a")), "E_GRID", "CT as numbers"),
        (bad(ct=np.full((20, 22), 3.0)), "E_BLANK", "CT with contrast, got 3 in every voxel"),
        (bad(mr=np.where(np.eye(20, 22) > 0, np.nan, 1.0)), "E_NIFTI", "finite values of MR"),
        (bad(mr=np.where(np.eye(20, 22) > 0, np.inf, 1.0)), "E_NIFTI", "finite values of MR"),
        (bad(fused=np.eye(20, 22) * 256), "E_DTYPE", "of the fused image from 0 to 255, got 0 to 256"),
        (bad(ct=-np.eye(20, 22)), "E_DTYPE", "got -1 to"),
    ],
)
def test_bad_input_is_refused(images: dict[str, Image], code: str, words: str) -> None:
    with pytest.raises(CaseError) as raised:
        measure(**images)
    assert raised.value.code == code and words in raised.value.message


def test_images_pass_unchanged_but_for_axes_of_one_voxel() -> None:
    image = np.arange(12.0).reshape(3, 1, 4)
    assert np.array_equal(checked({"CT": image})[0], image[:, 0])
    assert eight_bit(np.array([0.0, 0.5, 1.0]), 1.0).tolist() == [0.0, 127.5, 255.0]


def test_pieces_hold_every_window_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.image_fusion.images._PIECE", 1)
    image = np.arange(40.0)[:, None].repeat(3, 1)
    starts = [part[start, 0] for (part,) in pieces([image], 5) for start in range(len(part) - 4)]
    assert starts == list(range(36))


@pytest.mark.parametrize("weights", [box(7), box(8), gaussian(9, 1.8), gaussian(3, 0.6)])
@pytest.mark.parametrize("step", [1, 2])
def test_means_of_windows_are_those_of_a_direct_correlation(weights: Image, step: int) -> None:
    image = np.random.default_rng(0).random((20, 200, 12))
    kernel = np.einsum("i,j,k->ijk", weights, weights, weights)
    wanted = signal.correlate(image, kernel, "valid", "direct")[::step, ::step, ::step]
    assert filtered(image, [weights] * 3, step) == pytest.approx(wanted, abs=1e-12)
    turned = filtered(image.transpose(1, 0, 2), [weights] * 3, step).transpose(1, 0, 2)
    assert turned == pytest.approx(wanted, abs=1e-12)


def test_statistics_of_windows() -> None:
    fused, ct, mr = scene(12, 11)
    (found,) = windows(fused, [ct, mr], box(7))
    place = (slice(2, 9), slice(3, 10))
    assert found.mean[2, 3] == pytest.approx(fused[place].mean())
    assert found.variance[2, 3] == pytest.approx(fused[place].var())
    assert found.sides[1].covariance[2, 3] == pytest.approx(
        np.cov(fused[place].ravel(), mr[place].ravel(), bias=True)[0, 1]
    )


def test_laplacian_of_a_parabola() -> None:
    image = np.arange(9.0)[:, None] ** 2 + 3 * np.arange(8.0) ** 2
    assert np.unique(laplacian(image)[1:-1, 1:-1]).tolist() == [8.0]
