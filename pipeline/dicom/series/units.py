"""Whether the unit that a role names is the one that the headers of its series say."""

from __future__ import annotations

import re

from pipeline.cases import Fault, Series
from pipeline.spec.roles import ARBITRARY, SUV_BODY_WEIGHT, Role, plain_unit

#: Where a modality says what its values are. Source: DICOM PS3.3 C.8.9.1 (Units), C.8.2.1.1 (RescaleType), C.8.8.3
#: (DoseUnits).
_SAYS = {"PT": "Units", "CT": "RescaleType", "RTDOSE": "DoseUnits"}
#: RescaleType that says nothing: CT is then in HU (DICOM PS3.3 C.11.1.1.2: it shall be there where it is not HU).
_HOUNSFIELD = frozenset({"", "US", "HU"})
#: A map of a quantity, by what scanners write into ImageType or the description: ADC, T1, T2, R2* …
_MAP = re.compile(r"(?i)(^|[^a-z])adc([^a-z]|$)|apparent.?diff|(^|[^a-z])(t1|t2|r1|r2|pd)(\*|_?star)?[ _-]?map")


def is_hounsfield(series: Series) -> bool:
    """Whether a series is a CT in HU."""
    return series.modality == "CT" and _said(series, "RescaleType") <= _HOUNSFIELD


def unit_fault(series: Series, role: Role) -> Fault | None:
    """Why a series' values are not in the unit of a role; None where they are, or where one of them does not say."""
    keyword = _SAYS.get(series.modality, "")
    # PET that becomes SUV is asked for its Units where that is done
    if not keyword or role.unit == SUV_BODY_WEIGHT or plain_unit(role.unit) in ARBITRARY:
        return None
    said = _said(series, keyword)
    if said <= _HOUNSFIELD and series.modality == "CT":
        said = {"HU"}
    if len(said) > 1:
        return Fault.of("E_UNIT", f"The slices have different {keyword}.")
    value = min(said, default="")
    if not value or plain_unit(value) == plain_unit(role.unit):
        return None
    shown = value if re.fullmatch(r"\w{1,16}", value) else "another"
    return Fault.of("E_UNIT", f"Expected values in {role.unit}, got {shown} ({keyword}).")


def unit_flags(series: Series, role: Role, name: str) -> list[str]:
    """What a reader has to know about the unit of a series that plays a role."""
    unnamed, keyword = plain_unit(role.unit) in ARBITRARY, _SAYS.get(series.modality, "")
    flags = []
    if unnamed and series.modality == "CT" and not is_hounsfield(series):
        flags.append(f"N_NOT_HU: {name}: RescaleType says that the values are not HU")
    believed = not unnamed and keyword in ("Units", "DoseUnits") and role.unit != SUV_BODY_WEIGHT
    if believed and "" in _said(series, keyword):
        flags.append(f"N_UNIT_UNKNOWN: {name}: {keyword} is missing; {role.unit} was believed")
    if unnamed and series.modality == "MR" and _is_map(series):
        flags.append(f"N_QUANTITATIVE: {name}: a map of a quantity; give the role its `unit`, such as 1e-6 mm2/s")
    return flags


def _is_map(series: Series) -> bool:
    tags = series.instances[0].tags
    return any(_MAP.search(tags.get(key, "")) for key in ("ImageType", "SeriesDescription"))


def _said(series: Series, keyword: str) -> set[str]:
    return {item.tags.get(keyword, "").upper() for item in series.instances}
