"""Which cases judge a network, and controls that fusion has to beat: modalities hidden, or of another patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.errors import CaseError, UsageError
from pipeline.learning.table import Row, Split, read_table, standardised


def validation_rows(  # noqa: PLR0913 - each is a key of evaluate.yaml
    split: Split,
    folder: str | Path,
    table_name: str,
    modalities: Sequence[str],
    classes: int,
    shuffled: Sequence[str] = (),
    hidden: Sequence[str] = (),
    seed: int = 0,
    within_class: bool = False,
) -> list[Row]:
    """The cases to judge by: those of the fold, or those of a table of their own (`table_name` in `folder`).

    Arguments as in `read_table`, `with_shuffled_modalities` (for a table of their own) and `without_modalities`.

    Raises:
        UsageError: E_TABLE, E_LABEL, E_CASE_ID, E_MODALITY, E_FOLD; E_CAL_TRAINING when a patient of the training has
            a case among them.
        CaseError: E_MISSING_ROLE for a case that has no image, or none left.
    """
    if not table_name:
        return without_modalities(split.validation, modalities, hidden)
    read = read_table(Path(folder) / table_name, modalities, classes, split.standard.columns)
    _require_other_patients(split, read, table_name)
    rows = with_shuffled_modalities(standardised(read, split.standard), modalities, shuffled, seed, within_class)
    return without_modalities(rows, modalities, hidden)


def without_modalities(rows: Sequence[Row], modalities: Sequence[str], hidden: Sequence[str]) -> list[Row]:
    """Take the hidden ones of a network's modalities away, as if they had not been acquired.

    Raises:
        UsageError: E_MODALITY when one of `hidden` is not among `modalities`.
        CaseError: E_MISSING_ROLE when a case has no image left.
    """
    _require_known(modalities, hidden)
    kept = [replace(row, images={name: at for name, at in row.images.items() if name not in hidden}) for row in rows]
    bare = [row.case_id for row in kept if not row.images]
    if bare:
        got = f"none of {len(bare)} cases, such as {bare[0]}"
        raise CaseError("E_MISSING_ROLE", f"Expected an image beside {', '.join(hidden)}, got {got}.")
    return kept


def with_shuffled_modalities(
    rows: Sequence[Row], modalities: Sequence[str], shuffled: Sequence[str], seed: int, within_class: bool = False
) -> list[Row]:
    """Give every case the shuffled modalities of another patient, drawn by chance: a control that fusion has to beat.

    Patients stand in a random circle and each takes from the next one; images that a network puts on top of one another
    have to lie on one grid. Within the class there is a circle for each class, so that all that a modality tells of the
    class alone stays: a network that loses nothing by it has not used that modalities are of one patient.

    Raises:
        UsageError: E_MODALITY when one of `shuffled` is not among `modalities`; E_FOLD when there is one patient only,
            or one of a class that is shuffled within itself.
    """
    _require_known(modalities, shuffled)
    if not shuffled:
        return list(rows)
    if not within_class:
        return _in_a_circle(rows, shuffled, seed)
    found: dict[str, Row] = {}
    for label in sorted({row.label for row in rows}):
        inside = [row for row in rows if row.label == label]
        found |= {row.case_id: row for row in _in_a_circle(inside, shuffled, seed)}
    return [found[row.case_id] for row in rows]


def _in_a_circle(rows: Sequence[Row], shuffled: Sequence[str], seed: int) -> list[Row]:
    cases: dict[str, list[Row]] = {}
    for row in rows:
        cases.setdefault(row.patient_id, []).append(row)
    if len(cases) < 2:
        raise UsageError("E_FOLD", "Expected two or more patients to shuffle modalities between, got one.")
    circle = np.random.default_rng(seed).permutation(list(cases)).tolist()
    next_of = dict(zip(circle, circle[1:] + circle[:1], strict=True))
    result = []
    for row in rows:
        givers = cases[next_of[row.patient_id]]
        giver = givers[cases[row.patient_id].index(row) % len(givers)]
        own = {name: at for name, at in row.images.items() if name not in shuffled}
        theirs = {name: giver.images[name] for name in shuffled if name in giver.images}
        result.append(replace(row, images=own | theirs))
    return result


def shuffled_split(
    found: Split, modalities: Sequence[str], shuffled: Sequence[str], seed: int, within_class: bool = False
) -> Split:
    """`with_shuffled_modalities` within the training cases, and within the validation cases."""
    how = (modalities, shuffled, seed, within_class)
    parts = (with_shuffled_modalities(part, *how) for part in (found.training, found.validation))
    training, validation = map(tuple, parts)
    return replace(found, training=training, validation=validation)


def _require_other_patients(split: Split, rows: Sequence[Row], table_name: str) -> None:
    learned = {row.patient_id for row in split.training}
    seen = [row.case_id for row in rows if row.patient_id in learned]
    if seen:
        got = f"{len(seen)} cases of those, such as {seen[0]}"
        raise UsageError("E_CAL_TRAINING", f"Expected other patients in {table_name} than in the training, got {got}.")


def _require_known(modalities: Sequence[str], asked: Sequence[str]) -> None:
    strangers = [name for name in asked if name not in modalities]
    if strangers:
        raise UsageError("E_MODALITY", f"Expected modalities among {', '.join(modalities)}, got {strangers[0]}.")
