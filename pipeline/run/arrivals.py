"""Which files of a folder have stopped changing, and whose cases are all there. Nothing is opened, nothing is heavy."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from pipeline.store.files import walk

#: A file that nobody knows and that never stops changing (a log) holds its neighbours back so many times `quiet_s`.
PATIENCE = 10

#: Bytes, and nanoseconds of the last change of content and of inode: who copies a file may set the first time back.
Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class _Seen:
    stamp: Stamp
    since_s: float
    first_s: float


class Arrivals:
    """The files of `root`, and since when each is as it is: for `quiet_s` seconds, and it counts as whole.

    No link of it may lead to `apart`, the run folder.
    """

    def __init__(self, root: Path, apart: Path, quiet_s: float) -> None:
        self._root, self._apart, self._quiet_s = root, apart, quiet_s
        self._seen: dict[Path, _Seen] = {}

    def look(self, now_s: float) -> None:
        """Look at every file, at a time of a clock that is never set; E_EMPTY when the folder is not there."""
        seen: dict[Path, _Seen] = {}
        for path in walk(self._root, self._apart):
            try:
                state = path.stat()
            except OSError:  # gone since it was listed, or a link to nothing
                continue
            if stat.S_ISREG(state.st_mode):
                stamp = (state.st_size, state.st_mtime_ns, state.st_ctime_ns)
                before = self._seen.get(path, _Seen(stamp, now_s, now_s))
                seen[path] = before if before.stamp == stamp else _Seen(stamp, now_s, before.first_s)
        self._seen = seen

    def arriving(self, now_s: float) -> set[Path]:
        """The files that have changed within the last `quiet_s` seconds."""
        return {path for path, item in self._seen.items() if now_s - item.since_s < self._quiet_s}

    def quiet(self, now_s: float) -> dict[Path, Stamp]:
        """The others, as they are."""
        arriving = self.arriving(now_s)
        return {path: item.stamp for path, item in self._seen.items() if path not in arriving}

    def whole(self, owners: Mapping[Path, str], arriving: Set[Path], now_s: float) -> dict[str, str]:
        """The cases of which nothing is arriving, with a digest of their files, which changes when one has grown.

        What arrives and has no owner yet (its header is not there) holds back the cases of its folder and of the
        folders beside it, as a patient's studies and series lie. `owners`: file -> its case.
        """
        foreign = {path for path in arriving - owners.keys() if self._is_young(path, now_s)}
        near = {_study(path.parent, self._root) for path in foreign}
        files: defaultdict[str, list[Path]] = defaultdict(list)
        held = {owners[path] for path in arriving & owners.keys()}
        for path, case in owners.items():
            files[case].append(path)
            if path.parent in near or not near.isdisjoint({*path.parents} - {self._root, *self._root.parents}):
                held.add(case)
        return {case: self._digest(paths) for case, paths in files.items() if case not in held}

    def _is_young(self, path: Path, now_s: float) -> bool:
        item = self._seen.get(path)
        return item is None or now_s - item.first_s < PATIENCE * self._quiet_s

    def _digest(self, paths: list[Path]) -> str:
        known = [(os.fspath(path), self._seen[path].stamp) for path in sorted(paths) if path in self._seen]
        return hashlib.sha256(repr(known).encode(errors="surrogateescape")).hexdigest()


def _study(folder: Path, root: Path) -> Path:
    """The folder above a folder, unless that is the root."""
    return folder if folder == root or folder.parent == root else folder.parent
