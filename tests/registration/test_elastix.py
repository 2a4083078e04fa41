from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from pipeline.describe import describe
from pipeline.errors import CaseError, UsageError
from pipeline.geometry import affine_of, matrix_from_transform, same_grid, volume
from pipeline.registration import QualityLimits, Registerd, Registration, RegistrationSettings, elastix, register_rigid
from pipeline.shipped import shipped
from tests.registration.phantom import HeadPair

PARAMETER_FILE = shipped("bundles", "register", "configs", "rigid_ct_mr.txt")
MODALITIES = {"ct": "CT", "mr": "MR"}
STARTS = 3
LIMITS = QualityLimits()


@pytest.fixture(scope="module")
def found(pair: HeadPair, parameters: str) -> Registration:
    return register_rigid(pair.ct, pair.mr, RegistrationSettings(parameters, starts=STARTS))


@pytest.fixture(scope="module")
def case(pair: HeadPair) -> dict:
    """The same registration again, as a step of a chain."""
    step = Registerd("ct", ["mr", "pet"], {**MODALITIES, "pet": "PT"}, PARAMETER_FILE, starts=STARTS)
    return step({"case_id": "one", "ct": pair.ct, "mr": pair.mr, "flags": ["known before"]})


def test_target_registration_error(found: Registration, pair: HeadPair) -> None:
    assert pair.errors_mm(np.eye(4)).mean() > 15
    assert pair.errors_mm(found.matrix).mean() <= 0.5
    assert pair.errors_mm(found.matrix).max() <= 1.0


def test_the_verdict_on_a_right_registration(found: Registration, pair: HeadPair) -> None:
    quality = json.loads(json.dumps(found.quality))
    assert quality["verdict"] == "pass", quality["reason"]
    assert quality["nmi_after"] > quality["nmi_before"] + 0.05
    assert quality["overlap_dice_after"] > 0.9 > quality["overlap_dice_before"]
    assert quality["nmi_after"] > quality["nmi_mirrored"] + LIMITS.nmi_noise
    assert quality["start_disagreement_mm"] <= LIMITS.start_disagreement_pass_mm
    assert quality["starts_refined"] == STARTS
    angle = np.degrees(np.arccos((np.trace(pair.truth[:3, :3]) - 1) / 2))
    assert quality["rotation_deg"] == pytest.approx(angle, abs=0.3)


def test_matrix_and_transform_are_one_rigid_motion(found: Registration) -> None:
    np.testing.assert_allclose(matrix_from_transform(found.transform), found.matrix, atol=1e-9)
    rotation = found.matrix[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1, abs=1e-12)


def test_the_moved_image_lies_on_the_fixed_grid_and_shows_the_same_anatomy(found: Registration, pair: HeadPair) -> None:
    assert same_grid(found.moved.shape, affine_of(found.moved), pair.ct.shape, affine_of(pair.ct))
    bone = pair.ct.numpy() > 900
    fat = (pair.ct.numpy() > -140) & (pair.ct.numpy() < -40)
    assert np.median(found.moved.numpy()[bone]) < 150 < 600 < np.median(found.moved.numpy()[fat])


def test_same_input_same_transform_to_the_last_bit(found: Registration, case: dict) -> None:
    assert case["mr_transform"].GetParameters() == found.transform.GetParameters()
    assert torch.equal(case["mr_aligned"].as_tensor(), found.moved.as_tensor())
    assert case["mr_quality"] == found.quality


def test_the_step_fills_the_case(case: dict, pair: HeadPair) -> None:
    assert case["mr_aligned"].dtype == torch.float32
    assert case["mr"] is pair.mr
    assert isinstance(case["mr_transform"], sitk.Transform)
    assert case["measures"]["mr_quality"] is case["mr_quality"]
    assert case["measures"]["mr_nmi_after"] == case["mr_quality"]["nmi_after"]
    assert "mr_header_kept" not in case["measures"]
    assert case["flags"] == ["known before"]
    assert not any(key.startswith("pet") for key in case)


def test_a_verdict_that_is_no_pass_is_flagged(
    pair: HeadPair, found: Registration, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubtful = Registration(found.transform, found.matrix, found.moved, {"verdict": "warn", "reason": "Not sharp."})
    monkeypatch.setattr("pipeline.registration.dictionary.register_rigid", lambda *_: doubtful)
    case = Registerd("ct", ["mr"], MODALITIES, PARAMETER_FILE)({"ct": pair.ct, "mr": pair.mr})
    assert case["flags"] == ["mr: registration warn: Not sharp."]


def test_the_step_is_described_by_the_content_of_the_parameter_file(tmp_path: Path) -> None:
    def step(text: str, name: str) -> Registerd:
        (tmp_path / name).write_text(text)
        return Registerd("ct", ["mr"], MODALITIES, tmp_path / name, limits={"nmi_noise": 0.01})

    first = step('(Transform "EulerTransform")', "a.txt")
    assert describe(first) == describe(step('(Transform "EulerTransform")', "b.txt"))
    assert describe(first) != describe(step('(Transform "AffineTransform")', "c.txt"))
    assert describe(pickle.loads(pickle.dumps(first))) == describe(first)
    assert first.limits.nmi_noise == 0.01


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"limits": {"nmi_noize": 1.0}}, "nmi_noize"),
        ({"modalities": {"ct": "CT"}}, "mr"),
        ({"parameter_file": "nowhere.txt"}, "nowhere.txt"),
    ],
)
def test_a_wrong_configuration_is_refused_at_construction(change: dict, word: str) -> None:
    arguments = {"fixed": "ct", "moving": ["mr"], "modalities": MODALITIES, "parameter_file": PARAMETER_FILE}
    with pytest.raises(UsageError, match=word) as caught:
        Registerd(**{**arguments, **change})
    assert caught.value.code == "E_CONFIG"


def test_a_case_without_its_fixed_role_is_refused(pair: HeadPair) -> None:
    with pytest.raises(CaseError) as caught:
        Registerd("ct", ["mr"], MODALITIES, PARAMETER_FILE)({"mr": pair.mr})
    assert caught.value.code == "E_MISSING_ROLE"


# ---- what the child process may do -----------------------------------------------------------------------------------


def child(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Put a small program in place of elastix; its argument is the request's folder."""
    program = f"import os, pathlib, sys, time; folder = pathlib.Path(sys.argv[1]); {code}"
    monkeypatch.setattr(elastix, "_command", lambda folder: [sys.executable, "-c", program, str(folder)])


@pytest.mark.parametrize(
    ("code", "expected", "words"),
    [
        ("os.kill(os.getpid(), 11)", "E_CRASH", "code -11"),
        ("sys.exit('ITK could not allocate')", "E_CRASH", "ITK could not allocate"),
        ("pass", "E_CRASH", "code 0"),
        ("time.sleep(60)", "E_CRASH", "within 1 s"),
        ("(folder / 'result.json').write_text('{\"starts\": 0, \"results\": []}')", "E_OVERLAP", "both bodies"),
        (
            '(folder / \'result.json\').write_text(\'{"starts": 2, "results": [], "failures": ["too few samples"]}\')',
            "E_REGISTER",
            "too few samples",
        ),
    ],
)
def test_what_happens_to_the_child_is_the_cases_error(
    pair: HeadPair, monkeypatch: pytest.MonkeyPatch, code: str, expected: str, words: str
) -> None:
    child(monkeypatch, code)
    with pytest.raises(CaseError, match=words) as caught:
        register_rigid(pair.ct, pair.mr, RegistrationSettings("", timeout_s=1 if "sleep" in code else 60))
    assert caught.value.code == expected


def test_the_headers_alignment_stays_when_nothing_better_is_found(
    pair: HeadPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    aligned = volume(pair.mr.numpy(), np.linalg.inv(pair.truth) @ affine_of(pair.mr))
    turned = {"start": "header", "matrix": pair.truth.tolist()}
    result = json.dumps({"starts": 2, "results": [turned], "mirrored": [], "failures": []})
    child(monkeypatch, f"(folder / 'result.json').write_text('''{result}''')")
    found = register_rigid(pair.ct, aligned, RegistrationSettings(""))
    np.testing.assert_array_equal(found.matrix, np.eye(4))
    assert found.quality["header_kept"] is True
    assert found.quality["nmi_after"] == found.quality["nmi_before"]
    assert found.quality["verdict"] == "warn"
    assert "headers' alignment was kept" in found.quality["reason"]


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda image: image * 0 + 7, "E_BLANK"),
        (lambda image: image * float("nan"), "E_BLANK"),
        (lambda image: image[..., :1], "E_SINGLE_SLICE"),
        (lambda image: torch.cat([image, image]), "E_GRID"),
    ],
)
@pytest.mark.parametrize("role", ["ct", "mr"])
def test_images_that_cannot_be_registered(pair: HeadPair, role: str, spoil: Callable, code: str) -> None:
    images = {"ct": pair.ct, "mr": pair.mr}
    images[role] = spoil(images[role])
    with pytest.raises(CaseError) as caught:
        register_rigid(images["ct"], images["mr"], RegistrationSettings(""))
    assert caught.value.code == code


def test_importing_the_package_does_not_load_itk_or_torch() -> None:
    code = "import sys, pipeline.registration; print('itk' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
