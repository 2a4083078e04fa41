"""The table of a data set: images, class, mask and fold of each case, and the split into folds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.columns import read_rows
from pipeline.errors import CaseError, UsageError

#: Class of a case whose class is not known: no loss of it is asked for.
UNKNOWN = -1
#: What the column `pairing` says: files of one name are a case, or any files of one class, which are no patient.
PAIRING, BY_NAME, BY_CLASS = "pairing", "stem", "class"
_OPTIONAL = ("patient_id", "label", "mask", "fold", PAIRING)


@dataclass(frozen=True)
class Row:
    """One case of a data set.

    Attributes:
        case_id: its name.
        patient_id: whose case it is; all of a patient's cases are in one fold.
        images: modality -> file; a modality that is missing is not in it.
        label: its class, or `UNKNOWN`.
        mask: the file of its voxel labels, or None.
        table: further numbers; NaN where one is missing.
        fold: which fold it is in, from 0; None where the table does not say so.
        pairing: how `tandem table` made the case: `class` where its files are of one class and of no patient; empty
            where the table does not say so.
    """

    case_id: str
    patient_id: str
    images: dict[str, Path]
    label: int
    mask: Path | None
    table: tuple[float, ...]
    fold: int | None
    pairing: str = ""

    def item(self) -> dict[str, Any]:
        """What MONAI's transforms start from."""
        found: dict[str, Any] = {"case_id": self.case_id, "label": self.label, **self.images}
        if self.mask is not None:
            found["mask"] = self.mask
        if self.table:
            found["table"] = np.asarray(self.table, dtype=np.float32)
        return found


@dataclass(frozen=True)
class Standard:
    """How further numbers are brought to mean 0 and standard deviation 1: by what the training cases have.

    Attributes:
        columns: their names, in the order in which the network takes them.
        means: of each.
        deviations: of each; 1 where all training cases have one value.
    """

    columns: Sequence[str] = ()
    means: Sequence[float] = ()
    deviations: Sequence[float] = ()

    def __call__(self, numbers: Sequence[float]) -> tuple[float, ...]:
        """Standardise the numbers of a case; NaN stays NaN."""
        scaled = (np.asarray(numbers, dtype=np.float64) - self.means) / self.deviations
        return tuple(scaled.tolist())

    def to_plain(self) -> dict[str, list[Any]]:
        """As a checkpoint keeps it."""
        return {name: list(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Split:
    """The cases to learn from, those to judge by, and how the further numbers of both were standardised."""

    training: tuple[Row, ...]
    validation: tuple[Row, ...]
    standard: Standard = Standard()

    @property
    def training_items(self) -> list[dict[str, Any]]:
        """The training cases as MONAI's data sets take them."""
        return [row.item() for row in self.training]

    @property
    def training_cases(self) -> list[str]:
        """The names of the training cases."""
        return [row.case_id for row in self.training]

    @property
    def validation_items(self) -> list[dict[str, Any]]:
        """The validation cases as MONAI's data sets take them."""
        return [row.item() for row in self.validation]


def read_table(path: str | Path, modalities: Sequence[str], classes: int, columns: Sequence[str] = ()) -> list[Row]:
    """Read the table of a data set.

    Args:
        path: a CSV with the columns `case_id`, one a modality (a file, relative to the table's folder; empty where it
            is missing), and where there are any `patient_id`, `label`, `mask`, `fold` and further numbers; names as
            `find_columns` takes them.
        modalities: the names of the columns with images.
        classes: how many classes there are; 0 where no class is learned.
        columns: the further numbers that the network is given.

    Returns:
        One row a case, in the order of the table.

    Raises:
        UsageError: E_TABLE when it cannot be read, lacks a column, or names a file that is not there; E_LABEL for a
            class that does not exist; E_CASE_ID when two rows have one name.
        CaseError: E_MISSING_ROLE for a case without any image.
    """
    path = Path(path)
    lines = read_rows(path, ["case_id", *modalities, *(["label"] if classes else []), *columns], _OPTIONAL)
    rows = [_row(line, path, modalities, classes, columns) for line in lines]
    names = [row.case_id for row in rows]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(
            "E_CASE_ID", f"Expected one row a case in {path.name}, got two of {twice}.", "Remove or rename one."
        )
    return rows


def read_numbers(path: Path, columns: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Case id -> further numbers of a CSV with the column `case_id`, in the order of the columns; NaN in an empty cell.

    Raises:
        UsageError: E_TABLE when it cannot be read, lacks a column, or holds another text than a number; E_CASE_ID when
            two rows have one name.
    """
    found: dict[str, tuple[float, ...]] = {}
    for line in read_rows(path, ["case_id", *columns]):
        name = line["case_id"]
        if name in found:
            raise UsageError("E_CASE_ID", f"Expected one row a case in {path.name}, got two of {name}.", "Remove one.")
        found[name] = tuple(_number(line[column], name, column) for column in columns)
    return found


def with_folds(rows: Sequence[Row], folds: int, seed: int = 0) -> list[Row]:
    """Give every case a fold: the table's own, or folds that keep patients together and classes balanced.

    Raises:
        UsageError: E_FOLD when there are fewer patients or cases of every class than folds, only some rows have a fold,
            or a patient is in two.
    """
    given = [row.fold for row in rows if row.fold is not None]
    if given:
        _check_given(rows, len(given))
        return list(rows)
    from sklearn.model_selection import StratifiedGroupKFold

    patients, labels = [row.patient_id for row in rows], [row.label for row in rows]
    if not 2 <= folds <= len(set(patients)):
        raise UsageError("E_FOLD", f"Expected 2 to {len(set(patients))} folds, one patient each, got {folds}.")
    largest = max(Counter(labels).values())
    if largest < folds:
        raise UsageError("E_FOLD", f"Expected {folds} cases or more of a class for {folds} folds, got {largest}.")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    fold_of: dict[str, int] = {}
    parts = splitter.split(np.zeros(len(rows)), labels, patients)
    for number, (_, inside) in enumerate(parts):
        fold_of |= {rows[index].case_id: number for index in inside}
    return [replace(row, fold=fold_of[row.case_id]) for row in rows]


def split(rows: Sequence[Row], fold: int, classes: int) -> Split:
    """Take one fold for validation and the others for training.

    Raises:
        UsageError: E_FOLD when one part is empty or lacks a class (of `classes`; 0 where none is learned).
    """
    found = Split(tuple(row for row in rows if row.fold != fold), tuple(row for row in rows if row.fold == fold))
    for name, part in (("training", found.training), ("validation", found.validation)):
        if not part:
            raise UsageError("E_FOLD", f"Expected cases for {name} beside fold {fold}, got none.")
        absent = sorted(set(range(classes)) - {row.label for row in part})
        if absent:
            got = ", ".join(map(str, absent))
            raise UsageError("E_FOLD", f"Expected cases of every class for {name}, got none of class {got}.")
    return found


def split_table(
    path: str | Path,
    modalities: Sequence[str],
    classes: int,
    columns: Sequence[str] = (),
    folds: int = 5,
    fold: int = 0,
    seed: int = 0,
    standard: Mapping[str, Sequence[Any]] | None = None,
) -> Split:
    """Read a data set's table and take one fold for validation; further numbers are standardised by the training cases.

    Arguments as in `read_table`, `with_folds` and `split`; with `standard`, that of a network that has been trained,
    further numbers are standardised as they were then.

    Raises:
        UsageError: E_TABLE, E_LABEL, E_CASE_ID, E_FOLD.
        CaseError: E_MISSING_ROLE.
    """
    rows = with_folds(read_table(path, modalities, classes, columns), folds, seed)
    used = Standard(**standard) if standard else standard_of(split(rows, fold, classes).training, columns)
    found = split(standardised(rows, used), fold, classes)
    return replace(found, standard=used)


def standard_of(training: Sequence[Row], columns: Sequence[str]) -> Standard:
    """What brings each further number to mean 0 and standard deviation 1 over the training cases."""
    if not columns:
        return Standard()
    values = np.asarray([row.table for row in training], dtype=np.float64)
    known = np.isfinite(values)
    counts = known.sum(0).clip(min=1)
    means = np.where(known, values, 0).sum(0) / counts
    deviations = np.sqrt((np.where(known, values - means, 0) ** 2).sum(0) / counts)
    deviations[deviations == 0] = 1
    return Standard(tuple(columns), tuple(means.tolist()), tuple(deviations.tolist()))


def standardised(rows: Sequence[Row], standard: Standard) -> list[Row]:
    """The rows with their further numbers standardised."""
    return [replace(row, table=standard(row.table)) if standard.columns else row for row in rows]


def _row(line: dict[str, str], path: Path, modalities: Sequence[str], classes: int, columns: Sequence[str]) -> Row:
    case_id = line["case_id"]
    images = {name: _file(line[name], path, case_id) for name in modalities if line[name]}
    if not images:
        raise CaseError("E_MISSING_ROLE", f"Expected one of {', '.join(modalities)} for the case {case_id}, got none.")
    return Row(
        case_id,
        line.get("patient_id") or case_id,
        images,
        _label(line.get("label", ""), case_id, classes),
        _file(line["mask"], path, case_id) if line.get("mask") else None,
        tuple(_number(line[name], case_id, name) for name in columns),
        _fold(line["fold"], case_id) if line.get("fold") else None,
        line.get(PAIRING, ""),
    )


def _file(name: str, table: Path, case_id: str) -> Path:
    path = table.parent / name
    if not path.is_file():
        what = f"Expected the files that {table.name} names, but {path} of {case_id} is none."
        raise UsageError("E_TABLE", what, "Correct the table: its files are relative to its own folder.")
    return path


def _label(text: str, case_id: str, classes: int) -> int:
    if not text or classes == 0:
        return UNKNOWN
    value = _number(text, case_id, "label")
    if value not in range(classes):
        raise UsageError("E_LABEL", f"Expected classes 0 to {classes - 1}, got {value:g} for the case {case_id}.")
    return int(value)


def _fold(text: str, case_id: str) -> int:
    value = _number(text, case_id, "fold")
    if not (value >= 0 and value.is_integer()):
        raise UsageError("E_TABLE", f"Expected a whole number from 0 as fold of {case_id}, got {value:g}.")
    return int(value)


def _number(text: str, case_id: str, column: str) -> float:
    """NaN where the cell is empty."""
    if not text:
        return float("nan")
    try:
        value = float(text)
    except ValueError as error:
        raise UsageError("E_TABLE", f"Expected a number as {column} of {case_id}, got another text.") from error
    if np.isinf(value):
        raise UsageError("E_TABLE", f"Expected a finite number as {column} of {case_id}, got {text}.")
    return value


def _check_given(rows: Sequence[Row], given: int) -> None:
    if given < len(rows):
        raise UsageError("E_FOLD", f"Expected a fold for every case or for none, got {given} of {len(rows)}.")
    fold_of: dict[str, int | None] = {}
    for row in rows:
        if fold_of.setdefault(row.patient_id, row.fold) != row.fold:
            raise UsageError("E_FOLD", "Expected all cases of a patient in one fold, got a patient in two.")
