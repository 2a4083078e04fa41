"""Arrays and lists of names from files that a person hands over: .npy, .npz, .csv."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.columns import PATIENT, find_columns, read_cells, say_unused
from pipeline.errors import UsageError
from pipeline.store.files import require_given, write_atomic

Array = npt.NDArray[Any]


def read_array(path: Path) -> Array:
    """Read one array of numbers.

    Args:
        path: `.npy` (any shape), `.npz` with one array, or `.csv` with or without a row of names.

    Returns:
        The array as it stands in the file; of a CSV (rows, columns) float64, or (rows,) where it has one column.

    Raises:
        UsageError: E_TABLE when the file is damaged, of another kind, or holds something but numbers; E_INPUT,
            E_UNREADABLE when it cannot be opened.
    """
    array = _numbers(read_cells(path, "a .csv file"), path) if path.suffix.lower() == ".csv" else _read_numpy(path)
    if array.dtype.kind not in "biuf":
        raise UsageError("E_TABLE", f"Expected numbers in {path.name}, got the type {array.dtype}.")
    return array


def read_names(path: Path) -> Array:
    """Read one name (or number) a row: which rows belong together, the patient's where it is known, else the case's.

    Args:
        path: `.csv` whose column `patient_id` (as `find_columns` finds it), else `case_id` or `case`, or else only
            column, holds the names; `.npy` or `.npz` of shape (N,).

    Returns:
        (N,) texts.

    Raises:
        UsageError: E_TABLE likewise, when there are several columns and none has such a name, or a name is empty.
    """
    if path.suffix.lower() == ".csv":
        names = _named_column(read_cells(path, "a .csv file"), path)
    else:
        names = _read_numpy(path).astype(str)
    if names.ndim != 1 or any(not name.strip() for name in names):
        raise UsageError("E_TABLE", f"Expected one name a row in {path.name}, got shape {names.shape} or empty names.")
    return names


def write_array(path: Path, array: Array) -> None:
    """Write a `.npy` file, atomically."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.save(stream, array, allow_pickle=False)

    write_atomic(path, write)


def _read_numpy(path: Path) -> Array:
    if path.suffix.lower() not in (".npy", ".npz"):
        raise UsageError("E_TABLE", f"Expected a .npy, .npz or .csv file, got {path.name}.")
    require_given(path, "a .npy or .npz file")
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            if len(found.files) != 1:
                raise UsageError("E_TABLE", f"Expected one array in {path.name}, got {len(found.files)}.")
            return np.asarray(found[found.files[0]])
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError("E_TABLE", f"Expected a readable file at {path}, got: {error}.") from error


def _numbers(rows: list[list[str]], path: Path) -> Array:
    first = 0 if all(_is_number(cell) for cell in rows[0]) else 1
    named = find_columns(rows[0], ("case_id", "case", "label"), path.name) if first and len(rows[0]) > 1 else {}
    if named:
        got = rows[0][min(named.values())].strip()
        raise UsageError("E_TABLE", f"Expected columns of numbers for the classes in {path.name}, got {got}.")
    values = np.empty((len(rows) - first, len(rows[0])))
    for number, row in enumerate(rows[first:]):
        place = f"row {number + first + 1} of {path.name}"
        if len(row) != values.shape[1]:
            raise UsageError("E_TABLE", f"Expected {values.shape[1]} columns in {place}, got {len(row)}.")
        bad = [cell for cell in row if not _is_number(cell)]
        if bad:
            raise UsageError("E_TABLE", f"Expected numbers in {place}, got {bad[0][:40]!r}.")
        values[number] = [float(cell) for cell in row]
    if not len(values):
        raise UsageError("E_TABLE", f"Expected numbers in {path.name}, got a row of names only.")
    return values[:, 0] if values.shape[1] == 1 else values


def _named_column(rows: list[list[str]], path: Path) -> Array:
    at = find_columns(rows[0], ("case_id", "case"), path.name)
    named = [at[name] for name in (PATIENT, "case_id", "case") if name in at]
    if not named and len(rows[0]) > 1:
        what = f"Expected a column patient_id or case_id in {path.name}, got {', '.join(rows[0])[:80]}."
        raise UsageError("E_TABLE", what, "Name the column so that says which rows belong together.")
    column = named[0] if named else 0
    if any(len(row) <= column for row in rows):
        raise UsageError("E_TABLE", f"Expected {column + 1} columns in every row of {path.name}.")
    say_unused(rows[0], at.values() if named else [0], path.name)
    return np.array([row[column].strip() for row in rows[1 if named else 0 :]], dtype=str)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
