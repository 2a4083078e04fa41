"""The table of a radiomics signature: features and outcome of each case, and what must not be learned from."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.columns import PATIENT, read_rows
from pipeline.console import echo
from pipeline.errors import UsageError
from pipeline.probabilities import group_indices
from pipeline.spec.explain import did_you_mean

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
#: The tag of the volume.
VOLUME = "morph_volume"
#: A feature that ranks every case right is taken for the outcome where chance would do so in fewer tables than this.
_BY_CHANCE = 1e-3
#: Names that share so much of their letters are alike.
_ALIKE = 0.85
_LEAK = "Leave it out with --ignore; if it is a feature, give it another name."


@dataclass(frozen=True, eq=False)
class Outcome:
    """What is predicted.

    Attributes:
        event: (N,) whether a case is of class 1, or its event was seen.
        time: (N,) until the event, or until the case was last seen; None where there are two classes.
    """

    event: Flags
    time: Floats | None = None

    @property
    def measure(self) -> str:
        """What a prediction is measured by."""
        return "AUROC" if self.time is None else "C index"

    def of(self, rows: npt.NDArray[np.generic]) -> Outcome:
        """Of some cases."""
        return Outcome(self.event[rows], None if self.time is None else self.time[rows])

    def pairs(self) -> Flags:
        """(N, N): where the first case should have the higher score: class 1 and 0, or the earlier event.

        Source: Harrell et al. 1996, Statistics in Medicine 15; at equal times an event is before what was not seen.
        """
        if self.time is None:
            return self.event[:, None] & ~self.event
        before = (self.time[:, None] < self.time) | ((self.time[:, None] == self.time) & ~self.event)
        return self.event[:, None] & before

    def response(self) -> Floats:
        """(N,) what features are correlated with: the class, or the martingale residual of a model without features.

        Source: Therneau, Grambsch, Fleming 1990, Biometrika 77; the hazard is Nelson's and Aalen's.
        """
        if self.time is None:
            return self.event.astype(np.float64)
        at_risk = (self.time[:, None] <= self.time).sum(1)
        steps = self.event / at_risk
        return self.event - (steps * (self.time <= self.time[:, None])).sum(1)


@dataclass(frozen=True, eq=False)
class Cohort:
    """Cases with their features and outcome.

    Attributes:
        case_ids: N names.
        patients: (N,) number of the patient of each case.
        features: F names.
        values: (N, F); NaN where one is missing.
        outcome: of each case.
        batches: N names of scanners or centres; empty where features are taken as they are.
    """

    case_ids: tuple[str, ...]
    patients: Ints
    features: tuple[str, ...]
    values: Floats
    outcome: Outcome
    batches: tuple[str, ...] = ()

    def of(self, rows: Flags | Ints) -> Cohort:
        """Some of the cases."""
        index = np.arange(len(self.case_ids))[rows]
        names, batches = (tuple(part[at] for at in index if part) for part in (self.case_ids, self.batches))
        return Cohort(names, self.patients[rows], self.features, self.values[rows], self.outcome.of(rows), batches)

    def with_outcome_of(self, order: Ints) -> Cohort:
        """Each case with the outcome of another: (N,) whose."""
        return replace(self, outcome=self.outcome.of(order))


@dataclass(frozen=True)
class Columns:
    """Which columns are no features.

    Attributes:
        outcome: classes 0 and 1; or
        time: until event or last visit, together with
        event: 1 where the event was seen, else 0.
        batch: the scanner or centre whose effect is taken out.
        ignore: columns that are left out.
    """

    outcome: str = ""
    time: str = ""
    event: str = ""
    batch: str = ""
    ignore: tuple[str, ...] = ()

    @property
    def truth(self) -> tuple[str, ...]:
        """The names of the outcome's columns."""
        return (self.outcome,) if self.outcome else (self.time, self.event)

    @property
    def named(self) -> tuple[str, ...]:
        """All that a person named."""
        return tuple(name for name in (*self.truth, self.batch, *self.ignore) if name)


def read_cohort(path: Path, columns: Columns) -> Cohort:
    """Read features and outcome: one row a case, `case_id`, `patient_id` where patients have several, and numbers.

    Cases without an outcome and columns of texts are left out, and named.

    Args:
        path: a CSV; every column of numbers that is not named in `columns` is a feature.
        columns: which ones are no features.

    Raises:
        UsageError: E_TABLE when it cannot be read, lacks a column (with the nearest name), holds a text among numbers
            or no feature that varies, or a feature is the outcome; E_LABEL for other classes than 0 and 1;
            E_ROWS when two rows have one name; E_OPTION for neither or both kinds of outcome.
    """
    if bool(columns.outcome) == bool(columns.time) or bool(columns.time) != bool(columns.event):
        raise UsageError("E_OPTION", "Expected --outcome, or --time together with --event, got neither or both.")
    rows = read_rows(path, ["case_id"], every=True)
    _require_columns(columns.named, rows[0], path.name)
    known = [row for row in rows if all(row[name] for name in columns.truth)]
    if len(known) < len(rows):
        echo(f"{path.name}: {len(rows) - len(known)} of {len(rows)} cases without an outcome are left out.")
    if not known:
        raise UsageError("E_TABLE", f"Expected an outcome in {columns.truth[0]} of {path.name}, got none.")
    names = [row["case_id"] for row in known]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        remedy = "Give the table of one row a case, such as radiomics_by_case.csv."
        raise UsageError("E_ROWS", f"Expected one row a case in {path.name}, got two of {twice}.", remedy)
    outcome = _outcome(known, columns)
    features = _features(known, columns, path.name)
    values = np.array([[_number(row[name], row["case_id"], name) for name in features] for row in known], float)
    patients = group_indices([row.get(PATIENT) or row["case_id"] for row in known], len(known))
    batches = tuple(row[columns.batch] for row in known) if columns.batch else ()
    if "" in batches:
        raise UsageError("E_BATCH", f"Expected a batch of every case in {columns.batch}, got none of some.")
    found = Cohort(tuple(names), patients, features, values.reshape(len(known), len(features)), outcome, batches)
    require_no_leak(found, columns.truth)
    return found


def volume_of(cohort: Cohort, name: str = "") -> tuple[str, ...]:
    """The volume's column: the one that is named, or IBSI's by its tag; none, and said, where there is none.

    Raises:
        UsageError: E_OPTION when there is no such column.
    """
    if name:
        return (feature_named(cohort, name),)
    found = _called(cohort, VOLUME)
    if not found:
        echo(f"No volume beside the signature: no column {VOLUME}; --volume names another.")
    if len(found) > 1:
        echo(f"Beside the signature stands the volume {found[0]}, of {len(found)}; --volume names another.")
    return tuple(found[:1])


def feature_named(cohort: Cohort, name: str) -> str:
    """The column of a name, or the only one that ends in it: `stat_max` of `pet_tumour_ibsi_pet_stat_max`.

    Raises:
        UsageError: E_OPTION for no or several columns.
    """
    found = _called(cohort, name)
    if len(found) != 1:
        near = did_you_mean(name, cohort.features) or "."
        got = f"{len(found)}, such as {' and '.join(found[:2])}." if found else f"none{near}"
        raise UsageError("E_OPTION", f"Expected one feature that is {name}, or ends in it, got {got}")
    return found[0]


def _called(cohort: Cohort, name: str) -> list[str]:
    own = [feature for feature in cohort.features if feature == name]
    return own or [feature for feature in cohort.features if feature.endswith(f"_{name}")]


def require_no_leak(cohort: Cohort, truth: Sequence[str]) -> None:
    """Refuse features that are the outcome, by name or by what they say.

    Args:
        cohort: of features and outcome.
        truth: names of the outcome's columns.

    Raises:
        UsageError: E_TABLE.
    """
    for name, values in zip(cohort.features, cohort.values.T, strict=True):
        if like := next((own for own in truth if _alike(name, own)), ""):
            what = f"Expected features alone beside the outcome, got {name}, which is called like {like}."
            raise UsageError("E_TABLE", what, _LEAK)
        if _says_all(values, cohort):
            what = f"Expected features alone beside the outcome, got {name}, which ranks every case as the outcome."
            raise UsageError("E_TABLE", what, _LEAK)


def _require_columns(names: Sequence[str], row: Mapping[str, str], table: str) -> None:
    for name in names:
        if name not in row:
            near = did_you_mean(name, row) or "."
            raise UsageError("E_TABLE", f"Expected the column {name} in {table}, got none{near}", "Correct the name.")


def _outcome(rows: Sequence[Mapping[str, str]], columns: Columns) -> Outcome:
    name = columns.outcome or columns.event
    found = np.array([_number(row[name], row["case_id"], name) for row in rows])
    if strange := sorted({f"{value:g}" for value in found} - {"0", "1"}):
        raise UsageError("E_LABEL", f"Expected 0 or 1 in the column {name}, got {', '.join(strange[:5])}.")
    if not columns.time:
        return Outcome(found == 1)
    times = np.array([_number(row[columns.time], row["case_id"], columns.time) for row in rows])
    if not (times >= 0).all():
        raise UsageError("E_TABLE", f"Expected times of 0 or more in {columns.time}, got {times.min():g}.")
    return Outcome(found == 1, times)


def _features(rows: Sequence[Mapping[str, str]], columns: Columns, table: str) -> tuple[str, ...]:
    """The columns of numbers: half of the cells make one of it, so that a slip of the pen is not lost in silence."""
    free = [name for name in rows[0] if name not in (*columns.named, "case_id", PATIENT)]
    cells = {name: [row[name] for row in rows if row[name]] for name in free}
    numbers = {name: sum(map(_is_number, found)) >= max(1, len(found) / 2) for name, found in cells.items()}
    if texts := [name for name in free if not numbers[name]]:
        echo(f"{table}: not used, since they hold no numbers: {', '.join(texts[:20])[:300]}.")
    found = tuple(name for name in free if numbers[name])
    if not any(len({float(cell) for cell in cells[name] if _is_number(cell)}) > 1 for name in found):
        got = f"{len(found)} constant ones" if found else "none"
        raise UsageError("E_TABLE", f"Expected features that differ between the cases of {table}, got {got}.")
    return found


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text)) or text.lower() == "nan"
    except ValueError:
        return False


def _number(text: str, case_id: str, column: str) -> float:
    """NaN where the cell is empty."""
    if text and not _is_number(text):
        raise UsageError("E_TABLE", f"Expected a number as {column} of {case_id}, got another text.")
    return float(text or "nan")


def _alike(name: str, truth: str) -> bool:
    """Whether a column is called like the outcome: its words in a row among others, numbers aside, or nearly so."""
    own, wanted = _words(name), _words(truth)
    inside = any(own[at : at + len(wanted)] == wanted for at in range(len(own) - len(wanted) + 1))
    near = difflib.SequenceMatcher(None, "".join(own), "".join(wanted)).ratio()
    return bool(wanted) and (inside or near >= _ALIKE)


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())


def _says_all(values: Floats, cohort: Cohort) -> bool:
    """Whether a feature is a copy of classes or events, or ranks all cases right where chance would hardly do so."""
    known = np.isfinite(values)
    outcome, found = cohort.outcome.of(known), values[known]
    own, other = found[outcome.event], found[~outcome.event]
    if not own.size:
        return False
    parted = bool(other.size) and bool(own.min() > other.max() or own.max() < other.min())
    if parted and len(np.unique(found)) == 2:
        return True
    if outcome.time is None:
        return parted and _is_rare(math.log(math.comb(len(found), len(own))), cohort)
    if not _is_rare(math.lgamma(len(own) + 1), cohort):
        return False
    pairs = outcome.pairs()
    return bool((found[:, None] > found)[pairs].all() or (found[:, None] < found)[pairs].all())


def _is_rare(orders: float, cohort: Cohort) -> bool:
    """Of the logarithm of how many orders are as likely by chance, two of which are right, for each of the features."""
    return orders > math.log(2 * len(cohort.features) / _BY_CHANCE)
