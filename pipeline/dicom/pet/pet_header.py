"""Values of a PET header, read strictly: what is missing or no number is refused by name."""

from __future__ import annotations

from pydicom.dataset import Dataset

from pipeline.dicom.headers.values import BadNumberError, BadValueError, names_of, numbers, texts
from pipeline.errors import QuarantineError


def refusal(message: str) -> QuarantineError:
    """E_SUV with a sentence."""
    return QuarantineError("E_SUV", message)


def text(dataset: Dataset, keyword: str) -> str:
    """A value as text, several joined by a backslash; empty where it is missing or cannot be read."""
    try:
        return texts(dataset, names_of([keyword])).get(keyword, "")
    except BadValueError:
        return ""


def shown(value: str) -> str:
    """A code as it may stand in a message: a word, or that it is none."""
    return value if value.isalnum() and len(value) <= 16 else "none"


def number(value: str) -> float | None:
    """A finite number; None where the text is none."""
    try:
        found = numbers(value, 1)
    except BadNumberError:
        return None
    return found[0] if found else None


def positive(dataset: Dataset, keyword: str) -> float:
    """A number above 0.

    Raises:
        QuarantineError: E_SUV naming the keyword.
    """
    found = number(text(dataset, keyword))
    if found is None or found <= 0:
        raise refusal(f"{keyword} is missing or not above 0.")
    return found


def private_text(dataset: Dataset, group: int, creator: str, element: int) -> str:
    """A value of a private block as text; empty where it is missing."""
    try:
        value = dataset.private_block(group, creator)[element].value
    except (KeyError, ValueError):
        return ""
    return value.decode("ascii", "replace").strip(" \0") if isinstance(value, bytes) else str(value).strip()
