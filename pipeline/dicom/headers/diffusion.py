"""The b-value of a diffusion image whose scanner writes it into a private element alone."""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

#: Element, the element that names its owner, and that name. Source: the DICOM conformance statements of Siemens MR
#: (syngo VB/VD), GE Signa (DV) and Philips Achieva (R5).
_PRIVATE = (
    (0x0019100C, 0x00190010, "SIEMENS MR HEADER"),
    (0x00431039, 0x00430010, "GEMS_PARM_01"),
    (0x20011003, 0x20010010, "Philips Imaging DD 001"),
)
#: What has to be read of a file to know its b-value.
DIFFUSION_TAGS = tuple(tag for element, owner, _ in _PRIVATE for tag in (element, owner))

#: GE adds this to the b-values of some sequences.
_GE_OFFSET = 1_000_000_000


def private_b_value(dataset: Dataset) -> str:
    """The b-value in s/mm2 as text, as DiffusionBValue (0018,9087) would have it.

    Args:
        dataset: the header's values, `DIFFUSION_TAGS` among them.

    Returns:
        Empty where no private element of a known owner holds a number.
    """
    for element, owner, name in _PRIVATE:
        if element in dataset and owner in dataset and str(dataset[owner].value).strip() == name:
            number = _first_number(dataset[element].value)
            if number is not None and 0 <= number < 2 * _GE_OFFSET:
                return f"{number % _GE_OFFSET:g}"
    return ""


def _first_number(value: Any) -> float | None:
    """The first of a value's numbers; some archives keep private numbers as plain bytes."""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace").split("\\")
    first = next(iter(value), None) if isinstance(value, list | MultiValue) else value
    try:
        return float(str(first).strip(" \0"))
    except ValueError:
        return None
