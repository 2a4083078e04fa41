"""Files that are one and the same, byte by byte or pixel by pixel: whoever learns from one knows the other."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.commands.folders import Item, LeftOut, Tree, kind_of, shown
from pipeline.console import track
from pipeline.errors import CaseError, UsageError
from pipeline.signals.pictures import levelled, read_picture
from pipeline.signals.sound import read_sound
from pipeline.words import counted

#: Values, and the reader's flags.
_Read = tuple[npt.NDArray[Any], Sequence[str]]
#: So many groups of equal files are named in a message.
NAMED = 10
#: Of equal files the one of the split that is judged by stays, so that a leak costs training cases, and no others.
_STAYS = ("test", "valid", "train", "")


def read_all(tree: Tree) -> tuple[dict[Path, str], list[LeftOut], list[str]]:
    """Read every file once.

    Returns:
        Path -> hash of what it shows, or sounds like; the files that cannot be read, with their codes; and what their
        readers have flagged, with how many files of each class.
    """
    found, unreadable, flagged = {}, [], defaultdict[str, Counter[str]](Counter)
    for item in track(tree.items, len(tree.items), "reading"):
        try:
            found[item.path], flags = _content(item.path)
        except CaseError as error:
            unreadable.append(LeftOut(item.path, error.code, f"{error.message} {error.remedy}"))
            continue
        for flag in flags:
            flagged[flag][item.category] += 1
    return found, unreadable, [f"{flag}: {_of_classes(number)}" for flag, number in sorted(flagged.items())]


def _of_classes(number: Counter[str]) -> str:
    each = ", ".join(f"{name} {count}" for name, count in sorted(number.items()))
    return f"{counted(number.total(), 'file')} ({each})"


def equal_groups(items: Sequence[Item], content: Mapping[Path, str]) -> list[list[Item]]:
    """Files of one content that must not be: in two splits, of two classes, or two in a tree without splits."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(content[item.path], []).append(item)
    return [group for group in groups.values() if len(group) > 1 and _matters(group)]


def refuse_equal(groups: Sequence[Sequence[Item]], root: Path) -> None:
    """Name equal files.

    Raises:
        UsageError: E_DUPLICATE when there are any.
    """
    if not groups:
        return
    named = [" = ".join(shown((item.path for item in group), root)) for group in groups[:NAMED]]
    more = f"; and {len(groups) - NAMED} more" if len(groups) > NAMED else ""
    what = f"Expected each file once, got {len(groups)} that stand in several splits or classes: {'; '.join(named)}"
    raise UsageError("E_DUPLICATE", f"{what}{more}.")


def without_equal(groups: Sequence[Sequence[Item]], root: Path) -> list[LeftOut]:
    """The files that have to go: all but one of a group; all of it where its classes contradict each other."""
    gone = []
    for group in groups:
        first, *others = sorted(group, key=lambda item: (_STAYS.index(item.split), item.path))
        name = shown([first.path], root)[0]
        if len({item.category for item in group}) > 1:
            reason = f"equal to others of another class, such as {name}: none of them is known to be right"
            gone += [LeftOut(item.path, "E_DUPLICATE", reason) for item in group]
        else:
            gone += [LeftOut(item.path, "E_DUPLICATE", f"equal to {name}, which stays") for item in others]
    return gone


def _matters(group: Sequence[Item]) -> bool:
    splits = {item.split for item in group}
    return len(splits) > 1 or splits == {""} or len({item.category for item in group}) > 1


def content_hash(path: Path) -> str:
    """Sha256 of what a picture, a sound or a volume holds, whatever it is packed in.

    Raises:
        CaseError: of its reader; E_UNREADABLE for another kind of file.
    """
    return _content(path)[0]


def _content(path: Path) -> tuple[str, Sequence[str]]:
    """The hash, and the reader's flags; errors as of `content_hash`."""
    read = _READERS.get(kind_of(path))
    if read is None:
        raise CaseError("E_UNREADABLE", f"Expected a picture, a sound or a volume, got {path.name}.")
    values, flags = read(path)
    shape = f"{values.shape}".encode()
    return hashlib.sha256(shape + np.ascontiguousarray(values).tobytes()).hexdigest(), flags


def _volume(path: Path) -> _Read:
    from pipeline.nifti.volume import read_nifti

    return read_nifti(path).values, ()


def _picture(path: Path) -> _Read:
    """On the scale of its white: one picture in 8 and in 16 bits is one."""
    picture = read_picture(path)
    dark = levelled(picture)[1] if picture.white else ()
    return picture.values / np.float32(picture.white or 1), (*picture.flags, *dark)


def _sound(path: Path) -> _Read:
    sound = read_sound(path)
    return sound.samples, sound.flags


_READERS: dict[str, Callable[[Path], _Read]] = {"image": _picture, "sound": _sound, "volume": _volume}
