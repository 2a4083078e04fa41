"""A CT aligned with a radiograph: the projector against analytic chords, the pose against the simulated one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from pipeline.errors import CaseError, UsageError
from pipeline.geometry import FloatArray, apply
from pipeline.registration import AlignRadiographd
from pipeline.registration.drr import Detector, Projector, attenuation, gradient_correlation
from pipeline.registration.xray import VIEWS, View, XrayAlignment, align_radiograph, judge_xray, seen_apart_mm
from pipeline.registration.xray import XrayLimits as Limits
from pipeline.registration.xray_dictionary import view_of
from pipeline.volumes import affine_of, volume
from tests.phantoms import radiograph as simulated
from tests.registration.phantom import oblique_grid, rigid, scan

SHAPE = (28, 30, 26)
GRID = oblique_grid(SHAPE, (7.0, 7.4, 8.0), (4, -5, 8), (3, -4, 2))
VIEW = View("AP", (9.0, 8.0), 1000.0, 750.0)
PIXELS = (40, 44)
MODALITIES = {"ct": "CT", "mr": "MR", "xray": "DX"}


def head() -> MetaTensor:
    return scan("CT", SHAPE, GRID, np.eye(4), seed=1)


def pose(view: View = VIEW) -> FloatArray:
    """The true one: some degrees and mm off the nominal one."""
    nominal, middle = view.nominal(np.zeros(3))
    back = np.eye(4)
    back[:3, 3] = middle
    return np.asarray(back @ rigid((4, -3, 5), (7, -6, 9)) @ np.linalg.inv(back) @ nominal)


def shadow(ct: MetaTensor, view: View, matrix: FloatArray) -> MetaTensor:
    """The radiograph by the projector of the simulation, with noise."""
    pixels = Detector.centred(PIXELS, view.detector_spacing_mm, view.source_mm).pixels.numpy().astype(float)
    to_ct = np.linalg.inv(matrix)
    ends, source = apply(to_ct, pixels.reshape(-1, 3)).reshape(pixels.shape), apply(to_ct, [[0, 0, view.source_mm]])[0]
    values = simulated.attenuation(ct, source, ends, np.random.default_rng(5)).astype(np.float32)
    return volume(values[:, :, None], np.diag([-9.0, -8.0, 1.0, 1.0]))


@pytest.fixture(scope="module")
def ct() -> MetaTensor:
    return head()


@pytest.fixture(scope="module")
def image(ct: MetaTensor) -> MetaTensor:
    return shadow(ct, VIEW, pose())


@pytest.fixture(scope="module")
def found(ct: MetaTensor, image: MetaTensor) -> XrayAlignment:
    return align_radiograph(ct, image, VIEW)


def points(ct: MetaTensor) -> FloatArray:
    return apply(affine_of(ct), np.argwhere(ct.numpy()[0] > -300)[::7])


# ---- the projector ---------------------------------------------------------------------------------------------------


def test_a_ray_through_a_block_of_water_is_as_long_as_its_way() -> None:
    """A slab, 60 mm thick along the central ray: a ray at an angle a to it is 60 / cos a long."""
    affine = np.diag([4.0, 4.0, 3.0, 1.0])
    affine[:3, 3] = [-78, -78, -328.5]  # 40 x 40 x 20 voxels about (0, 0, -300)
    density = attenuation(torch.zeros(40, 40, 20))
    detector = Detector.centred((9, 7), (20.0, 25.0), -1000.0)
    drawn = Projector(density, affine, detector)(torch.eye(4)).numpy()
    x, y = np.meshgrid((np.arange(9) - 4) * 20.0, (np.arange(7) - 3) * 25.0, indexing="ij")
    expected = 60 * np.hypot(1000.0, np.hypot(x, y)) / 1000.0
    np.testing.assert_allclose(drawn, expected, rtol=0.02)


def test_the_projector_agrees_with_the_simulations(ct: MetaTensor) -> None:
    """Two programs, cubic and trilinear, with and without clipping of the way: one mean difference."""
    density = attenuation(torch.as_tensor(ct.numpy()[0]))
    detector = Detector.centred(PIXELS, VIEW.detector_spacing_mm, VIEW.source_mm)
    drawn = Projector(density, affine_of(ct), detector)(torch.from_numpy(pose()).float()).numpy()
    independent = shadow(ct, VIEW, pose()).numpy()[0, :, :, 0] / simulated.WATER_PER_MM
    assert np.abs(drawn - independent).mean() < 0.02 * independent.max()
    assert np.corrcoef(drawn.ravel(), independent.ravel())[0, 1] > 0.998


def test_the_slope_through_the_projector_is_that_of_differences(ct: MetaTensor) -> None:
    density = attenuation(torch.as_tensor(ct.numpy()[0]))
    projector = Projector(density, affine_of(ct), Detector.centred((12, 14), (30.0, 25.0), VIEW.source_mm))
    target = projector(torch.from_numpy(pose()).float())
    nominal = torch.from_numpy(VIEW.nominal(np.zeros(3))[0]).float()

    def cost(shift: torch.Tensor) -> torch.Tensor:
        moved = nominal + torch.cat([torch.zeros(4, 3), torch.cat([shift, torch.zeros(1)])[:, None]], dim=1)
        return gradient_correlation(projector(moved), target)

    shift = torch.zeros(3, requires_grad=True)
    cost(shift).backward()
    for axis in range(2):
        step = torch.zeros(3)
        step[axis] = 0.5
        difference = float((cost(step) - cost(-step)).detach())
        assert float(shift.grad[axis]) == pytest.approx(difference, rel=0.2)


def test_gradient_correlation_ignores_brightness_and_contrast() -> None:
    rng = np.random.default_rng(0)
    a, b = (torch.from_numpy(rng.normal(size=(20, 30))) for _ in range(2))
    assert float(gradient_correlation(a, 3 * a + 7)) == pytest.approx(1)
    assert float(gradient_correlation(a, -a)) == pytest.approx(-1)
    assert abs(float(gradient_correlation(a, b))) < 0.15
    assert float(gradient_correlation(a, torch.ones(20, 30))) == 0


@pytest.mark.parametrize(
    ("name", "left", "front"),
    [("AP", (100, 0), (0, 0)), ("PA", (100, 0), (0, 0)), ("LL", (0, 0), (-100, 0)), ("RL", (0, 0), (100, 0))],
)
def test_the_nominal_views_hang_as_usual(name: str, left: tuple, front: tuple) -> None:
    """Where points 100 mm to the left (-x in RAS), front and head of the centre come to lie: (along x, along y)."""
    matrix, middle = View(name, (1, 1), 1000, 800).nominal(np.array([5.0, 6.0, 7.0]))
    moved = apply(matrix, np.array([5.0, 6.0, 7.0]) + 100 * np.array([[-1, 0, 0], [0, 1, 0], [0, 0, 1]])) - middle
    np.testing.assert_allclose(moved[:, :2], [left, front, (0, -100)], atol=1e-9)
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "nearer"), [("AP", (0, 1, 0)), ("PA", (0, -1, 0)), ("LL", (1, 0, 0)), ("RL", (-1, 0, 0))]
)
def test_the_source_is_on_the_side_that_the_view_names(name: str, nearer: tuple) -> None:
    """What is nearer to the source (RAS) is larger on the detector."""
    view = View(name, (1, 1), 1000, 800)
    matrix, middle = view.nominal(np.zeros(3))
    depth = apply(matrix, [nearer])[0, 2] - middle[2]
    assert np.sign(depth) == np.sign(view.source_mm)
    assert abs(view.source_mm - middle[2]) == pytest.approx(800)


# ---- the search ------------------------------------------------------------------------------------------------------


def test_the_simulated_pose_is_found(found: XrayAlignment, ct: MetaTensor) -> None:
    body, nominal = points(ct), VIEW.nominal(np.zeros(3))[0]
    assert seen_apart_mm(nominal, pose(), body, VIEW) > 8
    assert seen_apart_mm(found.matrix, pose(), body, VIEW) < 0.8  # a ninth of a voxel
    assert np.linalg.norm(apply(found.matrix, body) - apply(pose(), body), axis=1).mean() < 2.0


def test_the_verdict_on_it_is_pass(found: XrayAlignment) -> None:
    quality = json.loads(json.dumps(found.quality))
    assert quality["verdict"] == "pass", quality["reason"]
    assert quality["gradient_correlation"] > quality["gradient_correlation_before"] + 0.05
    assert quality["moved_mm"] > 8


def test_the_projection_is_on_the_radiographs_grid(found: XrayAlignment, image: MetaTensor) -> None:
    assert found.projection.shape == image.shape
    np.testing.assert_array_equal(affine_of(found.projection), affine_of(image))
    assert np.corrcoef(found.projection.numpy().ravel(), image.numpy().ravel())[0, 1] > 0.99


def test_noise_does_not_pass(ct: MetaTensor) -> None:
    noise = np.random.default_rng(2).normal(3, 1, (18, 20, 1)).astype(np.float32)
    quality = align_radiograph(ct, volume(noise, np.eye(4)), replace(VIEW, detector_spacing_mm=(18.0, 16.0))).quality
    assert quality["verdict"] == "fail", quality


@pytest.mark.parametrize(
    ("numbers", "verdict", "words"),
    [
        ({}, "pass", "agree within 0.10 mm"),
        ({"gradient_correlation": 0.82}, "warn", "correlation 0.82"),
        ({"gradient_correlation": 0.2}, "fail", "correlation 0.20"),
        ({"start_disagreement_mm": 2.0}, "warn", "2.0 mm apart"),
        ({"start_disagreement_mm": 9.0}, "fail", "9.0 mm apart"),
        ({"start_disagreement_mm": None}, "warn", "nothing confirms"),
        ({"peak_fraction": 0.5}, "warn", "50%"),
    ],
)
def test_each_finding_has_its_verdict(numbers: dict, verdict: str, words: str) -> None:
    good = {"gradient_correlation": 0.95, "start_disagreement_mm": 0.1, "peak_fraction": 1.0}
    got, reason = judge_xray({**good, **numbers}, Limits())
    assert got == verdict
    assert words in reason


# ---- the step --------------------------------------------------------------------------------------------------------

GIVEN = {"view": "AP", "detector_spacing_mm": [9, 8], "source_to_detector_mm": 1000, "source_to_patient_mm": 750}


def test_the_step_takes_the_header_and_what_is_given(
    monkeypatch: pytest.MonkeyPatch, ct: MetaTensor, image: MetaTensor, found: XrayAlignment, tmp_path: Path
) -> None:
    asked: list[View] = []

    def answered(_ct: MetaTensor, _image: MetaTensor, view: View, *_rest: object) -> XrayAlignment:
        asked.append(view)
        return found

    monkeypatch.setattr("pipeline.registration.xray_dictionary.align_radiograph", answered)
    header = tmp_path / "header.json"
    header.write_text(json.dumps({**GIVEN, "source_to_patient_mm": 600}))
    step = AlignRadiographd("xray", "ct", MODALITIES, given={"source_to_patient_mm": 750, "view": ""})
    case = step({"ct": ct, "xray": image, "xray_projection": header})
    assert asked == [VIEW]
    target = np.array([10.0, -20.0, 30.0])
    there = case["xray_transform"].TransformPoint((target * [-1, -1, 1]).tolist())
    np.testing.assert_allclose(there, apply(found.matrix, target[None])[0], atol=1e-6)
    np.testing.assert_allclose(case["xray_inverse"].TransformPoint(there), target * [-1, -1, 1], atol=1e-6)
    assert case["measures"]["xray_gradient_correlation"] == found.quality["gradient_correlation"]
    assert case["flags"] == []


@pytest.mark.parametrize(
    ("radiograph", "ct_role", "words"),
    [("xray", "mr", "got MR"), ("mr", "ct", "got MR"), ("xray", "none", "no such role")],
)
def test_only_a_ct_and_a_radiograph_are_taken(radiograph: str, ct_role: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        AlignRadiographd(radiograph, ct_role, MODALITIES)
    assert caught.value.code == "E_PROJECTION"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source_to_detector_mm": 0}, "source_to_detector_mm"),
        ({"detector_spacing_mm": []}, "detector_spacing_mm"),
        ({"view": "LLO"}, "a view of AP"),
        ({"source_to_patient_mm": 1200}, "between source and detector"),
        ({"detector_spacing_mm": [0.1, -0.1]}, "pixels of a size"),
    ],
)
def test_missing_geometry_is_refused(change: dict, words: str) -> None:
    with pytest.raises(CaseError, match=words) as caught:
        view_of({**GIVEN, **change})
    assert caught.value.code == "E_PROJECTION"


def test_a_volume_in_the_place_of_the_radiograph_is_refused(ct: MetaTensor) -> None:
    with pytest.raises(CaseError, match="one radiograph, got 26 slices") as caught:
        align_radiograph(ct, ct, VIEW)
    assert caught.value.code == "E_PROJECTION"


def test_limits_that_nobody_knows_are_refused() -> None:
    with pytest.raises(UsageError, match="likeness") as caught:
        AlignRadiographd("xray", "ct", MODALITIES, limits={"likeness": 1})
    assert caught.value.code == "E_CONFIG"
    assert set(VIEWS) == {"AP", "PA", "LL", "RL"}
