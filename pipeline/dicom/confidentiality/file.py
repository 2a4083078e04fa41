"""De-identify one file: read it, judge it, clean it, write it, and say what became of it."""

from __future__ import annotations

import logging
import os
import re
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Literal

import pydicom
from pydicom import Dataset, FileDataset
from pydicom import uid as uids
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import dcmread
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import UID

from pipeline import __version__
from pipeline.dicom.confidentiality.bits import clear_unused_bits
from pipeline.dicom.confidentiality.cleaner import Cleaner, Subject
from pipeline.dicom.confidentiality.options import Options
from pipeline.dicom.confidentiality.quarantine import reason_to_leave
from pipeline.dicom.headers.encoding import PREFIX, NotDicomError, open_dataset
from pipeline.dicom.headers.persons import PERSON_TAGS
from pipeline.errors import CaseError, QuarantineError
from pipeline.store.files import require_file, write_atomic
from pipeline.store.pseudonyms import Pseudonyms

Verdict = Literal["copied", "quarantined", "failed", "not DICOM"]

#: ImplementationClassUID (0002,0012): made once, by the rule of PS3.5 B.2.
IMPLEMENTATION_UID = UID("2.25.212478905816306239418325186529077347112")
_NEEDED = ("SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_OWN_WORDS = (
    *("PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName"),
    *("AccessionNumber", "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "InstitutionName"),
    *("NameOfPhysiciansReadingStudy", "PhysiciansOfRecord", "RequestingPhysician", "PatientAddress"),
)
_WORD = re.compile(r"[^\W_]{3,}")


@dataclass(frozen=True)
class Source:
    """A file of the input as it was found: what has changed since is done again."""

    path: Path
    size_bytes: int
    changed_ns: int


@dataclass(frozen=True)
class Identity:
    """The hospital's own identifiers of a file. They are kept beside the key and nowhere else."""

    patient: str = ""
    study_uid: str = ""
    series_uid: str = ""
    sop_uid: str = ""
    patient_name: str = ""
    birth_date: str = ""
    sex: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of one file.

    Attributes:
        source: the file.
        verdict: what was done.
        code: of the error or the reason, see `pipeline.errors`.
        reason: one sentence without identifiers.
        identity: the hospital's identifiers, as far as they could be read.
        patient: the pseudonym of the patient.
        output: path of the copy below the output folder.
        modality: Modality (0008,0060).
        sha256: of the copy.
    """

    source: Source
    verdict: Verdict
    code: str = ""
    reason: str = ""
    identity: Identity = Identity()
    patient: str = ""
    output: str = ""
    modality: str = ""
    sha256: str = ""


class FileDeidentifier:
    """De-identify files one by one into the folder `out`; may be sent to another process."""

    def __init__(self, out: Path, names: Pseudonyms, options: Options) -> None:
        self.out = out
        self.names = names
        self.options = options

    def __call__(self, source: Source) -> Outcome:
        """Copy one file without its patient's identity. Never raises: the outcome says what went wrong."""
        found = Outcome(source, "failed")
        try:
            with _silence():
                dataset = _read(source.path)
                found = self._identified(found, dataset)
                return self._copied(found, dataset)
        except NotDicomError as error:
            return replace(found, verdict="not DICOM", reason=str(error))
        except QuarantineError as error:
            return replace(found, verdict="quarantined", code=error.code, reason=error.message, output="")
        except CaseError as error:
            return replace(found, code=error.code, reason=error.message, output="")
        except OSError as error:
            return replace(found, code="E_UNREADABLE", reason=f"{os.strerror(error.errno or 0)}.", output="")
        except Exception as error:  # noqa: BLE001 - pydicom raises many kinds on broken files; their texts hold values
            reason = f"The file cannot be read ({type(error).__name__})."
            return replace(found, code="E_HEADER", reason=reason, output="")

    def _identified(self, found: Outcome, dataset: Dataset) -> Outcome:
        identity = identity_of(dataset)
        study, series = identity.study_uid, identity.series_uid
        patient = self.names.of("patient", identity.patient)
        folder = Path(patient, self.names.of("study", study), self.names.of("series", study, series))
        output = folder / f"{self.names.of('image', identity.sop_uid)}.dcm"
        modality = str(dataset.get("Modality") or "")
        shown = modality if re.fullmatch(r"[A-Z]{2,10}", modality) else ""
        return replace(found, identity=identity, patient=patient, output=output.as_posix(), modality=shown)

    def _copied(self, found: Outcome, dataset: FileDataset) -> Outcome:
        missing = [name for name in _NEEDED if not dataset.get(name)]
        if missing:
            raise CaseError("E_HEADER", f"The header has no {', '.join(missing)}.")
        fault = reason_to_leave(dataset, self.options.clean_structured_content)
        if fault is not None:
            raise fault.as_error()
        _require_pixels(dataset)
        syntax = _transfer_syntax(dataset)
        clear_unused_bits(dataset, found.source.path, syntax)
        days = self.names.days(found.identity.patient)
        cleaner = Cleaner(self.options, Subject(found.patient, days, self.names.uid, _own_words(dataset)))
        cleaner.clean(dataset)
        cleaner.mark(dataset)
        _renew_file_meta(dataset, syntax)
        digest = write_atomic(self.out / found.output, lambda path: dataset.save_as(path, enforce_file_format=True))
        return replace(found, verdict="copied", sha256=digest)


def identity_of(dataset: Dataset) -> Identity:
    """The hospital's identifiers of a data set; the study stands for a patient who has no ID."""
    names = ("PatientID", "IssuerOfPatientID")
    texts = {name: unicodedata.normalize("NFC", str(dataset.get(name) or "").strip()) for name in names}
    uids = [str(dataset.get(name) or "") for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
    issuer = f"{texts['IssuerOfPatientID']}/" if texts["IssuerOfPatientID"] else ""
    patient = f"{issuer}{texts['PatientID']}" if texts["PatientID"] else f"study {uids[0]}"
    return Identity(patient, *uids, *(str(dataset.get(name) or "") for name in PERSON_TAGS))


@contextmanager
def _silence() -> Iterator[None]:
    """What pydicom warns of names values of the file: none of it may reach a log."""
    logger = logging.getLogger("pydicom")
    disabled = logger.disabled
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        logger.disabled = True
        try:
            yield
        finally:
            logger.disabled = disabled


def _read(path: Path) -> FileDataset:
    """Read a file.

    Raises:
        NotDicomError: it is not DICOM, or only an index of DICOM files; its text says what, where that is known.
        CaseError: E_DECODE.
    """
    if what := require_file(path):
        raise NotDicomError(what)
    with path.open("rb") as file:
        encoded = open_dataset(file)
    encoded.stream.close()
    content = path.read_bytes() if encoded.bare else b""
    if encoded.declared == uids.DeflatedExplicitVRLittleEndian:
        raise CaseError("E_DECODE", "The transfer syntax (Deflated Explicit VR Little Endian) is not read.")
    try:
        dataset = dcmread(BytesIO(content.removeprefix(PREFIX)) if content else path, force=encoded.bare)
        known = encoded.certain or any(dataset.get(keyword) for keyword in ("SOPClassUID", "RecognitionCode", "Rows"))
    except Exception as error:
        if encoded.certain:
            raise
        raise NotDicomError from error
    if not known:
        raise NotDicomError
    return dataset


def _require_pixels(dataset: FileDataset) -> None:
    """Compare the length of uncompressed pixels with what the header says.

    Raises:
        CaseError: E_PIXEL_LENGTH.
    """
    if "PixelData" not in dataset or _transfer_syntax(dataset).is_compressed:
        return
    try:
        needed = get_expected_length(dataset)
    except (AttributeError, TypeError, ValueError) as error:
        raise CaseError("E_PIXEL_LENGTH", "The header does not say how large the image is.") from error
    held = len(dataset.PixelData or b"")
    if held < needed:
        raise CaseError("E_PIXEL_LENGTH", f"Expected {needed} bytes of pixel data, got {held}.")


def _transfer_syntax(dataset: FileDataset) -> UID:
    stated = dataset.file_meta.get("TransferSyntaxUID")
    implicit, little = dataset.original_encoding
    if stated and (UID(stated).is_implicit_VR == implicit or UID(stated).is_compressed):
        return UID(stated)
    if implicit:
        return uids.ImplicitVRLittleEndian
    return uids.ExplicitVRLittleEndian if little else uids.ExplicitVRBigEndian


def _own_words(dataset: Dataset) -> frozenset[str]:
    """The words of the patient's, physicians' and hospital's names: no text that is kept may hold one."""
    texts = (str(dataset.get(name) or "") for name in _OWN_WORDS)
    return frozenset(word.upper() for text in texts for word in _WORD.findall(text))


def _renew_file_meta(dataset: FileDataset, syntax: UID) -> None:
    """Make the preamble and the file meta information anew: the source's name senders, devices and more."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = f"TANDEM_{__version__}"[:16]
    dataset.file_meta = meta
    dataset.preamble = b"\0" * 128
