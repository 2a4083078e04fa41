"""Apply the profile to a data set, its sequences included."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pydicom import Dataset
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.uid import UID_dictionary

from pipeline.dicom.confidentiality import dates, vocabulary
from pipeline.dicom.confidentiality.codes import remove_private, standardise
from pipeline.dicom.confidentiality.options import Options
from pipeline.dicom.confidentiality.profile import VERSIONED, Action, action_for, representation
from pipeline.dicom.confidentiality.quarantine import LABEL_MAP_SEGMENTATION
from pipeline.dicom.headers.values import PLANE_TAGS, names_of
from pipeline.errors import CaseError

#: Ages above this are told as this one. Source: 45 CFR 164.514(b)(2)(i)(C), ages over 89.
OLDEST_YEARS = 90

_NUMBER = re.compile(r" *([+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?)? *\0?")
_CODE_STRING = re.compile(r"[A-Z0-9 _]{0,16}")
_UID = re.compile(r"[0-9.]{1,64}")
_AGE = re.compile(r"(\d{3})([DWMY])")
_KERNEL = r"[A-Z]{1,2}[a-z]?\d{0,3}[a-z]{0,2}(-H)?"
_SEQUENCE = r"\*?([a-zA-Z]{2,6}[123]d[a-zA-Z]{0,2}\d{0,4}|ep_b\d{1,5})([_#t-][a-z]{0,3}\d{0,5}[a-z]?)*"
_ISOTOPE = r"\d{1,3}[A-Z][a-z]?"
_TECHNICAL_NAME = re.compile(rf"{_KERNEL}|{_SEQUENCE}|{_ISOTOPE}|\d{{1,2}}")
#: What an image cannot be read or placed without stays, whatever the patient's name is.
_ESSENTIAL = frozenset(
    (
        *(0x00080005, 0x00080060, 0x00185100),  # SpecificCharacterSet, Modality, PatientPosition
        *(0x00280004, 0x00280051),  # PhotometricInterpretation, CorrectedImage
        *(0x00541000, 0x00541001, 0x00541102),  # SeriesType, Units, DecayCorrection
    )
)
#: Without its value of these the copy would be another image than the file: it is left out, not taken away.
_INDISPENSABLE = names_of(
    (
        *(*PLANE_TAGS, "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
        *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelData"),
        *("PixelPaddingRangeLimit", "GridFrameOffsetVector", "DoseGridScaling"),
    )
)
_DUMMIES: dict[str, object] = {
    **dates.DUMMY,
    **dict.fromkeys(("AE", "CS", "LO", "LT", "SH", "ST", "UC", "UT", "PN"), "REMOVED"),
    **dict.fromkeys(("OB", "UN"), b"\0\0"),
    "AS": "000Y",
    "UR": "https://removed.invalid",
}
_UNKNOWN = "UNKNOWN"
_PIXEL_DATA = 0x7FE00010
_PUBLIC_UIDS = UID_dictionary.keys() | {LABEL_MAP_SEGMENTATION}


@dataclass(frozen=True)
class Subject:
    """What is put in the place of a patient's identity.

    Attributes:
        pseudonym: stands for PatientID and PatientName.
        days: by which dates are moved into the past.
        uid: gives the UID that replaces one of the hospital's.
        banned: words of the patient's own identity, in upper case: no kept text may hold one.
    """

    pseudonym: str
    days: int
    uid: Callable[[str], str]
    banned: frozenset[str] = frozenset()


class Cleaner:
    """Take a patient's identity out of data sets."""

    def __init__(self, options: Options, subject: Subject) -> None:
        self.options = options
        self.subject = subject
        self._handlers: dict[Action, Callable[[Dataset, int], None]] = {
            Action.REMOVE: self._remove,
            Action.EMPTY: self._empty,
            Action.REPLACE: self._replace,
            Action.ENTER: self._enter,
            Action.UID: self._uid,
            Action.TIME: self._time,
            Action.AGE: self._age,
            Action.NUMBERS: self._numbers,
            Action.CODE: self._code,
            Action.BODY_PART: self._body_part,
            Action.IMAGE_TYPE: self._image_type,
            Action.WORDS: partial(self._reword, otherwise=""),
            Action.LABEL: partial(self._reword, otherwise=_UNKNOWN),
            Action.NAME: self._name,
        }

    def clean(self, dataset: Dataset, nested: bool = False) -> None:
        """Apply the profile, in place.

        Args:
            dataset: as it was read.
            nested: it is an item of a sequence, which holds no pixels.

        Source: DICOM PS3.15 E.2; sequences are entered at any depth (E.1.1).
        """
        remove_private(dataset, self.options.retain_safe_private)
        standardise(dataset)
        if nested and _PIXEL_DATA in dataset:
            del dataset[_PIXEL_DATA]
        for tag in list(dataset.keys()):
            if not tag.is_private:
                self._treat(dataset, tag)

    def mark(self, dataset: Dataset) -> None:
        """Write the pseudonym, and that and how the identity was removed. Source: DICOM PS3.15 E.1.1."""
        given = dataset.get("DeidentificationMethodCodeSequence") or ()
        earlier = [item for item in given if item.get("CodeValue") in _CLEANED_PIXELS]
        dataset.PatientName = dataset.PatientID = self.subject.pseudonym
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethod = list(self.options.method())
        dataset.DeidentificationMethodCodeSequence = Sequence(
            [*earlier, *(_item(code.value, code.meaning) for code in self.options.codes())]
        )
        dataset.LongitudinalTemporalInformationModified = self.options.temporal_information

    def _treat(self, dataset: Dataset, tag: int) -> None:
        action = action_for(tag, self.options)
        if action is Action.REMOVE or action is Action.EMPTY:
            self._handlers[action](dataset, tag)
            return
        stated, expected = dataset.get_item(tag).VR, representation(tag)
        # its value is looked at; bytes that are not do not stay, but for pixels and tables, and what these are read by
        if stated == "UN" and (action is not Action.KEEP or expected.startswith("O") or tag in _INDISPENSABLE):
            stated = dataset[tag].VR
        if not _fits(stated, expected):
            self._drop(dataset, tag)
        elif action is not Action.KEEP:
            self._handlers[action](dataset, tag)

    def _remove(self, dataset: Dataset, tag: int) -> None:
        del dataset[tag]

    def _drop(self, dataset: Dataset, tag: int) -> None:
        """Take away a value that is not of its attribute's form.

        Raises:
            CaseError: E_HEADER when a sequence or the image itself would be lost with it.
        """
        if dataset.get_item(tag).value and (tag in _INDISPENSABLE or representation(tag) == "SQ"):
            raise CaseError("E_HEADER", f"The value of {keyword_for_tag(tag)} is not of its form.")
        del dataset[tag]

    def _empty(self, dataset: Dataset, tag: int) -> None:
        vr = representation(tag).split(" or ")[0]
        dataset[tag] = DataElement(tag, vr, Sequence() if vr == "SQ" else None)

    def _replace(self, dataset: Dataset, tag: int) -> None:
        vr = representation(tag).split(" or ")[0]
        if dataset.get_item(tag).value:
            dataset[tag] = DataElement(tag, vr, _DUMMIES[vr])

    def _enter(self, dataset: Dataset, tag: int) -> None:
        items = list(dataset[tag].value or ())
        filled = any(len(item) for item in items)
        for item in items:
            self.clean(item, nested=True)
        if filled and not any(len(item) for item in items):
            del dataset[tag]

    def _uid(self, dataset: Dataset, tag: int) -> None:
        values = _values(dataset, tag)
        if all(value in _PUBLIC_UIDS for value in values if value):
            return
        dataset[tag] = DataElement(tag, "UI", [self._one_uid(value) for value in values])

    def _one_uid(self, value: str) -> str:
        kept = not value or value in _PUBLIC_UIDS or (self.options.retain_uids and _UID.fullmatch(value))
        return value if kept else self.subject.uid(value)

    def _time(self, dataset: Dataset, tag: int) -> None:
        vr = representation(tag)
        days = self.subject.days if self.options.shift_dates else 0
        values = [dates.moved(value, vr, days) for value in _values(dataset, tag)]
        if None in values:
            self._empty(dataset, tag)
        elif any(values):
            dataset[tag] = DataElement(tag, vr, values if len(values) > 1 else values[0])

    def _age(self, dataset: Dataset, tag: int) -> None:
        found = _AGE.fullmatch("\\".join(_values(dataset, tag)))
        if found is None:
            self._empty(dataset, tag)
        elif found[2] == "Y" and int(found[1]) >= OLDEST_YEARS:
            dataset[tag] = DataElement(tag, "AS", f"{OLDEST_YEARS:03d}Y")

    def _numbers(self, dataset: Dataset, tag: int) -> None:
        if not all(_NUMBER.fullmatch(value) for value in _values(dataset, tag)):
            self._drop(dataset, tag)

    def _code(self, dataset: Dataset, tag: int) -> None:
        for value in _values(dataset, tag):
            own = tag not in _ESSENTIAL and not self.subject.banned.isdisjoint(re.split(r"[ _]", value))
            if own or not _CODE_STRING.fullmatch(value):
                self._drop(dataset, tag)
                return

    def _body_part(self, dataset: Dataset, tag: int) -> None:
        if not all(vocabulary.is_body_part(value) for value in _values(dataset, tag)):
            self._empty(dataset, tag)

    def _image_type(self, dataset: Dataset, tag: int) -> None:
        values = _values(dataset, tag)
        known = [value if vocabulary.is_image_type(value) else "OTHER" for value in values]
        if known != values:
            dataset[tag] = DataElement(tag, "CS", known)

    def _reword(self, dataset: Dataset, tag: int, otherwise: str) -> None:
        element = dataset[tag]
        given = element.value if isinstance(element.value, MultiValue) else [element.value]
        banned, versions = self.subject.banned, tag in VERSIONED
        cleaned = [vocabulary.clean(str(value), banned, versions) or otherwise for value in given if value]
        if cleaned:
            longest = 16 if element.VR in ("CS", "SH") else 64
            kept = list(dict.fromkeys(value[:longest].strip() for value in cleaned))
            dataset[tag] = DataElement(tag, element.VR, kept if len(kept) > 1 else kept[0])

    def _name(self, dataset: Dataset, tag: int) -> None:
        for value in _values(dataset, tag):
            technical = _TECHNICAL_NAME.fullmatch(value) or vocabulary.clean(value) == value.upper()
            if value and (not technical or value.upper() in self.subject.banned):
                dataset[tag] = DataElement(tag, "SH", _UNKNOWN)
                return


#: Cleaned pixels, recognisable features and graphics: done by someone before, and still true.
_CLEANED_PIXELS = ("113101", "113102", "113103")


def _item(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = "DCM"
    item.CodeMeaning = meaning
    return item


def _fits(stated: str | None, expected: str) -> bool:
    """Whether an element's representation is that of the dictionary: text in the place of a number is not kept."""
    if stated in (None, expected, *expected.split(" or ")):
        return True
    return stated in ("OB", "OW") and expected == "OB or OW"


def _values(dataset: Dataset, tag: int) -> list[str]:
    """The element's values as text, without the padding at the end; in ISO 8859-1 where they were not yet decoded."""
    element = dataset.get_item(tag)
    if isinstance(element, RawDataElement):
        return (element.value or b"").decode("latin-1").rstrip(" \0").split("\\")
    value = dataset[tag].value
    parts = value if isinstance(value, MultiValue | list | tuple) else [value]
    return ["" if part is None else str(part).rstrip(" \0") for part in parts]
