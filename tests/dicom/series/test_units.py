"""Unit, header and role agree, or it is refused or flagged."""

from __future__ import annotations

import pytest

from pipeline.cases import Series
from pipeline.dicom.series.select import select
from pipeline.dicom.series.units import is_hounsfield, unit_fault, unit_flags
from pipeline.spec.roles import plain_unit
from pipeline.spec.spec import Role, Spec
from tests.dicom.stacks import even, series


def of(modality: str, uid: str = "1", **tags: object) -> Series:
    return series(even(**tags), modality=modality, series_uid=uid)


@pytest.mark.parametrize(
    ("modality", "tags", "unit", "words"),
    [
        ("PT", {"Units": "BQML"}, "Bq/ml", ""),
        ("PT", {"Units": "BQML"}, "Bq/mL", ""),
        ("PT", {"Units": "GML"}, "g/ml", ""),
        ("PT", {"Units": "CNTS"}, "counts", ""),
        ("PT", {"Units": "PROPCPS"}, "SUVbw", ""),  # asked where it becomes SUV
        ("PT", {"Units": "PROPCPS"}, "a.u.", ""),
        ("PT", {"Units": "PROPCPS"}, "Bq/ml", "Expected values in Bq/ml, got PROPCPS (Units)."),
        ("PT", {"Units": "CNTS"}, "Bq/ml", "got CNTS (Units)."),
        ("PT", {"Units": "GML"}, "Bq/ml", "got GML (Units)."),
        ("PT", {"Units": "BQML"}, "kBq/ml", "got BQML (Units)."),
        ("PT", {"Units": "Dr. Canary's own"}, "Bq/ml", "got another (Units)."),
        ("CT", {}, "HU", ""),
        ("CT", {"RescaleType": "US"}, "HU", ""),
        ("CT", {"RescaleType": "HU"}, "Hounsfield units", ""),
        ("CT", {"RescaleType": "MGML"}, "mg/ml", ""),
        ("CT", {"RescaleType": "MGML"}, "HU", "Expected values in HU, got MGML (RescaleType)."),
        ("CT", {"RescaleType": "Z_EFF"}, "HU", "got Z_EFF"),
        ("CT", {"RescaleType": "HU_MOD"}, "HU", "got HU_MOD"),
        ("CT", {}, "mg/ml", "Expected values in mg/ml, got HU (RescaleType)."),
        ("RTDOSE", {"DoseUnits": "RELATIVE"}, "Gy", "got RELATIVE (DoseUnits)."),
        ("RTDOSE", {"DoseUnits": "GY"}, "Gy", ""),
        ("MR", {}, "1e-6 mm2/s", ""),
    ],
)
def test_a_role_has_the_unit_of_its_header(modality: str, tags: dict[str, str], unit: str, words: str) -> None:
    found = unit_fault(of(modality, **tags), Role(modality=modality, unit=unit))
    assert (found is None) == (not words)
    if found is not None:
        assert found.code == "E_UNIT" and words in found.message


def test_slices_of_two_units_are_refused() -> None:
    mixed = series([*even(10, Units="BQML"), *even(20, Units="CNTS")[10:]], modality="PT")
    found = unit_fault(mixed, Role(modality="PT", unit="Bq/ml"))
    assert found is not None and found.message == "The slices have different Units."


@pytest.mark.parametrize(
    ("modality", "tags", "unit", "code"),
    [
        ("CT", {"RescaleType": "MGML"}, "a.u.", "N_NOT_HU: x: "),
        ("CT", {"RescaleType": "HU"}, "a.u.", ""),
        ("PT", {}, "Bq/ml", "N_UNIT_UNKNOWN: x: Units is missing"),
        ("PT", {}, "a.u.", ""),
        ("MR", {"ImageType": "DERIVED\\PRIMARY\\DIFFUSION\\ADC\\ND"}, "a.u.", "N_QUANTITATIVE: x: "),
        ("MR", {"SeriesDescription": "ep2d_diff_tra_DYNDIST_ADC"}, "a.u.", "N_QUANTITATIVE: x: "),
        ("MR", {"ImageType": "DERIVED\\PRIMARY\\T1 MAP"}, "a.u.", "N_QUANTITATIVE: x: "),
        ("MR", {"SeriesDescription": "T2star_map"}, "a.u.", "N_QUANTITATIVE: x: "),
        ("MR", {"ImageType": "DERIVED\\PRIMARY\\DIFFUSION\\ADC"}, "1e-6 mm2/s", ""),
        ("MR", {"SeriesDescription": "t1_tse_cadence"}, "a.u.", ""),
    ],
)
def test_what_a_reader_has_to_know(modality: str, tags: dict[str, str], unit: str, code: str) -> None:
    flags = unit_flags(of(modality, **tags), Role(modality=modality, unit=unit), "x")
    assert len(flags) == bool(code) and all(flag.startswith(code) for flag in flags)


def test_the_series_in_the_roles_unit_is_taken() -> None:
    """PET with and without correction for attenuation, as scanners export them side by side."""
    spec = Spec(name="x", description="x", roles={"pet": Role(modality="PT", unit="Bq/ml")})
    found = select([of("PT", "1", Units="BQML"), of("PT", "2", Units="PROPCPS")], spec, lambda item: "p")
    assert found.cases[0].fault is None and found.cases[0].series["pet"].series_uid == "1"
    assert found.choices[1].reason == "pet: Expected values in Bq/ml, got PROPCPS (Units)."
    alone = select([of("PT", "2", Units="PROPCPS")], spec, lambda item: "p").cases[0].fault
    assert alone is not None and alone.code == "E_UNIT"


def test_hounsfield() -> None:
    assert is_hounsfield(of("CT")) and not is_hounsfield(of("CT", RescaleType="MGML")) and not is_hounsfield(of("MR"))


def test_maps_are_not_weighted_images() -> None:
    roles = {
        "adc": Role(modality="MR", unit="1e-6 mm2/s"),
        "t2": Role(modality="MR"),
        "fa": Role(modality="MR", unit="%"),
    }
    assert Spec(name="x", description="x", roles=roles).weighted_mr == ["t2"]
    density = {"ct": Role(modality="CT", unit="HU"), "density": Role(modality="CT", unit="mg/ml")}
    spec = Spec(name="x", description="x", roles=density)
    assert spec.hounsfield_ct == ["ct"] and spec.displays["density"].window is None
    assert [plain_unit(unit) for unit in ("Bq/ml", "BQML", "Bq / mL", "a.u.")] == ["bqml", "bqml", "bqml", "au"]
