"""Radiographs: single projection images, which have a plane but no place in the patient. Judged on headers alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pipeline.cases import Fault, Instance, Series
from pipeline.dicom.series.stack import number
from pipeline.errors import QuarantineError

#: Modality (0008,0060) of projection images.
RADIOGRAPH_MODALITIES = ("CR", "DX", "MG", "XA", "RF", "RG", "PX", "IO")
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def is_radiograph(series: Series) -> bool:
    """Whether a series holds projection images; a reconstruction of an angiography system has positions and is none."""
    if series.modality not in RADIOGRAPH_MODALITIES:
        return False
    return not any(item.position and item.orientation for item in (*series.instances, *series.rejected))


def one_by_one(series: Series) -> list[Series]:
    """Each image of a series of radiographs as a series of its own, by InstanceNumber."""
    images = sorted(
        (*series.instances, *series.rejected), key=lambda item: (number(item, "InstanceNumber"), item.sop_uid)
    )
    parts = []
    for index, image in enumerate(images, start=1):
        sound = image.fault is None
        one = replace(series, instances=(image,) if sound else (), rejected=() if sound else (image,))
        if len(images) > 1:
            one = replace(one, part=f"image {index} of {len(images)}", notes=(*series.notes, "N_SPLIT"))
        parts.append(one)
    return parts


def judge_radiograph(series: Series) -> Series:
    """Pass a single radiograph: its kind, its pixel size, what will be done to its values.

    Returns:
        The series with the notes of what is going to be repaired, or with its fault.
    """
    image = (series.instances or series.rejected)[0]
    try:
        if image.fault is not None:
            raise image.fault.as_error()
        require_measured((image,))
        photometric = image.tags.get("PhotometricInterpretation", "")
        if image.tags.get("SamplesPerPixel", "1") not in ("", "1") or not photometric.startswith("MONOCHROME"):
            raise QuarantineError("E_NOT_SCALAR", f"Expected a grey radiograph, got {photometric or 'none'}.")
        if image.pixels is not None and image.pixels.frames > 1:
            raise QuarantineError("E_MULTIFRAME", f"Expected one image, got a run of {image.pixels.frames}.")
        _, at_detector = pixel_spacing_mm(image)
    except QuarantineError as error:
        return replace(series, fault=Fault.from_error(error))
    notes = ("N_INVERTED",) if photometric == "MONOCHROME1" else ()
    return replace(series, notes=(*series.notes, *notes, *(("N_DETECTOR_SPACING",) if at_detector else ())))


def pixel_spacing_mm(image: Instance) -> tuple[tuple[float, float], bool]:
    """Pixel size of a radiograph.

    Returns:
        Between rows and between columns in mm; and whether it is that at the detector, where everything is larger
        than in the patient. Source: DICOM PS3.3 10.7.1.3, C.8.11.4 (Estimated Radiographic Magnification Factor).

    Raises:
        QuarantineError: E_NO_GEOMETRY when no element gives it: a guess would make every length wrong.
    """
    if image.spacing_mm is not None:
        if min(image.spacing_mm) <= 0:
            raise QuarantineError("E_NO_GEOMETRY", "Expected PixelSpacing above 0.")
        return image.spacing_mm, False
    parts = image.tags.get("ImagerPixelSpacing", "").split("\\")
    try:
        rows, columns = (float(part) for part in parts)
    except ValueError:
        rows = columns = 0.0
    if not (0 < rows < float("inf") and 0 < columns < float("inf")):
        what = "The radiograph has no PixelSpacing and no ImagerPixelSpacing."
        raise QuarantineError("E_NO_GEOMETRY", what, "Export it with one of them.")
    magnification = number(image, "EstimatedRadiographicMagnificationFactor")
    if magnification >= 1:
        return (rows / magnification, columns / magnification), False
    return (rows, columns), True


def require_measured(instances: Iterable[Instance]) -> None:
    """Refuse pictures of pictures, and pixels that may hold a name.

    Raises:
        QuarantineError: E_SCREENSHOT for Secondary Capture, E_BURNED_IN for BurnedInAnnotation YES.
    """
    for instance in instances:
        kind = instance.tags.get("SOPClassUID", "")
        if kind == SECONDARY_CAPTURE or kind.startswith(f"{SECONDARY_CAPTURE}."):
            raise QuarantineError("E_SCREENSHOT", "Expected measured images, got screenshots (Secondary Capture).")
        if instance.tags.get("BurnedInAnnotation", "").upper() == "YES":
            raise QuarantineError("E_BURNED_IN", "The images have text burned into their pixels.")
