"""Headers that were read before, in a private file beside the pseudonyms' key: what has not changed is not read again.

It holds what headers say of patients, is readable by its owner alone, and may be deleted at any time. Each line is a
chunk of files behind the digest of its text. Lines are only appended: a run that is killed keeps what it has read, and
a line that was cut is left out. No lock is needed: one run at a time has the run folder.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.console import echo
from pipeline.dicom.headers.packed import Known, pack, unpack
from pipeline.errors import CaseError
from pipeline.shipped import code_version
from pipeline.store.files import write_atomic
from pipeline.store.pseudonyms import write_private

#: Packages that say what is read of a file.
_READERS = ("pydicom", "nibabel")
#: A file that has changed so shortly before may change again without showing it: disks count time in steps.
SETTLED_S = 2.0
_DIGEST_LETTERS = 16


class Stamp(NamedTuple):
    """By what a file is known not to have changed: bytes, and nanoseconds of the last change of content and of inode.

    Who copies or unpacks a file may set the first time back; the second is then that moment's.
    """

    size: int
    mtime: int
    ctime: int


class _DamagedError(ValueError):
    """A line is not what was written."""


def stamp_of(path: Path) -> Stamp | None:
    """The stamp of a file; None for what is none, cannot be looked at, or has changed just now."""
    try:
        found = path.stat()
    except OSError:  # told when the file is read
        return None
    age_s = min(abs(time.time() - moment) for moment in (found.st_mtime, found.st_ctime))
    if not stat.S_ISREG(found.st_mode) or age_s < SETTLED_S:
        return None
    return Stamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class HeaderCache:
    """The headers of one tree as one version of Tandem reads them.

    Args:
        path: of the cache; None: nothing is kept.
        root: the tree.
        tags: the DICOM keywords that are read beside those that are always read.
    """

    def __init__(self, path: Path | None, root: Path, tags: Sequence[str] = ()) -> None:
        self._path = path
        # as it is written, too: what stands for blanked UIDs has it
        self._of = {"root": [str(root), str(root.absolute())], "tags": sorted(tags), "code": code_version()}
        self._of |= {name: version(name) for name in _READERS}
        self._stamps: dict[str, Stamp] = {}

    def known(self, paths: Sequence[Path]) -> list[Known | None]:
        """What is known of the files of a tree; None for what has to be read.

        Files that are gone, or have changed, are dropped from the cache. One that is damaged is thrown away, and said.
        """
        found: list[Known | None] = [None] * len(paths)
        if self._path is None:
            return found
        self._stamps = {str(path): stamp for path in paths if (stamp := stamp_of(path))}
        places = {str(path): index for index, path in enumerate(paths)}
        kept: list[bytes] = []
        whole = self._path.is_file()
        try:
            for line in self._lines():
                chunk = json.loads(line)
                at = [places[name] if self._is_fresh(name, stamp) else None for name, stamp in chunk["of"]]
                here = [None if index is None else paths[index] for index in at]
                items = list(unpack(chunk["headers"], here))
                for index, item in zip((index for index in at if index is not None), items, strict=True):
                    found[index] = item
                whole = whole and None not in at
                kept.append(line if None not in at else self._chunk([path for path in here if path], pack(items)))
        except (OSError, ValueError, LookupError, TypeError) as error:
            what = error.strerror if isinstance(error, OSError) else "it was damaged"
            echo(f"The private cache of headers {self._path} was thrown away: {what}.", error=True)
            found, kept, whole = [None] * len(paths), [], False
        if not (whole and kept):
            self._begin(kept)
        return found

    def keep(self, paths: Sequence[Path], packed: Mapping[str, Any]) -> None:
        """Keep what was read of files of the tree, as `pack` gave it."""
        if self._path is not None and paths:
            with self._said_if_not():
                _append(self._path, _signed(self._chunk(paths, packed)))

    def _chunk(self, paths: Sequence[Path], packed: Mapping[str, Any]) -> bytes:
        """A chunk's text. A file without a stamp, as one that has changed just now, is read again the next time."""
        return _json({"of": [[str(path), self._stamps.get(str(path))] for path in paths], "headers": packed})

    def _lines(self) -> Iterator[bytes]:
        """The chunks of the file, if it is of this tree and this version; without the last line, if it was cut.

        Raises:
            _DamagedError: a line is not what was written.
        """
        if self._path is None or not self._path.is_file():
            return
        with self._path.open("rb") as stream:
            first = _checked(stream.readline())
            for line in stream if first == _json(self._of) else ():
                if line.endswith(b"\n"):
                    yield _checked(line)

    def _is_fresh(self, name: str, stamp: Sequence[int] | None) -> bool:
        return stamp is not None and self._stamps.get(name) == tuple(stamp)

    def _begin(self, lines: Sequence[bytes]) -> None:
        """Write the file anew, with these chunks."""
        if self._path is not None:
            text = b"".join(map(_signed, (_json(self._of), *lines)))
            with self._said_if_not():
                write_atomic(self._path, lambda temporary: write_private(temporary, text))

    @contextmanager
    def _said_if_not(self) -> Iterator[None]:
        """Go on without the cache when it cannot be written: the next run reads more, no result is another."""
        try:
            yield
        except (OSError, CaseError) as error:
            echo(f"The private cache of headers cannot be written, so none is kept: {error}", error=True)
            self._path = None


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _signed(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:_DIGEST_LETTERS].encode() + b" " + text + b"\n"


def _checked(line: bytes) -> bytes:
    """The text of a line.

    Raises:
        _DamagedError: it is not what was written.
    """
    text = line[_DIGEST_LETTERS + 1 : -1]
    if _signed(text) != line:
        raise _DamagedError
    return text


def _append(path: Path, data: bytes) -> None:
    """Add to a file at once: whoever is killed leaves all of it or none, but for a full disk.

    Raises:
        OSError: it cannot be written, or not wholly.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        if os.write(descriptor, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    finally:
        os.close(descriptor)
