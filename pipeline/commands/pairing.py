"""Which files make a case: those of one name, or, where names say nothing, any of one class."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from pipeline.commands.folders import Item, LeftOut
from pipeline.errors import UsageError
from pipeline.learning.table import BY_CLASS, BY_NAME
from pipeline.words import counted

PAIRINGS = ("auto", BY_NAME, BY_CLASS)
#: Names mean something where two streams share so many of them; below, they may be equal by chance.
LEAST_SHARED = 0.5
CLASS_PAIRED = (
    "N_CLASS_PAIRED: cases were made of files of one class, in a seeded order: they are no patients, and given the "
    "class their streams are independent"
)


@dataclass(frozen=True)
class Made:
    """A case.

    Attributes:
        split: of its files.
        category: their class.
        files: stream -> file; a stream that is missing is not in it.
    """

    split: str
    category: str
    files: dict[str, Path]


@dataclass(frozen=True)
class Cases:
    """All cases, how they were made (`stem`, `class`; `file` where each file is one), what is left and what to say."""

    made: tuple[Made, ...]
    pairing: str
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()


def make_cases(items: Sequence[Item], pair: str, seed: int) -> Cases:
    """Make cases of files, within each split and class.

    Args:
        items: of all splits, streams and classes.
        pair: `stem`: files of one name are a case, and a stream may be missing. `class`: each case is any file of each
            stream, each file once. `auto`: by names where the streams share most of them, by class where they share
            none.
        seed: of the order in which files of a class meet.

    Raises:
        UsageError: E_FOLDER when names agree for some files only, or a name stands twice
            in one stream and class.
    """
    streams = list(dict.fromkeys(item.stream for item in items))
    groups: dict[tuple[str, str], dict[str, list[Item]]] = {}
    for item in items:
        groups.setdefault((item.split, item.category), {}).setdefault(item.stream, []).append(item)
    if len(streams) == 1:
        return Cases(tuple(Made(item.split, item.category, {item.stream: item.path}) for item in items), "file")
    if (_agreed(items) if pair == "auto" else pair) == BY_NAME:
        return _by_stem(groups, len(streams))
    return _by_class(groups, streams, seed)


def _agreed(items: Sequence[Item]) -> str:
    """`stem` where each stream shares half the names of the smaller of it and another one, `class` where none does.

    A name is one only within its split and class.
    """
    names: dict[str, set[tuple[str, str, str]]] = {}
    for item in items:
        names.setdefault(item.stream, set()).add((item.split, item.category, item.stem))
    shares = {
        stream: max(_share(own, names[other]) for other in names if other != stream) for stream, own in names.items()
    }
    if not any(shares.values()):
        return BY_CLASS
    least = min(shares, key=lambda stream: shares[stream])
    if shares[least] < LEAST_SHARED:
        what = f"Expected names of files that all streams share, or none, got {shares[least]:.0%} shared of {least}."
        remedy = "Say `--pair stem` if files of one name are of one patient, `--pair class` if names mean nothing."
        raise UsageError("E_FOLDER", what, remedy)
    return BY_NAME


def _share(own: set[tuple[str, str, str]], other: set[tuple[str, str, str]]) -> float:
    return len(own & other) / min(len(own), len(other))


def _by_stem(groups: dict[tuple[str, str], dict[str, list[Item]]], streams: int) -> Cases:
    made = []
    for (split, category), by_stream in groups.items():
        found: dict[str, dict[str, Path]] = {}
        for stream, items in by_stream.items():
            for item in items:
                if stream in found.setdefault(item.stem, {}):
                    what = f"Expected one file of a name in {item.path.parent}, got two of {item.stem}."
                    raise UsageError("E_FOLDER", what, "Rename or remove one of them.")
                found[item.stem][stream] = item.path
        made += [Made(split, category, found[stem]) for stem in sorted(found)]
    short, notes = sum(len(case.files) < streams for case in made), []
    if all(item.stem.isdigit() for by_stream in groups.values() for items in by_stream.values() for item in items):
        notes.append("N_NUMBERS_PAIRED: files of one number are a case: are the numbers those of patients?")
    here = ({item.stem for items in by_stream.values() for item in items} for by_stream in groups.values())
    if twice := sorted(stem for stem, places in Counter(chain.from_iterable(here)).items() if places > 1):
        notes.append(f"N_NAME_TWICE: {counted(len(twice), 'name')} in two splits or classes, such as {twice[0]}")
    if short:
        notes.append(f"N_UNEQUAL_COUNTS: {short} of {counted(len(made), 'case')} lack a stream; their cells are empty")
    return Cases(tuple(made), BY_NAME, notes=tuple(notes))


def _by_class(groups: dict[tuple[str, str], dict[str, list[Item]]], streams: Sequence[str], seed: int) -> Cases:
    made, left_out = [], []
    for (split, category), by_stream in groups.items():
        shuffled = {name: _shuffled(by_stream.get(name, []), (split, category, name), seed) for name in streams}
        count = min(len(paths) for paths in shuffled.values())
        made += [Made(split, category, {name: shuffled[name][at] for name in streams}) for at in range(count)]
        fewest = min(shuffled, key=lambda name: len(shuffled[name]))
        reason = f"{split or 'the folder'} has only {count} of {fewest} in the class {category}"
        rest = [path for paths in shuffled.values() for path in paths[count:]]
        left_out += [LeftOut(path, "N_UNEQUAL_COUNTS", reason) for path in sorted(rest)]
    notes = [CLASS_PAIRED]
    if left_out:
        notes.append(f"N_UNEQUAL_COUNTS: {counted(len(left_out), 'file')} found no partner and are in no case")
    return Cases(tuple(made), BY_CLASS, tuple(left_out), tuple(notes))


def _shuffled(items: Sequence[Item], where: tuple[str, ...], seed: int) -> list[Path]:
    """In an order that is the folder's own: files elsewhere do not change it."""
    paths = sorted(item.path for item in items)
    rng = np.random.default_rng([seed, zlib.crc32("/".join(where).encode())])
    return [paths[at] for at in rng.permutation(len(paths))]
