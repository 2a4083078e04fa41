"""What publicly holds no identity: coded concepts, which get their public meaning, and private attributes."""

from __future__ import annotations

import re
from functools import lru_cache

from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from pipeline.dicom.headers.values import SNOMED_RT

#: What stands for a code of a hospital's or a vendor's own, whose value and meaning could be anything.
REMOVED = Code("REMOVED", "99TANDEM", "Removed")

_SCHEME = "CodingSchemeDesignator"
_PARTS = ("CodeValue", "LongCodeValue", "URNCodeValue", "CodeMeaning")
#: Units that are made of these parts alone can say nothing else. Source: UCUM, table of units.
_UNIT = r"([cmunkMG]?(m|g|l|L|s|Bq|Gy|Sv|mol|V|T|Hz|eV|A|W|Ci|Pa)|min|h|d|deg|rad|%|1|10\*?-?\d)-?\d?"
_REMARK = r"(\{(SUV(bw|lbm|bsa|ibw)|counts|ratio|propcounts)\})?"
_UNITS = re.compile(rf"{_REMARK}{_UNIT}([./]{_UNIT})*{_REMARK}")


def standardise(dataset: Dataset) -> None:
    """Where a data set is a coded concept, write the concept as it is known publicly, in place.

    Source: DICOM PS3.3 8.8 (Code Sequence Macro), PS3.15 E.3.4.
    """
    value, scheme = _text(dataset, "CodeValue"), _text(dataset, _SCHEME)
    present = [part for part in _PARTS if part in dataset]
    if not present:
        if _SCHEME in dataset and scheme not in (*codes.schemes(), *SNOMED_RT):
            dataset.CodingSchemeDesignator = REMOVED.scheme_designator
        return
    code = known(value or _text(dataset, "LongCodeValue"), scheme) or REMOVED
    for part in present:
        delattr(dataset, part)
    dataset.CodeValue = code.value
    dataset.CodingSchemeDesignator = code.scheme_designator
    dataset.CodeMeaning = code.meaning[:64]
    if "CodingSchemeVersion" in dataset:
        del dataset.CodingSchemeVersion


@lru_cache(maxsize=4096)
def known(value: str, scheme: str) -> Code | None:
    """The concept that a CodeValue of a CodingSchemeDesignator stands for, with its public meaning, or None."""
    if scheme in SNOMED_RT:
        wanted = Code(value, "SRT", "")
        same = (code for code in codes.SCT.concepts.values() if code == wanted)  # pydicom knows the successors
        found = next(same, None)
        return found and Code(value, scheme, found.meaning)
    if scheme == "UCUM" and len(value) <= 16 and _UNITS.fullmatch(value):
        return _by_value(scheme).get(value, Code(value, scheme, value))
    return _by_value(scheme).get(value)


@lru_cache(maxsize=64)
def _by_value(scheme: str) -> dict[str, Code]:
    if scheme not in codes.schemes():
        return {}
    return {code.value: code for code in getattr(codes, scheme).concepts.values()}


def _text(dataset: Dataset, keyword: str) -> str:
    return str(dataset.get(keyword) or "").strip()


#: (creator, group, element) -> value representation: numbers, and codes of a few letters; no free text is among them.
#: Source: DICOM PS3.15 Table E.3.10-1.
SAFE: dict[tuple[str, int, int], str] = {
    ("Philips PET Private Group", 0x7053, 0x00): "DS",  # SUV factor
    ("Philips PET Private Group", 0x7053, 0x09): "DS",  # activity concentration factor
    ("ELSCINT1", 0x00E1, 0x21): "DS",  # dose-length product
    ("ELSCINT1", 0x01E1, 0x26): "CS",  # phantom type
    ("ELSCINT1", 0x01E1, 0x50): "DS",  # acquisition duration
    ("ELSCINT1", 0x01F1, 0x01): "CS",  # acquisition type
    ("ELSCINT1", 0x01F1, 0x07): "DS",  # table velocity
    ("ELSCINT1", 0x01F1, 0x26): "DS",  # pitch
    ("ELSCINT1", 0x01F1, 0x27): "DS",  # rotation time
    ("GEMS_ACQU_01", 0x0019, 0x23): "DS",  # table speed
    ("GEMS_ACQU_01", 0x0019, 0x24): "DS",  # mid-scan time
    ("GEMS_ACQU_01", 0x0019, 0x27): "DS",  # rotation speed
    ("GEMS_SERS_01", 0x0025, 0x07): "SL",  # images in series
    ("GEMS_PARM_01", 0x0043, 0x27): "SH",  # scan pitch ratio, such as 1.375:1
    ("GEMS_PARM_01", 0x0043, 0x39): "IS",  # the first value is the b-value
    ("GEMS_HELIOS_01", 0x0045, 0x01): "SS",  # number of macro rows in the detector
    ("GEMS_HELIOS_01", 0x0045, 0x02): "FL",  # macro width at the isocentre
    ("Philips Imaging DD 001", 0x2001, 0x03): "FL",  # diffusion b-factor
    ("Philips Imaging DD 001", 0x2001, 0x04): "CS",  # diffusion direction
    ("Philips MR Imaging DD 001", 0x2005, 0x0D): "FL",  # scale intercept
    ("Philips MR Imaging DD 001", 0x2005, 0x0E): "FL",  # scale slope
    ("SIEMENS MR HEADER", 0x0019, 0x0C): "IS",  # b-value
    ("SIEMENS MR HEADER", 0x0019, 0x0D): "CS",  # diffusion directionality
    ("SIEMENS MR HEADER", 0x0019, 0x0E): "FD",  # diffusion gradient direction
    ("SIEMENS MR HEADER", 0x0019, 0x27): "FD",  # diffusion b-matrix
}

_NUMBERS = re.compile(r"[-+.\deE:\\ ]*")
_WORDS = re.compile(r"ISOTROPIC|DIRECTIONAL|BMATRIX|NONE|NO|YES|[A-Z]")
_FIRST_BLOCK = 0x10


def remove_private(dataset: Dataset, retain_safe: bool) -> None:
    """Remove the private attributes of one level of a data set, in place.

    Args:
        dataset: its sequences' items are not entered.
        retain_safe: keep what `SAFE` lists, where creator, representation and value are as they should be.
    """
    private = [tag for tag in dataset.keys() if tag.is_private]  # noqa: SIM118 - Dataset iterates over elements
    kept: set[int] = {tag for tag in private if retain_safe and _is_safe(dataset, tag)}
    kept |= {(tag & 0xFFFF0000) | ((tag & 0xFFFF) >> 8) for tag in kept}  # their creators
    for tag in private:
        if tag not in kept:
            del dataset[tag]


def _is_safe(dataset: Dataset, tag: int) -> bool:
    group, block, element = tag >> 16, (tag & 0xFFFF) >> 8, tag & 0xFF
    creator = (group << 16) | block
    if block < _FIRST_BLOCK or creator not in dataset:
        return False
    expected = SAFE.get((str(dataset[creator].value).strip(" \0"), group, element))
    found = dataset[tag]
    if expected is None or expected != found.VR:
        return False
    if expected in ("FL", "FD", "SS", "SL"):
        return True
    values = found.value if found.VM > 1 else [found.value]
    form = _WORDS if expected == "CS" else _NUMBERS
    return all(form.fullmatch(str(value if value is not None else "").strip()) for value in values)
