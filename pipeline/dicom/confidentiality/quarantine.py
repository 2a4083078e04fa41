"""Which files may be copied at all: images and plans whose pixels and texts the profile can answer for."""

from __future__ import annotations

import re

from pydicom import Dataset
from pydicom import uid as uids
from pydicom.uid import UID

from pipeline.cases import Fault

#: Label Map Segmentation Storage, which is younger than pydicom's dictionary. Source: DICOM PS3.6 Table A-1.
LABEL_MAP_SEGMENTATION = UID("1.2.840.10008.5.1.4.1.1.66.7")

#: Images that scanners make without a person's writing on them, and what refers to them; no other class is copied.
_IMAGES = frozenset(
    (
        *(uids.CTImageStorage, uids.EnhancedCTImageStorage, uids.LegacyConvertedEnhancedCTImageStorage),
        *(uids.MRImageStorage, uids.EnhancedMRImageStorage, uids.LegacyConvertedEnhancedMRImageStorage),
        *(uids.PositronEmissionTomographyImageStorage, uids.EnhancedPETImageStorage, uids.NuclearMedicineImageStorage),
        uids.LegacyConvertedEnhancedPETImageStorage,
        *(uids.RTDoseStorage, uids.RTStructureSetStorage, uids.RTPlanStorage),
        *(uids.SegmentationStorage, uids.ParametricMapStorage, uids.RealWorldValueMappingStorage),
        LABEL_MAP_SEGMENTATION,
        *(uids.SpatialRegistrationStorage, uids.DeformableSpatialRegistrationStorage, uids.SpatialFiducialsStorage),
    )
)
#: Images on which markers and names are common: copied only where the header says that there are none.
_RADIOGRAPHS = frozenset(
    (
        *(uids.ComputedRadiographyImageStorage, uids.RTImageStorage, uids.XRay3DAngiographicImageStorage),
        *(uids.DigitalXRayImageStorageForPresentation, uids.DigitalXRayImageStorageForProcessing),
        *(uids.DigitalMammographyXRayImageStorageForPresentation, uids.DigitalMammographyXRayImageStorageForProcessing),
        *(uids.BreastTomosynthesisImageStorage, uids.XRayAngiographicImageStorage, uids.EnhancedXAImageStorage),
        *(uids.XRayRadiofluoroscopicImageStorage, uids.EnhancedXRFImageStorage),
    )
)
_STRUCTURED = ("Key Object Selection", "Presentation State", " SR Storage")
_PICTURES = ("Ultrasound", "Video", "Endoscop", "Photograph", "Microscop")
#: What scanners write for sheets and captures into a value of ImageType (0008,0008), Siemens also into SoftwareVersions
#: (0018,1020).
_SCREEN_TERM = re.compile(r"SCREEN|DOSE|REPORT|CAPTURE|PHOTO|PROTOCOL|\bPROT\b|\bSAVE\b")
_SHEET_SOFTWARE = re.compile(r"CT_SOM\d+ PROT")
#: In SeriesDescription (0008,103E), ProtocolName (0018,1030) and ImageComments (0020,4000): how they are described.
_SCREEN_WORDS = re.compile(
    r"\b(DOSE|DOSIS|EXAM)[ _-]?(REPORT|INFO|RECORD|SUMMARY|SHEET|PAGE)|\bPATIENT(EN)?[ _-]?PROTO[CK]OL"
    r"|\bSCREEN[ _-]?(SAVE|SHOT|CAP|GRAB)|\bSECONDARY CAPTURE|\bPROTOCOL (PAGE|SHEET)"
)
_DESCRIPTIONS = ("SeriesDescription", "ProtocolName", "ImageComments")
#: Attributes of the device that has captured a screen (PS3.3 C.8.6.1), which no scanner's own slice has.
_CAPTURED_BY = (
    *("ConversionType", "SecondaryCaptureDeviceID", "DateOfSecondaryCapture", "TimeOfSecondaryCapture"),
    *("SecondaryCaptureDeviceManufacturer", "SecondaryCaptureDeviceManufacturerModelName"),
    *("SecondaryCaptureDeviceSoftwareVersions", "HardcopyDeviceManufacturer", "DigitalImageFormatAcquired"),
)
#: Slices, each of which says where it lies (PS3.3 C.7.6.2, type 1); ACR-NEMA's attribute serves as well.
_SLICES = (uids.CTImageStorage, uids.MRImageStorage, uids.PositronEmissionTomographyImageStorage)
_POSITIONS = ("ImagePositionPatient", 0x00200030)
_COLOURS = ("RGB", "YBR")


def reason_to_leave(dataset: Dataset, clean_structured: bool) -> Fault | None:
    """Why a file may not be copied, or None.

    Args:
        dataset: as it was read.
        clean_structured: reports, key objects and presentation states are wanted, without their texts.

    Returns:
        E_SCREENSHOT, E_BURNED_IN or E_FREE_TEXT.
    """
    sop_class = UID(str(dataset.get("SOPClassUID") or ""))
    if sop_class in _IMAGES or sop_class in _RADIOGRAPHS:
        return _pixels(dataset, sop_class in _RADIOGRAPHS)
    name = sop_class.name
    if any(part in name for part in _PICTURES):
        return Fault.of("E_BURNED_IN", "Images of this kind show names or faces.")
    if "Secondary Capture" in name:
        return Fault.of("E_SCREENSHOT", "The file is a secondary capture.")
    if clean_structured and any(part in name for part in _STRUCTURED):
        return None
    return Fault.of("E_FREE_TEXT", "The file is a document, or of a kind that the profile does not know.")


def _pixels(dataset: Dataset, radiograph: bool) -> Fault | None:
    flag = _text(dataset, "BurnedInAnnotation")
    if flag == "YES":
        return Fault.of("E_BURNED_IN", "The header says that text is burned into the pixels.")
    if any(_text(dataset, name) for name in _CAPTURED_BY) or _is_screen(dataset):
        return Fault.of("E_SCREENSHOT", "The header says that the image shows a screen or a sheet.")
    if dataset.get("SOPClassUID") in _SLICES and not any(dataset.get(tag) for tag in _POSITIONS):
        return Fault.of("E_SCREENSHOT", "The image does not say where it lies, as sheets and screens do not.")
    if _text(dataset, "PhotometricInterpretation").startswith(_COLOURS):
        return Fault.of("E_SCREENSHOT", "The image is in colour, as screens are and slices are not.")
    if radiograph and flag != "NO":
        return Fault.of("E_BURNED_IN", "The header does not say that no text is burned into the pixels.")
    if _has_overlay_in_pixels(dataset):
        return Fault.of("E_BURNED_IN", "A graphic is stored in unused bits of the pixels.")
    return None


def _is_screen(dataset: Dataset) -> bool:
    """Whether an image is named or described as scanners and workstations do with dose sheets and screens."""
    return bool(
        any(_SCREEN_WORDS.search(_text(dataset, name)) for name in _DESCRIPTIONS)
        or any(map(_SCREEN_TERM.search, _texts(dataset, "ImageType")))
        or _SHEET_SOFTWARE.search(_text(dataset, "SoftwareVersions"))
        or "DLP" in _text(dataset, "CommentsOnRadiationDose")
    )


def _has_overlay_in_pixels(dataset: Dataset) -> bool:
    """An overlay's bits lie in the pixels where its BitsAllocated is theirs. Source: DICOM PS3.5-2004 8.1.2."""
    return any((group << 16) | 0x0102 in dataset and dataset[group, 0x0102].value for group in range(0x6000, 0x6020, 2))


def _text(dataset: Dataset, keyword: str) -> str:
    return "\\".join(_texts(dataset, keyword))


def _texts(dataset: Dataset, keyword: str) -> list[str]:
    value = dataset.get(keyword)
    parts = [] if value is None else [value] if isinstance(value, str) else list(value)
    return [str(part).strip().upper() for part in parts]
