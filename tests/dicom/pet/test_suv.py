"""SUV by body weight: analytic decay, each branch by a header of its own, refusals that name what is missing."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import PositronEmissionTomographyImageStorage

from pipeline.cases import Series
from pipeline.dicom.headers.header import read_header
from pipeline.dicom.pet.nuclides import HALF_LIVES_S
from pipeline.dicom.pet.suv import ToSuvd, to_suv, uptake_of
from pipeline.dicom.pixels.volume import read
from pipeline.dicom.series.gate import judge
from pipeline.errors import QuarantineError
from pipeline.simulation.dicom import SeriesHeader, write_series
from pipeline.spec.spec import Role, Spec
from tests.phantoms.phantom import position_phantom

Change = Callable[[Dataset, Dataset, int], None]
WEIGHT_KG, DOSE_BQ, HALF_LIFE_S = 70.0, 350e6, 6586.2
PHILIPS = "Philips PET Private Group"


def write_pet(folder: Path, change: Change | None = None) -> Series:
    """A PET series of four slices in Bq/ml, injected at 09:00, scanned from 10:00:00 on; each slope differs.

    Args:
        folder: made if it is missing.
        change: changes (header, tracer, slice) before a slice is written.
    """
    image = position_phantom((12, 10, 4), spacing_mm=(4.1, 4.3, 5.0))
    image += 400.0
    paths = write_series(image, folder, SeriesHeader(modality="MR", date="20240115", time="100000"))
    for number, path in enumerate(paths):
        header, tracer = pydicom.dcmread(path), Dataset()
        header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = PositronEmissionTomographyImageStorage
        header.Modality, header.Units, header.DecayCorrection = "PT", "BQML", "START"
        header.CorrectedImage = ["DECY", "ATTN", "SCAT"]
        header.PatientWeight = str(WEIGHT_KG)
        header.RescaleSlope, header.RescaleIntercept = f"{1.5 + 0.25 * number}", "0"
        header.SeriesDate = header.AcquisitionDate = "20240115"
        header.SeriesTime, header.AcquisitionTime = "100000", f"10{5 * (number // 2):02d}00"
        header.FrameReferenceTime, header.ActualFrameDuration = "0", "300000"
        tracer.RadionuclideTotalDose, tracer.RadionuclideHalfLife = str(DOSE_BQ), str(HALF_LIFE_S)
        tracer.RadiopharmaceuticalStartTime = "090000"
        if change is not None:
            change(header, tracer, number)
        if "RadiopharmaceuticalInformationSequence" not in header:
            header.RadiopharmaceuticalInformationSequence = Sequence([tracer])
        header.save_as(path)
    series = series_of(folder)
    assert series.fault is None and len(series.instances) == 4
    return series


def series_of(folder: Path) -> Series:
    headers = [read_header(path) for path in sorted(folder.iterdir())]
    instances = tuple(instance for header in headers for instance in header.instances)
    return judge(Series("patient", headers[0].study_uid, headers[0].series_uid, "PT", instances))


def factor_after(seconds: float, bq_ml: float = 1.0) -> float:
    """SUV for one unit, from the law of decay alone."""
    return bq_ml * WEIGHT_KG * 1000 / (DOSE_BQ * math.exp(-math.log(2) * seconds / HALF_LIFE_S))


def put(**values: object) -> Change:
    """Set header values; those of the tracer start with Radio…, None deletes."""

    def change(header: Dataset, tracer: Dataset, _: int) -> None:
        for keyword, value in values.items():
            where = tracer if keyword.startswith("Radio") else header
            if value is None:
                del where[keyword]
            else:
                setattr(where, keyword, value)

    return change


def test_the_volume_is_the_activity_times_the_factor(tmp_path: Path) -> None:
    """Each slice by its own slope first; the factor by the law of decay over the hour since injection."""
    series = write_pet(tmp_path / "pet")
    case = ToSuvd(["pet"])({"case_id": "a", "pet": series, "fault": None})
    activity, suv = read(series).image.numpy().astype(float), read(case["pet"]).image.numpy().astype(float)
    assert len({item.slope for item in series.instances}) == 4
    np.testing.assert_allclose(suv, activity * factor_after(3600), rtol=1e-6)
    measures = case["measures"]
    assert measures["pet_suv_factor"] == pytest.approx(factor_after(3600), rel=1e-9)
    assert measures["pet_decay_minutes"] == 60
    assert measures["pet_suv_from"] == "BQML, START, SeriesTime"
    assert (measures["pet_weight_kg"], measures["pet_dose_mbq"], measures["pet_half_life_s"]) == (70, 350, 6586.2)
    assert case["flags"] == []


def _ge_private(header: Dataset, tracer: Dataset, number: int) -> None:
    header.SeriesTime = "153000"
    header.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "20240115095800.00")


def _back_computed(header: Dataset, tracer: Dataset, number: int) -> None:
    """Frames of 300 s from 10:00 and 10:05: their mean count rate lies where the law of decay says."""
    rate = math.log(2) / HALF_LIFE_S
    mean_s = math.log(rate * 300 / (1 - math.exp(-rate * 300))) / rate
    header.SeriesTime = "153000"
    header.FrameReferenceTime = f"{(300 * (number // 2) + mean_s) * 1000:.6f}"


def _other_clock(header: Dataset, tracer: Dataset, number: int) -> None:
    header.TimezoneOffsetFromUTC = "+0100"
    tracer.RadiopharmaceuticalStartDateTime = "20240115080000+0000"  # 09:00 by the scanner's clock


def _philips_suv(header: Dataset, tracer: Dataset, number: int) -> None:
    header.Units = "CNTS"
    block = header.private_block(0x7053, PHILIPS, create=True)
    block.add_new(0x00, "DS", "0.000551")
    block.add_new(0x09, "DS", "1.7")


def _philips_activity(header: Dataset, tracer: Dataset, number: int) -> None:
    header.Units = "CNTS"
    block = header.private_block(0x7053, PHILIPS, create=True)
    block.add_new(0x00, "DS", "0")
    block.add_new(0x09, "DS", "1.7")


@pytest.mark.parametrize(
    ("change", "factor", "source", "flags"),
    [
        (put(DecayCorrection="ADMIN"), factor_after(0), "BQML, ADMIN", 0),
        (put(RadiopharmaceuticalStartDateTime="20240115091500"), factor_after(2700), "BQML, START, SeriesTime", 0),
        (put(RadiopharmaceuticalStartDateTime="20240115085959.5"), factor_after(3600.5), "BQML, START, SeriesTime", 0),
        (put(RadiopharmaceuticalStartDateTime="20240116090000"), factor_after(3600), "BQML, START, SeriesTime", 1),
        (put(RadiopharmaceuticalStartTime="223000"), factor_after(11.5 * 3600), "BQML, START, SeriesTime", 0),
        (put(SeriesTime="153000"), factor_after(3600), "BQML, START, AcquisitionTime", 0),
        (put(SeriesDate="20240301"), factor_after(3600), "BQML, START, AcquisitionTime", 0),
        (_ge_private, factor_after(3480), "BQML, START, (0009,100D)", 0),
        (_back_computed, factor_after(3600), "BQML, START, FrameReferenceTime", 0),
        (_other_clock, factor_after(3600), "BQML, START, SeriesTime", 0),
        (_philips_suv, 0.000551, "CNTS, (7053,1000)", 0),
        (_philips_activity, factor_after(3600, 1.7), "CNTS, START, SeriesTime", 0),
        (put(Units="GML", CorrectedImage=None, PatientWeight=None), 1.0, "GML", 0),
        (put(Units="GML", SUVType="BW"), 1.0, "GML", 0),
    ],
)
def test_each_branch(tmp_path: Path, change: Change, factor: float, source: str, flags: int) -> None:
    found = uptake_of(write_pet(tmp_path / "pet", change))
    assert found.factor == pytest.approx(factor, rel=1e-8)
    assert found.measures["suv_from"] == source
    assert len(found.flags) == flags and all(flag.startswith("N_INJECTION_DATE: ") for flag in found.flags)


def test_an_injection_before_midnight(tmp_path: Path) -> None:
    """23:40 and 00:25: three quarters of an hour."""

    def change(header: Dataset, tracer: Dataset, number: int) -> None:
        header.SeriesTime, header.AcquisitionTime = "002500", "002500"
        tracer.RadiopharmaceuticalStartTime = "234000.00"

    found = uptake_of(write_pet(tmp_path / "pet", change))
    assert found.measures["decay_minutes"] == 45
    assert found.factor == pytest.approx(factor_after(2700), rel=1e-8)


def test_a_long_lived_tracer_needs_the_date_of_injection(tmp_path: Path) -> None:
    """Zr-89 is scanned days after the injection."""
    half_life_s = 78.41 * 3600
    days = put(RadionuclideHalfLife=str(half_life_s), RadiopharmaceuticalStartDateTime="20240112100000")
    found = uptake_of(write_pet(tmp_path / "days", days))
    assert found.measures["decay_minutes"] == 3 * 24 * 60
    assert found.factor == pytest.approx(WEIGHT_KG * 1000 / (DOSE_BQ * 2 ** (-72 / 78.41)), rel=1e-6)
    with pytest.raises(QuarantineError, match="E_SUV: RadiopharmaceuticalStartDateTime"):
        uptake_of(write_pet(tmp_path / "time", put(RadionuclideHalfLife=str(half_life_s))))


def _one_slice_of_another_unit(header: Dataset, tracer: Dataset, number: int) -> None:
    header.Units = "GML" if number == 2 else "BQML"


def _without_tracer(header: Dataset, tracer: Dataset, number: int) -> None:
    header.RadiopharmaceuticalInformationSequence = Sequence([])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put(PatientWeight=None), "PatientWeight"),
        (put(PatientWeight="0"), "PatientWeight"),
        (put(PatientWeight="70000"), "not in kg"),
        (put(RadionuclideTotalDose=None), "RadionuclideTotalDose"),
        (put(RadionuclideTotalDose="350"), "not in Bq"),
        (put(RadionuclideHalfLife=None), "RadionuclideHalfLife"),
        (put(RadionuclideHalfLife="109.77"), "33 half-lives"),
        (put(RadiopharmaceuticalStartTime=None), "RadiopharmaceuticalStartTime"),
        (put(RadiopharmaceuticalStartTime="100200"), "half-lives"),
        (put(AcquisitionTime=None), "AcquisitionTime"),
        (put(AcquisitionDate=""), "AcquisitionDate"),
        (put(DecayCorrection="NONE"), "START or ADMIN, got NONE"),
        (put(DecayCorrection=None), "START or ADMIN, got none"),
        (put(CorrectedImage=["ATTN"]), "for decay"),
        (put(CorrectedImage=None), "for decay and attenuation"),
        (put(Units=None), "Units of BQML, CNTS or GML, got none"),
        (put(Units="PROPCPS"), "got PROPCPS"),
        (put(Units="CNTS"), "7053,1000"),
        (put(Units="GML", SUVType="LBM"), "type LBM"),
        (_one_slice_of_another_unit, "different Units"),
        (_without_tracer, "RadiopharmaceuticalInformationSequence"),
    ],
)
def test_what_is_missing_or_wrong_is_refused_by_name(tmp_path: Path, change: Change, words: str) -> None:
    series = write_pet(tmp_path / "pet", change)
    with pytest.raises(QuarantineError) as caught:
        ToSuvd(["pet"])({"case_id": "a", "pet": series})
    assert caught.value.code == "E_SUV"
    assert caught.value.message.startswith("pet: ") and words in caught.value.message


def test_a_number_with_a_comma_is_refused(tmp_path: Path) -> None:
    write_pet(tmp_path / "pet", put(PatientWeight="70.5"))
    for path in (tmp_path / "pet").iterdir():
        path.write_bytes(path.read_bytes().replace(b"70.5", b"70,5"))
    with pytest.raises(QuarantineError, match="E_SUV: PatientWeight"):
        uptake_of(series_of(tmp_path / "pet"))


def test_a_slice_without_rescale_has_the_factor_alone(tmp_path: Path) -> None:
    series = write_pet(tmp_path / "pet", put(RescaleSlope=None, RescaleIntercept=None))
    scaled = to_suv(series, 0.25)
    assert {(item.slope, item.intercept) for item in scaled.instances} == {(0.25, 0.0)}


def test_the_unit_is_of_pet_alone() -> None:
    with pytest.raises(ValueError, match="for the modality PT alone"):
        Role(modality="CT", unit="SUVbw")
    for wrong in ("SUVBW", "SUV", "suv bw"):
        with pytest.raises(ValueError, match="did you mean `SUVbw`"):
            Role(modality="PT", unit=wrong)
    roles = {"pet": Role(modality="PT", unit="SUVbw"), "ct": Role(modality="CT", unit="HU")}
    assert Spec(name="x", description="x", roles=roles).suv_roles == ["pet"]


def named(code: tuple[str, str, str] | None, half_life_s: float, words: str = "") -> Change:
    """A tracer with the code of a nuclide, in the scheme of before 2020 or today's, and what it is called."""

    def change(header: Dataset, tracer: Dataset, _: int) -> None:
        tracer.RadionuclideHalfLife, tracer.Radiopharmaceutical = str(half_life_s), words
        if code is not None:
            item = Dataset()
            item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code
            tracer.RadionuclideCodeSequence = Sequence([item])

    return change


FLUORINE, GALLIUM = ("C-111A1", "SRT", "^18^Fluorine"), ("C-131A3", "SRT", "^68^Gallium")


@pytest.mark.parametrize(
    "change",
    [
        named(FLUORINE, 6586.2, "FDG -- fluorodeoxyglucose"),
        named(FLUORINE, 6600.0),  # 110 minutes
        named(("77004003", "SCT", ""), 6586.2, "18F-PSMA-1007"),
        named(GALLIUM, 4062.6, "68Ga-PSMA-11"),
        named(("35337001", "SCT", "Gallium-68"), 4080.0),
        named(None, 6586.2, "Solution"),
        named(("X-1", "99LOCAL", "my nuclide"), 6586.2),
    ],
)
def test_a_half_life_that_is_its_nuclides(tmp_path: Path, change: Change) -> None:
    uptake_of(write_pet(tmp_path / "pet", change))


@pytest.mark.parametrize(
    "change",
    [
        named(GALLIUM, 6586.2),  # the console's default: SUV would be 21 % low after an hour
        named(("C-131A3", "99SDM", ""), 6586.2),
        named(("35337001", "SCT", ""), 6586.2),
        named(FLUORINE, 4062.6),
        named(FLUORINE, 6586.2, "68Ga-PSMA-11"),
        named(None, 6586.2, "Ga-68 DOTATOC"),
        named(("X-1", "99LOCAL", "^11^Carbon"), 6586.2),
        named(("63360001", "SCT", ""), 6586.2),
    ],
)
def test_a_half_life_of_another_nuclide_is_refused(tmp_path: Path, change: Change) -> None:
    with pytest.raises(QuarantineError, match="E_SUV: RadionuclideHalfLife is"):
        uptake_of(write_pet(tmp_path / "pet", change))


def test_half_lives_of_the_table() -> None:
    """In the units in which they are known: minutes, hours, days."""
    minutes = {"C11": 20.36, "N13": 9.965, "O15": 2.037, "F18": 109.77, "Ga68": 67.71, "Rb82": 1.26, "Cu62": 9.67}
    hours = {"Cu64": 12.70, "Zr89": 78.41, "Y86": 14.74, "I124": 100.2, "Br76": 16.2}
    for factor, table in ((60, minutes), (3600, hours)):
        for nuclide, value in table.items():
            assert HALF_LIVES_S[nuclide] == pytest.approx(value * factor, rel=0.01)
