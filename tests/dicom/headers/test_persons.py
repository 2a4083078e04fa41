"""Which headers can be of one person, as somebody who keeps a hospital's data would say; and issuers of IDs."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pydicom
import pytest

from pipeline.dicom.headers.persons import Person, are_named_apart, clashes
from pipeline.dicom.headers.scan import scan
from pipeline.simulation.dicom import SeriesHeader, write_series
from tests.phantoms.phantom import position_phantom


def jane(**changes: str) -> Person:
    return Person("4711", "DOE^JANE", "19500312", "F")._replace(**changes)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "DOE^JANE",
            "Doe^Jane^^^",
            "DOE JANE",
            "doe, jane ",
            "JANE^DOE",
            "DOE^JANE^MARY^DR",
            "DOE",
            "DOE^J",
            "DÖE^JANE",
        ),
        *("", "ANONYMOUS", "Anon^^", "UNKNOWN", "4711", "XXXX", "DOE^JANE=山田^花子", "DOEJANE", "DOE-SMITH^JANE"),
    ],
)
def test_one_name_in_many_spellings(name: str) -> None:
    other = jane(name=name, birth_date="", sex="")
    assert clashes([jane(), other]) == clashes([other, jane()]) == ()
    assert not are_named_apart([jane(), other])


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("MÜLLER^HANS", "MUELLER^HANS"),
        ("STRAßE^Ø", "STRASSE^OE"),
        ("MÜLLER^H", "Muller^H"),
        ("MÃ¼ller^H", "Müller^H"),
        ("Yamada^Tarou", "山田^太郎"),
    ],
)
def test_one_name_in_two_alphabets(a: str, b: str) -> None:
    assert clashes([Person("1", a, "", ""), Person("1", b, "", "")]) == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"birth_date": ""},
        {"birth_date": "1950.03.12"},
        {"birth_date": "19500101"},  # the year alone, as de-identifiers leave it
        {"birth_date": "19000101"},  # a console's default
        {"birth_date": "unknown"},
        {"sex": ""},
        {"sex": "O"},
        {"sex": "f "},
        {"name": "SMITH^JANE"},  # a new name after a marriage
        {"name": "DOE^JANNE"},  # a slip
    ],
)
def test_what_is_not_given_twice_contradicts_nothing(changes: dict[str, str]) -> None:
    assert clashes([jane(), jane(**changes)]) == ()
    assert are_named_apart([jane(), jane(**changes)]) == ("name" in changes)


@pytest.mark.parametrize(
    ("changes", "elements"),
    [
        ({"birth_date": "19880630"}, ("PatientBirthDate",)),
        ({"birth_date": "19500313"}, ("PatientBirthDate",)),
        ({"sex": "M"}, ("PatientSex",)),
        ({"name": "MILLER^TOM"}, ("PatientName",)),
        ({"name": "DOE^JOHN"}, ("PatientName",)),  # a twin: all but the given name agrees
        ({"name": "SMITH^JANE", "birth_date": ""}, ("PatientName",)),
        ({"name": "SMITH^JANE", "sex": ""}, ("PatientName",)),
        ({"name": "SMITH^JANE", "sex": "M"}, ("PatientName", "PatientSex")),
        ({"name": "ANON^0002", "birth_date": ""}, ("PatientName",)),
        ({"name": "X^Y", "birth_date": "19880630", "sex": "M"}, ("PatientName", "PatientBirthDate", "PatientSex")),
    ],
)
def test_two_persons(changes: dict[str, str], elements: tuple[str, ...]) -> None:
    assert clashes([jane(), jane(), jane(**changes)]) == elements


def write(folder: Path, modality: str, issuer: str = "", **changes: str) -> None:
    header = SeriesHeader(modality=modality, patient_id="4711", series_number=len(modality + issuer), **changes)
    for path in write_series(position_phantom((6, 5, 3)), folder, header):
        slice_ = pydicom.dcmread(path)
        slice_.SpecificCharacterSet, slice_.IssuerOfPatientID = "ISO_IR 192", issuer
        slice_.save_as(path, enforce_file_format=True)


def test_an_issuer_on_one_of_two_modalities_does_not_part_a_patient(tmp_path: Path) -> None:
    write(tmp_path / "ct", "CT", "HOSPITAL")
    write(tmp_path / "mr", "MR")
    ct, mr = sorted(scan(tmp_path).series, key=lambda item: item.modality)
    assert ct.patient_id == mr.patient_id == "HOSPITAL/4711"
    assert (ct.notes, mr.notes) == ((), ("N_ISSUER",))


def test_letters_of_an_issuer_may_be_composed_or_not(tmp_path: Path) -> None:
    for number, issuer in enumerate(("Klinik Süd", unicodedata.normalize("NFD", "Klinik Süd"), "")):
        write(tmp_path / str(number), "CT", issuer)
    assert {series.patient_id for series in scan(tmp_path).series} == {"Klinik Süd/4711"}


def test_an_issuer_in_half_of_a_series_does_not_tear_it(tmp_path: Path) -> None:
    write(tmp_path, "CT", "HOSPITAL")
    first = min(tmp_path.iterdir())
    slice_ = pydicom.dcmread(first)
    slice_.IssuerOfPatientID = ""
    slice_.save_as(first, enforce_file_format=True)
    (series,) = scan(tmp_path).series
    assert (len(series.instances), series.fault, series.notes) == (3, None, ("N_ISSUER",))


@pytest.mark.parametrize(
    "other", [{"patient_name": "Other^Person"}, {"issuer": "CLINIC"}, {"issuer": "CLINIC", "birth_date": "19880630"}]
)
def test_issuers_part_what_contradicts(tmp_path: Path, other: dict[str, str]) -> None:
    write(tmp_path / "ct", "CT", "HOSPITAL")
    write(tmp_path / "mr", "MR", **other)
    assert len({series.patient_id for series in scan(tmp_path).series}) == 2
