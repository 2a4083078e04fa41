"""One person, one frame of reference and one date to a volume; one person to a case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.cases import Instance, Series
from pipeline.dicom.series.frames import frame_uid
from pipeline.dicom.series.gate import candidates, judge
from pipeline.dicom.series.select import Selection, select
from pipeline.spec.spec import Role, Spec
from tests.dicom.stacks import even, series, stack

JANE = {"PatientName": "DOE^JANE", "PatientBirthDate": "19500101", "PatientSex": "F"}
TOM = {"PatientName": "MILLER^TOM", "PatientBirthDate": "19880630", "PatientSex": "M"}


def halves(first: dict[str, str], second: dict[str, str]) -> list[Instance]:
    """Twenty slices of one stack, ten of each kind."""
    return [*even(10, **first), *stack([25.0 + 2.5 * number for number in range(10)], first=11, **second)]


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (JANE, TOM, "PatientName, PatientBirthDate and PatientSex"),
        (JANE, {**JANE, "PatientBirthDate": "19500704"}, None),
        ({"PatientBirthDate": "19500312"}, {"PatientBirthDate": "19500704"}, "PatientBirthDate"),
        ({"FrameOfReferenceUID": "1.2.3"}, {"FrameOfReferenceUID": "1.2.4"}, "FrameOfReferenceUID"),
        ({"StudyDate": "20240115"}, {"StudyDate": "20230301"}, "StudyDate"),
        ({"SeriesDate": "20240115"}, {"SeriesDate": "20240117"}, "SeriesDate"),
        ({"AcquisitionDate": "2024.01.15"}, {"AcquisitionDate": "20230301"}, "AcquisitionDate"),
        ({"AcquisitionDate": "20231231"}, {"AcquisitionDate": "20240101"}, None),  # over midnight
        ({"FrameOfReferenceUID": "1.2.3"}, {"FrameOfReferenceUID": ""}, None),
        (JANE, {"PatientName": "Doe^Jane^^^"}, None),
        ({"StudyDate": "20240115"}, {"StudyDate": "no date"}, None),
    ],
)
def test_slices_of_one_stack(first: dict[str, str], second: dict[str, str], words: str | None) -> None:
    (found,) = candidates([series(halves(first, second))])
    assert len(found.instances) == 20
    if words is None:
        assert found.fault is None
    else:
        assert found.fault.code == "E_CONTRADICTION" and found.fault.message.endswith(f"each other in {words}.")
        assert not any(value in found.fault.message for value in {*first.values(), *second.values()} - {""})


@pytest.mark.parametrize(
    ("tag", "values"), [("FrameOfReferenceUID", ("1.2.3", "1.2.4")), ("StudyDate", ("20230301", "20240115"))]
)
def test_two_volumes_at_one_place_are_told_apart(tag: str, values: tuple[str, str]) -> None:
    both = [item for number, value in enumerate(values) for item in even(12, **{tag: value, "EchoTrain": number})]
    found = candidates([series(both)])
    assert [len(item.instances) for item in found] == [12, 12]
    assert [{item.tags[tag] for item in part.instances} for part in found] == [{value} for value in values]
    assert all(part.fault is None and part.notes == ("N_SPLIT",) for part in found)


def test_blocks_of_two_frames_far_apart_are_two_volumes() -> None:
    far = stack([200.0 + 2.5 * number for number in range(10)], first=11, FrameOfReferenceUID="1.2.4")
    found = candidates([series([*even(10), *far])])
    assert [(part.part, part.fault) for part in found] == [("block 1 of 2", None), ("block 2 of 2", None)]


def test_a_frame_for_each_slice_is_none() -> None:
    scattered = [replace(item, tags={**item.tags, "FrameOfReferenceUID": f"1.{n}"}) for n, item in enumerate(even())]
    found = judge(series(scattered))
    assert (found.fault, found.notes) == (None, ("N_NO_FRAME",))
    assert frame_uid(found) == ""


def of(uid: str, modality: str, person: dict[str, str]) -> Series:
    return series(even(**person), series_uid=uid, modality=modality)


def choose(*members: Series) -> Selection:
    roles = {"ct": Role(modality="CT", prefer="most_instances"), "mr": Role(modality="MR")}
    return select(members, Spec(name="x", description="x", roles=roles), lambda item: item.patient_id)


def test_two_persons_under_one_id_are_no_case() -> None:
    fault = choose(of("1", "CT", JANE), of("2", "MR", TOM)).cases[0].fault
    assert fault is not None and fault.code == "E_CONTRADICTION"
    assert "PatientName, PatientBirthDate and PatientSex" in fault.message and "DOE" not in fault.message
    one = choose(of("1", "CT", JANE), of("2", "MR", {"PatientName": "DOE JANE"}))
    assert one.cases[0].fault is None and one.cases[0].flags == ()


def test_a_preference_does_not_choose_between_persons() -> None:
    """The other person's CT would lose for its fewer slices, and nobody would know that there is one."""
    shorter = series(even(10, **TOM), series_uid="3")
    fault = choose(of("1", "CT", JANE), of("2", "MR", JANE), shorter).cases[0].fault
    assert fault is not None and fault.code == "E_CONTRADICTION"


def test_a_new_name_is_said() -> None:
    found = choose(of("1", "CT", JANE), of("2", "MR", {**JANE, "PatientName": "SMITH^JANE"}))
    assert found.cases[0].fault is None
    assert found.cases[0].flags == ("N_TWO_NAMES: the patient's name differs between series; birth date and sex agree",)
