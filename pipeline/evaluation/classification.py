"""Evaluate classifiers: every measure with its interval over patients, undefined ones with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.errors import UsageError
from pipeline.evaluation.decision import confusion_matrix, prevalences
from pipeline.evaluation.delong import delong, delong_interval
from pipeline.evaluation.intervals import BCA_BELOW, Interval, bootstrap_interval, leave_one_out, patient_resamples
from pipeline.evaluation.measures import Key, measure_values, undefined_reason
from pipeline.evaluation.predictions import Floats, Predictions
from pipeline.evaluation.results import Estimate, Evaluation, Settings

Replicates = dict[Key, Floats]


def evaluate(models: Mapping[str, Predictions], settings: Settings | None = None) -> tuple[Evaluation, ...]:
    """Evaluate models on the same cases.

    Args:
        models: name -> predictions; labels, patients and classes have to agree.
        settings: specificity, confidence, resamples, seed.

    Returns:
        One evaluation a model, in order.

    Raises:
        UsageError: E_ROWS when the models were not given the same cases; E_OPTION when a setting is out of range.
    """
    chosen = settings or Settings()
    require_settings(chosen)
    require_same_cases(models)
    drawn = bootstrap_replicates(tuple(models.values()), chosen)
    return tuple(_evaluation(name, models[name], found, chosen) for name, found in zip(models, drawn, strict=True))


def estimates_of(found: Predictions, specificity: float) -> dict[Key, float]:
    """The measures on all cases, NaN where they are undefined."""
    values = measure_values(found, np.ones((1, len(found.labels))), specificity)
    return {key: float(value[0]) for key, value in values.items()}


def bootstrap_replicates(models: Sequence[Predictions], settings: Settings) -> list[Replicates]:
    """The measures of every model on the same resamples of the patients, so that they can be paired.

    Returns:
        One dictionary a model: (measure, class) -> (resamples,).
    """
    blocks: list[list[Replicates]] = [[] for _ in models]
    generator = np.random.default_rng(settings.seed)
    for weights in patient_resamples(models[0].patients, settings.resamples, generator):
        for collected, found in zip(blocks, models, strict=True):
            collected.append(measure_values(found, weights, settings.specificity))
    return [{key: np.concatenate([block[key] for block in found]) for key in found[0]} for found in blocks]


def require_same_cases(models: Mapping[str, Predictions]) -> None:
    """Refuse models that were given different cases.

    Raises:
        UsageError: E_ROWS.
    """
    first, *others = models.values()
    for name, other in zip(list(models)[1:], others, strict=True):
        same = first.classes == other.classes and np.array_equal(first.labels, other.labels)
        if not same or not np.array_equal(first.patients, other.patients):
            raise UsageError("E_ROWS", f"Expected the same cases and classes for every model, got others for {name}.")


def require_settings(settings: Settings) -> None:
    """Refuse settings that are out of range.

    Raises:
        UsageError: E_OPTION.
    """
    if not (0 <= settings.specificity <= 1 and 0 < settings.confidence < 1 and settings.resamples >= 100):
        raise UsageError(
            "E_OPTION", "Expected a specificity in [0, 1], a confidence in (0, 1) and at least 100 resamples."
        )


def _evaluation(name: str, found: Predictions, drawn: Replicates, settings: Settings) -> Evaluation:
    values = estimates_of(found, settings.specificity)
    without: Replicates = {}
    if 1 < found.patient_count < BCA_BELOW:
        without = measure_values(found, leave_one_out(found.patients), settings.specificity)
    estimates: list[Estimate] = []
    for key, value in values.items():
        if not np.isfinite(value):
            estimates.append(Estimate(*key, value=None, note=undefined_reason(found, key)))
            continue
        interval = _interval(found, value, drawn[key], without.get(key), settings)
        estimates.append(_estimate(key, value, interval))
        if key[0] == "auroc" and key[1] in found.classes:
            estimates.append(_estimate(key, value, _delong(found, key[1], settings)))
    shares = dict(zip(found.classes, prevalences(found).tolist(), strict=True))
    confusion = tuple(tuple(row) for row in confusion_matrix(found).tolist())
    return Evaluation(name, len(found.labels), found.patient_count, shares, tuple(estimates), confusion, settings)


def _estimate(key: Key, value: float, interval: Interval) -> Estimate:
    return Estimate(*key, value, interval.low, interval.high, interval.method, interval.note)


def _interval(found: Predictions, value: float, drawn: Floats, without: Floats | None, settings: Settings) -> Interval:
    if found.patient_count < 2:
        return Interval(note="an interval takes at least two patients")
    return bootstrap_interval(value, drawn, without, settings.confidence)


def _delong(found: Predictions, of: str, settings: Settings) -> Interval:
    if not found.one_case_each:
        return Interval(note="DeLong's variance takes independent cases, and some patients have several")
    index = found.classes.index(of)
    areas = delong(found.probabilities[:, index], found.labels == index)
    return delong_interval(float(areas.values[0]), float(areas.covariance[0, 0]), settings.confidence)
