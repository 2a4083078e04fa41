"""Structure sets and segmentations of simulated series, written with pydicom and highdicom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
from highdicom.sr.coding import CodedConcept
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage

from pipeline.simulation.dicom import make_uid

FloatArray = npt.NDArray[np.float64]
_FLIP = np.array([-1.0, -1.0, 1.0])


def to_lps(voxels: npt.ArrayLike, affine: npt.ArrayLike) -> FloatArray:
    """Voxel coordinates (N, 3) as LPS mm: written out here, independent of `pipeline.geometry`."""
    matrix = np.asarray(affine, float)
    return np.asarray((np.asarray(voxels, float) @ matrix[:3, :3].T + matrix[:3, 3]) * _FLIP)


def polygon(points: npt.ArrayLike, k: float, affine: npt.ArrayLike) -> FloatArray:
    """A polygon in the plane of slice k, from (i, j) to LPS mm."""
    flat = np.asarray(points, float)
    return to_lps(np.column_stack([flat, np.full(len(flat), k)]), affine)


def circle(center: Sequence[float], radius: Sequence[float], count: int = 400) -> FloatArray:
    """Points (i, j) of an ellipse in voxel coordinates."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.column_stack([center[0] + radius[0] * np.cos(angle), center[1] + radius[1] * np.sin(angle)])


def write_rtstruct(
    path: Path,
    images: Sequence[Path],
    regions: Mapping[str, Sequence[FloatArray | tuple[str, FloatArray]]],
    **changes: Any,
) -> Path:
    """Write a structure set that refers to a series.

    Args:
        path: of the file.
        images: the series' files.
        regions: name -> contours, LPS mm; a contour with its geometric type where it is not CLOSED_PLANAR.
        changes: header values that differ; `reference` None leaves out which series it is of; `frames` name -> UID of
            the region's own frame of reference (empty: none), `drawn_on` name -> an image that its contours name,
            `numbers` name -> its ROINumber, `others` files of further series that it names, each in a frame of its own.
    """
    source = pydicom.dcmread(images[0], stop_before_pixels=True)
    reference = changes.pop("reference", "series")
    frame = changes.pop("frame", source.FrameOfReferenceUID)
    frames, drawn_on, numbers = (changes.pop(key, {}) for key in ("frames", "drawn_on", "numbers"))
    others = changes.pop("others", ())
    found = Dataset()
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID"):
        setattr(found, keyword, source[keyword].value)
    uid = make_uid(str(source.SeriesInstanceUID), "structures", path.name)
    found.SOPClassUID, found.SOPInstanceUID = RTStructureSetStorage, uid
    found.Modality, found.SeriesInstanceUID = "RTSTRUCT", make_uid(uid, "series")
    found.StructureSetDate, found.StructureSetTime = "20240116", "090000"
    found.ReferencedFrameOfReferenceSequence = Items([_reference(images, source, frame, reference)])
    for further in others:
        other = pydicom.dcmread(further[0], stop_before_pixels=True)
        own = _reference(further, other, other.FrameOfReferenceUID, "series")
        found.ReferencedFrameOfReferenceSequence.append(own)
    found.StructureSetROISequence = Items()
    found.ROIContourSequence = Items()
    for number, (name, contours) in enumerate(regions.items(), start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = numbers.get(name, number), name
        if frames.get(name, frame):
            roi.ReferencedFrameOfReferenceUID = frames.get(name, frame)
        drawn.ReferencedROINumber, drawn.ContourSequence = roi.ROINumber, Items([_contour(item) for item in contours])
        for contour in drawn.ContourSequence if name in drawn_on else ():
            image, seen = Dataset(), pydicom.dcmread(drawn_on[name], stop_before_pixels=True)
            image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = seen.SOPClassUID, seen.SOPInstanceUID
            contour.ContourImageSequence = Items([image])
        found.StructureSetROISequence.append(roi)
        found.ROIContourSequence.append(drawn)
    for keyword, value in changes.items():
        setattr(found, keyword, value)
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found.file_meta.MediaStorageSOPClassUID = RTStructureSetStorage
    found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    found.save_as(path, enforce_file_format=True)
    return path


def _reference(images: Sequence[Path], source: Dataset, frame: str, reference: str | None) -> Dataset:
    found = Dataset()
    found.FrameOfReferenceUID = frame
    if reference is None:
        return found
    study, series = Dataset(), Dataset()
    uid = source.SeriesInstanceUID if reference == "series" else make_uid("another series")
    series.SeriesInstanceUID, series.ContourImageSequence = uid, Items()
    for path in images if reference != "nothing" else ():
        item, image = Dataset(), pydicom.dcmread(path, stop_before_pixels=True)
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
        series.ContourImageSequence.append(item)
    study.RTReferencedSeriesSequence = Items([series])
    found.RTReferencedStudySequence = Items([study])
    return found


def _contour(item: FloatArray | tuple[str, FloatArray]) -> Dataset:
    kind, points = item if isinstance(item, tuple) else ("CLOSED_PLANAR", item)
    found = Dataset()
    found.ContourGeometricType, found.NumberOfContourPoints = kind, len(points)
    found.ContourData = [f"{value:.6f}"[:16] for value in points.ravel()]
    return found


def write_seg(
    path: Path, images: Sequence[Path], masks: Mapping[str, npt.NDArray[Any]], kind: str = "BINARY", **options: Any
) -> Path:
    """Write a SEG of a series.

    Args:
        path: of the file.
        images: the source images that the masks lie on, in the order of K.
        masks: label -> (I, J, K): 0 and 1, or fractions for FRACTIONAL.
        kind: BINARY, FRACTIONAL or LABELMAP.
        options: of `highdicom.seg.Segmentation`.
    """
    source = [pydicom.dcmread(item) for item in images]
    code = CodedConcept("123037004", "SCT", "Anatomical Structure")
    manual = hd.seg.SegmentAlgorithmTypeValues.MANUAL
    segments = [hd.seg.SegmentDescription(n, label, code, code, manual) for n, label in enumerate(masks, start=1)]
    array = np.stack([mask.transpose(2, 1, 0) for mask in masks.values()], axis=-1)
    uid = make_uid(str(source[0].SeriesInstanceUID), "segmentation", path.name)
    found = hd.seg.Segmentation(
        source_images=source,
        pixel_array=array if kind == "FRACTIONAL" else array.astype(np.uint8),
        segmentation_type=kind,
        segment_descriptions=segments,
        series_instance_uid=make_uid(uid, "series"),
        series_number=90,
        sop_instance_uid=uid,
        instance_number=1,
        manufacturer="Simulated",
        manufacturer_model_name="Simulated",
        software_versions="1",
        device_serial_number="1",
        **options,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    found.save_as(path)
    return path
