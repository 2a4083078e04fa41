"""Cohorts of signatures whose truth is known, and their tables."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.signature.table import Cohort, Outcome

Floats = npt.NDArray[np.float64]


def cohort_of(values: Floats, event: Sequence[bool] | npt.NDArray[np.bool_], **more: object) -> Cohort:
    cases = len(values)
    names = tuple(f"case-{number}" for number in range(cases))
    found = Cohort(
        names, np.arange(cases), tuple(f"f{at}" for at in range(values.shape[1])), values, Outcome(np.array(event))
    )
    return replace(found, **more)  # type: ignore[arg-type]


def noise(cases: int, features: int, seed: int) -> Cohort:
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(cases, 10)) @ rng.normal(size=(10, features))
    return cohort_of(common + 2 * rng.normal(size=(cases, features)), np.arange(cases) % 3 == 0)


def planted(cases: int, seed: int) -> Cohort:
    """Features 3 and 11 raise the odds alike; 12 is nearly 11; AUROC of the truth is .88."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(cases, 60))
    values[:, 12] = values[:, 11] + 0.1 * rng.normal(size=cases)
    odds = 2 * (values[:, 3] + values[:, 11])
    return cohort_of(values * 5 + 100, rng.random(cases) < 1 / (1 + np.exp(-odds)))


def write(path: Path, cohort: Cohort, more: dict[str, Sequence[object]] | None = None) -> Path:
    columns: dict[str, Sequence[object]] = {
        "case_id": cohort.case_ids,
        "outcome": cohort.outcome.event.astype(int).tolist(),
    }
    columns |= {name: values.tolist() for name, values in zip(cohort.features, cohort.values.T, strict=True)}
    columns |= more or {}
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path
