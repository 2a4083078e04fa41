"""Whose slice a file was that cannot be read: its place in the tree and its name are all that is left of it."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.cases import Instance
from pipeline.dicom.headers.header import Header

FILES_LOST = "N_FILES_LOST"
_DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
#: Of files that were packed, or whose transfer did not end.
_UNFINISHED = (".gz", ".bz2", ".xz", ".zst", ".part", ".partial", ".filepart", ".crdownload", ".download", ".tmp")
#: The number of a slice, or a UID; a name made of hexadecimal digits alone is one, too.
_NUMBER = re.compile(r"\d[\d.-]*\d|\d")
_HEXADECIMAL = re.compile(r"[0-9a-f-]{8,}")

_Owner = tuple[str, str]


class Names:
    """The names of a tree's DICOM files, by folder and form."""

    def __init__(self, known: Iterable[Path]) -> None:
        self._paths = frozenset(known)
        self._folders = {(path.parent, form) for path in self._paths for form in _forms(path.name)}

    def has_lost(self, path: Path) -> bool:
        """Whether a file that is no DICOM, or cannot be opened, is named like DICOM: as those beside it, or as any."""
        name = self.whole(path)
        beside = any((path.parent, form) in self._folders for form in _forms(name))
        return not name.startswith(".") and (beside or name.lower().endswith(_DICOM_ENDINGS))

    def whole(self, path: Path) -> str:
        """The name of a file that was packed or not wholly sent is that of the file; not where that is there, too."""
        whole = path.with_suffix("")
        return whole.name if path.suffix.lower() in _UNFINISHED and whole not in self._paths else path.name


class Neighbours(Names):
    """The files of a tree that were read, by folder and form of their names.

    Args:
        known: their headers.
        asked: the entries that may be lost: only files beside them are looked at.
    """

    def __init__(self, known: Sequence[Header], asked: Iterable[Path]) -> None:
        folders = {_folder(path) for path in asked}
        near = [(index, header) for index, header in enumerate(known) if _folder(header.instances[0].path) in folders]
        super().__init__(header.instances[0].path for _, header in near)
        self._known = list(known)
        self._owners: defaultdict[tuple[Path, str], dict[_Owner, int]] = defaultdict(dict)
        for index, header in sorted(near, key=lambda item: not item[1].instances[0].rows):
            path = header.instances[0].path
            for form in ("", *_forms(path.name)):
                owners = self._owners[path.parent, form]
                if header.instances[0].rows or not owners:  # beside images, a report has lost no slice
                    owners.setdefault((header.series_uid, header.patient_id), index)

    def adopt(self, lost: Iterable[Instance]) -> tuple[list[Header], set[Path]]:
        """Give each lost file to the series that alone can have lost it; where several can, each has a note.

        Without it, a volume would be shorter than it was, and nobody would know.

        Returns:
            All headers, those of the lost files among them; and the lost files that have found their series.
        """
        adopted: list[Header] = []
        for instance in lost:
            owners = self._owners_of(instance.path)
            first = [self._known[index] for index in owners.values()]
            if len(first) == 1:
                tags = {"Modality": first[0].instances[0].tags["Modality"]}
                adopted.append(replace(first[0], instances=(replace(instance, tags=tags),)))
            for index in owners.values() if len(first) > 1 else ():
                self._note(index)
        return [*self._known, *adopted], {header.instances[0].path for header in adopted}

    def _owners_of(self, path: Path) -> dict[_Owner, int]:
        """Each series that has files of this form in the folder, or else any; with a header of it."""
        found = (self._owners.get((path.parent, form)) for form in (*_forms(self.whole(path)), ""))
        return next(filter(None, found), {})

    def _note(self, index: int) -> None:
        header = self._known[index]
        first, *others = header.instances
        if FILES_LOST not in first.notes:
            noted = replace(first, notes=(*first.notes, FILES_LOST))
            self._known[index] = replace(header, instances=(noted, *others))


def _folder(path: Path) -> str:
    return str(path).rpartition(os.sep)[0]  # `Path.parent` takes three times as long


def _forms(name: str) -> tuple[str, ...]:
    """What a name has in common with those of other slices: itself without the numbers; and its ending."""
    stem, ending = Path(name.lower()).stem, Path(name.lower()).suffix
    if not ending[1:].isalpha():
        stem, ending = name.lower(), ""
    form = "#" if _HEXADECIMAL.fullmatch(stem) else _NUMBER.sub("#", stem)
    return (f"{form}{ending}", *filter(None, (ending,))) if "#" in form else tuple(filter(None, (ending,)))
