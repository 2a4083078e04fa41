"""Find the cases of a tree of files by the data spec's `files`, and write down what became of every file.

Most are NIfTI; where a role is a picture or a sound, its file is taken as it is, and judged when it is read.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline import geometry
from pipeline.cases import Fault, NiftiFile
from pipeline.columns import escape_cell
from pipeline.console import echo
from pipeline.errors import PipelineError, UsageError
from pipeline.nifti.volume import Header, read_header
from pipeline.spec.paths import compile_pattern, name_below, owner
from pipeline.spec.spec import Mask, Role, Spec, save_spec
from pipeline.store.files import LINK, require_apart, require_file, walk, write_atomic
from pipeline.store.plain import write_json
from pipeline.store.pseudonyms import Pseudonyms
from pipeline.store.records import SCAN_SUMMARY, SERIES_TABLE
from pipeline.words import counted

ENDINGS = (".nii", ".nii.gz", ".hdr", ".hdr.gz")
_SHARPEN = "Sharpen `files` in the data spec: one file for each role of a case; see series.csv."
_ADD = "Add the missing file, correct `files` in the data spec, or set `required: false`; see series.csv."


@dataclass(frozen=True)
class MatchedFile:
    """One file of the tree that may play a role, and what the spec makes of it.

    Attributes:
        path: where it lies.
        keys: the roles and masks that its path fits.
        owner: what stands for `{case}`, and for `{session}` where the patterns have it; empty when nothing fits.
        header: None when it cannot be used, and for pictures and sounds.
        fault: why not.
    """

    path: Path
    keys: tuple[str, ...] = ()
    owner: tuple[str, ...] = ()
    header: Header | None = None
    fault: Fault | None = None


class FindFiles:
    """Find the cases of a tree of NIfTI files, pictures and sounds; write `series.csv` and the private table.

    Args:
        dataset_dir: the tree; it is never written to.
        output_dir: the run folder.
        spec: the data spec, with `files` for every role.
    """

    def __init__(self, dataset_dir: str | Path, output_dir: str | Path, spec: Spec) -> None:
        self.dataset_dir = Path(dataset_dir)
        self.output_dir = Path(output_dir)
        self.spec = spec
        self._entries: dict[str, Role | Mask] = {**spec.roles, **spec.masks}
        self._patterns = {key: compile_pattern(entry.files) for key, entry in self._entries.items() if entry.files}
        self._flat = frozenset(spec.of_kind("image", "sound"))
        #: After a call: which case each file belongs to that fits a role or a mask.
        self.owners: dict[Path, str] = {}
        #: After a call: how many files and folders could not be read.
        self.unreadable = 0

    def __call__(self) -> list[dict[str, Any]]:
        """The cases, each with a `NiftiFile` for each role and mask, and the path of each picture and sound.

        Raises:
            UsageError: E_EMPTY when the tree holds no file of a kind that is asked for, E_NO_CASES when none fits a
                role, E_OUT, E_KEY.
        """
        require_apart(self.output_dir, self.dataset_dir)
        names = Pseudonyms(self.output_dir)
        names.hold(self.output_dir)
        paths = list(walk(self.dataset_dir, self.output_dir))
        others = {
            path: fault for path in paths if (fault := _other(path, path.name.endswith(ENDINGS) or self._is_flat(path)))
        }
        files = [self._look(path) for path in paths if path not in others]
        if not files:
            closed = sum(fault.code == "E_UNREADABLE" for fault in others.values())
            got = f"got none of {len(others)} files"
            got += f"; {counted(closed, 'file or folder')} could not be opened" if closed else ""
            remedy = "Check the path, and `files` in the data spec." if others else "Check the path."
            what = f"Expected {self._kinds()} that fit the data spec below {self.dataset_dir}, {got}."
            raise UsageError("E_EMPTY", what, remedy)
        groups: defaultdict[tuple[str, ...], list[MatchedFile]] = defaultdict(list)
        for file in files:
            if file.owner:
                groups[file.owner].append(file)
        self.owners = {file.path: names.of("case", *owner) for owner, found in groups.items() for file in found}
        cases = [self._case(names.of("case", *owner), found) for owner, found in groups.items()]
        self._write_tables(files, cases, names, others)
        if not cases:
            reason = f"None of the {len(files)} {self._kinds()} fits `files` of the data spec {self.spec.name}."
            raise UsageError("E_NO_CASES", reason, f"Correct `files`; see {self.output_dir / SERIES_TABLE}.")
        return sorted(cases, key=lambda case: str(case["case_id"]))

    def _fits(self, path: Path) -> dict[str, re.Match[str]]:
        name = name_below(self.dataset_dir, path)
        return {key: match for key, pattern in self._patterns.items() if (match := pattern.fullmatch(name))}

    def _is_flat(self, path: Path) -> bool:
        """Whether a file fits a role that is a picture or a sound; other systems leave files of their own beside it."""
        return bool(self._flat) and not path.name.startswith(".") and not self._flat.isdisjoint(self._fits(path))

    def _kinds(self) -> str:
        return "NIfTI files, pictures and sounds" if self._flat else "NIfTI files"

    def _look(self, path: Path) -> MatchedFile:
        """What a file's path and header say. Its voxels are read later, and then judged."""
        fits = self._fits(path)
        if not fits:
            return MatchedFile(path)
        whose = owner(next(iter(fits.values())))
        if not self._flat.isdisjoint(fits):
            return MatchedFile(path, tuple(fits), whose)
        try:
            return MatchedFile(path, tuple(fits), whose, read_header(path))
        except PipelineError as error:
            return MatchedFile(path, tuple(fits), whose, None, Fault.from_error(error))

    def _case(self, case_id: str, found: Sequence[MatchedFile]) -> dict[str, Any]:
        """One file for each role, then for each mask; the first that cannot be filled is the case's fault."""
        played: dict[str, NiftiFile | Path] = {}
        flags: list[str] = []
        faults: list[Fault] = []
        for key, entry in self._entries.items():
            if isinstance(entry, Mask) and entry.of not in played:
                flags.append(f"N_NO_MASK: {key}: there is no image of {entry.of}")
                continue
            fitting = [file for file in found if key in file.keys]
            if len(fitting) > 1:
                faults.append(Fault("E_AMBIGUOUS", f"{len(fitting)} files fit {key}.", _SHARPEN))
            elif fitting and len(fitting[0].keys) > 1:
                faults.append(Fault("E_AMBIGUOUS", f"One file fits {' and '.join(fitting[0].keys)}.", _SHARPEN))
            elif fitting:
                path = fitting[0].path
                played[key] = path if key in self._flat else NiftiFile(path)
            elif entry.required:
                faults.append(Fault("E_MISSING_ROLE", f"No file fits {key}.", _ADD))
            elif isinstance(entry, Mask):
                flags.append(f"N_NO_MASK: {key}: no file fits it")
            else:
                flags.append(f"N_NO_ROLE: no file fits the optional role {key}")
        return {"case_id": case_id, **played, "flags": flags, "fault": faults[0] if faults else None}

    def _write_tables(
        self,
        files: Sequence[MatchedFile],
        cases: Sequence[dict[str, Any]],
        names: Pseudonyms,
        others: Mapping[Path, Fault],
    ) -> None:
        sound = [case for case in cases if case["fault"] is None]
        chosen = {value.path for case in sound for value in case.values() if isinstance(value, NiftiFile)}
        chosen |= {value for case in sound for value in case.values() if isinstance(value, Path)}
        ids = {file.path: names.of("file", file.path.relative_to(self.dataset_dir).as_posix()) for file in files}
        rows = [self._row(file, ids[file.path], self.owners.get(file.path, ""), file.path in chosen) for file in files]
        table = pd.DataFrame(rows).map(escape_cell)
        write_atomic(self.output_dir / SERIES_TABLE, lambda path: table.to_csv(path, index=False))
        private = [
            (ids[file.path], self.owners.get(file.path, ""), *map(escape_cell, (" ".join(file.owner), str(file.path))))
            for file in files
        ]
        where = names.keep(SERIES_TABLE, ("series", "case_id", "name", "path"), private)
        save_spec(self.spec, self.output_dir)
        names.keep(
            "files.csv", ("path", "code", "reason"), [(str(path), f.code, f.message) for path, f in others.items()]
        )
        faults = [*(file.fault for file in files if file.fault), *others.values()]
        self.unreadable = sum(fault.code == "E_UNREADABLE" for fault in faults)
        unknown = sum(not fault.code for fault in others.values())
        flat = sum(not self._flat.isdisjoint(file.keys) for file in files)
        counts = {"files_nifti": len(files) - flat, "files_unreadable": self.unreadable, "files_not_nifti": unknown}
        counts |= {"files_pictures_and_sounds": flat} if self._flat else {}
        write_json(self.output_dir / SCAN_SUMMARY, counts)
        if self.unreadable:
            tables = f"{where} and files.csv beside it"
            echo(f"{counted(self.unreadable, 'file or folder')} could not be read: see {tables}", error=True)
        self._say_strays(files, unknown, where)
        if links := sum(fault.message == LINK for fault in others.values()):
            echo(f"{links} links lead to folders that are read elsewhere, and were not followed", error=True)

    def _say_strays(self, files: Sequence[MatchedFile], unknown: int, where: Path) -> None:
        """Say which entries of the spec no file fits, and how many files fit none: a pattern may be misspelt."""
        played = {key for file in files for key in file.keys}
        strays = sum(not file.keys for file in files) + (unknown if self._flat else 0)
        for key in (key for key in self._patterns if key not in played):
            echo(f"{key}: no file of the tree fits `files: {self._entries[key].files}`", error=True)
        if strays:
            echo(f"{counted(strays, 'file')} without a place in the spec: see {where} and files.csv", error=True)

    def _row(self, file: MatchedFile, file_id: str, case_id: str, chosen: bool) -> dict[str, Any]:
        """A file in `series.csv`: no name, no path."""
        role = self.spec.roles.get(file.keys[0]) if file.keys else None
        header = file.header
        spacing = geometry.spacing_mm(header.affine) if header else ()
        return {
            "series": file_id,
            "case_id": case_id,
            "modality": role.modality[0] if role else "",
            "voxels": " x ".join(map(str, header.shape)) if header else "",
            "voxel_size_mm": " x ".join(f"{size:.4g}" for size in spacing),
            "role": " ".join(file.keys),
            "verdict": "set aside" if file.fault else "chosen" if chosen else "not chosen",
            "code": file.fault.code if file.fault else "",
            "reason": _why_not(file, chosen),
            "notes": "; ".join(header.notes) if header else "",
        }


def _why_not(file: MatchedFile, chosen: bool) -> str:
    if file.fault or chosen:
        return file.fault.message if file.fault else ""
    return "its case stopped, or another file fits, too" if file.keys else "its path fits no `files` of the spec"


def _other(path: Path, named_so: bool) -> Fault | None:
    """Why an entry of the tree plays no role; None for what may play one by its name."""
    try:
        what = require_file(path)
    except OSError as error:
        if named_so and not path.is_dir():
            return None  # its case says so
        return Fault("E_UNREADABLE", f"It cannot be read ({error.strerror}).")
    return Fault("", what or "not NIfTI") if what or not named_so else None
