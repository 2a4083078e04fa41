"""What travels through the pipeline: series, cases, artifacts and records. Frozen, and free of heavy imports."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pipeline.errors import REMEDIES, PipelineError, QuarantineError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

#: What an output is, and so how it is written, read back and compared (`pipeline.store.artifacts`).
Kind = Literal["image", "label", "probability", "transform", "table", "measure", "document", "documents"]
Status = Literal["done", "failed", "quarantined"]
Grade = Literal["pass", "warn", "fail"]
#: From the best to the worst.
GRADES: tuple[Grade, ...] = ("pass", "warn", "fail")


@dataclass(frozen=True)
class Pixels:
    """How the stored pixel values of a file lie in it.

    Attributes:
        offset: where the value of PixelData (7FE0,0010) starts, in bytes from the file's start; in a deflated file,
            from the start of its inflated data set (`pipeline.dicom.headers.encoding.open_dataset`).
        length: of the value in bytes; None where it is encapsulated (compressed).
        syntax: UID of the transfer syntax in which the values really are.
        bits_allocated: BitsAllocated (0028,0100); 32 and 64 for FloatPixelData and DoubleFloatPixelData.
        bits_stored: BitsStored (0028,0101).
        high_bit: HighBit (0028,0102).
        signed: PixelRepresentation (0028,0103) is 1.
        samples: SamplesPerPixel (0028,0002).
        photometric: PhotometricInterpretation (0028,0004).
        frames: NumberOfFrames (0028,0008), 1 where it is missing.
        tiles: of a Siemens mosaic, how many images stand side by side and one below another; 1 for all others. The
            stored frame is `tiles` times as wide and as high as the instance, whose tile is `Instance.frame`,
            counted along the rows.
        floating: the values are IEEE floats (7FE0,0008 or 7FE0,0009).
    """

    offset: int
    length: int | None
    syntax: str
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    samples: int = 1
    photometric: str = "MONOCHROME2"
    frames: int = 1
    tiles: int = 1
    floating: bool = False


@dataclass(frozen=True)
class Instance:
    """What the pipeline needs of one image: a DICOM file's header, or one frame of a multi-frame file.

    Attributes:
        path: where the file lies.
        sop_uid: SOPInstanceUID (0008,0018).
        position: ImagePositionPatient (0020,0032), LPS mm, or None where it is missing.
        orientation: ImageOrientationPatient (0020,0037): row then column direction, LPS, or None.
        spacing_mm: PixelSpacing (0028,0030): between rows, between columns, or None.
        rows: Rows (0028,0010).
        columns: Columns (0028,0011).
        slope: RescaleSlope (0028,1053), or None where it is missing.
        intercept: RescaleIntercept (0028,1052), or None where it is missing.
        tags: further header values by DICOM keyword, as text, that the data spec's rules look at. For a frame of a
            multi-frame file they are the frame's own where it has them, and NumberOfFrames is 1.
        notes: what was seen and repaired while the header was read (codes `N_...`).
        fault: code and sentence when the file has to be rejected.
        frame: number of the frame within its file, from 0.
        pixels: how the pixel values lie in the file, or None where it has none.
        header: a digest of the file's bytes before its pixel values, by which a reader knows that it is still the file
            that was looked at; empty where it has none.
    """

    path: Path
    sop_uid: str
    position: tuple[float, float, float] | None
    orientation: tuple[float, float, float, float, float, float] | None
    spacing_mm: tuple[float, float] | None
    rows: int
    columns: int
    slope: float | None
    intercept: float | None
    tags: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    fault: Fault | None = None
    frame: int = 0
    pixels: Pixels | None = None
    header: str = ""


@dataclass(frozen=True)
class Series:
    """One DICOM series. The identifiers are the hospital's own: they never reach an output, a name or a log.

    Attributes:
        patient_id: PatientID (0010,0020) with its issuer; or the study's UID where the patient has none.
        study_uid: StudyInstanceUID (0020,000D).
        series_uid: SeriesInstanceUID (0020,000E).
        modality: Modality (0008,0060).
        instances: the accepted files; in order of position once the geometry gate has passed.
        rejected: the files that were not accepted, with their faults.
        notes: what was seen and repaired (codes `N_...`).
        fault: why the series cannot be used, or None.
        part: which part of a series that had to be split, such as `echo 2 of 3`; empty for a whole one.
    """

    patient_id: str
    study_uid: str
    series_uid: str
    modality: str
    instances: tuple[Instance, ...]
    rejected: tuple[Instance, ...] = ()
    notes: tuple[str, ...] = ()
    fault: Fault | None = None
    part: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """The accepted files' paths, each once, in the order of the instances."""
        return tuple(dict.fromkeys(instance.path for instance in self.instances))


@dataclass(frozen=True)
class NiftiFile:
    """One NIfTI volume of the input. Its path may name a patient: it never reaches an output, a name or a log.

    Attributes:
        path: the `.nii` or `.nii.gz` file, or the `.hdr` of a pair.
    """

    path: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """The file itself, and the `.img` of a pair where there is one."""
        partner = self.path.with_name(re.sub(r"\.hdr(\.gz)?$", r".img\1", self.path.name))
        return (self.path, partner) if partner != self.path and partner.is_file() else (self.path,)


@dataclass(frozen=True)
class Fault:
    """Why something was not done: stable code, one sentence, remedy."""

    code: str
    message: str
    remedy: str = ""

    @classmethod
    def of(cls, code: str, message: str) -> Fault:
        """A fault with the general remedy of its code."""
        return cls(code, message, REMEDIES[code])

    @classmethod
    def from_error(cls, error: PipelineError) -> Fault:
        """The fault that an error tells of."""
        return cls(error.code, error.message, error.remedy)

    def as_error(self) -> QuarantineError:
        """The error that sets a case aside for it."""
        return QuarantineError(self.code, self.message, self.remedy)


@dataclass(frozen=True)
class Verdict:
    """What a stage thinks of its own results.

    Attributes:
        grade: `fail`: they must not be used; `warn`: somebody has to look at them.
        reasons: sentences, the most severe first; never empty.
        unfit: keys of outputs that later stages must not use.
    """

    grade: Grade
    reasons: tuple[str, ...]
    unfit: tuple[str, ...] = ()


def worst(verdicts: Iterable[Verdict]) -> Verdict | None:
    """One verdict out of several: the worst grade, all reasons, the most severe first; None out of none."""
    ordered = sorted(verdicts, key=lambda verdict: -GRADES.index(verdict.grade))
    if not ordered:
        return None
    reasons = tuple(reason for verdict in ordered for reason in verdict.reasons)
    return Verdict(ordered[0].grade, reasons, tuple(key for verdict in ordered for key in verdict.unfit))


@dataclass(frozen=True)
class Case:
    """One patient (or study, or series, as the data spec says) and the series chosen for each role."""

    case_id: str
    series: Mapping[str, Series]
    flags: tuple[str, ...] = ()
    fault: Fault | None = None

    def as_dict(self) -> dict[str, Any]:
        """The case as a stage takes it: `case_id`, a `Series` for each role, and the selection's flags and fault."""
        return {"case_id": self.case_id, **self.series, "flags": list(self.flags), "fault": self.fault}


@dataclass(frozen=True)
class Document:
    """A finished document that a chain hands to its stage to be written.

    Attributes:
        suffix: `.pdf`, `.html`, `.png` …
        data: the file's bytes.
    """

    suffix: str
    data: bytes


@dataclass(frozen=True)
class Geometry:
    """Where a volume lies: voxels along I, J, K and the RAS affine in mm, voxel index (i, j, k) to world."""

    shape: tuple[int, ...]
    affine: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Artifact:
    """One file that a stage read or wrote.

    Attributes:
        key: its key in the case dictionary.
        kind: see `Kind`; `series` and `record` for inputs that are DICOM series (or NIfTI files) and records.
        path: relative to the run folder for outputs; empty for what comes from outside, whose paths stay private.
        sha256: hash of the file's bytes; of all files' hashes for a series.
        geometry: for volumes.
    """

    key: str
    kind: str
    path: str
    sha256: str
    geometry: Geometry | None = None


@dataclass(frozen=True)
class Record:
    """What one stage did to one case: the only thing that says that something is done.

    Attributes:
        key: the resume key (`pipeline.store.records.resume_key`).
        measures: numbers with the unit in the name (`seconds`, `volume_ml`).
        flags: what a reader has to know (codes `N_...`, or a sentence).
        verdict: what the stage thinks of its own results; None where it does not judge them.
        answers: what it has found, for tables of all cases: such as `Class` -> `kind_b, probability 0.87`.
        reused: True when an earlier run's record was still valid; not written.
    """

    case_id: str
    stage: str
    key: str
    status: Status
    inputs: tuple[Artifact, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    measures: Mapping[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    verdict: Verdict | None = None
    answers: Mapping[str, str] = field(default_factory=dict)
    error: Fault | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    reused: bool = field(default=False, compare=False)

    def as_json(self) -> dict[str, Any]:
        """The record as plain JSON types, without `reused`."""
        data = asdict(self)
        del data["reused"]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | bytes) -> Record:
        """Read back what `as_json` gave, or its text.

        Raises:
            ValueError: when the data are not a record.
        """
        return from_plain(cls, data)


@cache
def _reader(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def from_plain(kind: type[T], data: Mapping[str, Any] | bytes) -> T:
    """A dataclass, with those in it, out of the plain JSON types that `asdict` gave, or out of their text.

    Raises:
        ValueError: when the data are of no such class.
    """
    reader: Any = _reader
    read = reader(kind)
    found: T = read.validate_json(data) if isinstance(data, bytes) else read.validate_python(data)
    return found
