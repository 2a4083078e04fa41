"""Dates and times: checked, kept, or moved by whole days so that every interval of a patient stays exact."""

from __future__ import annotations

import re
from datetime import date, timedelta

#: Put where a date or time has to stand and may not be told.
DUMMY = {"DA": "19000101", "TM": "000000", "DT": "19000101000000"}

_DAY = r"(?P<day>\d{4}\.\d{2}\.\d{2}|\d{8})"
_TIME = r"([01]\d|2[0-3])(:?[0-5]\d(:?([0-5]\d|60)(\.\d{1,6})?)?)?"
# the forms with dots and colons are those of ACR-NEMA, which PS3.5 6.2 asks readers to accept
_FORMS = {
    "DA": re.compile(_DAY),
    "TM": re.compile(_TIME),
    "DT": re.compile(rf"{_DAY}({_TIME})?(?P<zone>[+-](0\d|1[0-4])[0-5]\d)?"),
}


def moved(text: str, vr: str, days: int) -> str | None:
    """Move one date (DA) or date-time (DT) into the past; a time (TM) stays, as days are moved as a whole.

    Args:
        text: one value.
        vr: `DA`, `DT` or `TM`.
        days: by how many days; 0 keeps the date.

    Returns:
        The value, or None where the text is no such date: what cannot be read is not kept.

    Source: DICOM PS3.5 6.2 for the forms, PS3.15 E.3.6 for the option.
    """
    text = text.strip(" \0")
    if not text:
        return ""
    found = _FORMS[vr].fullmatch(text)
    if found is None:
        return None
    if vr == "TM":
        return text
    digits = found["day"].replace(".", "")
    try:
        earlier = date(int(digits[:4]), int(digits[4:6]), int(digits[6:])) - timedelta(days=days)
    except (ValueError, OverflowError):
        return None
    return f"{earlier.year:04d}{earlier.month:02d}{earlier.day:02d}{text[found.end('day') :]}"
