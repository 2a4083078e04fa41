"""Write a volume as a single-frame DICOM series, as a hospital's scanner would."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from monai.data import MetaTensor
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import format_number_as_ds

from pipeline import geometry, volumes
from pipeline.errors import CaseError

#: RescaleIntercept of CT: stored values of air stay positive. Source: the custom of every CT vendor.
CT_INTERCEPT_HU = -1024

_STORAGE = {"CT": CTImageStorage, "MR": MRImageStorage}


@dataclass(frozen=True)
class SeriesHeader:
    """What the header of a series says beside its geometry. Every person and place in it is made up.

    Attributes:
        seed: all UIDs follow from it and from the patient, study, series, frame and instance.
        modality: `CT` or `MR`.
        study: distinguishes the patient's studies.
        frame: distinguishes the patient's frames of reference; series that share it lie in one space.
        image_type: ImageType (0008,0008).
        first_instance: InstanceNumber of the first slice; file names count from it too.
        slice_thickness_mm: the distance between slices when None.
        kernel: ConvolutionKernel (0018,1210), CT only.
        scanning_sequence: ScanningSequence (0018,0020), MR only.
        tr_ms: RepetitionTime (0018,0080), MR only.
        te_ms: EchoTime (0018,0081), MR only.
    """

    seed: str = "tandem"
    modality: str = "CT"
    patient_id: str = "SIM-0001"
    patient_name: str = "Simulated^One"
    birth_date: str = "19600229"
    sex: str = "O"
    study: str = "1"
    study_description: str = "Head"
    date: str = "20240115"
    time: str = "101500"
    frame: str = "1"
    series_number: int = 2
    series_description: str = "HEAD 3.0 Br38"
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "AXIAL")
    first_instance: int = 1
    slice_thickness_mm: float | None = None
    kernel: str = "Br38"
    scanning_sequence: str = "SE"
    tr_ms: float = 500.0
    te_ms: float = 10.0

    @property
    def study_uid(self) -> str:
        """StudyInstanceUID (0020,000D)."""
        return make_uid(self.seed, self.patient_id, "study", self.study)

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID (0020,000E)."""
        return make_uid(self.study_uid, "series", str(self.series_number))

    @property
    def frame_uid(self) -> str:
        """FrameOfReferenceUID (0020,0052)."""
        return make_uid(self.seed, self.patient_id, "frame", self.frame)


def make_uid(*parts: str) -> UID:
    """A UID that follows from the parts alone: `2.25.` and 128 bits of their sha256. Source: DICOM PS3.5 B.2."""
    return UID(f"2.25.{int(hashlib.sha256('|'.join(parts).encode()).hexdigest()[:32], 16)}")


def decimal_string(value: float) -> str:
    """A number as a DS of at most 16 characters, free of rounding noise below 1e-10. Source: DICOM PS3.5 6.2."""
    return format_number_as_ds(round(float(value), 10) + 0.0)  # adding 0 turns -0 into 0


def write_series(image: MetaTensor, folder: Path, header: SeriesHeader | None = None) -> list[Path]:
    """Write one file for each slice: explicit VR little endian, 16 bits, values rounded to integers.

    Columns run along I, rows along J, slices along K. CT is stored with slope 1 and intercept `CT_INTERCEPT_HU`; MR
    without a rescale, as its IOD has none. File names are numbered in the order of the instances' UIDs, so they say
    nothing of the slices' order.

    Args:
        image: (1, I, J, K), RAS; HU for CT.
        folder: made if it is missing.
        header: what the header says beside the geometry.

    Returns:
        The paths in the order of K.

    Raises:
        CaseError: E_GRID for more than one channel, E_DTYPE when the values do not fit 16 bits.

    Source: DICOM PS3.3 A.3 (CT Image IOD), A.4 (MR Image IOD), C.7.6.2 (Image Plane Module).
    """
    header = header or SeriesHeader()
    if image.ndim != 4 or image.shape[0] != 1:
        raise CaseError("E_GRID", f"Expected a one-channel volume (1, I, J, K), got shape {tuple(image.shape)}.")
    stored = _stored_values(np.asarray(image.numpy()[0], dtype=np.float64), header.modality)
    affine = geometry.LPS_RAS @ volumes.affine_of(image)
    numbers = range(header.first_instance, header.first_instance + stored.shape[2])
    uids = [make_uid(header.series_uid, "instance", str(number)) for number in numbers]
    names = dict(zip(sorted(uids), numbers, strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"IM{names[uid]:04d}" for uid in uids]
    for k, (path, uid, number) in enumerate(zip(paths, uids, numbers, strict=True)):
        slice_ = identity(header, uid, number, _STORAGE[header.modality])
        _add_plane(slice_, affine, k, header.slice_thickness_mm)
        _add_modality(slice_, header)
        _add_pixels(slice_, stored[:, :, k].T, _bits_stored(stored))
        slice_.save_as(path, enforce_file_format=True)
    return paths


def _stored_values(values: npt.NDArray[np.float64], modality: str) -> npt.NDArray[np.int16 | np.uint16]:
    stored = np.rint(values - (CT_INTERCEPT_HU if modality == "CT" else 0))
    kind = np.int16 if stored.min() < 0 else np.uint16
    if not np.isfinite(stored).all() or stored.min() < np.iinfo(kind).min or stored.max() > np.iinfo(kind).max:
        raise CaseError("E_DTYPE", f"Expected values that fit 16 bits, got {values.min():g} to {values.max():g}.")
    return stored.astype(kind)


def identity(header: SeriesHeader, uid: UID, number: int, storage: UID) -> Dataset:
    """The start of an instance: its file meta information, and whose and what it is; `storage` is its SOPClassUID."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = storage
    meta.MediaStorageSOPInstanceUID = uid
    values = {
        "ImageType": list(header.image_type),
        "SOPClassUID": meta.MediaStorageSOPClassUID,
        "SOPInstanceUID": uid,
        **{f"{what}Date": header.date for what in ("Study", "Series", "Acquisition", "Content")},
        **{f"{what}Time": header.time for what in ("Study", "Series", "Acquisition", "Content")},
        "AccessionNumber": "",
        "Modality": header.modality,
        "Manufacturer": "Simulated",
        "ReferringPhysicianName": "",
        "StudyDescription": header.study_description,
        "SeriesDescription": header.series_description,
        "PatientName": header.patient_name,
        "PatientID": header.patient_id,
        "PatientBirthDate": header.birth_date,
        "PatientSex": header.sex,
        "BodyPartExamined": "HEAD",
        "PatientPosition": "HFS",
        "StudyInstanceUID": header.study_uid,
        "SeriesInstanceUID": header.series_uid,
        "StudyID": header.study,
        "SeriesNumber": header.series_number,
        "AcquisitionNumber": 1,
        "InstanceNumber": number,
        "FrameOfReferenceUID": header.frame_uid,
        "PositionReferenceIndicator": "",
    }
    slice_ = Dataset()
    slice_.file_meta = meta
    for keyword, value in values.items():
        setattr(slice_, keyword, value)
    return slice_


def _add_plane(slice_: Dataset, lps: geometry.FloatArray, k: int, thickness_mm: float | None) -> None:
    spacing = geometry.spacing_mm(lps)
    axes = lps[:3, :3] / spacing
    position = lps[:3, 3] + k * lps[:3, 2]
    slice_.SliceThickness = decimal_string(spacing[2] if thickness_mm is None else thickness_mm)
    slice_.ImagePositionPatient = [decimal_string(value) for value in position]
    slice_.ImageOrientationPatient = [decimal_string(value) for value in (*axes[:, 0], *axes[:, 1])]
    slice_.PixelSpacing = [decimal_string(spacing[1]), decimal_string(spacing[0])]  # between rows, between columns
    slice_.SliceLocation = decimal_string(float(position @ np.cross(axes[:, 0], axes[:, 1])))


def _add_modality(slice_: Dataset, header: SeriesHeader) -> None:
    if header.modality == "CT":
        slice_.KVP = "120"
        slice_.ConvolutionKernel = header.kernel
        slice_.RescaleIntercept = str(CT_INTERCEPT_HU)
        slice_.RescaleSlope = "1"
        slice_.RescaleType = "HU"
        slice_.WindowCenter, slice_.WindowWidth = "40", "80"
        return
    slice_.ScanningSequence = header.scanning_sequence
    slice_.SequenceVariant = "NONE"
    slice_.ScanOptions = ""
    slice_.MRAcquisitionType = "2D"
    slice_.RepetitionTime, slice_.EchoTime = decimal_string(header.tr_ms), decimal_string(header.te_ms)
    slice_.EchoTrainLength = 1
    slice_.MagneticFieldStrength = "1.5"


def _bits_stored(stored: npt.NDArray[np.int16 | np.uint16]) -> int:
    """12 where that is enough, as in most scanners' images."""
    return 12 if stored.dtype.kind == "u" and stored.max() < 1 << 12 else 16


def _add_pixels(slice_: Dataset, rows: npt.NDArray[np.int16 | np.uint16], bits_stored: int) -> None:
    slice_.SamplesPerPixel = 1
    slice_.PhotometricInterpretation = "MONOCHROME2"
    slice_.Rows, slice_.Columns = rows.shape
    slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit = 16, bits_stored, bits_stored - 1
    slice_.PixelRepresentation = int(rows.dtype.kind == "i")
    slice_.PixelData = np.ascontiguousarray(rows).astype(rows.dtype.newbyteorder("<"), copy=False).tobytes()
