"""Whether what the headers of one volume, or of one case, say of person, frame and date can be true together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date

from pipeline.cases import Fault, Instance, Series
from pipeline.dicom.headers.persons import PERSON_TAGS, are_named_apart, clashes, person_of
from pipeline.dicom.series.stack import frame_uids
from pipeline.errors import QuarantineError

CONTRADICTION = "E_CONTRADICTION"
#: What all slices of one volume share. Source: DICOM PS3.3 C.7.1.1 (Patient), C.7.2.1 (General Study), C.7.3.1 (General
#: Series) and C.7.4.1 (Frame of Reference), each one for a whole series; AcquisitionDate may pass midnight.
DATE_TAGS = ("StudyDate", "SeriesDate", "AcquisitionDate")
ONE_TAGS = (*PERSON_TAGS, "FrameOfReferenceUID", *DATE_TAGS)
#: A scan may run over midnight, and a day begins earlier elsewhere.
MOST_DAYS_APART = 1


def require_one_identity(instances: Sequence[Instance]) -> tuple[str, ...]:
    """Refuse slices of one volume that cannot be of one person, in one frame of reference, on one date.

    Returns:
        Notes: N_NO_FRAME where every slice has a frame of its own, as de-identifiers leave them: then none is known.

    Raises:
        QuarantineError: E_CONTRADICTION naming the elements, not their values.
    """
    frames = frame_uids(instances)
    scattered = len(frames) > 2 and len(frames) == len(instances)
    wrong = [*clashes(person_of(item.tags) for item in instances)]
    wrong += ["FrameOfReferenceUID"] if len(frames) > 1 and not scattered else []
    wrong += [tag for tag in DATE_TAGS if _days_apart(item.tags.get(tag, "") for item in instances) > MOST_DAYS_APART]
    if wrong:
        raise QuarantineError(CONTRADICTION, f"The slices of one volume contradict each other in {_listed(wrong)}.")
    return ("N_NO_FRAME",) if scattered else ()


def contradiction(series: Iterable[Series]) -> Fault | None:
    """Why series that are to be one case cannot be of one person, or None."""
    wrong = clashes(person_of(item.tags) for member in series for item in _all(member))
    if not wrong:
        return None
    message = f"Series under one PatientID contradict each other in {_listed(wrong)}: they may be of two persons."
    return Fault.of(CONTRADICTION, message)


def have_two_names(series: Iterable[Series]) -> bool:
    """Whether the patient's name differs between series that agree in birth date and sex."""
    return are_named_apart(person_of(item.tags) for member in series for item in _all(member))


def contradicting_values(series: Sequence[Series]) -> list[tuple[int, str, str]]:
    """The values that differ between (or within) series: index of the series, DICOM keyword, value. Private."""
    found = {
        tag: [(index, item.tags.get(tag, "")) for index, member in enumerate(series) for item in _all(member)]
        for tag in ONE_TAGS
    }
    apart = {tag: values for tag, values in found.items() if len({value for _, value in values} - {""}) > 1}
    return [(index, tag, value) for tag, values in apart.items() for index, value in dict.fromkeys(values) if value]


def _all(series: Series) -> tuple[Instance, ...]:
    return (*series.instances, *series.rejected)


def _listed(tags: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(tags[:-1]), tags[-1])))


def _days_apart(values: Iterable[str]) -> int:
    """The most days between dates; texts that are no dates are left out."""
    days = [day.toordinal() for value in set(values) if (day := _day(value)) is not None]
    return max(days) - min(days) if days else 0


def _day(value: str) -> date | None:
    try:
        return date.fromisoformat(value.replace(".", "")[:8])
    except ValueError:
        return None
