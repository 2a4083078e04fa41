"""How long a PET dose has decayed, by the header's times. Values are read strictly: what is missing is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

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


#: After this many half-lives (a thousandth is left) nobody scans: the times, or the half-life, are wrong.
MOST_HALF_LIVES = 10.0
DAY = timedelta(days=1)
_GE = "GEMS_PETD_01"
_TIME = re.compile(r"(\d{2})(\d{2})?(\d{2})?(\.\d{1,6})?")
_DATE_TIME = re.compile(r"(\d{8})(\d{2,6}(?:\.\d{1,6})?)([+-]\d{4})?")


@dataclass(frozen=True)
class Waited:
    """What lies between the dose's measurement and the time that the images are corrected to.

    Attributes:
        seconds: for which the dose has decayed.
        source: where the time of the images is from, in words.
        flags: what a reader has to know (codes `N_...` with a sentence).
    """

    seconds: float
    source: str
    flags: tuple[str, ...] = ()


def decay(header: Dataset, images: Sequence[Dataset], tracer: Dataset, half_life_s: float) -> Waited:
    """From the injection to the start of the scan.

    Args:
        header: of one image, whole.
        images: of every image, times at least.
        tracer: the item of RadiopharmaceuticalInformationSequence.
        half_life_s: of the radionuclide.

    Raises:
        QuarantineError: E_SUV naming the time that is missing or contradicts the others.

    Source: QIBA FDG-PET/CT profile, "vendor-neutral pseudo-codes for SUV calculation"; DICOM PS3.3 C.8.9.1.
    """
    scan, source = _scan_start(header, images, half_life_s)
    longest = timedelta(seconds=MOST_HALF_LIVES * half_life_s)
    injection = _injection(header, tracer)
    if injection is not None and timedelta(0) <= scan - injection <= longest:
        return Waited((scan - injection).total_seconds(), f"START, {source}")
    if longest > DAY:
        # a tracer that lives longer may have been injected on another day: the time of day alone says nothing
        raise refusal("RadiopharmaceuticalStartDateTime is missing or does not fit the scan.")
    clock = text(tracer, "RadiopharmaceuticalStartTime") or (f"{injection:%H%M%S}" if injection else "")
    midnight = scan.replace(hour=0, minute=0, second=0, microsecond=0)
    began = midnight + _since_midnight(clock, "RadiopharmaceuticalStartTime")
    elapsed = scan - began + (DAY if began > scan else timedelta(0))
    if elapsed > longest:
        raise refusal(f"The scan is {elapsed / longest * MOST_HALF_LIVES:.0f} half-lives after the injection.")
    note = "N_INJECTION_DATE: the date of injection does not fit the scan; its time of day was used"
    return Waited(elapsed.total_seconds(), f"START, {source}", (note,) if injection else ())


def _scan_start(header: Dataset, images: Sequence[Dataset], half_life_s: float) -> tuple[datetime, str]:
    """The time that START means, when the first bed position began: SeriesTime, unless the series was processed."""
    first = min(_moment(image, "AcquisitionDate", "AcquisitionTime") for image in images)
    if text(header, "SeriesDate") and text(header, "SeriesTime"):
        series = _moment(header, "SeriesDate", "SeriesTime")
        if series <= first and first - series < DAY:
            return series, "SeriesTime"
    private = private_text(header, 0x0009, _GE, 0x0D)
    if private:
        return _date_time(private, "The scan's private date and time (0009,100D)")[0], "(0009,100D)"
    exact = [moment for image in images if (moment := _back_computed(image, half_life_s)) is not None]
    return (min(exact), "FrameReferenceTime") if len(exact) == len(images) else (first, "AcquisitionTime")


def _back_computed(image: Dataset, half_life_s: float) -> datetime | None:
    """The start of the scan from one frame: FrameReferenceTime counts from there to the frame's mean count rate."""
    reference_ms, duration_ms = (number(text(image, key)) for key in ("FrameReferenceTime", "ActualFrameDuration"))
    if not (reference_ms and duration_ms and reference_ms > 0 and duration_ms > 0):
        return None
    rate = math.log(2) / half_life_s
    decayed = rate * duration_ms / 1000
    mean_s = math.log(decayed / -math.expm1(-decayed)) / rate
    return _moment(image, "AcquisitionDate", "AcquisitionTime") + timedelta(seconds=mean_s - reference_ms / 1000)


def _injection(header: Dataset, tracer: Dataset) -> datetime | None:
    """RadiopharmaceuticalStartDateTime by the clock of the header, or None where it is missing or has no time."""
    value = text(tracer, "RadiopharmaceuticalStartDateTime")
    if not _DATE_TIME.fullmatch(value):
        return None
    moment, offset = _date_time(value, "RadiopharmaceuticalStartDateTime")
    local = text(header, "TimezoneOffsetFromUTC")
    return moment + (_zone(local) - _zone(offset) if offset and local else timedelta(0))


def _date_time(value: str, name: str) -> tuple[datetime, str]:
    """A date and time, and the offset from UTC behind it."""
    found = _DATE_TIME.fullmatch(value)
    if not found:
        raise refusal(f"{name} is no date and time.")
    return _day(found[1], name) + _since_midnight(found[2], name), found[3] or ""


def _zone(offset: str) -> timedelta:
    found = re.fullmatch(r"([+-])(\d{2})(\d{2})", offset)
    if not found:
        raise refusal("TimezoneOffsetFromUTC is no offset.")
    minutes = int(found[2]) * 60 + int(found[3])
    return timedelta(minutes=-minutes if found[1] == "-" else minutes)


def _moment(dataset: Dataset, date: str, time: str) -> datetime:
    return _day(text(dataset, date), date) + _since_midnight(text(dataset, time), time)


def _day(value: str, name: str) -> datetime:
    try:
        return datetime.strptime(value.replace(".", ""), "%Y%m%d")
    except ValueError as error:
        raise refusal(f"{name} is missing or no date.") from error


def _since_midnight(value: str, name: str) -> timedelta:
    found = _TIME.fullmatch(value.replace(":", ""))
    hours, minutes, seconds = (int(found[part] or 0) for part in (1, 2, 3)) if found else (24, 0, 0)
    if found is None or hours > 23 or minutes > 59 or seconds > 60:
        raise refusal(f"{name} is missing or no time.")
    return timedelta(hours=hours, minutes=minutes, seconds=seconds + float(found[4] or 0))
