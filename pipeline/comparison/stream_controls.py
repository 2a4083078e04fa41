"""Controls of classification by streams: what a regression reaches that sees no disease, and what shuffling takes away.

Source: Zech et al., PLoS Med 15(11), 2018; DeGrave et al., Nat Mach Intell 3, 2021 (networks that tell the hospital).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.columns import read_rows
from pipeline.comparison.linear import out_of_fold
from pipeline.comparison.stream_features import (
    Fact,
    fact_features,
    file_facts,
    frame,
    read_raw,
    thumbnail,
    told_fact,
)
from pipeline.errors import UsageError
from pipeline.evaluation.classification import evaluate
from pipeline.evaluation.results import Evaluation, Predictions, Settings, predictions
from pipeline.learning.table import Row, with_folds

Floats = npt.NDArray[np.float64]
#: What a regression is given of every case, and what it is called.
FACTS, FRAME, THUMBNAIL = "File facts", "Frame", "Thumbnail"


@dataclass(frozen=True, eq=False)
class ControlFindings:
    """What the controls have found.

    Attributes:
        by_patient: one evaluation a control, on folds that keep patients together.
        random: the same on folds drawn case by case; empty where every case is a patient of its own.
    """

    by_patient: tuple[Evaluation, ...]
    random: tuple[Evaluation, ...]


def controls(
    rows: Sequence[Row],
    streams: Sequence[str],
    folds: int = 5,
    seed: int = 0,
    told: Mapping[str, Mapping[str, Fact]] | None = None,
    settings: Settings | None = None,
    judged: Sequence[int] = (),
) -> ControlFindings:
    """Tell the class by what is no disease, by logistic regression on the folds of the networks.

    Args:
        rows: of the table; a class known of each. Folds of the table's own are kept.
        streams: names of the columns that are looked at; all of them together.
        folds: where the table has none.
        seed: of the folds.
        told: case id -> further facts, such as `told_facts` reads from a table.
        settings: of the intervals.
        judged: folds whose cases are judged; all when empty. Folds drawn case by case are all judged.

    Returns:
        Of `File facts`, `Frame` (without sounds) and `Thumbnail` the measures with intervals over patients.

    Raises:
        UsageError: E_LABEL for a case without class; E_FOLD; E_MODALITY for a stream that no case has.
        CaseError: E_UNREADABLE for a file that is damaged.
    """
    labels = np.array([row.label for row in rows])
    if labels.size == 0 or labels.min() < 0:
        raise UsageError("E_LABEL", "Expected a class of every case that a control is judged by, got one without.")
    placed = with_folds(rows, folds, seed)
    features = control_features(placed, streams, told or {})
    found = _judged(placed, features, settings, judged)
    alone = len({row.patient_id for row in rows}) == len(rows)
    drawn = () if alone else _judged(_at_random(placed, seed), features, settings)
    return ControlFindings(found, drawn)


def control_features(
    rows: Sequence[Row], streams: Sequence[str], told: Mapping[str, Mapping[str, Fact]]
) -> dict[str, Floats]:
    """Control -> (N, F) of all streams together; NaN where a case lacks a stream."""
    facts: list[dict[str, Fact]] = [dict(told.get(row.case_id, {})) for row in rows]
    pictures: dict[str, list[Floats]] = {FRAME: [], THUMBNAIL: []}
    for name in streams:
        looks = [_look(row.images[name]) if name in row.images else None for row in rows]
        if not any(looks):
            raise UsageError("E_MODALITY", f"Expected cases with the stream {name}, got none.")
        for fact, look in zip(facts, looks, strict=True):
            fact[f"{name} there"] = float(look is not None)
            fact |= {f"{name} {key}": value for key, value in (look.facts if look else {}).items()}
        pictures[FRAME] += _stacked([None if look is None else look.frame for look in looks])
        pictures[THUMBNAIL] += _stacked([None if look is None else look.thumbnail for look in looks])
    shown = {control: np.concatenate(parts, 1) for control, parts in pictures.items() if parts}
    return {FACTS: fact_features(facts), **shown}


def told_facts(table: Path, columns: Sequence[str]) -> dict[str, dict[str, Fact]]:
    """Case id -> facts that columns of a table tell: sides such as `1024x1024`, numbers, words.

    Raises:
        UsageError: E_TABLE when a column is not there.
    """
    rows = read_rows(table, ["case_id", *columns])
    return {
        row["case_id"]: {key: value for name in columns for key, value in told_fact(name, row[name]).items()}
        for row in rows
    }


@dataclass(frozen=True, eq=False)
class _Look:
    """What is kept of one file: thousands of volumes do not fit into memory."""

    facts: dict[str, Fact]
    frame: Floats | None
    thumbnail: Floats


def _look(path: Path) -> _Look:
    raw = read_raw(path)
    return _Look(file_facts(path, raw), frame(raw), thumbnail(raw))


def _stacked(seen: Sequence[Floats | None]) -> list[Floats]:
    """(N, F) in a list, NaN where a case lacks its file; nothing where no file has any."""
    length = next((len(part) for part in seen if part is not None), 0)
    return [np.stack([np.full(length, np.nan) if part is None else part for part in seen])] if length else []


def _judged(
    rows: Sequence[Row], features: Mapping[str, Floats], settings: Settings | None, judged: Sequence[int] = ()
) -> tuple[Evaluation, ...]:
    labels, folds = (np.array(part) for part in zip(*[(row.label, row.fold) for row in rows], strict=True))
    names = [row.patient_id for row in rows]
    patients = np.unique(names, return_inverse=True)[1]
    classes = int(labels.max()) + 1
    seen = np.isin(folds, judged or folds)
    models: dict[str, Predictions] = {}
    for name, values in features.items():
        chances = out_of_fold(values, labels, folds, patients, classes, judged=judged)
        models[name] = predictions(chances[seen], labels[seen], np.array(names)[seen].tolist(), name=name)
    return evaluate(models, settings)


def _at_random(rows: Sequence[Row], seed: int) -> list[Row]:
    """The same number of folds, case by case, with classes balanced."""
    from sklearn.model_selection import StratifiedKFold

    count = len({row.fold for row in rows})
    splitter = StratifiedKFold(count, shuffle=True, random_state=seed)
    folds = np.zeros(len(rows), np.int64)
    for number, (_, inside) in enumerate(splitter.split(np.zeros(len(rows)), [row.label for row in rows])):
        folds[inside] = number
    return [replace(row, fold=int(fold)) for row, fold in zip(rows, folds, strict=True)]
