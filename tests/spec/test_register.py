"""The `register` section of a data spec, and what later stages make of an alignment that failed."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.cases import Artifact, Grade, Record, Verdict
from pipeline.preprocessing.branches import Branchd
from pipeline.registration import AlignmentLimits, Registerd
from pipeline.registration.dictionary import aligned_images
from pipeline.shipped import shipped
from pipeline.spec.register import Limits, Moving, Register
from pipeline.spec.spec import Spec
from pipeline.store import records
from pipeline.store.files import sha256_file
from tests.registration.conftest import MAPS


def spec(**register: object) -> Spec:
    roles = {"ct": {"modality": "CT"}, "mr": {"modality": "MR"}, "pet": {"modality": "PT", "required": False}}
    masks = {"gtv": {"of": "mr", "labels": {"tumour": "gtv"}}, "head": {"of": "ct", "labels": {"head": "head"}}}
    section = {"fixed": "ct", "moving": ["mr", "pet"], **register}
    return Spec.model_validate({"name": "x", "description": "X.", "roles": roles, "masks": masks, "register": section})


def test_a_list_of_roles_means_no_settings_of_their_own() -> None:
    listed = Register.model_validate({"fixed": "ct", "moving": ["mr", "pet"]})
    assert listed == Register.model_validate({"fixed": "ct", "moving": {"mr": None, "pet": {}}})
    assert listed.roles == ["ct", "mr", "pet"]
    assert listed.settings("mr").transform == "rigid"


def test_a_roles_own_settings_come_first() -> None:
    given = {"transform": "bspline", "parameters": "own.txt", "landmark_weight": 0.1}
    moving = {"mr": {}, "pet": {"transform": "rigid", "landmark_weight": 0}}
    section = Register.model_validate({"fixed": "ct", "moving": moving, **given})
    mr, pet = section.settings("mr"), section.settings("pet")
    assert (mr.transform, mr.parameters, mr.landmark_weight) == ("bspline", "own.txt", 0.1)
    assert (pet.transform, pet.parameters, pet.landmark_weight) == ("rigid", None, 0)


def test_roles_that_go_via_another_come_after_it() -> None:
    moving = {"a": {"via": "b"}, "b": {"via": "c"}, "c": {}}
    assert Register.model_validate({"fixed": "ct", "moving": moving}).in_order == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("landmarks", "words"),
    [
        ({"ct": "{case}.csv"}, "`ct` have no counterpart"),
        ({"mr": "{case}.csv", "pet": "{case}_p.csv"}, "`mr` have no counterpart"),
        ({"ct": "{case}.csv", "mr": "{case}_m.csv", "us": "{case}_u.csv"}, "`us` have no counterpart"),
        ({"ct": "ct.csv", "mr": "{case}_m.csv"}, "needs {case}"),
        ({"ct": "{case}/{session}.csv", "mr": "{case}/{session}_m.csv"}, "with DICOM, {case} alone"),
        ({"ct": "{case}/{session}.csv", "mr": "{case}_m.csv"}, "that `files` have"),
    ],
)
def test_landmarks_that_are_refused(landmarks: dict[str, str], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        spec(landmarks=landmarks)


def test_the_page_explains_every_key_and_names_every_default() -> None:
    page = shipped("docs", "reference", "data-specs.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    for name in Register.model_fields:
        assert any(row.startswith(f"| `register.{name}") for row in rows), name
    for name in Moving.model_fields:
        assert any(row.startswith("| `register.moving.<role>.") and f"{name}`" in row.split("|")[1] for row in rows), (
            name
        )
    for name in Limits.model_fields:
        (row,) = [row for row in rows if f"`{name}`" in row.split("|")[1]]
        names = [part.strip(" `") for part in row.split("|")[1].split(",")]
        defaults = [float(part) for part in row.split("|")[2].split(",")]
        assert defaults[names.index(name)] == getattr(AlignmentLimits(), name), name


def test_a_weight_of_landmarks_is_for_transforms_that_are_searched() -> None:
    """A role that its headers align needs no landmarks, though the section gives them a weight."""
    section = Register.model_validate(
        {"fixed": "ct", "moving": {"mr": {}, "pet": {"transform": "headers"}}, "landmark_weight": 0.1}
    )
    assert [section.settings(role).landmark_weight for role in ("mr", "pet")] == [0.1, 0.0]
    for given in (
        {"moving": ["mr"], "transform": "headers", "landmark_weight": 0.1},
        {"moving": {"mr": {"transform": "landmarks_rigid", "landmark_weight": 0.1}}},
    ):
        with pytest.raises(ValidationError, match="transform that is searched"):
            Register.model_validate({"fixed": "ct", **given})


def test_landmarks_by_way_of_another_role() -> None:
    """PET goes via MR: its counterpart is MR's landmarks, not CT's."""
    moving = {"mr": {}, "pet": {"via": "mr"}}
    marks = {"mr": "{case}_m.csv", "pet": "{case}_p.csv"}
    assert spec(moving=moving, landmarks=marks).landmark_files == marks
    with pytest.raises(ValidationError, match="counterpart"):
        spec(moving=moving, landmarks={"ct": "{case}.csv", "pet": "{case}_p.csv"})


@pytest.mark.parametrize(
    ("moving", "words"),
    [
        ({"mr": {"via": "us"}}, "no moving role"),
        ({"mr": {"via": "ct"}}, "no moving role"),
        ({"mr": {"via": "mr"}}, "leads back"),
        ({"mr": {"via": "pet"}, "pet": {"via": "mr"}}, "leads back"),
        ({"mr": {"transform": "elastic"}}, "transform"),
        ({}, "at least 1"),
    ],
)
def test_sections_that_are_refused(moving: dict, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Register.model_validate({"fixed": "ct", "moving": moving})


def test_a_mask_has_to_be_of_its_role() -> None:
    assert spec(fixed_mask="head").registration.masks == {"ct": "head"}
    with pytest.raises(ValidationError, match="`gtv`, which `masks` does not define for `ct`"):
        spec(fixed_mask="gtv")


def test_what_registration_makes() -> None:
    found = spec()
    made = Registerd(found.registration, found.modalities, MAPS, found.mask_roles, needed=found.needed).writes()
    assert made["mr_aligned"] == "image"
    assert made["mr_inverse"] == made["mr_transform"] == "transform"
    assert made["pet_aligned"] == "image?"
    assert made["gtv_aligned"] == "label?"
    assert "head_aligned" not in made


def test_later_stages_may_have_to_do_without_an_alignment_that_failed() -> None:
    flagging, stopping = spec(), spec(on_fail="stop")
    assert aligned_images(flagging, ["ct", "mr"]) == {"ct": "image", "mr_aligned": "image?"}
    assert aligned_images(stopping, ["ct", "mr", "pet"]) == {
        "ct": "image",
        "mr_aligned": "image",
        "pet_aligned": "image?",
    }
    made = Branchd(aligned_images(flagging, ["ct", "mr"]), ["ct", "mr"], "windows")
    assert made.writes() == {"ct_windows": "image", "mr_windows": "image?"}


@pytest.mark.parametrize(("verdict", "given"), [("pass", True), ("warn", True), ("fail", False)])
def test_an_alignment_that_failed_is_for_reports_alone(tmp_path: Path, verdict: Grade, given: bool) -> None:
    folder = tmp_path / "cases/one/register"
    folder.mkdir(parents=True)
    made = []
    for key in ("mr_aligned", "pet_aligned"):
        (folder / f"{key}.nii.gz").write_bytes(key.encode())
        path = f"cases/one/register/{key}.nii.gz"
        made.append(Artifact(key, "image", path, sha256_file(tmp_path / path)))
    judged = Verdict(verdict, ("Because.",), ("mr_aligned",) if verdict == "fail" else ())
    records.write(Record("one", "register", "k", "done", artifacts=tuple(made), verdict=judged), folder)
    reads = {"mr_aligned": "image?", "pet_aligned": "image?"}
    (case,) = records.FindCases(tmp_path, reads)()
    assert ("mr_aligned" in case) is given
    assert "pet_aligned" in case
    (shown,) = records.FindCases(tmp_path, reads, all_cases=True)()
    assert "mr_aligned" in shown
