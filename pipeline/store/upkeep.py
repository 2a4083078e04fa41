"""Whether a run folder still holds what its records say, and what it holds beside. Nothing heavy.

All records count, also those that a later run has made stale: what they name is theirs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.cases import Artifact, Record
from pipeline.errors import UsageError
from pipeline.store import records
from pipeline.store.files import TEMPORARY_PREFIX, is_held, sha256_file

State = Literal["whole", "missing", "changed", "unreadable"]
#: Why something is none of a run's.
TEMPORARY = "a temporary file of a run that was killed"
NO_RECORD = "no record names it"
EMPTY = "an empty folder"
GONE = "the input does not hold the case any more"


@dataclass(frozen=True)
class Checked:
    """What a run folder holds, by paths below it.

    Attributes:
        whole: how many outputs are as they were recorded.
        missing: outputs that are not there.
        changed: those with other bytes.
        unreadable: those that cannot be read, and records that cannot be understood.
        unrecorded: files below `cases/` that no record names.
    """

    whole: int = 0
    missing: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    unrecorded: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether every output is as it was recorded; what is there beside does not matter."""
        return not (self.missing or self.changed or self.unreadable)


@dataclass(frozen=True)
class Stray:
    """Something below `cases/` that no record names.

    Attributes:
        path: below the run folder; a folder counts as one.
        reason: why it is none of the run's.
        size: bytes, of a folder of all files in it.
    """

    path: str
    reason: str
    size: int


def require_free(output_dir: Path) -> None:
    """Refuse a folder that holds no run, or that one is working in.

    Raises:
        UsageError: E_NO_CASES, E_BUSY.
    """
    if not (output_dir / "cases").is_dir():
        raise no_cases(output_dir)
    if is_held(output_dir):
        raise UsageError("E_BUSY", f"A run is using the folder {output_dir}.", "Wait for it to end.")


def no_cases(output_dir: Path) -> UsageError:
    """What to say of a folder that holds no cases: E_NO_CASES."""
    if output_dir.is_dir():
        return UsageError("E_NO_CASES", f"Expected a run folder, but {output_dir} holds no cases.")
    return UsageError("E_NO_CASES", f"Expected a run folder, but {output_dir} is no folder.", "Check the path.")


def outputs(output_dir: Path) -> list[Artifact]:
    """Every output that a record of the run folder names."""
    return [item for record in _records(output_dir)[0].values() for item in record.artifacts]


def check(output_dir: Path, items: Iterable[Artifact], jobs: int = 1) -> Iterator[tuple[Artifact, State]]:
    """Hash `outputs`, several at once by so many threads, and compare them with what was recorded."""
    with ThreadPoolExecutor(jobs) as threads:
        yield from threads.map(lambda item: (item, _state(output_dir / item.path, item.sha256)), items)


def checked(output_dir: Path, found: Iterable[tuple[Artifact, State]]) -> Checked:
    """What `check` has found, with the records that cannot be understood and what no record names."""
    by: dict[State, list[str]] = {"whole": [], "missing": [], "changed": [], "unreadable": []}
    for item, state in found:
        by[state].append(item.path)
    closed = [_below(output_dir, folder / records.RECORD) for folder in _records(output_dir)[1]]
    others = tuple(item.path for item in strays(output_dir) if item.reason != GONE)
    unreadable = (*sorted(by["unreadable"]), *closed)
    return Checked(len(by["whole"]), tuple(sorted(by["missing"])), tuple(sorted(by["changed"])), unreadable, others)


def strays(output_dir: Path) -> list[Stray]:
    """What lies below `cases/` and no record names; a case that was withdrawn counts wholly.

    Links to folders are not entered, and the folder of a record that cannot be understood is left alone: it may be of
    a later version.
    """
    known, closed = _records(output_dir)
    gone = {folder.parent for folder, record in known.items() if records.is_withdrawn(record)}
    named = {output_dir / item.path for record in known.values() for item in record.artifacts}
    named |= {folder / records.RECORD for folder in known}
    named |= {folder / records.ERROR_LOG for folder, record in known.items() if record.status != "done"}
    found: list[Stray] = []
    for top, folders, files in os.walk(output_dir / "cases"):
        here = Path(top)
        if not (folders or files) and here != output_dir / "cases":
            found.append(Stray(_below(output_dir, here), EMPTY, 0))
        if here in gone:
            found.append(Stray(_below(output_dir, here), GONE, _size(here)))
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if here / name not in closed)
        for path in (here / name for name in sorted(files)):
            if path not in named:
                reason = TEMPORARY if path.name.startswith(TEMPORARY_PREFIX) else NO_RECORD
                found.append(Stray(_below(output_dir, path), reason, path.lstat().st_size))
        for path in [here / name for name in folders]:
            if path.name.startswith(TEMPORARY_PREFIX):
                found.append(Stray(_below(output_dir, path), TEMPORARY, _size(path)))
                folders.remove(path.name)
    return found


def remove(output_dir: Path, found: Iterable[Stray]) -> None:
    """Delete strays, and the folders that are empty then; never anything that is not below `cases/`.

    Raises:
        UsageError: E_OUT when something cannot be deleted.
    """
    cases = output_dir / "cases"
    try:
        for stray in found:
            path = output_dir / stray.path
            if cases not in path.parents or path.parent.resolve() != cases.resolve() / path.parent.relative_to(cases):
                raise UsageError("E_OUT", f"Expected something below {cases}, got {path}.")
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
            _prune(path.parent, cases)
    except OSError as error:
        raise UsageError("E_OUT", f"{error.filename or cases} cannot be deleted ({error.strerror}).") from error


def _prune(folder: Path, cases: Path) -> None:
    while folder != cases and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _records(output_dir: Path) -> tuple[dict[Path, Record], list[Path]]:
    """The records of a run folder by their folders, and the folders that have one which cannot be understood."""
    known: dict[Path, Record] = {}
    closed: list[Path] = []
    for path in sorted((output_dir / "cases").glob(f"*/*/{records.RECORD}")):
        if path.parent.name.startswith(TEMPORARY_PREFIX):
            continue
        record = _record(path.parent)
        if record is None:
            closed.append(path.parent)
        else:
            known[path.parent] = record
    return known, closed


def _record(folder: Path) -> Record | None:
    try:
        return records.read(folder)
    except OSError:  # nobody may read it
        return None


def _state(path: Path, digest: str) -> State:
    try:
        return "whole" if sha256_file(path) == digest else "changed"
    except FileNotFoundError:
        return "missing"
    except OSError:
        return "unreadable"


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _below(output_dir: Path, path: Path) -> str:
    return path.relative_to(output_dir).as_posix()
