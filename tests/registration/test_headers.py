"""The headers' alignment, kept: no search, but a verdict; refused where the headers speak of two spaces."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from monai.data import MetaTensor

from pipeline.body import body_mask
from pipeline.errors import CaseError
from pipeline.registration import AlignmentLimits, Method, Registerd, Registration, RegistrationSettings, Side
from pipeline.registration.headers import UNKNOWN, share_frame
from pipeline.registration.quality import Pair
from pipeline.registration.register import register
from pipeline.spec.register import Register
from pipeline.volumes import affine_of, volume
from tests.registration.answers import answered, searched
from tests.registration.conftest import MAPS
from tests.registration.phantom import HeadPair, oblique_grid, rigid, scan

MODALITIES = {"ct": "CT", "mr": "MR"}
SETTINGS = RegistrationSettings(Method("headers"))


@pytest.fixture(scope="module")
def aligned() -> HeadPair:
    """CT and MR of one session: one head in one place, on two grids."""
    shapes = (36, 40, 32), (34, 30, 38)
    ct_grid = oblique_grid(shapes[0], (5.0, 5.4, 6.0), (5, -8, 12), (3, -4, 2))
    mr_grid = oblique_grid(shapes[1], (6.2, 6.6, 5.4), (-7, 4, -6), (-5, 8, 3))
    ct = scan("CT", shapes[0], ct_grid, np.eye(4), seed=3)
    mr = scan("MR", shapes[1], mr_grid, np.eye(4), seed=4)
    return HeadPair(ct, mr, np.eye(4))


@pytest.fixture(scope="module")
def kept(aligned: HeadPair) -> Registration:
    return register(Side(aligned.ct, "CT"), Side(aligned.mr, "MR"), SETTINGS)


def moved(pair: HeadPair, matrix: np.ndarray) -> HeadPair:
    return HeadPair(pair.ct, volume(pair.mr.numpy(), matrix @ affine_of(pair.mr)), matrix)


def test_the_identity_is_kept_and_passes_without_a_second_start(kept: Registration, aligned: HeadPair) -> None:
    np.testing.assert_array_equal(kept.warp.matrix, np.eye(4))
    assert kept.quality["transform"] == "headers"
    assert kept.quality["verdict"] == "pass", kept.quality["reason"]
    assert "start_disagreement_mm" not in kept.quality and kept.quality["header_kept"] is True
    assert kept.quality["nmi_peak_step_mm"] == pytest.approx(13.2)  # two of the coarsest voxels
    inside = aligned.ct.numpy() > -300
    bone, brain = inside & (aligned.ct.numpy() > 900), inside & (abs(aligned.ct.numpy() - 30) < 20)
    assert np.median(kept.moved.numpy()[bone]) < 250 < 400 < np.median(kept.moved.numpy()[brain])


@pytest.mark.parametrize("wrong", [rigid((0, 0, 0), (30, 0, 0)), rigid((0, 25, 0), (0, 0, 20))])
def test_headers_that_are_wrong_do_not_pass(aligned: HeadPair, wrong: np.ndarray) -> None:
    pair = moved(aligned, wrong)
    quality = register(Side(pair.ct, "CT"), Side(pair.mr, "MR"), SETTINGS).quality
    assert quality["verdict"] in ("warn", "fail"), quality


def test_images_that_do_not_meet_fail(aligned: HeadPair) -> None:
    pair = moved(aligned, rigid((0, 0, 0), (0, 600, 0)))
    quality = register(Side(pair.ct, "CT"), Side(pair.mr, "MR"), SETTINGS).quality
    assert quality["verdict"] == "fail"
    assert "do not meet" in quality["reason"]


def step() -> Registerd:
    plan = Register.model_validate({"fixed": "ct", "moving": {"mr": {"transform": "headers"}}})
    return Registerd(plan, MODALITIES, MAPS)


def frames(folder: Path, **numbers: int) -> Path:
    path = folder / "frames.json"
    path.write_text(json.dumps(numbers))
    return path


def test_two_frames_of_reference_are_refused(aligned: HeadPair, tmp_path: Path) -> None:
    case = {"ct": aligned.ct, "mr": aligned.mr, "frames": frames(tmp_path, ct=1, mr=2)}
    with pytest.raises(CaseError, match="ct and mr in one frame") as caught:
        step()(case)
    assert caught.value.code == "E_FRAME"


def test_one_frame_is_believed_and_an_unknown_one_is_said(aligned: HeadPair, tmp_path: Path) -> None:
    known = step()({"ct": aligned.ct, "mr": aligned.mr, "frames": frames(tmp_path, ct=1, mr=1)})
    unknown = step()({"ct": aligned.ct, "mr": aligned.mr})
    assert UNKNOWN not in known["mr_quality"]["reason"]
    assert unknown["mr_quality"]["reason"].endswith(UNKNOWN)
    assert unknown["mr_quality"]["verdict"] == known["mr_quality"]["verdict"] == "pass"
    assert unknown["flags"] == []
    assert share_frame({"frames": frames(tmp_path, ct=1, mr=1)}, "ct", "mr") is True
    assert share_frame({"frames": frames(tmp_path, ct=1, mr=2)}, "ct", "mr") is False
    assert share_frame({"frames": frames(tmp_path, ct=1)}, "ct", "mr") is None


def limb(modality: str, seed: int) -> MetaTensor:
    """A limb: the middle slice of the head all along its third axis, so that it matches as well 8 mm further."""
    affine = oblique_grid((48, 56, 40), (4.0, 4.0, 4.0), (0, 0, 0), (0, 0, 0))
    slice_ = scan(modality, (48, 56, 1), affine @ rigid((0, 0, 0), (0, 0, 19.5)), np.eye(4), seed).numpy()[0]
    noise = np.random.default_rng(seed).normal(0, 5, (48, 56, 40))
    return volume((np.repeat(slice_, 40, axis=2) + noise).astype(np.float32), affine)


def test_headers_of_one_frame_stand_where_the_images_match_as_well_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The NMI is a thousandth higher 7 mm away: the images are not moved there, and the conflict is said first."""
    ct, mr = limb("CT", 5), limb("MR", 6)
    pair = Pair(ct, mr, body_mask(ct, "CT"), body_mask(mr, "MR"))
    best = max((rigid((0, 0, 0), (0, 0, mm)) for mm in (-8.0, -7.0, 7.0, 8.0)), key=lambda pose: pair.nmi(pose) or 0)
    assert 0 < (pair.nmi(best) or 0) - (pair.nmi(np.eye(4)) or 0) < AlignmentLimits().nmi_noise
    answered(monkeypatch, searched(best, best))
    plan = Register.model_validate({"fixed": "ct", "moving": {"mr": {"transform": "rigid"}}})
    found = Registerd(plan, MODALITIES, MAPS)({"ct": ct, "mr": mr, "frames": frames(tmp_path, ct=1, mr=1)})
    quality = found["mr_quality"]
    assert (quality["verdict"], quality["header_kept"]) == ("warn", True)
    assert quality["reason"].startswith("The headers name one frame of reference, but the images match best 7.0 mm")
