"""`tandem table`: the table of a data set out of folders by class, as comparison and training read it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.columns import csv_text
from pipeline.commands.equal_files import equal_groups, read_all, refuse_equal, without_equal
from pipeline.commands.folders import (
    OTHER_COLUMNS,
    Item,
    LeftOut,
    Tree,
    class_tree,
    column_name,
    kind_of,
    shown,
    split_tree,
)
from pipeline.commands.medmnist import write_pictures
from pipeline.commands.pairing import PAIRINGS, Cases, make_cases
from pipeline.console import echo
from pipeline.console import shown as printed
from pipeline.errors import UsageError
from pipeline.spec.explain import did_you_mean
from pipeline.store.files import save_text, writable_folder
from pipeline.words import counted

LAYOUTS = ("processed_dataset_split", "classes", "medmnist")
DUPLICATES = ("refuse", "leave_out")
#: The folds of cases.csv: training takes one for validation, which is 0 where nothing else is said.
FOLDS = {"valid": 0, "train": 1}


@dataclass(frozen=True)
class Tables:
    """What was written.

    Attributes:
        cases: the table to train with.
        test: the table to judge by once; None where the folders have no `test`.
        left_out: the list of files that are in neither; None where there is none.
        about: classes, streams, splits and notes (.json).
        classes: class as written -> label.
        counts: split -> class -> cases; the split is empty where the folders have none.
        pairing: how cases were made: `stem`, `class`, or `file` where each file is one.
        notes: what a reader has to know (codes `N_...`).
        failed: code -> how many files of data cannot be read, or lie where none may; `left_out` says why.
    """

    cases: Path
    test: Path | None
    left_out: Path | None
    about: Path
    classes: Mapping[str, int]
    counts: Mapping[str, Mapping[str, int]]
    pairing: str
    notes: tuple[str, ...]
    failed: Mapping[str, int]


def table(
    root: str | Path,
    out: str | Path,
    layout: str,
    pair: str = "auto",
    duplicates: str = "refuse",
    stream: str = "",
    seed: int = 0,
    progress: bool = False,
) -> Tables:
    """Make the table of a data set out of folders: `tandem table`.

    Args:
        root: the folder; for `medmnist` the `.npz` file.
        out: the table (.csv), or the folder in which it is `cases.csv`; `NAME_test.csv`, `NAME_left_out.csv` and
            `NAME.json` lie beside it. For `medmnist` the folder for the pictures, too.
        layout: `processed_dataset_split`: `{train,valid,test}/{stream}/{class}/file`; `classes`: `{class}/file`, which
            may lie in `{train,valid,test}`; `medmnist`.
        pair: `auto`, `stem` or `class`, as `pipeline.commands.pairing.make_cases` takes it.
        duplicates: `refuse` equal files in several splits or classes, or `leave_out` all but one.
        stream: the name of the column of files, where no folder names it; their kind when empty.
        seed: of the order in which files of a class meet.
        progress: print while reading.

    Raises:
        UsageError: E_OPTION for another layout or choice; E_FOLDER, E_TABLE for what does not lie as the layout says;
            E_DUPLICATE; E_OUT, E_DISK.
    """
    root, out = Path(root), _csv(Path(out))
    _require("layout", layout, LAYOUTS)
    _require("duplicates", duplicates, DUPLICATES)
    _require("pair", pair, PAIRINGS)
    if stream and (layout == LAYOUTS[0] or stream in OTHER_COLUMNS or column_name(stream) != stream):
        what = f"Expected --stream as a name of a column, where no folder names streams, got {stream}."
        raise UsageError("E_OPTION", what, "Use small letters, digits and _, with the layouts classes and medmnist.")
    if layout == "medmnist":
        write_pictures(root, out.parent)
        root = out.parent
    with printed(progress):
        tree = _tree(root, layout, stream)
        cases, left_out, failed = _cases(tree, root, pair, duplicates, seed)
    return _written(tree, cases, left_out, root, out, {"layout": layout, "seed": seed, "unreadable": failed})


def show(found: Tables) -> int:
    """Say what was written; the exit code: 1 when files could not be read."""
    for split, counts in found.counts.items():
        each = ", ".join(f"{name} {number}" for name, number in counts.items())
        echo(f"{split or 'all'}: {counted(sum(counts.values()), 'case')} ({each})")
    for note in found.notes:
        echo(note, error=True)
    if found.failed:
        codes = ", ".join(f"{code} {number}" for code, number in sorted(found.failed.items()))
        echo(f"{counted(sum(found.failed.values()), 'file')} left out: {codes}; {found.left_out} says why", error=True)
    beside = {"test": found.test, "left out": found.left_out, "classes": found.about}
    echo("; ".join([f"Table: {found.cases}", *(f"{name}: {path}" for name, path in beside.items() if path)]))
    return int(bool(found.failed))


def _tree(root: Path, layout: str, stream: str) -> Tree:
    try:
        return split_tree(root) if layout == LAYOUTS[0] else class_tree(root, stream)
    except PermissionError as error:
        what = f"Expected folders that can be looked into, got {error.filename}, which cannot."
        raise UsageError("E_UNREADABLE", what) from error


def _cases(tree: Tree, root: Path, pair: str, duplicates: str, seed: int) -> tuple[Cases, list[LeftOut], Counter[str]]:
    """The cases, every file that is in none, and the codes of those that are data."""
    content, unreadable, flags = read_all(tree)
    readable = [item for item in tree.items if item.path in content]
    groups = equal_groups(readable, content)
    if duplicates == "refuse":
        refuse_equal(groups, root)
    equal = without_equal(groups, root)
    gone = {entry.path for entry in equal}
    kept = [item for item in readable if item.path not in gone]
    _require_every_class(tree, {(item.split, item.stream, item.category) for item in kept})
    cases = make_cases(kept, pair, seed)
    left_out = [*tree.left_out, *unreadable, *equal, *cases.left_out]
    others = [
        entry
        for entry in tree.left_out
        if entry.code == "E_FOLDER" and not (kind_of(entry.path) and entry.path.is_file())
    ]
    every = Counter(entry.code for entry in (*unreadable, *tree.left_out))
    failed = every - Counter(entry.code for entry in others)
    said = [f"{counted(len(others), 'file or folder')} left out, such as {others[0].path.name}"] if others else []
    notes = (*cases.notes, *_copies(kept, content), *flags, *said)
    return replace(cases, notes=notes), left_out, failed


def _copies(kept: Sequence[Item], content: Mapping[Path, str]) -> list[str]:
    number = len(kept) - len({content[item.path] for item in kept})
    return [f"Within one split and class {counted(number, 'file')} repeat another one; they stay."] if number else []


def _require_every_class(tree: Tree, left: set[tuple[str, str, str]]) -> None:
    for item in tree.items:
        if (item.split, item.stream, item.category) not in left:
            what = (
                f"Expected files that can be read in {item.path.parent}, got none: all are damaged or equal to others."
            )
            raise UsageError("E_FOLDER", what, "Fill the folder, or delete the class's folder everywhere.")


def _written(
    tree: Tree, cases: Cases, left_out: Sequence[LeftOut], root: Path, out: Path, how: Mapping[str, Any]
) -> Tables:
    classes = {name: number for number, name in enumerate(tree.categories)}
    splits = list(dict.fromkeys(item.split for item in tree.items))
    rows = _rows(cases, list(tree.kinds), classes, out.parent)
    writable_folder(out.parent)
    beside = {name: out.with_name(f"{out.stem}_{name}.csv") for name in ("test", "left_out")}
    learned = [row for row in rows if row["split"] != "test"]
    columns = ["case_id", *tree.kinds, "label", *(["fold"] if "valid" in splits else []), "pairing"]
    _write(out, columns, learned)
    judged = [row for row in rows if row["split"] == "test"]
    _write(beside["test"], [name for name in columns if name != "fold"], judged)
    lost = [
        {"file": shown([item.path], root)[0], "code": item.code, "reason": item.reason}
        for item in sorted(left_out, key=lambda item: item.path)
    ]
    _write(beside["left_out"], ["file", "code", "reason"], lost)
    counted_ = {split: Counter(case.category for case in cases.made if case.split == split) for split in splits}
    counts = {split: {name: found[name] for name in classes} for split, found in counted_.items()}
    folds = {str(number): name for name, number in FOLDS.items()} if "valid" in splits else {}
    first = {name: next(case.files[name] for case in cases.made if name in case.files) for name in tree.kinds}
    kinds = {name: _kind(kind, first[name]) for name, kind in tree.kinds.items()}
    about = {**how, "classes": classes, "streams": kinds, "folds": folds, "counts": counts}
    about |= {"pairing": cases.pairing, "notes": list(cases.notes), "left_out": len(lost)}
    save_text(out.with_suffix(".json"), json.dumps(about, indent=2, ensure_ascii=False) + "\n")
    there = (beside["test"] if judged else None, beside["left_out"] if lost else None)
    return Tables(out, *there, out.with_suffix(".json"), classes, counts, cases.pairing, cases.notes, how["unreadable"])


def _kind(kind: str, path: Path) -> str:
    """What a stream is by one of its files: a NIfTI file of one slice is an image."""
    if kind != "volume":
        return kind
    import nibabel as nib

    shape = (*nib.load(path).shape, 1)[:3]
    return "image" if 1 in shape else "volume"


def _rows(cases: Cases, streams: Sequence[str], classes: Mapping[str, int], folder: Path) -> list[dict[str, Any]]:
    """One row a case; names of cases say its split and label, and nothing that a file's name may say."""
    numbers: Counter[str] = Counter()
    rows = []
    for case in cases.made:
        start = "_".join(filter(None, (case.split, str(classes[case.category]))))
        numbers[start] += 1
        files = {name: _relative(case.files[name], folder) if name in case.files else "" for name in streams}
        row = {"case_id": f"{start}_{numbers[start]:05d}", **files, "label": classes[case.category]}
        rows.append({**row, "fold": FOLDS.get(case.split, ""), "pairing": cases.pairing, "split": case.split})
    return rows


def _relative(path: Path, folder: Path) -> str:
    """A file as its table names it; one that a spreadsheet would take for a formula starts with `./`."""
    found = os.path.relpath(path.parent.resolve() / path.name, folder.resolve())
    return f"./{found}" if found[:1] in "=+-@ \t\r" else found


def _write(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table; without rows none is left from an earlier call."""
    if rows:
        save_text(path, csv_text([columns, *([row[name] for name in columns] for row in rows)]))
    else:
        path.unlink(missing_ok=True)


def _csv(out: Path) -> Path:
    return out if out.suffix.lower() == ".csv" else out / "cases.csv"


def _require(name: str, given: str, known: Sequence[str]) -> None:
    if given not in known:
        what = f"Expected --{name} {', '.join(known)}, got {given}{did_you_mean(given, known) or '.'}"
        raise UsageError("E_OPTION", what, "Use one of them.")
