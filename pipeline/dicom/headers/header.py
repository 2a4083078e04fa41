"""Read one DICOM file's header: what the pipeline needs of it, or why the file is rejected."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID, ImplicitVRLittleEndian

from pipeline.cases import Fault, Instance
from pipeline.dicom.headers.encoding import (
    INFLATED_BYTES,
    Encoded,
    NotDicomError,
    TooLargeError,
    header_digest,
    open_dataset,
)
from pipeline.dicom.headers.multiframe import FRAME_GROUPS, frames_of
from pipeline.dicom.headers.persons import PERSON_TAGS
from pipeline.dicom.headers.pixel_data import Element, find_pixels
from pipeline.dicom.headers.values import PLANE_TAGS, Names, integer, names_of, plane, texts
from pipeline.dicom.headers.vendors import DIFFUSION_TAGS, MOSAIC_TAGS, is_mosaic, private_b_value, tiles_of
from pipeline.errors import QuarantineError

#: Read of every file, whatever the spec asks.
# fmt: off
BASE_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "PatientID", "IssuerOfPatientID", "StudyInstanceUID", "SeriesInstanceUID",
    "Modality", "SeriesDescription", "ImageType", "FrameOfReferenceUID", "Manufacturer",
    # whose it is, when and how it was made
    *PERSON_TAGS, "StudyDate", "SeriesDate", "SeriesTime", "SeriesNumber", "AcquisitionDate", "ProtocolName",
    "SequenceName", "FlipAngle", "ContrastBolusAgent",
    # which slice, echo, time point, kernel … it is
    "InstanceNumber", "AcquisitionNumber", "AcquisitionDateTime", "AcquisitionTime", "ContentTime",
    "TemporalPositionIdentifier", "TemporalPositionIndex", "TriggerTime", "EchoTime", "EchoNumbers", "InversionTime",
    "DiffusionBValue", "ScanningSequence", "ConvolutionKernel", "ComplexImageComponent", "SliceThickness",
    "SpacingBetweenSlices", "ImagesInAcquisition",
    # what the pixels are
    "Units", "RescaleType", "DoseUnits",
    "PhotometricInterpretation", "SamplesPerPixel", "NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "BurnedInAnnotation",
    # radiographs
    "ViewPosition", "ImageLaterality", "PresentationIntentType", "ImagerPixelSpacing", "DistanceSourceToDetector",
    "DistanceSourceToPatient",
    "EstimatedRadiographicMagnificationFactor",
)
# fmt: on

_UIDS = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
#: De-identifiers write nothing, zeros or a word where they take a UID out.
_SOME_DIGIT = re.compile("[1-9]")
_FIRST_PIXEL_TAG = 0x7FE00008


@dataclass(frozen=True)
class Header:
    """A DICOM file: its identifiers, and its images as far as they could be read: one, or one for each frame."""

    patient_id: str
    study_uid: str
    series_uid: str
    instances: tuple[Instance, ...]


def read_header(path: Path, tags: Iterable[str] = ()) -> Header:
    """Read a file's header, without its pixels.

    Args:
        path: any file.
        tags: DICOM keywords whose values the data spec's rules look at.

    Returns:
        The header; `fault` of its instances says why the file has to be rejected, if it has to.

    Raises:
        NotDicomError: the file is not DICOM, or a DICOMDIR.
        OSError: the file cannot be read.
        MemoryError: the file asks for more memory than the process may have.
    """
    with path.open("rb") as file:
        try:
            encoded = open_dataset(file)
        except TooLargeError:
            return _broken(path, "E_LIMIT", f"The data set inflates to more than {INFLATED_BYTES >> 20} MiB.")
        except (NotDicomError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - pydicom raises many kinds on broken headers; all mean one thing
            return _broken(path, "E_HEADER", f"The header cannot be read ({type(error).__name__}).")
        try:
            return _read(path, encoded, tuple(tags))
        except (NotDicomError, MemoryError):
            raise
        except Exception as error:
            if not encoded.certain:
                raise NotDicomError from error
            return _broken(path, "E_HEADER", f"The header cannot be read ({type(error).__name__}).")
        finally:
            encoded.stream.close()


@lru_cache
def _wanted(tags: tuple[str, ...]) -> tuple[Names, list[BaseTag | int]]:
    names = names_of([*BASE_TAGS, *PLANE_TAGS, "Rows", "Columns", "RecognitionCode", *tags])
    return names, [*names, *FRAME_GROUPS, *MOSAIC_TAGS, *DIFFUSION_TAGS]


def _read(path: Path, encoded: Encoded, tags: tuple[str, ...]) -> Header:
    names, wanted = _wanted(tags)
    elements: list[Element] = []

    def at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
        if tag < _FIRST_PIXEL_TAG:
            return False
        if tag <= _FIRST_PIXEL_TAG + 8:
            elements.append(Element(tag, length, encoded.stream.tell()))
        return True

    dataset = read_dataset(encoded.stream, encoded.implicit, encoded.little, stop_when=at_pixels, specific_tags=wanted)
    values = dict.fromkeys([*BASE_TAGS, *tags], "")
    values |= texts(dataset, names)
    if values["PixelRepresentation"] == "1":
        values |= texts(dataset, names, signed=True)
    if values["Modality"] == "MR":
        values["DiffusionBValue"] = values["DiffusionBValue"] or private_b_value(dataset)
    missing = [tag for tag in _UIDS if not _SOME_DIGIT.search(values[tag])]
    if missing and (refused := _nameless(path, encoded.certain, values, bool(elements), missing)):
        return refused
    values |= _stand_ins(path, values, missing)
    if not _SOME_DIGIT.search(values["FrameOfReferenceUID"]):  # one word for all would put all into one frame
        values["FrameOfReferenceUID"] = ""
    for name in ("PatientID", "IssuerOfPatientID"):  # one name, however its letters are composed
        values[name] = unicodedata.normalize("NFC", values[name])
    base = _image(path, values, tags, encoded, elements[0] if elements else None)
    if missing:
        base = replace(base, notes=(*base.notes, "N_NO_UID"))
    own, issuer = values["PatientID"], values["IssuerOfPatientID"]
    patient = "/".join(filter(None, (issuer, own))) if own else f"study {values['StudyInstanceUID']}"
    return Header(patient, values["StudyInstanceUID"], values["SeriesInstanceUID"], _images(base, dataset))


def _nameless(
    path: Path, certain: bool, values: Mapping[str, str], pixels: bool, missing: Sequence[str]
) -> Header | None:
    """What becomes of a file without UIDs; None for an image whose UIDs were blanked.

    Raises:
        NotDicomError: nothing says that it is DICOM.
    """
    if values.get("RecognitionCode", "").startswith("ACR-NEMA"):
        return _broken(path, "E_HEADER", "The file is ACR-NEMA, from before DICOM: it has no UIDs.")
    if pixels and values.get("Rows"):
        return None
    if not certain:
        raise NotDicomError
    return _broken(path, "E_HEADER", f"The header has no {', '.join(missing)}.")


def _stand_ins(path: Path, values: Mapping[str, str], missing: Sequence[str]) -> dict[str, str]:
    """What stands for UIDs that a de-identifier blanked: the file for itself, its folder for its series and study.

    Series of one folder are told apart by number and description, studies by the date. A series that has its own UID
    says which study it is.
    """
    series = " ".join((str(path.parent), *(values[tag] for tag in ("SeriesNumber", "SeriesDescription", "StudyDate"))))
    study = f"{path.parent} {values['StudyDate']}" if "SeriesInstanceUID" in missing else values["SeriesInstanceUID"]
    found = {"SOPInstanceUID": str(path), "SeriesInstanceUID": series, "StudyInstanceUID": f"study of {study}"}
    return {tag: found[tag] for tag in missing}


def _image(
    path: Path, values: dict[str, str], tags: tuple[str, ...], encoded: Encoded, element: Element | None
) -> Instance:
    """The file as one image."""
    notes = ["N_NO_PREAMBLE"] if encoded.bare else []
    notes += [] if values["PatientID"] else ["N_NO_PATIENT_ID"]
    pixels, fault = None, None
    try:
        _require_size(values)
        pixels, mislabelled = find_pixels(values, element, encoded)
        notes += ["N_WRONG_SYNTAX"] if mislabelled else []
    except QuarantineError as error:
        fault = Fault.from_error(error)
    geometry, bad_number = plane(values)
    kept = {name: values[name] for name in (*BASE_TAGS, *tags)}
    return Instance(
        path=path,
        sop_uid=values["SOPInstanceUID"],
        rows=integer(values.get("Rows", "")) or 0,
        columns=integer(values.get("Columns", "")) or 0,
        **geometry,
        tags={**kept, "TransferSyntaxUID": encoded.declared or str(ImplicitVRLittleEndian)},
        notes=tuple(notes),
        fault=fault or bad_number,
        pixels=pixels,
        header=header_digest(encoded.file, pixels.offset, encoded.deflated) if pixels else "",
    )


def _require_size(values: dict[str, str]) -> None:
    """An image whose header ends before its size is cut, not an object without an image."""
    if not values.get("Rows") and UID(values["SOPClassUID"]).name.endswith("Image Storage"):
        raise QuarantineError("E_HEADER", "The header of an image has no Rows.")


def _images(base: Instance, dataset: Dataset) -> tuple[Instance, ...]:
    """One instance for each image of the file."""
    if base.fault is not None or base.pixels is None:
        return (base,)
    try:
        return tiles_of(base, dataset) if is_mosaic(base) else frames_of(base, dataset)
    except QuarantineError as error:
        return (replace(base, fault=Fault.from_error(error)),)


def _broken(path: Path, code: str, message: str) -> Header:
    return Header("", "", "", (rejected(path, Fault.of(code, message)),))


def rejected(path: Path, fault: Fault) -> Instance:
    """A file of which nothing is known but why it is rejected."""
    return Instance(path, "", None, None, None, 0, 0, None, None, fault=fault)
