"""Folders of files by split, stream and class, as people share data sets: what lies in them, and what is amiss."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.endings import PICTURES, SOUNDS, VOLUMES, ending_of, volume_stem
from pipeline.errors import UsageError
from pipeline.spec.explain import did_you_mean
from pipeline.spec.spec import RESERVED_NAMES
from pipeline.words import counted

#: What a folder of a split may be called -> what it is.
SPLITS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
#: What a file is by the end of its name.
KINDS = {"image": PICTURES, "sound": SOUNDS, "volume": VOLUMES}
#: Columns of a table that are no streams, and what a case has beside its streams.
OTHER_COLUMNS = ("patient_id", "label", "mask", "fold", "pairing", "image", "available", "table", *RESERVED_NAMES)
#: What a column of files is called where no folder names it.
_BY_KIND = {"image": "picture", "sound": "sound", "volume": "volume"}
#: What systems leave in folders of pictures.
_LITTER = ("thumbs.db", "desktop.ini", "__macosx")
#: Data that are not read as they are -> code, and what to do about them.
_CONVERT = ("E_SOUND", "convert it, such as by `ffmpeg -i IN -ar 16000 -ac 1 OUT.wav`")
_DICOM = ("E_PICTURE", "`tandem ingest` turns DICOM into images")
_SAVE = ("E_PICTURE", "save it as PNG, without loss")
_OTHERS = {
    **dict.fromkeys((".webm", ".m4a", ".mp4", ".aac", ".amr", ".wma", ".aiff", ".aif", ".caf"), _CONVERT),
    **dict.fromkeys((".gif", ".webp", ".heic", ".jp2", ".jxl"), _SAVE),
    ".dcm": _DICOM,
}


@dataclass(frozen=True)
class Item:
    """A file of a data set.

    Attributes:
        path: of the file.
        split: `train`, `valid` or `test`; empty where the folders do not say.
        stream: the name of its column.
        category: its class, as its folder is called.
    """

    path: Path
    split: str
    stream: str
    category: str

    @property
    def stem(self) -> str:
        """The file's name without what says its kind."""
        return volume_stem(self.path) if ending_of(self.path) in VOLUMES else self.path.stem


@dataclass(frozen=True)
class LeftOut:
    """A file that is in no table.

    Attributes:
        path: of the file.
        code: why, for programs.
        reason: why, for people.
    """

    path: Path
    code: str
    reason: str


@dataclass(frozen=True)
class Tree:
    """What folders hold.

    Attributes:
        items: in the order of their paths.
        left_out: what cannot be used.
        kinds: stream -> `image`, `sound` or `volume`.
    """

    items: tuple[Item, ...]
    left_out: tuple[LeftOut, ...]
    kinds: Mapping[str, str]

    @property
    def categories(self) -> list[str]:
        """The classes as they are written, in the order of their labels."""
        return sorted({item.category for item in self.items})


def split_tree(root: Path) -> Tree:
    """Look through `{train,valid,test}/{stream}/{class}/file`.

    Raises:
        UsageError: E_FOLDER when there is no such tree: a folder of a split, a stream or a class is missing, misspelt
            or empty, or a stream's files are of several kinds.
    """
    splits = _splits(root)
    below = {split: [item.name for item in _folders(folder)] for split, folder in splits.items()}
    _require_alike(below, "stream")
    names = [column_name(name) for name in below["train"]]
    if len(set(names)) < len(names):
        raise UsageError("E_FOLDER", f"Expected streams of different names, got {', '.join(below['train'])}.")
    return _checked(root, {(split, name): splits[split] / name for split in splits for name in below[split]})


def class_tree(root: Path, stream: str) -> Tree:
    """Look through `{class}/file`, or `{train,valid,test}/{class}/file`.

    Args:
        root: the folder.
        stream: the name of the column; the files' kind when empty.

    Raises:
        UsageError: as `split_tree`.
    """
    _require_folder(root)
    split = any(folder.name.casefold() in SPLITS for folder in _folders(root))
    folders = _splits(root) if split else {"": root}
    return _checked(root, {(name, ""): folder for name, folder in folders.items()}, stream)


def column_name(folder: str) -> str:
    """A folder's name as that of a column: `Cough sound` -> `cough_sound`.

    Raises:
        UsageError: E_FOLDER when nothing of it can be one, or the table needs the name itself.
    """
    name = re.sub(r"[^a-z0-9]+", "_", folder.casefold()).strip("_")
    if not re.match(r"[a-z]", name) or name in OTHER_COLUMNS:
        what = f"Expected a folder that names a stream, starting with a letter, got {folder}."
        raise UsageError("E_FOLDER", what, f"Rename it; these names are taken: {', '.join(OTHER_COLUMNS)}.")
    return name


def kind_of(path: Path) -> str:
    """`image`, `sound` or `volume` by the end of a file's name; empty for all others."""
    name = path.name.lower()
    return next((kind for kind, suffixes in KINDS.items() if name.endswith(suffixes)), "")


def _splits(root: Path) -> dict[str, Path]:
    _require_folder(root)
    found: dict[str, Path] = {}
    for folder in _folders(root):
        split = SPLITS.get(folder.name.casefold())
        if split is None or split in found:
            hint = did_you_mean(folder.name.casefold(), SPLITS) if split is None else f"; {split} is there already."
            what = f"Expected the folders train, valid and test in {root}, got {folder.name}{hint or '.'}"
            raise UsageError("E_FOLDER", what, "Rename it, or move it out of the folder.")
        found[split] = folder
    if "train" not in found or len(found) < 2:
        got = ", ".join(found) or "none"
        what = f"Expected the folders train and valid or test in {root}, got {got}."
        raise UsageError("E_FOLDER", what, "See docs/how-to/classify-streams.md for the layouts.")
    return {split: found[split] for split in ("train", "valid", "test") if split in found}


def _checked(root: Path, places: Mapping[tuple[str, str], Path], stream: str = "") -> Tree:
    """What lies in places: (split, stream's folder) -> the folder of the classes; `stream` where no folder names it."""
    classes = {" / ".join(filter(None, where)) or str(root): _folders(folder) for where, folder in places.items()}
    _require_alike({name: [item.name for item in folders] for name, folders in classes.items()}, "class")
    items, left_out = list[Item](), _strays(root, places)
    for (split, name), folder in places.items():
        for category in _folders(folder):
            inside = _inside(category, left_out)
            if not inside:
                raise _empty(category, left_out)
            stream = stream or _BY_KIND[kind_of(inside[0])]  # all classes' files are in one column
            column = column_name(name) if name else stream
            items += [Item(path, split, column, category.name) for path in inside]
    return Tree(tuple(items), tuple(left_out), _kinds(items))


def _empty(folder: Path, left_out: Sequence[LeftOut]) -> UsageError:
    why = next((f": {item.path.name}: {item.reason}" for item in left_out if item.path.parent == folder), "")
    what = f"Expected files that can be read in {folder}, got none{why}."
    return UsageError("E_FOLDER", what, "Fill it, or delete the class's folder everywhere.")


def _inside(folder: Path, left_out: list[LeftOut]) -> list[Path]:
    """The files of a class that can be read by their names; the others are added to those left out."""
    found = []
    for path in sorted(folder.iterdir()):
        if _is_litter(path):
            continue
        if path.is_dir():
            left_out.append(LeftOut(path, "E_FOLDER", "a folder within that of a class; its files are not looked at"))
            files = sorted(
                file for file in path.rglob("*") if file.is_file() and kind_of(file) and not _is_litter(file)
            )
            left_out += [LeftOut(file, "E_FOLDER", "it lies in a folder within that of a class") for file in files]
        elif not _is_text(path):
            left_out.append(LeftOut(path, "E_FOLDER", "its name is not UTF-8 text, which a table needs"))
        elif not kind_of(path):
            other = ("E_FOLDER", "it is no picture, sound or NIfTI file by its name")
            left_out.append(LeftOut(path, *_OTHERS.get(path.suffix.lower(), other)))
        else:
            found.append(path)
    return found


def _strays(root: Path, places: Mapping[tuple[str, str], Path]) -> list[LeftOut]:
    """Pictures, sounds and volumes that lie above the folders of classes."""
    above = {root, *places.values(), *(folder.parent for folder in places.values() if folder != root)}
    files = sorted(path for folder in above for path in folder.iterdir() if path.is_file() and kind_of(path))
    return [LeftOut(path, "E_FOLDER", "it lies in no class's folder") for path in files if not _is_litter(path)]


def _kinds(items: Sequence[Item]) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in items:
        kind = kind_of(item.path)
        if found.setdefault(item.stream, kind) != kind:
            what = f"Expected files of one kind in the stream {item.stream}, got {found[item.stream]} and {kind}"
            raise UsageError("E_FOLDER", f"{what} ({item.path}).", "Make each kind a stream of its own.")
    return found


def _require_alike(names: Mapping[str, Sequence[str]], what: str) -> None:
    """Refuse places that do not hold the same folders.

    Raises:
        UsageError: E_FOLDER, which names the folder that is missing in the fewest places, and its likely misspelling.
    """
    count = Counter(name for found in names.values() for name in found)
    if len(count) < (2 if what == "class" else 1):
        few = "two classes or more" if what == "class" else "a stream or more"
        raise UsageError("E_FOLDER", f"Expected folders of {few}, got {', '.join(count) or 'none'}.")
    missing = [(-count[name], name, place) for name in count for place, found in names.items() if name not in found]
    if not missing:
        return
    _, name, place = min(missing)
    others = {_plain(other): other for other in names[place] if count[other] < len(names)}
    near = others.get(_plain(name))
    hint = f"; did you mean `{near}`?" if near else did_you_mean(name, others.values()) or "."
    has = f"which {counted(count[name], 'other folder')} {'has' if count[name] == 1 else 'have'}"
    message = f"Expected a folder of the {what} {name} in {place}, {has}, got none{hint}"
    raise UsageError("E_FOLDER", message, f"Rename or add it, or delete the {what}'s folder everywhere.")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _require_folder(root: Path) -> None:
    if not root.is_dir():
        raise UsageError("E_FOLDER", f"Expected a folder, got {root}, which is none.", "Check the path.")


def _folders(folder: Path) -> list[Path]:
    return sorted(item for item in folder.iterdir() if item.is_dir() and not _is_litter(item))


def _is_litter(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in _LITTER


def _is_text(path: Path) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in path.name)


def shown(paths: Iterable[Path], root: Path) -> list[str]:
    """Paths relative to a folder, as a person reads them."""
    return [str(path.relative_to(root)) for path in paths]
