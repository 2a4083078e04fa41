"""Coded concepts: a code that is publicly known keeps its value and gets its public meaning; any other one goes."""

from __future__ import annotations

import re
from functools import lru_cache

from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

#: What stands for a code of a hospital's or a vendor's own, whose value and meaning could be anything.
REMOVED = Code("REMOVED", "99TANDEM", "Removed")

_SCHEME = "CodingSchemeDesignator"
_PARTS = ("CodeValue", "LongCodeValue", "URNCodeValue", "CodeMeaning")
#: Older names of SNOMED CT's codes: pydicom compares these with their successors. Source: DICOM PS3.16 Annex O.
_SNOMED_RT = ("SRT", "SNM3", "99SDM")
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
        if _SCHEME in dataset and scheme not in (*codes.schemes(), *_SNOMED_RT):
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
    """The concept that a value of a coding scheme stands for, with its public meaning, or None.

    Args:
        value: CodeValue (0008,0100).
        scheme: CodingSchemeDesignator (0008,0102).
    """
    if scheme in _SNOMED_RT:
        wanted = Code(value, "SRT", "")
        same = (code for code in codes.SCT.concepts.values() if code == wanted)
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
