"""Registration as a step of a chain; `register` itself is answered for, so that nothing is registered here."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from pipeline.cases import Document, Verdict
from pipeline.errors import CaseError, UsageError
from pipeline.geometry import orientation_of
from pipeline.registration import Registerd, Registration, RegistrationSettings, Side, dictionary
from pipeline.registration.warp import Warp
from pipeline.run.fingerprint import describe
from pipeline.spec.register import Register
from pipeline.volumes import affine_of, matrix_from_transform, oriented, transform_from_matrix, volume
from tests.registration.conftest import MAPS, quick
from tests.registration.phantom import HeadPair, oblique_grid, rigid

MODALITIES = {"ct": "CT", "mr": "MR", "pet": "PT"}
FIRST, SECOND = rigid((5, -3, 8), (4, 2, -6)), rigid((-7, 2, 3), (1, -5, 9))
GRID = oblique_grid((14, 12, 10), (3, 4, 5), (9, -6, 14), (2, 3, -4))


def image(seed: int) -> torch.Tensor:
    return volume(np.random.default_rng(seed).normal(100, 20, (14, 12, 10)).astype(np.float32), GRID)


def plan(**more: object) -> Register:
    return Register.model_validate({"fixed": "ct", "moving": ["mr"], **more})


class Registers:
    """In the place of `register`: gives poses that were made up, and remembers what it was asked."""

    def __init__(self, *poses: np.ndarray, verdict: str = "pass") -> None:
        self.poses = list(poses)
        self.verdict = verdict
        self.asked: list[tuple[Side, Side, RegistrationSettings]] = []

    def __call__(
        self, fixed: Side, moving: Side, settings: RegistrationSettings, limits: object, one_frame: bool
    ) -> Registration:
        self.asked.append((fixed, moving, settings))
        self.one_frame = one_frame
        warp = Warp(self.poses.pop(0))
        quality = {"verdict": self.verdict, "reason": "Not sharp.", "nmi_after": 1.2, "header_kept": False}
        return Registration(warp, warp.transforms, warp.inverse(fixed.image), moving.image, quality, "== a run\n")


def step(monkeypatch: pytest.MonkeyPatch, registers: Registers, given: Register, **more: object) -> Registerd:
    monkeypatch.setattr(dictionary, "register", registers)
    return Registerd(given, MODALITIES, MAPS, **more)  # type: ignore[arg-type]


def test_the_step_fills_the_case(monkeypatch: pytest.MonkeyPatch) -> None:
    case = step(monkeypatch, Registers(FIRST), plan())({"ct": image(0), "mr": image(1), "flags": ["known before"]})
    np.testing.assert_allclose(matrix_from_transform(case["mr_transform"]), FIRST, atol=1e-9)
    np.testing.assert_allclose(matrix_from_transform(case["mr_inverse"]), np.linalg.inv(FIRST), atol=1e-9)
    assert case["mr_log"] == Document(".txt", b"== a run\n")
    assert case["verdict"].grade == case["mr_quality"]["verdict"] == "pass" and case["verdict"].unfit == ()
    assert case["measures"]["mr_nmi_after"] == 1.2
    assert "mr_header_kept" not in case["measures"]
    assert case["flags"] == ["known before"]
    assert not any(str(key).startswith("pet") for key in case)


@pytest.mark.parametrize(("numbers", "shared"), [({"ct": 1, "mr": 1}, True), ({"ct": 1, "mr": 2}, False), ({}, False)])
def test_it_is_told_whether_the_headers_name_one_frame(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, numbers: dict, shared: bool
) -> None:
    registers = Registers(FIRST)
    (tmp_path / "frames.json").write_text(json.dumps(numbers))
    case = {"ct": image(0), "mr": image(1), "frames": tmp_path / "frames.json"}
    step(monkeypatch, registers, plan())(case)
    assert registers.one_frame is shared


@pytest.mark.parametrize("verdict", ["warn", "fail"])
def test_a_verdict_that_is_no_pass_is_flagged(monkeypatch: pytest.MonkeyPatch, verdict: str) -> None:
    case = step(monkeypatch, Registers(FIRST, verdict=verdict), plan())({"ct": image(0), "mr": image(1)})
    assert case["flags"] == [f"mr: registration {verdict}: Not sharp."]
    unfit = ("mr_aligned",) if verdict == "fail" else ()
    assert case["verdict"] == Verdict(verdict, ("Alignment of MR: Not sharp.",), unfit)


def test_a_failed_alignment_stops_the_case_where_the_spec_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    stopping = step(monkeypatch, Registers(FIRST, verdict="fail"), plan(on_fail="stop"))
    with pytest.raises(CaseError, match="mr failed: Not sharp") as caught:
        stopping({"ct": image(0), "mr": image(1)})
    assert caught.value.code == "E_ALIGNMENT"
    assert step(monkeypatch, Registers(FIRST, verdict="warn"), plan(on_fail="stop"))({"ct": image(0), "mr": image(1)})


def test_one_role_by_way_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """PET onto MR, MR onto CT: PET's transform is both, and PET is resampled once, from its own voxels."""
    registers = Registers(FIRST, SECOND)
    given = plan(moving={"pet": {"via": "mr"}, "mr": {}})
    ct, mr, pet = image(0), image(1), image(2)
    case = step(monkeypatch, registers, given)({"ct": ct, "mr": mr, "pet": pet})
    for (fixed, moving, _), base, top in zip(registers.asked, (ct, mr), (mr, pet), strict=True):
        assert torch.equal(fixed.image, oriented(base)) and torch.equal(moving.image, oriented(top))
    np.testing.assert_allclose(matrix_from_transform(case["pet_transform"]), SECOND @ FIRST, atol=1e-9)
    back = np.linalg.inv(SECOND @ FIRST)
    np.testing.assert_allclose(matrix_from_transform(case["pet_inverse"]), back, atol=1e-9)
    expected = dictionary.resample_image(pet, ct, transform_from_matrix(SECOND @ FIRST), float(pet.min()))
    np.testing.assert_allclose(case["pet_aligned"].numpy(), expected.numpy(), atol=1e-3)
    assert case["pet_quality"]["via"] == "mr"


def test_a_way_is_only_as_good_as_its_worst_part(monkeypatch: pytest.MonkeyPatch) -> None:
    registers = Registers(FIRST, SECOND, verdict="fail")
    given = plan(moving={"mr": {}, "pet": {"via": "mr"}})
    monkeypatch.setattr(registers, "__call__", registers.__call__)
    chain = step(monkeypatch, registers, given)
    answers = iter(["fail", "pass"])

    def register(*arguments: object, one_frame: bool) -> Registration:
        registers.verdict = next(answers)
        return registers(*arguments, one_frame)  # type: ignore[arg-type]

    monkeypatch.setattr(dictionary, "register", register)
    case = chain({"ct": image(0), "mr": image(1), "pet": image(2)})
    assert case["pet_quality"]["verdict"] == "fail"
    assert case["pet_quality"]["reason"] == "As for mr: Not sharp."


def test_a_role_without_the_one_it_goes_via_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = step(monkeypatch, Registers(FIRST), plan(moving={"mr": {}, "pet": {"via": "mr"}}))
    with pytest.raises(CaseError, match="by way of which pet") as caught:
        chain({"ct": image(0), "pet": image(2)})
    assert caught.value.code == "E_MISSING_ROLE"


def test_masks_of_a_moving_role_are_carried_along(monkeypatch: pytest.MonkeyPatch) -> None:
    marks = volume((image(3).numpy() > 110).astype(np.uint8) * 5, GRID)
    case = {"ct": image(0), "mr": image(1), "gtv": marks, "organ": marks}
    masks = {"gtv": "mr", "organ": "ct"}
    shift = rigid((0, 0, 0), (0, 0, 0))
    done = step(monkeypatch, Registers(shift), plan(), masks=masks)(dict(case))
    np.testing.assert_array_equal(done["gtv_aligned"].numpy(), marks.numpy())
    assert "organ_aligned" not in done
    failed = step(monkeypatch, Registers(shift, verdict="fail"), plan(), masks=masks)(dict(case))
    assert "gtv_aligned" not in failed
    assert "mr_aligned" in failed


def test_labels_that_both_images_have_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same region, drawn one voxel of 5 mm further on, and two: the second is flagged."""
    shift = rigid((0, 0, 0), (0, 0, 0))
    masks = {"tumour_ct": "ct", "tumour_mr": "mr"}
    labels = {"tumour_ct": {"gtv": 1}, "tumour_mr": {"node": 1, "gtv": 2}}
    drawn = [np.zeros((14, 12, 10), np.uint8) for _ in range(3)]
    for number, values in enumerate(drawn):
        values[4:8, 4:8, 3 + number : 6 + number] = 1 if number == 0 else 2
    for further, verdict in ((1, "pass"), (2, "warn")):
        case = {"ct": image(0), "mr": image(1)}
        case |= {"tumour_ct": volume(drawn[0], GRID), "tumour_mr": volume(drawn[further], GRID)}
        done = step(monkeypatch, Registers(shift), plan(), masks=masks, labels=labels)(case)
        assert done["mr_quality"]["label_distance_mm"] == pytest.approx(5.0 * further, abs=1e-6)
        assert done["mr_quality"]["label_dice"] == pytest.approx(1 - further / 3)
        assert done["mr_quality"]["verdict"] == verdict
        assert done["measures"]["mr_label_distance_mm"] == done["mr_quality"]["label_distance_mm"]
        assert any("10.0 mm apart" in flag for flag in done["flags"]) == (further == 2)


def test_masks_and_landmarks_reach_the_registration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    marks = volume(np.ones((14, 12, 10), np.uint8), GRID)
    (tmp_path / "ct.csv").write_text("# convention: RAS\nname,x,y,z\na,1,2,3\n")
    registers = Registers(FIRST)
    given = plan(fixed_mask="head", moving={"mr": {"landmark_weight": 0.5}})
    case = {"ct": image(0), "mr": image(1), "head": marks, "ct_landmarks": tmp_path / "ct.csv"}
    step(monkeypatch, registers, given)(case)
    fixed, moving, settings = registers.asked[0]
    assert fixed.mask is not None and torch.equal(fixed.mask, oriented(marks))
    assert orientation_of(affine_of(fixed.mask)) == "RAS"
    assert moving.mask is None
    np.testing.assert_array_equal(fixed.landmarks.points, [[1, 2, 3]])
    assert settings.landmark_weight == 0.5
    with pytest.raises(CaseError, match="mask head") as caught:
        step(monkeypatch, Registers(FIRST), given)({"ct": image(0), "mr": image(1)})
    assert caught.value.code == "E_INPUT"


def test_landmarks_that_a_cohort_names_are_used_in_pairs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A role whose spec names none gets none; nor does one of which a case lacks a file."""
    (tmp_path / "a.csv").write_text("# convention: RAS\nname,x,y,z\na,1,2,3\n")
    files = {f"{role}_landmarks": tmp_path / "a.csv" for role in ("ct", "mr")}
    images = {"ct": image(0), "mr": image(1), "pet": image(2)}
    given = plan(moving=["mr", "pet"], landmarks={"ct": "{case}.csv", "mr": "{case}_mr.csv"})
    for present, used in ((files, [True, False]), ({"ct_landmarks": tmp_path / "a.csv"}, [False, False])):
        registers = Registers(FIRST, SECOND)
        step(monkeypatch, registers, given)({**images, **present})
        sides = [(fixed.landmarks is not None, moving.landmarks is not None) for fixed, moving, _ in registers.asked]
        assert sides == [(one, one) for one in used]


def test_landmarks_that_should_pull_have_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CaseError, match="which have a weight") as caught:
        step(monkeypatch, Registers(FIRST), plan(landmark_weight=0.1))({"ct": image(0), "mr": image(1)})
    assert caught.value.code == "E_LANDMARKS"


def test_the_step_is_described_by_the_content_of_the_parameter_file(tmp_path: Path) -> None:
    def made(iterations: int, name: str) -> Registerd:
        (tmp_path / name).write_text(quick("rigid_ct_mr", MaximumNumberOfIterations=iterations))
        given = plan(parameters=str(tmp_path / name), limits={"nmi_noise": 0.01})
        return Registerd(given, MODALITIES, MAPS)

    first = made(100, "a.txt")
    assert describe(first) == describe(made(100, "b.txt"))
    assert describe(first) != describe(made(200, "c.txt"))
    assert describe(pickle.loads(pickle.dumps(first))) == describe(first)
    assert first.limits.nmi_noise == 0.01


@pytest.mark.parametrize(
    ("more", "modalities", "word"),
    [
        ({}, {"ct": "CT"}, "mr"),
        ({"parameters": "nowhere.txt"}, MODALITIES, "nowhere.txt"),
        ({"parameters": "affine"}, MODALITIES, "rigid transform, got affine"),
        ({"transform": "landmarks_rigid", "parameters": "affine"}, MODALITIES, "no elastix parameters"),
    ],
)
def test_a_wrong_configuration_is_refused_at_construction(more: dict, modalities: dict, word: str) -> None:
    with pytest.raises(UsageError, match=word) as caught:
        Registerd(plan(**more), modalities, MAPS)
    assert caught.value.code == "E_CONFIG"


def test_a_case_without_its_fixed_role_is_refused(pair: HeadPair) -> None:
    with pytest.raises(CaseError) as caught:
        Registerd(plan(), MODALITIES, MAPS)({"mr": pair.mr})
    assert caught.value.code == "E_MISSING_ROLE"


def test_what_is_written_is_an_itk_transform(monkeypatch: pytest.MonkeyPatch) -> None:
    case = step(monkeypatch, Registers(FIRST), plan())({"ct": image(0), "mr": image(1)})
    assert isinstance(case["mr_transform"], sitk.Transform)
    assert affine_of(case["mr"]).tolist() == GRID.tolist()
