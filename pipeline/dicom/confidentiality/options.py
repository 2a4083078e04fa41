"""The options of the confidentiality profile: what a person may ask to keep, and how a file says that it was kept."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from pipeline import __version__
from pipeline.errors import UsageError


@dataclass(frozen=True)
class Options:
    """What is kept beyond the Basic Application Level Confidentiality Profile. Source: DICOM PS3.15 E.3.

    Attributes:
        retain_uids: the hospital's UIDs stay.
        retain_dates: dates and times stay as they are.
        shift_dates: dates are moved by one secret number of days a patient; times of day stay.
        retain_device: serial numbers and names of devices stay.
        retain_institution: names and addresses of institutions stay.
        retain_patient_characteristics: sex, age (at most 90 years), size, weight and the like stay.
        retain_safe_private: private attributes that are known to be safe stay.
        clean_descriptors: descriptions are kept as far as their words are known to be safe.
        clean_structured_content: reports, key objects and presentation states are copied, without their texts.

    Raises:
        UsageError: E_OPTION when dates are both to be kept and to be shifted.
    """

    retain_uids: bool = False
    retain_dates: bool = False
    shift_dates: bool = False
    retain_device: bool = False
    retain_institution: bool = False
    retain_patient_characteristics: bool = False
    retain_safe_private: bool = False
    clean_descriptors: bool = False
    clean_structured_content: bool = False

    def __post_init__(self) -> None:
        if self.retain_dates and self.shift_dates:
            raise UsageError("E_OPTION", "Expected --retain-dates or --shift-dates, got both.")

    @property
    def keeps_times(self) -> bool:
        """Whether dates and times are kept at all."""
        return self.retain_dates or self.shift_dates

    @property
    def temporal_information(self) -> str:
        """LongitudinalTemporalInformationModified (0028,0303)."""
        return "UNMODIFIED" if self.retain_dates else "MODIFIED" if self.shift_dates else "REMOVED"

    def codes(self) -> tuple[Code, ...]:
        """What was done, as codes of CID 7050 (De-identification Method)."""
        chosen = (code for name, code in _CODES.items() if getattr(self, name))
        return (codes.DCM.BasicApplicationConfidentialityProfile, *chosen)

    def method(self) -> tuple[str, ...]:
        """DeidentificationMethod (0012,0063), each value of at most 64 characters."""
        names = (name.replace("_", " ") for name in _CODES if getattr(self, name))
        return (f"Tandem {__version__}"[:64], "DICOM PS3.15 E Basic Profile", *names)


_CODES: dict[str, Code] = {
    "clean_structured_content": codes.DCM.CleanStructuredContentOption,
    "clean_descriptors": codes.DCM.CleanDescriptorsOption,
    "retain_dates": codes.DCM.RetainLongitudinalTemporalInformationFullDatesOption,
    "shift_dates": codes.DCM.RetainLongitudinalTemporalInformationModifiedDatesOption,
    "retain_patient_characteristics": codes.DCM.RetainPatientCharacteristicsOption,
    "retain_device": codes.DCM.RetainDeviceIdentityOption,
    "retain_uids": codes.DCM.RetainUidsOption,
    "retain_safe_private": codes.DCM.RetainSafePrivateOption,
    "retain_institution": codes.DCM.RetainInstitutionIdentityOption,
}
