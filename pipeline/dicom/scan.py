"""Walk a hospital's DICOM tree and sort what is found into series, by patient, study and series. Headers only."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.cases import Fault, Instance, Series
from pipeline.dicom.header import Header, NotDicomError, read_header
from pipeline.errors import REMEDIES, UsageError


@dataclass(frozen=True)
class Scan:
    """What a tree holds.

    Attributes:
        series: every series, images or not, in a stable order.
        rejected: DICOM files that belong to no series, with their faults.
        unreadable: files that could not be opened, with the reason.
        others: files that are not DICOM.
    """

    series: tuple[Series, ...]
    rejected: tuple[Instance, ...] = ()
    unreadable: tuple[Instance, ...] = ()
    others: tuple[Path, ...] = field(default=())


def scan(root: Path, tags: Iterable[str] = ()) -> Scan:
    """Read the header of every file of a tree.

    Args:
        root: the tree. A DICOMDIR in it is not trusted: every file is looked at.
        tags: DICOM keywords that the data spec's rules look at.

    Raises:
        UsageError: E_EMPTY when there is no file, E_NO_DICOM when none is DICOM.
    """
    headers: list[Header] = []
    unreadable: list[Instance] = []
    others: list[Path] = []
    for path in walk(root):
        try:
            headers.append(read_header(path, tuple(tags)))
        except NotDicomError:
            others.append(path)
        except OSError as error:
            unreadable.append(_unreadable(path, error))
    if not headers and not unreadable:
        code, what = ("E_NO_DICOM", f"{len(others)} files, none of them DICOM") if others else ("E_EMPTY", "no file")
        raise UsageError(code, f"Expected DICOM files below {root}, got {what}.")
    rejected = tuple(header.instance for header in headers if not header.series_uid)
    return Scan(tuple(_group(headers)), rejected, tuple(unreadable), tuple(others))


def walk(root: Path) -> Iterator[Path]:
    """Every file below a folder, in a stable order; linked folders are not entered.

    Raises:
        UsageError: E_EMPTY when the folder does not exist or cannot be opened.
    """
    if not root.is_dir() or not os.access(root, os.R_OK):
        raise UsageError("E_EMPTY", f"Expected a folder that can be read, got {root}.")
    for folder, folders, files in os.walk(root):
        folders.sort()
        yield from (Path(folder) / name for name in sorted(files))


def _unreadable(path: Path, error: OSError) -> Instance:
    fault = Fault("E_UNREADABLE", f"The file cannot be read ({error.strerror}).", REMEDIES["E_UNREADABLE"])
    return Instance(path, "", None, None, None, 0, 0, None, None, fault=fault)


def _group(headers: list[Header]) -> Iterator[Series]:
    groups: defaultdict[tuple[str, str, str], list[Instance]] = defaultdict(list)
    owners: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    for header in headers:
        if header.series_uid:
            groups[header.patient_id, header.study_uid, header.series_uid].append(header.instance)
            owners[header.series_uid].add((header.patient_id, header.study_uid))
    for (patient, study, uid), instances in sorted(groups.items()):
        series = _series(patient, study, uid, instances)
        if len(owners[uid]) > 1:
            message = f"The series' UID is used by {len(owners[uid])} patients or studies."
            series = replace(series, fault=Fault("E_UID_COLLISION", message, REMEDIES["E_UID_COLLISION"]))
        yield series


def _series(patient: str, study: str, uid: str, instances: list[Instance]) -> Series:
    return Series(
        patient_id=patient,
        study_uid=study,
        series_uid=uid,
        modality=instances[0].tags.get("Modality", ""),
        instances=tuple(instance for instance in instances if instance.fault is None),
        rejected=tuple(instance for instance in instances if instance.fault is not None),
        notes=tuple(sorted({note for instance in instances for note in instance.notes})),
    )
