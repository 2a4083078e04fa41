"""Which of repeated acquisitions is taken, and what is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.cases import Series
from pipeline.dicom.series.again import latest
from pipeline.dicom.series.select import Selection, select
from pipeline.shipped import shipped
from pipeline.spec.spec import Role, Spec, load_spec
from tests.dicom.stacks import AXES, even, series, slice_at


def scan(uid: str, time: str, count: int = 19, **tags: object) -> Series:
    tags = {"SeriesDescription": "t2_tse_tra", "EchoTime": "101", "AcquisitionTime": time, **tags}
    changes = {name: tags.pop(name) for name in ("study_uid", "part") if name in tags}
    return series(even(count, StudyDate="20240115", **tags), modality="MR", series_uid=uid, **changes)


def choose(*members: Series) -> Selection:
    spec = Spec(name="x", description="x", roles={"t2": Role(modality="MR", prefer="latest")})
    return select(members, spec, lambda item: "p")


def test_the_latest_complete_one_is_taken_and_said() -> None:
    found = choose(scan("1", "100900"), scan("2", "101500", count=12), scan("3", "100000"))
    assert found.cases[0].fault is None and found.cases[0].series["t2"].series_uid == "1"
    assert found.cases[0].flags == ("N_LATEST: t2: the latest complete one of 3 acquisitions was taken",)
    reason = "t2: another series is a later complete acquisition of the same protocol"
    assert [choice.reason for choice in found.choices] == ["", reason, reason]
    spec = Spec(name="x", description="x", roles={"t2": Role(modality="MR")})
    assert select([scan("1", "1"), scan("3", "2")], spec, lambda item: "p").cases[0].fault.code == "E_AMBIGUOUS"


@pytest.mark.parametrize(
    "times",
    [
        {"SeriesTime": "110000"},
        {"AcquisitionTime": "", "SeriesTime": "110000"},
        {"AcquisitionDate": "20240116", "AcquisitionTime": "000100"},
        {"AcquisitionDateTime": "20240115103000.00"},
        {"FlipAngle": "150", "AcquisitionTime": "100001"},
    ],
)
def test_by_which_time(times: dict[str, str]) -> None:
    first = scan("1", "100000", SeriesTime="101000", FlipAngle="160")
    assert latest([first, scan("2", "100000", **{"FlipAngle": "160", **times})]) == 1


def test_an_earlier_scan_that_was_processed_last_is_not_later() -> None:
    early = scan("1", "100000", SeriesTime="120000")
    assert latest([early, scan("2", "101000", SeriesTime="110000"), scan("3", "101000", SeriesTime="111000")]) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"AcquisitionTime": "100000"},
        {"SeriesDescription": "t2_tse_tra_fs"},
        {"ProtocolName": "other"},
        {"EchoTime": "120"},
        {"ImageType": "DERIVED\\PRIMARY\\M"},
        {"ContrastBolusAgent": "gadobutrol"},
        {"ConvolutionKernel": "Br64"},
        {"TemporalPositionIdentifier": "2"},
        {"SliceThickness": "5"},
        {"study_uid": "1.9"},
        {"part": "echo 2 of 2"},
    ],
)
def test_what_is_no_repetition_stays_ambiguous(changes: dict[str, str]) -> None:
    found = choose(
        scan("1", "100000"),
        scan("2", **{"time": "101000", **changes}) if "AcquisitionTime" not in changes else scan("2", "100000"),
    )
    assert found.cases[0].fault.code == "E_AMBIGUOUS"


def test_geometry_has_to_agree() -> None:
    first, again = scan("1", "100000"), scan("2", "101000")

    def moved(along_mm: float = 0.0, aside_mm: float = 0.0, spacing: float = 1.0, turn_deg: float = 0.0) -> Series:
        shift = along_mm * AXES[2] + aside_mm * AXES[0]
        angle = np.radians(turn_deg)
        row = np.cos(angle) * AXES[0] + np.sin(angle) * AXES[2]
        changed = [
            replace(
                item,
                position=tuple((np.array(item.position) + shift).tolist()),
                orientation=(*row.tolist(), *AXES[1].tolist()),
                spacing_mm=(1.1 * spacing, 0.9 * spacing),
            )
            for item in again.instances
        ]
        return replace(again, instances=tuple(changed))

    assert latest([first, moved()]) == latest([first, moved(5.0, 3.0)]) == latest([first, moved(turn_deg=4.0)]) == 1
    for other in (moved(along_mm=30.0), moved(aside_mm=20.0), moved(spacing=1.2), moved(turn_deg=20.0)):
        assert latest([first, other]) is None


def test_time_points_are_no_repetitions() -> None:
    assert latest([scan(str(number), f"10000{number}") for number in range(4)]) is None
    parts = [scan("1", f"10000{number}", part=f"time {number} of 2") for number in (1, 2)]
    assert latest(parts) is None
    assert latest([scan("1", "100000"), scan("1", "100100")]) is None


def test_the_shipped_prostate_spec_chooses() -> None:
    """Two T2 and three ADC of one protocol, as patients have them."""

    def of(uid: str, time: str, description: str, kind: str) -> Series:
        instances = [
            replace(slice_at(3.0 * k, k + 1), orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), position=(0.0, 0.0, 3.0 * k))
            for k in range(19)
        ]
        tags = {"SeriesDescription": description, "AcquisitionTime": time, "StudyDate": "20240115", "ImageType": kind}
        tagged = [replace(item, tags={**item.tags, **tags}) for item in instances]
        return series(tagged, modality="MR", series_uid=uid)

    t2 = [of(f"1.{n}", f"10{n}000", "t2_tse_tra", "ORIGINAL\\PRIMARY\\M\\ND") for n in range(2)]
    kind = "DERIVED\\PRIMARY\\DIFFUSION\\ADC"
    adc = [of(f"2.{n}", f"11{n}000", "ep2d_diff_tra_DYNDIST_ADC", kind) for n in range(3)]
    hbv = of("3", "113000", "ep2d_diff_tra_DYNDISTCALC_BVAL", "DERIVED\\PRIMARY\\DIFFUSION\\CALC_BVALUE")
    spec = load_spec(Path(shipped("data_specs", "prostate_mr.yaml")))
    (case,) = select([*t2, *adc, hbv], spec, lambda item: "p").cases
    assert case.fault is None
    assert {role: item.series_uid for role, item in case.series.items()} == {"t2w": "1.1", "adc": "2.2", "hbv": "3"}
    assert [flag.split(":")[:2] for flag in case.flags] == [["N_LATEST", " t2w"], ["N_LATEST", " adc"]]
    assert spec.weighted_mr == ["t2w", "hbv"]
