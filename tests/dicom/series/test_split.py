"""Series that hold several volumes, made of headers alone: the parts, their names and their slices."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from pipeline.cases import Fault, Instance, Series
from pipeline.dicom.series.gate import candidates, judge
from pipeline.dicom.series.split import merge, split
from tests.dicom.stacks import even, series, stack

TURNED = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
BROKEN = Fault("E_PIXEL_LENGTH", "Expected 2 bytes, got 1.")


def parts_of(instances: list[Instance]) -> dict[str, list[Instance]]:
    return {part.part: list(part.instances) for part in split(series(instances))}


def shuffled(instances: list[Instance]) -> list[Instance]:
    return [instances[index] for index in np.random.default_rng(6).permutation(len(instances))]


def test_a_whole_series_is_left_alone() -> None:
    whole = series(shuffled(even()))
    assert split(whole) == [whole]


@pytest.mark.parametrize(
    ("tag", "values", "names"),
    [
        ("TemporalPositionIdentifier", ("2", "10", "1"), ("time 2 of 3", "time 3 of 3", "time 1 of 3")),
        ("EchoTime", ("12.5", "4.6"), ("echo 2 of 2", "echo 1 of 2")),
        ("ConvolutionKernel", ("Br38", "Hr60\\3"), ("kernel Br38", "kernel Hr60 3")),
        ("DiffusionBValue", ("0", "1000"), ("b 0", "b 1000")),
        ("AcquisitionNumber", ("4", "3"), ("acquisition 2 of 2", "acquisition 1 of 2")),
        ("ImageType", ("ORIGINAL\\PRIMARY\\M", "ORIGINAL\\PRIMARY\\P"), ("type 1 of 2", "type 2 of 2")),
        ("ComplexImageComponent", ("MAGNITUDE", "PHASE"), ("component MAGNITUDE", "component PHASE")),
    ],
)
def test_volumes_at_the_same_positions_are_told_apart(
    tag: str, values: tuple[str, ...], names: tuple[str, ...]
) -> None:
    made = [even(first=1 + 100 * index, **{tag: value}) for index, value in enumerate(values)]
    found = parts_of(shuffled([item for volume in made for item in volume]))
    assert set(found) == set(names)
    for name, volume in zip(names, made, strict=True):
        assert {item.sop_uid for item in found[name]} == {item.sop_uid for item in volume}
    for part in split(series([item for volume in made for item in volume])):
        assert part.notes == ("N_SPLIT",)
        assert judge(part).fault is None


def test_times_of_each_slice_give_the_order_at_each_position() -> None:
    """As when every slice is acquired at a time of its own: no value is shared by a volume's slices."""
    made = [
        replace(
            item, tags={**item.tags, "AcquisitionTime": f"10{minute:02d}{index:02d}.5"}, sop_uid=f"{minute}.{index}"
        )
        for minute in range(8)
        for index, item in enumerate(even())
    ]
    found = parts_of(shuffled(made))
    assert list(found) == [f"time {number} of 8" for number in range(1, 9)]
    for minute, part in enumerate(found.values()):
        assert {item.sop_uid.split(".")[0] for item in part} == {str(minute)}


def test_echoes_of_several_times_are_all_volumes() -> None:
    made = [
        item
        for time_point in (1, 2)
        for echo in (4.6, 9.2, 13.8)
        for item in even(TemporalPositionIdentifier=time_point, EchoTime=echo)
    ]
    found = parts_of(shuffled(made))
    assert sorted(found) == [f"time {point} of 2, echo {echo} of 3" for point in (1, 2) for echo in (1, 2, 3)]
    second = found["time 1 of 2, echo 2 of 3"]
    assert {(item.tags["EchoTime"], item.tags["TemporalPositionIdentifier"]) for item in second} == {("9.2", "1")}


def test_numbers_tell_volumes_apart_when_they_run_through_all_slices() -> None:
    volumes = [even(first=1 + 20 * index) for index in range(3)]
    found = parts_of(shuffled([item for volume in volumes for item in volume]))
    assert list(found) == ["volume 1 of 3", "volume 2 of 3", "volume 3 of 3"]
    assert {item.sop_uid for item in found["volume 2 of 3"]} == {item.sop_uid for item in volumes[1]}


def test_what_nothing_tells_apart_stays_together_and_is_refused() -> None:
    again = even(first=1001)
    (whole,) = split(series(even() + again))
    assert judge(whole).fault.code == "E_DUP_POS"
    one = judge(split(series([*even(), even(first=1001)[7]]))[0])
    assert (one.fault.code, one.fault.message) == ("E_DUP_POS", "2 of 21 slices share a position with another one.")


def test_a_time_point_that_lacks_a_slice_is_set_aside_and_the_others_are_not() -> None:
    made = [item for point in range(1, 5) for item in even(TemporalPositionIdentifier=point)]
    del made[20 + 19]  # the last slice of the second
    found = {part.part: judge(part) for part in split(series(made))}
    assert [part.fault.code if part.fault else "" for part in found.values()] == ["", "E_GAP", "", ""]
    assert found["time 2 of 4"].fault.message.startswith("1 of 20 slices are missing")


@pytest.mark.parametrize(
    ("where", "changes", "name"),
    [
        (9, {"orientation": TURNED}, "orientation"),
        (9, {"rows": 24}, "matrix"),
        (19, {"rows": 24}, "matrix"),
        (0, {"spacing_mm": (1.2, 0.9)}, "spacing"),
    ],
)
def test_a_stray_slice_is_a_part_and_the_stack_has_lost_it(where: int, changes: dict[str, object], name: str) -> None:
    slices = even()
    slices[where] = replace(slices[where], **changes)  # type: ignore[arg-type]
    main, stray = (judge(part) for part in split(series(slices)))
    assert (main.part, len(main.instances)) == (f"{name} 1 of 2", 19)
    assert main.fault is not None and main.fault.code == "E_GAP"
    assert stray.fault is not None and stray.fault.code == "E_SINGLE_SLICE"


def test_localizers_among_slices_spoil_nothing() -> None:
    scouts = [replace(item, orientation=TURNED) for item in even(2, first=90, ImageType="ORIGINAL\\PRIMARY\\LOCALIZER")]
    main, scout = (judge(part) for part in split(series([*scouts, *even()])))
    assert main.fault is None and len(main.instances) == 20
    assert scout.fault is not None and scout.fault.code == "E_SINGLE_SLICE"


def test_three_planes_of_one_series_are_three_volumes() -> None:
    planes = [TURNED, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)]
    made = [
        replace(
            item,
            orientation=plane,
            position=tuple(np.cross(plane[:3], plane[3:]) * 3.0 * index),
            sop_uid=f"{p}.{index}",
        )
        for p, plane in enumerate(planes)
        for index, item in enumerate(even(6))
    ]
    found = [judge(part) for part in split(series(made))]
    assert [part.part for part in found] == [f"orientation {index} of 3" for index in (1, 2, 3)]
    assert all(part.fault is None and len(part.instances) == 6 for part in found)


def test_directions_that_differ_by_rounding_are_one_orientation() -> None:
    slices = [
        replace(item, orientation=tuple(np.round(item.orientation, 4 - index % 2))) for index, item in enumerate(even())
    ]
    (whole,) = split(series(slices))
    assert judge(whole).fault is None


def test_blocks_are_apart_where_an_element_says_so() -> None:
    neck, pelvis = even(10, AcquisitionNumber=1), stack(np.arange(10) * 2.5 + 300, 11, AcquisitionNumber=2)
    found = [judge(part) for part in split(series(shuffled(neck + pelvis)))]
    assert [(part.part, len(part.instances), part.fault) for part in found] == [
        ("block 1 of 2", 10, None),
        ("block 2 of 2", 10, None),
    ]
    gap = [replace(item, tags={**item.tags, "AcquisitionNumber": "1"}) for item in neck + pelvis]
    assert judge(split(series(gap))[0]).fault.code == "E_GAP"


def test_a_rejected_file_is_missing_in_its_own_volume_alone() -> None:
    made = [item for point in (1, 2) for item in even(TemporalPositionIdentifier=point)]
    made[5] = replace(made[5], fault=BROKEN)
    first, second = (judge(part) for part in split(series(made)))
    assert first.fault is not None and first.fault.message == "1 of 20 slices were rejected (E_PIXEL_LENGTH)."
    assert second.fault is None
    made[5] = replace(made[5], position=None)
    assert all(judge(part).fault is not None for part in split(series(made)))


def test_hundreds_of_volumes_are_fast() -> None:
    made = [
        replace(
            item, sop_uid=f"{point}.{index}", tags={**item.tags, "AcquisitionTime": f"{100000 + point}.{index:03d}"}
        )
        for point in range(300)
        for index, item in enumerate(even(36))
    ]
    started = time.perf_counter()
    found = candidates([series(made)])
    assert len(found) == 300 and all(part.fault is None and len(part.instances) == 36 for part in found)
    assert time.perf_counter() - started < 10


def halves(**changes: object) -> tuple[Series, Series]:
    slices = even(AcquisitionNumber=1, AcquisitionTime="101500", SeriesDescription="HEAD")
    second = [replace(item, tags={**item.tags, **changes}) for item in slices[10:]]  # type: ignore[dict-item]
    return series(slices[:10]), series(second, series_uid="1.2.2")


def test_one_acquisition_in_two_series_is_one_volume() -> None:
    (joined,) = candidates(halves())
    assert joined.fault is None and joined.notes == ("N_MERGED",)
    assert [item.tags["InstanceNumber"] for item in joined.instances] == [str(number) for number in range(1, 21)]
    slices = even(AcquisitionNumber=1)
    (joined,) = candidates([series(slices[::2]), series(slices[1::2], series_uid="1.2.2")])
    assert joined.fault is None and len(joined.instances) == 20


@pytest.mark.parametrize(
    "changes",
    [
        {"FrameOfReferenceUID": "1.2.9"},
        {"ConvolutionKernel": "Hr60"},
        {"AcquisitionNumber": "2"},
        {"AcquisitionTime": "101800"},
        {"SeriesDescription": "NECK"},
        {"InstanceNumber": "1"},
    ],
)
def test_two_acquisitions_stay_two(changes: dict[str, object]) -> None:
    assert len(merge(halves(**changes))) == 2


def test_volumes_that_overlap_or_lie_apart_stay_two() -> None:
    first = series(even(AcquisitionNumber=1))
    for start_mm in (25.0, 51.0, 60.0):
        second = series(stack(np.arange(20) * 2.5 + start_mm, 21, AcquisitionNumber=1), series_uid="1.2.2")
        assert len(merge([first, second])) == 2


def test_times_do_not_mix_what_the_scanner_took_in_turn() -> None:
    """Two echoes of two time points, the echoes taken in turn from slice to slice: no volume has both."""
    made = []
    for index in range(12):
        for order in range(4):
            echo, seconds = (4.6, 9.2)[(order + index) % 2], 60 * order + index
            (item,) = stack(np.array([index * 2.5]), 100 * order + index, EchoTime=echo, AcquisitionTime=seconds)
            made.append(item)
    found = parts_of(made)
    assert len(found) == 4
    assert all(len(part) == 12 and len({item.tags["EchoTime"] for item in part}) == 1 for part in found.values())


def test_echo_planar_volumes_whose_ends_were_not_exported_are_told_apart_and_noted() -> None:
    """Numbers 1-6, 41-46 and 81-86 of one fMRI: six of forty slices of each volume."""
    made = [item for first in (1, 41, 81) for item in even(6, first=first, ScanningSequence="EP\\GR")]
    found = split(series(shuffled(made)))
    assert [part.part for part in found] == ["volume 1 of 3", "volume 2 of 3", "volume 3 of 3"]
    for part, first in zip(found, (1, 41, 81), strict=True):
        assert {int(item.tags["InstanceNumber"]) for item in part.instances} == set(range(first, first + 6))
        assert part.notes == ("N_SPLIT", "N_ENDS_MISSING") and judge(part).fault is None


@pytest.mark.parametrize("changes", [{"ScanningSequence": "GR"}, {"ScanningSequence": "EP", "InstanceNumber": 99}])
def test_numbers_with_holes_say_nothing_otherwise(changes: dict[str, object]) -> None:
    """Another sequence, or volumes that lack different slices."""
    made = [item for first in (1, 41) for item in even(6, first=first, ScanningSequence=changes["ScanningSequence"])]
    if "InstanceNumber" in changes:
        made[-1] = replace(made[-1], tags={**made[-1].tags, "InstanceNumber": str(changes["InstanceNumber"])})
    (whole,) = split(series(made))
    assert whole.part == "" and judge(whole).fault is not None
