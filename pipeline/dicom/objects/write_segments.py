"""A label image as a DICOM SEG on its grid. It names no patient and no hospital, but the case's id."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Hashable, Mapping
from typing import Any

import highdicom as hd
import numpy as np
from monai.data import MetaTensor
from monai.transforms import Transform
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from pipeline import __version__
from pipeline.cases import Document
from pipeline.geometry import LPS_RAS, spacing_mm
from pipeline.volumes import affine_of

DIGITS = 10


class WriteSegd(Transform):
    """Add a label image as a DICOM SEG (BINARY, one segment a label), as a document.

    It lies on the label image's grid, slices along K, with a frame of reference and a series of its own: the hospital's
    identifiers never reach a run folder.

    Args:
        key: the label image.
        out: the document's key.
        names: label name -> value.
        modality: of the image that was segmented: `CT` or another.
        algorithm: what made the labels.
    """

    def __init__(self, key: str, out: str, names: Mapping[str, int], modality: str, algorithm: str) -> None:
        self.key, self.out, self.names = key, out, dict(names)
        self.modality, self.algorithm = modality, algorithm

    def writes(self) -> dict[str, str]:
        """What the stage writes: key -> kind; none where a case has no voxel of any label."""
        return {self.out: "document?"}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the document."""
        image: MetaTensor = data[self.key]
        if not bool((image > 0).any()):
            return dict(data)
        made = segmentation(image, self.names, str(data["case_id"]), self.modality, self.algorithm)
        stream = io.BytesIO()
        made.save_as(stream)
        return {**data, self.out: Document(".dcm", stream.getvalue())}


def segmentation(
    image: MetaTensor, names: Mapping[str, int], case_id: str, modality: str = "CT", algorithm: str = "nnU-Net"
) -> hd.seg.Segmentation:
    """A DICOM SEG of a label image (1, I, J, K), whole numbers, RAS mm; values without a name are left out."""
    sources = _slices(image, case_id, modality)
    labels = np.asarray(image.numpy()[0], dtype=np.int64).transpose(2, 1, 0)
    segments = np.stack([labels == value for value in names.values()], axis=-1).astype(np.uint8)
    method = hd.AlgorithmIdentificationSequence(algorithm, codes.DCM.ArtificialIntelligence, __version__)
    kind = hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC
    tissue = codes.SCT.Tissue
    described = [
        hd.seg.SegmentDescription(number, name[:64], tissue, tissue, kind, method)
        for number, name in enumerate(names, start=1)
    ]
    made = hd.seg.Segmentation(
        sources,
        segments,
        hd.seg.SegmentationTypeValues.BINARY,
        described,
        series_instance_uid=_uid(case_id, "series"),
        series_number=1,
        sop_instance_uid=_uid(case_id, "seg", hashlib.sha256(segments.tobytes()).hexdigest()),
        instance_number=1,
        manufacturer="Tandem",
        manufacturer_model_name="Tandem",
        software_versions=__version__,
        device_serial_number="0",
        content_label="SEGMENTATION",
    )
    made.SeriesDescription = "Segmentation, research use only"
    return made


def _slices(image: MetaTensor, case_id: str, modality: str) -> list[Dataset]:
    """Headers of the slices along K, as far as a SEG refers to them; only their geometry is real."""
    lps, (columns, rows, count) = LPS_RAS @ affine_of(image), image.shape[1:]
    sides = spacing_mm(lps)
    axes = lps[:3, :3] / sides
    common: dict[str, Any] = {
        **{"PatientID": case_id, "PatientName": "", "PatientBirthDate": "", "PatientSex": "", "StudyID": ""},
        **{"StudyDate": "", "StudyTime": "", "AccessionNumber": "", "ReferringPhysicianName": ""},
        "SOPClassUID": CTImageStorage if modality == "CT" else MRImageStorage,
        "Modality": "CT" if modality == "CT" else "MR",
        "StudyInstanceUID": _uid(case_id, "study"),
        "SeriesInstanceUID": _uid(case_id, "image"),
        "FrameOfReferenceUID": _uid(case_id, "frame"),
        "PositionReferenceIndicator": "",
        **{"Rows": rows, "Columns": columns, "SliceThickness": _number(sides[2])},
        "PixelSpacing": [_number(sides[1]), _number(sides[0])],
        "ImageOrientationPatient": [_number(part) for part in (*axes[:, 0], *axes[:, 1])],
    }
    found = []
    for number in range(count):
        one = Dataset()
        for name, value in common.items():
            setattr(one, name, value)
        one.SOPInstanceUID = _uid(case_id, "image", str(number))
        one.InstanceNumber = number + 1
        one.ImagePositionPatient = [_number(part) for part in (lps @ [0, 0, number, 1])[:3]]
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        found.append(one)
    return found


def _number(value: float) -> float:
    """Few enough digits for a decimal string of 16 characters."""
    return float(f"{value:.{DIGITS - 1}g}")


def _uid(*parts: str) -> str:
    return str(generate_uid(entropy_srcs=list(parts)))
