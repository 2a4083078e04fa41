from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from pipeline.body import body_mask
from pipeline.errors import CaseError
from pipeline.geometry import apply, same_grid
from pipeline.registration import AlignmentLimits, Method, Registration, RegistrationSettings, Side
from pipeline.registration import register as elastix
from pipeline.registration.process import Registrar
from pipeline.registration.quality import Pair
from pipeline.registration.register import register
from pipeline.volumes import affine_of, matrix_from_transform, volume
from tests.registration.answers import RIGID, answered, searched, sides
from tests.registration.conftest import STARTS, quick
from tests.registration.phantom import HeadPair, rigid

LIMITS = AlignmentLimits()


def test_target_registration_error(found: Registration, pair: HeadPair) -> None:
    assert pair.errors_mm(np.eye(4)).mean() > 15
    assert pair.errors_mm(found.warp.matrix).mean() <= 0.5
    assert pair.errors_mm(found.warp.matrix).max() <= 1.0


def test_the_verdict_on_a_right_registration(found: Registration, pair: HeadPair) -> None:
    quality = json.loads(json.dumps(found.quality))
    assert quality["verdict"] == "pass", quality["reason"]
    assert quality["nmi_after"] > quality["nmi_before"] + 0.05
    assert quality["overlap_dice_after"] > 0.9 > quality["overlap_dice_before"]
    assert quality["nmi_after"] > quality["nmi_mirrored"] + LIMITS.nmi_noise
    assert quality["start_disagreement_mm"] <= LIMITS.start_disagreement_pass_mm
    assert quality["starts_searched"] == STARTS
    assert quality["transform"] == "rigid"
    angle = np.degrees(np.arccos((np.trace(pair.truth[:3, :3]) - 1) / 2))
    assert quality["rotation_deg"] == pytest.approx(angle, abs=0.3)


def test_matrix_transform_and_inverse_are_one_rigid_motion(found: Registration) -> None:
    matrix = found.warp.matrix
    np.testing.assert_allclose(matrix_from_transform(found.transform), matrix, atol=1e-9)
    np.testing.assert_allclose(matrix_from_transform(found.inverse) @ matrix, np.eye(4), atol=1e-9)
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1, abs=1e-12)
    assert found.quality["inverse_error_mm"] < 1e-9


def test_the_moved_image_lies_on_the_fixed_grid_and_shows_the_same_anatomy(found: Registration, pair: HeadPair) -> None:
    assert same_grid(found.moved.shape, affine_of(found.moved), pair.ct.shape, affine_of(pair.ct))
    bone = pair.ct.numpy() > 900
    fat = (pair.ct.numpy() > -140) & (pair.ct.numpy() < -40)
    assert np.median(found.moved.numpy()[bone]) < 150 < 600 < np.median(found.moved.numpy()[fat])


def test_the_log_tells_every_run_and_nothing_of_the_machine(found: Registration) -> None:
    assert found.log.count("search at 6 mm") == STARTS + 1  # the mirrored one, too
    assert found.log.count(": finest level") >= STARTS + 1  # the phantom is nearly symmetric, so that the mirror counts
    assert "header: finest level" in found.log
    assert "Final metric value" in found.log
    assert "/" not in found.log
    assert "ms" not in found.log


@pytest.mark.slow
def test_same_input_same_transform_to_the_last_bit_in_another_process(
    pair: HeadPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two children of one process, and the first child of a new one; with few samples, where chance would show most."""
    quickest = quick("rigid_ct_mr", MaximumNumberOfIterations=40, NumberOfSpatialSamples=500)
    settings = RegistrationSettings(Method("rigid", (quickest,)), starts=STARTS)
    found, again = (register(*sides(pair), settings) for _ in range(2))
    fresh = Registrar()
    monkeypatch.setattr(elastix, "registrar", lambda: fresh)
    anew = register(*sides(pair), settings)
    fresh.close()
    for other in (again, anew):
        assert other.transform.GetParameters() == found.transform.GetParameters()
        assert torch.equal(other.moved.as_tensor(), found.moved.as_tensor())
        assert other.quality == found.quality
        assert other.log == found.log


# ---- what the child process may say ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("results", "code", "words"),
    [
        ([], "E_CRASH", "without a result"),
        ([{"starts": 0, "results": []}], "E_OVERLAP", "both bodies"),
        ([{"starts": 2, "results": [], "failures": ["a: too few samples"]}], "E_REGISTER", "too few samples"),
    ],
)
def test_what_the_child_did_not_find_is_the_cases_error(
    pair: HeadPair, monkeypatch: pytest.MonkeyPatch, results: list, code: str, words: str
) -> None:
    answered(monkeypatch, *results)
    with pytest.raises(CaseError, match=words) as caught:
        register(*sides(pair), RIGID)
    assert caught.value.code == code


def test_the_headers_alignment_stays_when_nothing_better_is_found(
    pair: HeadPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    aligned = volume(pair.mr.numpy(), np.linalg.inv(pair.truth) @ affine_of(pair.mr))
    answered(monkeypatch, searched(pair.truth))
    found = register(Side(pair.ct, "CT"), Side(aligned, "MR"), RIGID)
    np.testing.assert_array_equal(found.warp.matrix, np.eye(4))
    assert found.quality["header_kept"] is True
    assert found.quality["nmi_after"] == found.quality["nmi_before"]
    assert found.quality["verdict"] == "warn"
    assert "headers' alignment was kept" in found.quality["reason"]


def test_a_pose_is_not_worse_than_the_headers_by_the_noise_of_nmi_either(
    pair: HeadPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    aligned = volume(pair.mr.numpy(), np.linalg.inv(pair.truth) @ affine_of(pair.mr))
    near = rigid((0, 0, 0), (0, 0, 0.2))
    both = Pair(pair.ct, aligned, body_mask(pair.ct, "CT"), body_mask(aligned, "MR"))
    assert 0 < (both.nmi(np.eye(4)) or 0) - (both.nmi(near) or 0) < LIMITS.nmi_noise
    answered(monkeypatch, searched(near, near))
    found = register(Side(pair.ct, "CT"), Side(aligned, "MR"), RIGID)
    np.testing.assert_array_equal(found.warp.matrix, np.eye(4))
    assert found.quality["nmi_after"] == found.quality["nmi_before"] and found.quality["header_kept"] is True


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda image: image * 0 + 7, "E_BLANK"),
        (lambda image: image * float("nan"), "E_BLANK"),
        (lambda image: image[..., :1], "E_SINGLE_SLICE"),
        (lambda image: torch.cat([image, image]), "E_GRID"),
    ],
)
@pytest.mark.parametrize("role", [0, 1])
def test_images_that_cannot_be_registered(
    pair: HeadPair, monkeypatch: pytest.MonkeyPatch, role: int, spoil: Callable, code: str
) -> None:
    answered(monkeypatch)
    given = list(sides(pair))
    given[role] = replace(given[role], image=spoil(given[role].image))
    with pytest.raises(CaseError) as caught:
        register(given[0], given[1], RIGID)
    assert caught.value.code == code


def test_a_mirrored_image_fails(pair: HeadPair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The moving head is exchanged left to right: the best pose of the mirror image beats the best pose."""
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    mirrored = volume(pair.mr.numpy()[:, ::-1].copy(), affine_of(pair.mr))
    middle = apply(affine_of(pair.mr), [[(pair.mr.shape[1] - 1) / 2, 0, 0]])[0]
    axis = affine_of(pair.mr)[:3, 0] / np.linalg.norm(affine_of(pair.mr)[:3, 0])
    reflect = np.eye(4)
    reflect[:3, :3] -= 2 * np.outer(axis, axis)
    reflect[:3, 3] = 2 * axis * (axis @ middle)
    best = pair.truth @ np.array([[1, 0, 0, 3], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    answer = searched(best, best)
    answer["mirrored"] = searched(reflect @ pair.truth)["results"][0]["matrix"], flip.tolist()
    answered(monkeypatch, answer)
    found = register(Side(pair.ct, "CT"), Side(mirrored, "MR"), RIGID)
    assert found.quality["verdict"] == "fail"
    assert "left and right may be exchanged" in found.quality["reason"]


# ---- further maps ----------------------------------------------------------------------------------------------------

AFFINE_MAP = '(Transform "AffineTransform")'
SPLINE_MAP = '(Transform "BSplineTransform")'


def bending(pair: HeadPair, amplitude_mm: float, wave_mm: float) -> dict[str, np.ndarray]:
    """Control points every 20 mm around the fixed head, LPS, displaced by a wave."""
    size, spacing = np.array([14, 16, 14]), 20.0
    origin = -spacing * (size - 1) / 2
    index = np.indices(size[::-1]).reshape(3, -1)[::-1].T
    points = origin + spacing * index
    numbers = amplitude_mm * np.sin(2 * np.pi * points[:, [1, 2, 0]] / wave_mm)
    fixed = np.concatenate([size, origin, np.full(3, spacing), np.eye(3).ravel()])
    return {"fixed": fixed, "parameters": numbers.T.ravel()}


def refined(affine: list, **files: dict) -> dict:
    return {"affine": affine, "failure": "", "files": {f"{name}.npz": numbers for name, numbers in files.items()}}


def test_an_affine_map_that_is_better_is_kept(pair: HeadPair, monkeypatch: pytest.MonkeyPatch) -> None:
    pose = pair.truth @ rigid((2, 0, 0), (2, 0, 0))
    better = searched(pair.truth @ np.diag([1.001, 1.0, 1.0, 1.0]))["results"][0]["matrix"]
    asked = answered(monkeypatch, searched(pose, pose), refined([better]))
    found = register(*sides(pair), RegistrationSettings(Method("affine", ("", AFFINE_MAP))))
    assert asked.requests[1]["transforms"] == ["affine"]
    assert found.quality["transform"] == "affine"
    assert found.quality["nmi_after"] > found.quality["nmi_rigid"]
    assert pair.errors_mm(found.warp.matrix).mean() < 0.2
    assert found.quality["jacobian_min"] == pytest.approx(1.001)
    assert found.quality["inverse_error_mm"] < 1e-9


def test_a_bending_map_that_is_worse_inside_is_not_kept(pair: HeadPair, monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch, searched(pair.truth, pair.truth), refined([], spline=bending(pair, 6.0, 120.0)))
    found = register(*sides(pair), RegistrationSettings(Method("bspline", ("", SPLINE_MAP))))
    assert found.quality["transform"] == "rigid"
    assert found.warp.spline is None
    assert found.quality["verdict"] == "warn"
    assert "bspline map was not kept, the rigid one stays: NMI of the interior fell" in found.quality["reason"]
    assert found.quality["nmi_after"] == found.quality["nmi_rigid"]


def test_a_bending_map_that_is_better_is_kept_with_its_inverse(pair: HeadPair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pose is 3 mm off; a B-spline that shifts everything back by 3 mm is better."""
    pose = pair.truth @ rigid((0, 0, 0), (3.0, 0, 0))
    shift = bending(pair, 0.0, 120.0)
    shift["parameters"] = np.repeat([3.0, 0.0, 0.0], len(shift["parameters"]) // 3)  # LPS: -3 mm in RAS
    answered(monkeypatch, searched(pose, pose), refined([], spline=shift))
    found = register(*sides(pair), RegistrationSettings(Method("bspline", ("", SPLINE_MAP))))
    assert found.quality["transform"] == "bspline"
    assert found.quality["verdict"] == "warn" and "Bent between CT and MR" in found.quality["reason"]
    assert found.quality["nmi_after"] > found.quality["nmi_rigid"]
    assert found.quality["folding_fraction"] == 0
    assert found.quality["jacobian_min"] == pytest.approx(1, abs=1e-6)
    assert found.quality["inverse_error_mm"] <= 0.5
    points = apply(affine_of(pair.ct), np.argwhere(pair.ct.numpy()[0] > -300)[::50])
    np.testing.assert_allclose(found.warp(points), apply(pair.truth, points), atol=1e-6)
    assert isinstance(found.transform, sitk.CompositeTransform)


def test_a_map_that_elastix_gave_up_leaves_the_pose(pair: HeadPair, monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch, searched(pair.truth, pair.truth), {"affine": [], "failure": "ITK ERROR: too few samples"})
    found = register(*sides(pair), RegistrationSettings(Method("bspline", ("", SPLINE_MAP))))
    assert found.quality["transform"] == "rigid"
    assert found.quality["verdict"] == "warn"
    assert "too few samples" in found.quality["reason"]


def test_importing_the_package_does_not_load_itk_or_torch() -> None:
    code = "import sys, pipeline.registration; print('itk' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_elastix_is_loaded_without_all_that_it_may_be_used_with() -> None:
    """itk's own way of loading it takes ten times as long: benchmarks/elastix_load.py."""
    code = "import sys; from pipeline.registration.elastix import load; load(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "itk.itkElastixRegistrationMethodPython" in loaded
    assert loaded.isdisjoint(("torch", "itk.ITKImageIntensityPython", "itk.ElastixPython"))


def test_a_bending_map_that_gains_little_is_not_kept(pair: HeadPair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pose is half a millimetre off: the B-spline that mends it is better, but not by enough to be believed."""
    pose = pair.truth @ rigid((0, 0, 0), (0.5, 0, 0))
    shift = bending(pair, 0.0, 120.0)
    shift["parameters"] = np.repeat([0.5, 0.0, 0.0], len(shift["parameters"]) // 3)
    answered(monkeypatch, searched(pose, pose), refined([], spline=shift))
    method = Method("bspline", ("", SPLINE_MAP))
    found = register(*sides(pair), RegistrationSettings(method))
    assert found.quality["transform"] == "rigid"
    assert "counted from 1, rose by" in found.quality["reason"]
    answered(monkeypatch, searched(pose, pose), refined([], spline=shift))
    believed = register(*sides(pair), RegistrationSettings(method), AlignmentLimits(bending_gain_least=0.0))
    assert believed.quality["transform"] == "bspline"


@pytest.mark.parametrize(("modality", "judged"), [("MR", True), ("PT", False)])
def test_parts_of_functional_images_need_not_follow_the_anatomy(
    pair: HeadPair, monkeypatch: pytest.MonkeyPatch, modality: str, judged: bool
) -> None:
    """A pose that is 6 mm off, on voxels of some 4 mm."""
    wrong = pair.truth @ rigid((0, 0, 0), (0, 6, 0))
    answered(monkeypatch, searched(wrong, wrong))
    found = register(Side(pair.ct, "CT"), Side(pair.mr, modality), RIGID)
    assert found.quality["local_shift_mm"] > LIMITS.local_shift_pass_mm
    assert ("Parts of the body match better" in found.quality["reason"]) == judged
    answered(monkeypatch, searched(pair.truth, pair.truth))
    right = register(Side(pair.ct, "CT"), Side(pair.mr, modality), RIGID).quality
    assert right["verdict"] == ("pass" if judged else "warn")  # by uptake alone no place is sure
    assert ("PT shows uptake" in right["reason"]) != judged


def test_a_full_disk_of_temporary_files_is_said_to_be_so(pair: HeadPair, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*_: object) -> None:
        raise RuntimeError("ITK ERROR: no room")

    monkeypatch.setattr(sitk, "WriteImage", cut)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(CaseError, match=r"^E_DISK: Expected room to write .*tandem-register-"):
        register(*sides(pair), RIGID)
