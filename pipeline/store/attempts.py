"""One attempt of a stage at a case: a folder of its own, which takes its place by one rename, or not at all.

A process can be thought dead, its work given to another, and wake. What holds then:

- Two attempts never write into one folder, so what a record names was made by the attempt that wrote the record.
- The first that is whole takes the place; a later one finds it taken, and is thrown away.
- A run leaves its name in the lock of its folder: what was begun in another run takes no place any more.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import CaseError, UsageError, pipeline_cause
from pipeline.store import records
from pipeline.store.files import TEMPORARY_PREFIX, flush, run_of

#: What a rename meets where another attempt has taken the place, or has thrown this one away.
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ESTALE)
_LETTERS = 8


class Attempt:
    """An attempt that begins now, at the place `folder`, the stage's of the case; it writes into `path` once opened.

    Attempts of other runs, which were killed, are swept. `run` is the name of the run for which it works (`run_of`).
    """

    def __init__(self, output_dir: Path, folder: Path, run: str | None = None) -> None:
        self._output_dir, self.folder = output_dir, folder
        self._run = run_of(output_dir) if run is None else run
        self._before = _text_of(folder)
        self._own: int | None = None
        self._prefix = f"{TEMPORARY_PREFIX}{self._run[:_LETTERS] or 'none'}-"
        self.path = self._beside()
        if self._is_of_the_run():
            self._sweep(of_this_run=False)

    def open(self) -> Path:
        """Take the former result back, so that first nothing counts as done, and make an empty folder to write into."""
        self._take_back()
        self.close()
        self.path.mkdir(parents=True)
        self._own = os.open(self.path, os.O_RDONLY)
        return self.path

    def is_late(self) -> bool:
        """Whether it has begun to write, for nothing."""
        return self._own is not None and not self.is_valid()

    def is_valid(self) -> bool:
        """Whether nobody has thrown its folder away, and its run still holds the run folder."""
        if self._own is None or not self._is_of_the_run():
            return False
        try:  # while the descriptor is open, no other folder can be the same
            return os.path.samestat(os.fstat(self._own), self.path.stat())
        except OSError:
            return False

    def commit(self, key: str) -> bool:
        """Take the place; False where another attempt at the work of this resume key was first, or it was given up."""
        while self.is_valid():
            try:
                self.path.rename(self.folder)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
            else:
                flush(self.folder.parent)
                self._sweep(of_this_run=True)
                return True
            found = records.read(self.folder)
            if found is not None and found.key in (key, ""):
                return False
            self._before = _text_of(self.folder)  # of an attempt of before this run, or of no attempt at all
            self._take_back()
        return False

    def close(self) -> None:
        """Throw away what has not taken its place."""
        if self._own is not None:
            os.close(self._own)
            self._own = None
            shutil.rmtree(self.path, ignore_errors=True)

    def _take_back(self) -> None:
        """Clear the place, unless it holds another record than when this was last looked at."""
        if not self._is_of_the_run() or _text_of(self.folder) != self._before:
            return
        aside = self._beside()
        try:
            self.folder.rename(aside)
        except FileNotFoundError:
            return
        if _text_of(aside) != self._before:  # another attempt came between
            with suppress(OSError):
                aside.rename(self.folder)
            return
        self._before = None
        shutil.rmtree(aside)

    def _is_of_the_run(self) -> bool:
        return run_of(self._output_dir) == self._run

    def _beside(self) -> Path:
        return self.folder.with_name(f"{self._prefix}{uuid.uuid4().hex[:_LETTERS]}-{self.folder.name}")

    def _sweep(self, of_this_run: bool) -> None:
        for path in self.folder.parent.glob(f"{TEMPORARY_PREFIX}*-{self.folder.name}"):
            if of_this_run or not path.name.startswith(self._prefix):
                shutil.rmtree(path, ignore_errors=True)


def _text_of(folder: Path) -> bytes | None:
    """The record of a folder as it is written; None where there is none."""
    try:
        return (folder / records.RECORD).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder`, which is empty or not there, when the block has ended well.

    Raises:
        UsageError: for what went wrong with a case or the disk, such as E_DISK; then nothing is left.
    """
    temporary = folder.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:_LETTERS]}")
    try:
        yield temporary
        temporary.rename(folder)
    except (CaseError, OSError) as error:
        known = pipeline_cause(error)  # a full disk is one wherever it shows
        if known is None:
            raise
        raise UsageError(known.code, known.message, known.remedy) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
