"""From keys and numbers to words: names, units and values as a reader sees them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from numbers import Real
from typing import Any

#: On every page of every report.
DISCLAIMER = "Research use only. Not a medical device."
NOT_AVAILABLE = "not available"

#: In mm, mL, s, HU or degrees this is far below what anything here measures.
NEGLIGIBLE = 1e-6

#: Suffix of a key -> unit as it is printed.
UNITS: dict[str, str] = {
    "deg": "°",
    "hu": "HU",
    "mb": "MB",
    "ml": "mL",
    "mm": "mm",
    "mm2": "mm²",
    "mm3": "mm³",
    "percent": "%",
    "s": "s",
    "seconds": "s",
}
#: Words that are not written as they are in a key.
_ACRONYMS = ("ADC", "CLAHE", "CT", "CV", "DWI", "FLAIR", "GTV", "HBV", "MI", "MR", "N4", "NLM", "NMI", "PET", "PSNR")
SPELLINGS = {word.lower(): word for word in (*_ACRONYMS, "CXR", "ROI", "SNR", "SSIM", "SUV", "T1", "T2", "TRE")}


def clean(text: object) -> str:
    """Text without control characters and direction overrides, which could hide or reorder what stands beside them."""
    return "".join(character if character.isprintable() else " " for character in str(text)).strip()


def counted(number: int, noun: str) -> str:
    """`1 file`, `2 files`, `2 files or folders`."""
    return f"{number} {noun}" if number == 1 else f"{number} {' or '.join(f'{one}s' for one in noun.split(' or '))}"


def unit_of(key: str) -> str:
    """The unit that a key's suffix names, or an empty text where it is dimensionless."""
    return UNITS.get(key.rsplit("_", 1)[-1], "")


def as_key(text: str) -> str:
    """A text as a key: `Volume of lesion` -> `volume_of_lesion`."""
    return re.sub(r"\W+", "_", text).strip("_").lower()


def in_words(key: str) -> str:
    """A key as a person writes it, without its unit: `mr_start_disagreement_mm` -> `MR start disagreement`."""
    parts = [part for part in clean(key).split("_") if part]
    if len(parts) > 1 and unit_of(key):
        parts = parts[:-1]
    if parts in (["seconds"], ["s"]):
        return "Time"
    words = " ".join(SPELLINGS.get(part.lower(), part) for part in parts)
    return words[:1].upper() + words[1:]


def value_text(value: Any) -> str:
    """A value as text: four significant digits; `not available` for None, NaN and infinity, never 0.

    Args:
        value: a number, a truth value, a text, or a mapping or sequence of them.
    """
    if value is None:
        return NOT_AVAILABLE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{in_words(str(key))} {measure_text(str(key), item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(value_text(item) for item in value) or "none"
    if isinstance(value, str):
        return clean(value) or NOT_AVAILABLE
    try:
        return number_text(float(value)) if not isinstance(value, int) else str(value)
    except (TypeError, ValueError):
        return clean(value)


def number_text(value: float) -> str:
    """A number with at most four significant digits, and no exponent where one can be avoided."""
    if not math.isfinite(value):
        return NOT_AVAILABLE
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -4 or magnitude > 8:
        return f"{value:.3e}"
    text = f"{value:.{max(0, 3 - magnitude)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def parted(value: float, limit: float, digits: int) -> str:
    """A value with so many digits behind the point, or as many as part it from its limit: `0.7496` beside 0.75."""
    for more in range(digits, digits + 12):
        text = f"{value:.{more}f}"
        if (float(text) > limit) == (value > limit) and (float(text) < limit) == (value < limit):
            return text
    return repr(value)


def measure_text(key: str, value: Any) -> str:
    """A value with the unit of its key: `3.27 mm`, `12°`; no unit where there is no value.

    What has a unit and is below `NEGLIGIBLE` is 0: less than a nanometre, a nanolitre or a microsecond is rounding.
    """
    unit = unit_of(key)
    if unit and isinstance(value, Real) and abs(float(value)) < NEGLIGIBLE:
        value = 0.0
    return with_unit(value_text(value), unit)


def with_unit(text: str, unit: str) -> str:
    """Join a value's text and its unit."""
    if not unit or text == NOT_AVAILABLE:
        return text
    return f"{text}{unit}" if unit == "°" else f"{text} {unit}"
