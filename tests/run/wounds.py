"""Deaths and full disks at chosen moments of a run, in a forked child: nothing in the product knows of them.

A write point is an `os.fsync`, an `os.replace` or an `os.rename`: between two of them a disk holds either what it held
or what was to be written.
"""

from __future__ import annotations

import os
import resource
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pipeline.store.files import TEMPORARY_PREFIX

#: Before a write point, with half of what it would have flushed, as a power cut leaves it; or behind it.
How = Literal["torn", "after"]
HOWS: tuple[How, ...] = get_args(How)
Work = Callable[[], object]


@dataclass
class Death:
    """`kill -9` at the write point of a number, from 0."""

    at: int
    how: How

    def __call__(self) -> None:
        """Arm it in this process."""
        _wrap(self._reached)

    def _reached(self, path: Path, operation: Callable[[], Any]) -> Any:
        self.at -= 1
        if self.at >= 0:
            return operation()
        if self.how == "torn" and path.name.startswith(TEMPORARY_PREFIX):
            os.truncate(path, path.stat().st_size // 2)
        if self.how == "after":
            operation()
        os.kill(os.getpid(), signal.SIGKILL)
        return None


@dataclass(frozen=True)
class Count:
    """No death: write points are written down, one a line."""

    log: Path

    def __call__(self) -> None:
        """Begin in this process."""
        _wrap(self._reached)

    def _reached(self, path: Path, operation: Callable[[], Any]) -> Any:
        with self.log.open("a") as stream:
            stream.write(f"{path.name}\n")
        return operation()


@dataclass(frozen=True)
class FullDisk:
    """No file grows beyond so many bytes: what is written behind is an error, and the write before it is short."""

    size: int

    def __call__(self) -> None:
        """Begin in this process."""
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@dataclass(frozen=True)
class Moment:
    """`kill -9` after some seconds."""

    seconds: float

    def __call__(self) -> None:
        """Set the alarm: its default is death."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)


def unharmed() -> None:
    """Nothing happens."""


def in_child(work: Work, wound: Callable[[], None] = unharmed) -> int:
    """Work in a forked child that a wound is armed in.

    Returns:
        0 when the work came back, 1 when it raised, a signal's number, negative, when the child was killed.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            wound()
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def points(work: Work, log: Path) -> list[str]:
    """The write points of work: the name of what is written, in order."""
    log.write_text("")
    if code := in_child(work, Count(log)):
        raise RuntimeError(f"the undisturbed work ended with {code}")
    return log.read_text().splitlines()


def _wrap(reached: Callable[[Path, Callable[[], Any]], Any]) -> None:
    fsync = os.fsync

    def fsync_reached(descriptor: int) -> None:
        reached(Path(f"/proc/self/fd/{descriptor}").readlink(), lambda: fsync(descriptor))

    def counted(rename: Callable[..., None]) -> Callable[..., None]:
        return lambda source, target, **more: reached(Path(target), lambda: rename(source, target, **more))

    os.fsync, os.replace, os.rename = fsync_reached, counted(os.replace), counted(os.rename)
