from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.cases import Fault, Instance, Series
from pipeline.dicom.series.select import Selection, holds, plane_of, refuse, select
from pipeline.spec.spec import Role, Rule, Spec

AXIAL, CORONAL, SAGITTAL = (1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1)


def make(uid: str, modality: str = "CT", slices: int = 20, patient: str = "p", **changes: object) -> Series:
    tags = {"SeriesDescription": "HEAD", "EchoTime": "12.5", "ImageType": "ORIGINAL\\PRIMARY", "PatientID": patient}
    tags |= changes.pop("tags", {})  # type: ignore[arg-type]
    orientation = changes.pop("orientation", AXIAL)
    slice_ = Instance(Path("x"), "1", (0, 0, 0), orientation, (1, 1), 9, 9, 1, 0, tags)  # type: ignore[arg-type]
    return replace(Series(patient, "study", uid, modality, (slice_,) * slices), **changes)  # type: ignore[arg-type]


def choose(series: list[Series], **roles: Role) -> Selection:
    return select(series, Spec(name="x", description="x", roles=roles), lambda item: item.patient_id)


def test_rules_on_texts_and_numbers() -> None:
    first = make("1").instances[0]
    assert holds(Rule(tag="SeriesDescription", matches="(?i)^head$"), first)
    assert holds(Rule(tag="ImageType", matches=r"PRIMARY"), first)
    assert holds(Rule(tag="EchoTime", min=12, max=13), first)
    assert not holds(Rule(tag="EchoTime", max=12), first)
    assert not holds(Rule(tag="SeriesDescription", min=1), first)
    assert not holds(Rule(tag="RepetitionTime", matches=""), first)


@pytest.mark.parametrize(
    ("role", "reason"),
    [
        (Role(modality="CT"), ""),
        (Role(modality="MR"), "modality CT instead of MR"),
        (Role(modality="CT", min_instances=21), "20 instances, fewer than 21"),
        (Role(modality="CT", orientation="coronal"), "axial instead of coronal"),
        (Role(modality="CT", all=(Rule(tag="EchoTime", max=5),)), "`all` asks EchoTime in [, 5]"),
        (
            Role(modality="CT", none=(Rule(tag="ImageType", matches="PRIM"),)),
            "`none` forbids ImageType to match /PRIM/",
        ),
        (Role(modality="CT", any=(Rule(tag="SeriesDescription", matches="knee"),)), "`any` asks SeriesDescription"),
    ],
)
def test_a_refusal_says_why(role: Role, reason: str) -> None:
    assert refuse(make("1"), role).startswith(reason)
    assert bool(refuse(make("1"), role)) == bool(reason)


@pytest.mark.parametrize(("axes", "plane"), [(AXIAL, "axial"), (CORONAL, "coronal"), (SAGITTAL, "sagittal")])
def test_planes(axes: tuple[float, ...], plane: str) -> None:
    assert plane_of(make("1", orientation=axes).instances[0]) == plane


def test_one_series_a_role() -> None:
    found = choose([make("1"), make("2", "MR"), make("3", "PT")], ct=Role(modality="CT"), mr=Role(modality="MR"))
    assert [choice.role for choice in found.choices] == ["ct", "mr", ""]
    assert {role: series.series_uid for role, series in found.cases[0].series.items()} == {"ct": "1", "mr": "2"}
    assert found.cases[0].fault is None
    assert found.choices[2].reason == "ct: modality PT instead of CT; mr: modality PT instead of MR"


def test_an_ambiguous_match_is_reported_and_not_guessed() -> None:
    found = choose([make("1"), make("2")], ct=Role(modality="CT"))
    assert found.cases[0].fault.code == "E_AMBIGUOUS"
    assert [choice.reason for choice in found.choices] == ["ct: ambiguous with another series"] * 2


def test_a_preference_decides_but_a_tie_does_not() -> None:
    role = Role(modality="CT", prefer="most_instances")
    found = choose([make("1"), make("2", slices=30)], ct=role)
    assert found.cases[0].series["ct"].series_uid == "2"
    assert found.choices[0].reason == "ct: another series has more instances"
    assert choose([make("1"), make("2")], ct=role).cases[0].fault.code == "E_AMBIGUOUS"


def test_the_first_part_of_a_series_is_preferred_but_not_among_series() -> None:
    parts = [make("1", part=f"time {index} of 3") for index in (1, 2, 3)]
    assert choose(parts, ct=Role(modality="CT")).cases[0].fault.code == "E_AMBIGUOUS"
    role = Role(modality="CT", prefer="first_part")
    found = choose(parts, ct=role)
    assert found.cases[0].series["ct"].part == "time 1 of 3"
    assert found.choices[2].reason == "ct: another series is the first part"
    assert choose([*parts, make("2")], ct=role).cases[0].fault.code == "E_AMBIGUOUS"
    both = Role(modality="CT", prefer=("most_instances", "first_part"))
    assert choose([*parts, make("2", slices=9)], ct=both).cases[0].series["ct"].part == "time 1 of 3"


def test_a_part_is_chosen_by_name() -> None:
    parts = [make("1", part=f"echo {index} of 2") for index in (1, 2)]
    found = choose(parts, late=Role(modality="CT", part="^echo 2 "))
    assert found.cases[0].series["late"].part == "echo 2 of 2"
    assert found.choices[0].reason == "late: echo 1 of 2 instead of a part that matches /^echo 2 /"


def test_a_sound_series_is_taken_before_a_faulty_one() -> None:
    fault = Fault("E_GAP", "1 of 20 slices are missing.")
    found = choose([make("1", fault=fault), make("2")], ct=Role(modality="CT"))
    assert found.cases[0].series["ct"].series_uid == "2"
    alone = choose([make("1", fault=fault)], ct=Role(modality="CT"))
    assert (alone.cases[0].fault.code, alone.cases[0].fault.message) == ("E_GAP", "ct: 1 of 20 slices are missing.")


def test_missing_roles() -> None:
    required = choose([make("1")], ct=Role(modality="CT"), mr=Role(modality="MR"))
    assert required.cases[0].fault.code == "E_MISSING_ROLE"
    optional = choose([make("1")], ct=Role(modality="CT"), mr=Role(modality="MR", required=False))
    assert optional.cases[0].fault is None
    assert optional.cases[0].flags == ("N_NO_ROLE: no series fits the optional role mr",)


def test_patients_are_kept_apart_and_strangers_are_no_case() -> None:
    series = [make("1", patient="b"), make("2", patient="a"), make("3", "US", patient="c")]
    found = choose(series, ct=Role(modality="CT"))
    assert [case.case_id for case in found.cases] == ["a", "b"]
    assert found.choices[2].role == ""
