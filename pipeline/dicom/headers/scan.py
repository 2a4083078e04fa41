"""Walk a hospital's DICOM tree and sort what is found into series, by patient, study and series. Headers only."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.cases import Fault, Instance, Series
from pipeline.dicom.headers.cache import HeaderCache
from pipeline.dicom.headers.encoding import NotDicomError
from pipeline.dicom.headers.header import Header, read_header, rejected
from pipeline.dicom.headers.neighbours import Neighbours
from pipeline.dicom.headers.packed import pack, unpack
from pipeline.dicom.headers.persons import clashes, person_of
from pipeline.dicom.sandbox import Sandbox
from pipeline.errors import UsageError
from pipeline.store.files import require_file, walk

#: What one header may take: so long, and so much memory beside the file itself.
HEADER_TIMEOUT_S, HEADER_BYTES = 60.0, 2**31
#: Files that a worker is given at once; fewer than twice as many for a worker are not worth the worker's start.
_CHUNK = 64
_FOREIGN = Fault("", "not DICOM")
_NO_DICOM = Fault.of("E_HEADER", "The file is named like a DICOM file, but is none (damaged, or packed).")


@dataclass(frozen=True)
class Scan:
    """What a tree holds.

    Attributes:
        series: every series, images or not, in a stable order.
        rejected: DICOM files, and files that are named like them, that belong to no series, with their faults.
        unreadable: files and folders that could not be opened, with the reason.
        others: files that are not DICOM, and links to folders that are read elsewhere, with what they are.
    """

    series: tuple[Series, ...]
    rejected: tuple[Instance, ...] = ()
    unreadable: tuple[Instance, ...] = ()
    others: tuple[Instance, ...] = ()


def scan(
    root: Path, tags: Iterable[str] = (), apart: Path | None = None, cache: Path | None = None, readers: int = 0
) -> Scan:
    """Read the header of every file of a tree.

    Args:
        root: the tree. A DICOMDIR in it is not trusted: every file is looked at.
        tags: DICOM keywords that the data spec's rules look at.
        apart: an output folder, which no link of the tree may lead to.
        cache: a private file; what it knows of a file that has not changed since is not read again.
        readers: how many processes read; 0: one for each core.

    Raises:
        UsageError: E_EMPTY when there is no file, E_NO_DICOM when none is DICOM, E_OUT.
    """
    paths = list(walk(root, apart))
    headers: list[Header] = []
    lost: list[Instance] = []
    unreadable: list[Instance] = []
    others: list[Instance] = []
    asked = tuple(sorted(tags))
    for path, found in zip(paths, _found(paths, asked, HeaderCache(cache, root, asked), readers), strict=True):
        if isinstance(found, Header):
            headers.append(found)
        elif isinstance(found, NotDicomError):
            others.append(rejected(path, Fault("", str(found)) if str(found) else _FOREIGN))
        elif isinstance(found, OSError):
            unreadable.append(_unreadable(path, found))
        elif isinstance(found, Fault):
            lost.append(rejected(path, found))
        else:
            raise found
    if not headers and not unreadable and not lost:
        code, what = ("E_NO_DICOM", f"{len(others)} files, none of them DICOM") if others else ("E_EMPTY", "no file")
        # NIfTI files are asked for in the spec
        nifti = "These are NIfTI files: give the roles of the data spec `files` (docs/reference/data-specs.md)."
        remedy = nifti if any(item.path.name.endswith((".nii", ".nii.gz")) for item in others) else ""
        raise UsageError(code, f"Expected DICOM files below {root}, got {what}.", remedy)
    lost += [instance for header in headers if not header.series_uid for instance in header.instances]
    known = _with_issuers(header for header in headers if header.series_uid)
    neighbours = Neighbours(known, (item.path for item in (*lost, *others, *unreadable)))
    damaged = {item.path for item in others if item.fault == _FOREIGN and neighbours.has_lost(item.path)}
    lost += [replace(item, fault=_NO_DICOM) for item in others if item.path in damaged]
    closed = [item for item in unreadable if not item.path.is_dir() and neighbours.has_lost(item.path)]
    everything, adopted = neighbours.adopt([*lost, *closed])
    homeless = tuple(item for item in lost if item.path not in adopted)
    foreign = tuple(item for item in others if item.path not in damaged)
    return Scan(tuple(_group(everything)), homeless, tuple(unreadable), foreign)


def _found(paths: list[Path], tags: tuple[str, ...], cache: HeaderCache, readers: int) -> Iterator[Any]:
    """What is known of every file, or is read of it, in order."""
    known = cache.known(paths)
    unread = [path for path, item in zip(paths, known, strict=True) if item is None]
    reading = _kept(unread, _read_all(unread, tags, readers), cache)
    yield from (next(reading) if item is None else item for item in known)


def _kept(paths: list[Path], reading: Iterator[Any], cache: HeaderCache) -> Iterator[Any]:
    """What is read of files, chunk by chunk as it comes, so that a run that is killed has kept it.

    What is no property of the file (a disk that fails, a limit of time) is not kept.
    """
    for start in range(0, len(paths), _CHUNK):
        chunk = list(zip(paths[start : start + _CHUNK], reading, strict=False))  # the rest comes with the next chunk
        sure = [(path, item) for path, item in chunk if isinstance(item, Header | NotDicomError)]
        names = [path for path, _ in sure]
        packed = pack([item for _, item in sure])
        cache.keep(names, packed)
        shared = unpack(packed, names)
        yield from (next(shared) if isinstance(item, Header | NotDicomError) else item for _, item in chunk)


def _read_all(paths: list[Path], tags: tuple[str, ...], readers: int = 0) -> Iterator[Header | Exception | Fault]:
    """The header of every file, or why there is none, in order. No foreign file is parsed in this process."""
    workers = max(1, min(readers or len(os.sched_getaffinity(0)), len(paths) // (2 * _CHUNK)))
    largest = max((_size(path) for path in paths), default=0)
    with Sandbox(read_task, workers, HEADER_BYTES + largest, HEADER_TIMEOUT_S, _CHUNK) as box:
        yield from box.map((path, tags) for path in paths)


def read_task(task: tuple[Path, tuple[str, ...]]) -> Header:
    """Read one file's header, in a worker.

    Raises:
        NotDicomError: the file is not DICOM, or no file but a pipe or a device.
        OSError: the file, or a folder, cannot be read.
    """
    path, tags = task
    if what := require_file(path):
        raise NotDicomError(what)
    return read_header(path, tags)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # told when the file is read
        return 0


def _unreadable(path: Path, error: OSError) -> Instance:
    what = "folder" if path.is_dir() else "file"
    fault = Fault.of("E_UNREADABLE", f"The {what} cannot be read ({error.strerror}).")
    return rejected(path, fault)


def _with_issuers(headers: Iterable[Header]) -> list[Header]:
    """Bring together what has one PatientID, with the one issuer (0010,0021) that some of it names, or with none.

    Where the headers contradict each other, or name several issuers, they stay apart.

    Returns:
        The headers; those that got an issuer with the note N_ISSUER.
    """
    found = list(headers)
    by_id: defaultdict[str, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, header in enumerate(found):
        tags = header.instances[0].tags
        if tags.get("PatientID"):
            by_id[tags["PatientID"]][tags.get("IssuerOfPatientID", "")].append(index)
    for groups in by_id.values():
        if len(groups) != 2 or "" not in groups:
            continue
        if clashes(person_of(found[index].instances[0].tags) for group in groups.values() for index in group):
            continue
        owner = next(found[group[0]].patient_id for issuer, group in groups.items() if issuer)
        for index in groups[""]:
            noted = tuple(replace(item, notes=(*item.notes, "N_ISSUER")) for item in found[index].instances)
            found[index] = replace(found[index], patient_id=owner, instances=noted)
    return found


def _group(headers: list[Header]) -> Iterator[Series]:
    groups: defaultdict[tuple[str, str, str, str], list[Instance]] = defaultdict(list)
    owners: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    modalities: defaultdict[str, set[str]] = defaultdict(set)
    for header in headers:
        modality = header.instances[0].tags.get("Modality", "")
        groups[header.patient_id, header.study_uid, header.series_uid, modality].extend(header.instances)
        owners[header.series_uid].add((header.patient_id, header.study_uid))
        if header.instances[0].rows:  # a report beside the images does not make them another thing
            modalities[header.series_uid].add(modality)
    for (patient, study, uid, modality), instances in sorted(groups.items()):
        series = _series(patient, study, uid, modality, instances)
        if len(owners[uid]) > 1:
            series = _with_fault(series, "E_UID_COLLISION", f"{len(owners[uid])} patients or studies")
        elif len(modalities[uid]) > 1 and modality in modalities[uid]:
            series = _with_fault(series, "E_MIXED_MODALITY", f"images of {len(modalities[uid])} modalities")
        yield series


def _with_fault(series: Series, code: str, users: str) -> Series:
    return replace(series, fault=Fault.of(code, f"The series' UID is used by {users}."))


def _series(patient: str, study: str, uid: str, modality: str, instances: list[Instance]) -> Series:
    return Series(
        patient_id=patient,
        study_uid=study,
        series_uid=uid,
        modality=modality,
        instances=tuple(instance for instance in instances if instance.fault is None),
        rejected=tuple(instance for instance in instances if instance.fault is not None),
        notes=tuple(sorted({note for instance in instances for note in instance.notes})),
    )
