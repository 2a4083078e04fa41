"""Which action each attribute calls for: the table of the standard, the options, and a closed rule for all the rest."""

from __future__ import annotations

from enum import Enum, auto
from functools import lru_cache

from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table
from pydicom.datadict import dictionary_VR, tag_for_keyword

from pipeline.dicom.confidentiality.options import Options


class Action(Enum):
    """What to do with an attribute."""

    REMOVE = auto()
    EMPTY = auto()  # zero length
    REPLACE = auto()  # by a value that says nothing
    ENTER = auto()  # a sequence: the same rules for its items
    UID = auto()  # public UIDs stay, others are replaced alike everywhere
    TIME = auto()  # as the options say of dates
    AGE = auto()  # at most 90 years
    KEEP = auto()
    NUMBERS = auto()  # kept where it is numbers
    CODE = auto()  # kept where it is a code string
    BODY_PART = auto()  # kept where it is a known part of the body
    IMAGE_TYPE = auto()  # terms that are not known become OTHER
    WORDS = auto()  # the safe words are kept; without any, the value is empty
    LABEL = auto()  # the safe words are kept; without any, a value that says nothing
    NAME = auto()  # kept where it is a technical name of known form


def _tags(text: str) -> frozenset[int]:
    found = {keyword: tag_for_keyword(keyword) for keyword in text.split()}
    unknown = [keyword for keyword, tag in found.items() if tag is None]
    if unknown:
        raise KeyError(*unknown)
    return frozenset(tag for tag in found.values() if tag is not None)


# Where the table leaves a choice by the attribute's type (X/Z, X/D, Z/D), the action is taken that suits any type.
_GROUPS = (
    (table.X_TAGS, Action.REMOVE),
    (table.Z_TAGS, Action.EMPTY),
    (table.X_Z_TAGS, Action.EMPTY),
    (table.D_TAGS, Action.REPLACE),
    (table.Z_D_TAGS, Action.REPLACE),
    (table.X_D_TAGS, Action.REPLACE),
    (table.X_Z_D_TAGS, Action.EMPTY),
    (table.U_TAGS, Action.UID),
    (table.X_Z_U_STAR_TAGS, Action.ENTER),
)
#: Source: DICOM PS3.15 Table E.1-1, by dicom-anonymizer. Its rows for whole groups (50xx, 60xx) are rules of their own.
PROFILE: dict[int, Action] = {
    (row[0] << 16) | row[1]: action for rows, action in _GROUPS for row in rows if len(row) == 2
}
_OPTIONAL = frozenset((group << 16) | element for group, element in (*table.X_D_TAGS, *table.X_Z_D_TAGS))
#: Of the rows X/Z/D, those whose value some images cannot do without.
_NEEDED = _tags("AcquisitionDateTime DeviceSerialNumber InstanceCreationTime")

# The columns of Table E.1-1 for the options, as far as what is kept can be kept safely.
_BIRTH = _tags("PatientBirthDate PatientBirthTime")
_ZONE = _tags("TimezoneOffsetFromUTC")
_CHARACTERISTICS = _tags("PatientSex PatientSize PatientWeight PatientSexNeutered PregnancyStatus SmokingStatus")
_AGE = _tags("PatientAge")
_DEVICE = _tags(
    "DeviceSerialNumber StationName GantryID GeneratorID DetectorID PlateID CassetteID DeviceLabel DeviceDescription "
    "LongDeviceDescription ManufacturerDeviceIdentifier UniqueDeviceIdentifier UDISequence XRayDetectorID XRaySourceID "
    "XRayDetectorLabel SourceSerialNumber SourceManufacturer TreatmentMachineName PerformedStationName "
    "ScheduledStationName LensSerialNumber LensMake LensModel TransducerIdentificationSequence DeviceUID "
    "ManufacturerDeviceClassUID DeviceAlternateIdentifier"
)
_INSTITUTION = _tags(
    "InstitutionName InstitutionAddress InstitutionalDepartmentName InstitutionCodeSequence "
    "InstitutionalDepartmentTypeCodeSequence"
)
_DESCRIPTORS = _tags(
    "StudyDescription SeriesDescription ProtocolName AcquisitionProtocolDescription PerformedProcedureStepDescription "
    "RequestedProcedureDescription RequestedSeriesDescription ScheduledProcedureStepDescription ContrastBolusAgent "
    "DerivationDescription ImageComments AcquisitionDeviceProcessingDescription ROIName ROIObservationLabel "
    "StructureSetLabel StructureSetName RTPlanLabel TreatmentSite"
)

# What the table does not name and an image cannot be used without; everything else goes by its value representation.
_KEYWORDS: dict[Action, str] = {
    Action.WORDS: "ContentDescription PositionReferenceIndicator WindowCenterWidthExplanation ReconstructionMethod "
    "AttenuationCorrectionMethod ScatterCorrectionMethod Radiopharmaceutical RadiopharmaceuticalRoute "
    "ContrastBolusRoute TypeOfFilters ReceiveCoilManufacturerName TransmitCoilManufacturerName "
    "DimensionDescriptionLabel SegmentDescription",
    Action.LABEL: "Manufacturer ManufacturerModelName SoftwareVersions SegmentLabel SegmentAlgorithmName AlgorithmName "
    "AlgorithmVersion LUTLabel LUTExplanation RescaleType ModalityLUTType FiducialIdentifier TrackingID StackID "
    "ContentLabel MultiCoilElementName ReceiveCoilName TransmitCoilName FilterType",
    Action.REPLACE: "TextValue UniversalEntityID LocalNamespaceEntityID",
    Action.NAME: "ConvolutionKernel SequenceName PulseSequenceName ImagedNucleus",
    Action.BODY_PART: "BodyPartExamined",
    Action.IMAGE_TYPE: "ImageType FrameType",
    # a coded concept, which is then one that is known publicly (`pipeline.dicom.confidentiality.codes`); and bytes that
    # are pixels or look-up tables: no other byte stream is kept
    Action.KEEP: "CodeValue CodingSchemeDesignator CodeMeaning PixelData RedPaletteColorLookupTableData "
    "GreenPaletteColorLookupTableData BluePaletteColorLookupTableData SegmentedRedPaletteColorLookupTableData "
    "SegmentedGreenPaletteColorLookupTableData SegmentedBluePaletteColorLookupTableData",
}
_RULES = {tag: action for action, keywords in _KEYWORDS.items() for tag in _tags(keywords)}
#: Of these labels, numbers of versions and models are kept too.
VERSIONED = _tags("ManufacturerModelName SoftwareVersions AlgorithmVersion")

TIMES = ("DA", "DT", "TM")
_BY_REPRESENTATION: dict[str, Action] = {
    **dict.fromkeys(("FL", "FD", "SL", "SS", "UL", "US", "SV", "UV", "AT", "OF", "OD", "OL", "OV"), Action.KEEP),
    **dict.fromkeys(("DS", "IS"), Action.NUMBERS),
    "CS": Action.CODE,
    "SQ": Action.ENTER,
    "UI": Action.UID,
}


@lru_cache(maxsize=65536)
def action_for(tag: int, options: Options) -> Action:
    """The action for a standard attribute.

    Args:
        tag: as a number, such as 0x00100010; of an even group.
        options: what is kept beyond the basic profile.

    Returns:
        REMOVE for every attribute that neither the table nor a rule knows.
    """
    vr = representation(tag)
    if not vr or _is_graphic(tag):
        return Action.REMOVE
    kept = _kept_by_option(tag, vr, options)
    if kept is not None:
        return kept
    if tag in PROFILE:
        return _by_profile(tag, vr)
    return _RULES.get(tag) or _BY_REPRESENTATION.get(vr.split(" or ")[0], Action.REMOVE)


@lru_cache(maxsize=65536)
def representation(tag: int) -> str:
    """The value representation that the dictionary gives, such as `US or SS`; empty for an unknown tag."""
    try:
        return dictionary_VR(tag)
    except KeyError:
        return ""


def _is_graphic(tag: int) -> bool:
    """Curves (50xx) and overlays (60xx), command and file elements, group lengths."""
    group, element = tag >> 16, tag & 0xFFFF
    return group & 0xFF00 in (0x5000, 0x6000) or group < 0x0008 or element == 0


def _by_profile(tag: int, vr: str) -> Action:
    action = PROFILE[tag]
    if tag in _NEEDED:
        return Action.REPLACE
    if vr == "SQ" and tag in _OPTIONAL:
        return Action.REMOVE
    if vr == "SQ" and action is Action.REPLACE:
        return Action.ENTER
    return Action.UID if vr == "UI" and action is Action.REPLACE else action


def _kept_by_option(tag: int, vr: str, options: Options) -> Action | None:
    if vr in TIMES and tag not in _BIRTH:
        return Action.TIME if options.keeps_times else None
    chosen = (
        (options.keeps_times, _ZONE, Action.NUMBERS),
        (options.retain_patient_characteristics, _AGE, Action.AGE),
        (options.retain_patient_characteristics, _CHARACTERISTICS, _BY_REPRESENTATION.get(vr, Action.KEEP)),
        (options.retain_device, _DEVICE, Action.KEEP),
        (options.retain_institution, _INSTITUTION, Action.KEEP),
        (options.clean_descriptors, _DESCRIPTORS, _worded(tag)),
    )
    return next((action for asked, tags, action in chosen if asked and tag in tags), None)


def _worded(tag: int) -> Action:
    return Action.LABEL if PROFILE.get(tag) is Action.REPLACE else Action.WORDS
