"""Evaluate and compare classifiers: measures with intervals over patients, paired tests, Holm's correction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from pipeline.errors import UsageError
from pipeline.evaluation.decision import confusion_matrix, prevalences
from pipeline.evaluation.intervals import (
    BCA_BELOW,
    Areas,
    Interval,
    bootstrap_interval,
    delong,
    delong_interval,
    delong_test,
    leave_one_out,
)
from pipeline.evaluation.measures import Key, measure_values, undefined_reason
from pipeline.evaluation.results import ALL, MACRO, Comparison, Estimate, Evaluation, Floats, Predictions, Settings
from pipeline.probabilities import group_resamples

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
    for weights in group_resamples(models[0].patients, settings.resamples, generator):
        for collected, found in zip(blocks, models, strict=True):
            collected.append(measure_values(found, weights, settings.specificity))
    return [{key: np.concatenate([block[key] for block in found]) for key in found[0]} for found in blocks]


def require_same_cases(models: Mapping[str, Predictions]) -> None:
    """Raise E_ROWS for models that were given different cases."""
    first, *others = models.values()
    for name, other in zip(list(models)[1:], others, strict=True):
        same = first.classes == other.classes and np.array_equal(first.labels, other.labels)
        if not same or not np.array_equal(first.patients, other.patients):
            raise UsageError("E_ROWS", f"Expected the same cases and classes for every model, got others for {name}.")


def require_settings(settings: Settings) -> None:
    """Raise E_OPTION for settings that are out of range."""
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


def compare(models: Mapping[str, Predictions], settings: Settings | None = None) -> tuple[Comparison, ...]:
    """Compare every pair of models on what sums a model up: of two classes, class 1; of more, the macro average.

    The interval and the p value come from the differences on the same resamples of the patients (percentiles). AUROC
    of two classes is compared by DeLong's test as well, where no patient has two cases.

    Args:
        models: name -> predictions; labels, patients and classes have to agree.
        settings: specificity, confidence, resamples, seed.

    Returns:
        One comparison a measure and pair; none for a single model.

    Raises:
        UsageError: E_ROWS when the models were not given the same cases; E_OPTION when a setting is out of range.
    """
    chosen = settings or Settings()
    require_settings(chosen)
    require_same_cases(models)
    pairs = list(combinations(models, 2))
    if not pairs:
        return ()
    values = {name: estimates_of(found, chosen.specificity) for name, found in models.items()}
    drawn = dict(zip(models, bootstrap_replicates(tuple(models.values()), chosen), strict=True))
    found: list[Comparison] = []
    for key in _summaries(next(iter(models.values())), values):
        found += holm_corrected(_paired(key, pair, models, values, drawn, chosen) for pair in pairs)
        if key[0] == "auroc" and key[1] != MACRO:
            found += holm_corrected(_delong_tests(key, pairs, models, chosen))
    return tuple(found)


def holm(p_values: Sequence[float]) -> Floats:
    """P values that hold for all tests together: the chance of any false finding stays below the level.

    Args:
        p_values: (T,).

    Returns:
        (T,) adjusted, at most 1.

    Source: Holm 1979, Scandinavian Journal of Statistics 6.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    raised = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(raised, 1.0)
    return adjusted


def holm_corrected(comparisons: Iterable[Comparison]) -> list[Comparison]:
    """Fill in `p_holm` over the comparisons that have a p value."""
    items = list(comparisons)
    defined = [item.p_value for item in items if item.p_value is not None]
    adjusted = iter(holm(defined).tolist())
    return [item if item.p_value is None else replace(item, p_holm=next(adjusted)) for item in items]


def bootstrap_p_value(differences: Floats) -> float:
    """Two-sided p value: how far the resampled differences lie to one side of 0, never less than 2 / (B + 1).

    Args:
        differences: (B,) finite.

    Source: Davison, Hinkley 1997, Bootstrap Methods and their Application, section 4.4 (with the 1 added).
    """
    tail = min((differences <= 0).sum(), (differences >= 0).sum())
    return float(min(1.0, 2 * (tail + 1) / (len(differences) + 1)))


def _summaries(found: Predictions, values: Mapping[str, Mapping[Key, float]]) -> list[Key]:
    wanted = {ALL, MACRO} if len(found.classes) > 2 else {ALL, found.classes[1]}
    return [key for key in next(iter(values.values())) if key[1] in wanted]


def _paired(
    key: Key,
    pair: tuple[str, str],
    models: Mapping[str, Predictions],
    values: Mapping[str, Mapping[Key, float]],
    drawn: Mapping[str, Replicates],
    settings: Settings,
) -> Comparison:
    first, second = pair
    difference = values[first][key] - values[second][key]
    if not np.isfinite(difference):
        reasons = {name: undefined_reason(models[name], key) for name in pair if not np.isfinite(values[name][key])}
        return Comparison(*key, first, second, None, note="; ".join(f"{name}: {why}" for name, why in reasons.items()))
    if models[first].patient_count < 2:
        return Comparison(*key, first, second, difference, note="a comparison takes at least two patients")
    replicates = drawn[first][key] - drawn[second][key]
    interval = bootstrap_interval(difference, replicates, None, settings.confidence)
    if interval.low is None:
        return Comparison(*key, first, second, difference, note=interval.note)
    p_value = bootstrap_p_value(replicates[np.isfinite(replicates)])
    return Comparison(
        *key, first, second, difference, interval.low, interval.high, p_value, None, interval.method, interval.note
    )


def _delong_tests(
    key: Key, pairs: Sequence[tuple[str, str]], models: Mapping[str, Predictions], settings: Settings
) -> list[Comparison]:
    """DeLong's paired test of each pair, with a normal interval of the difference."""
    one = next(iter(models.values()))
    index = one.classes.index(key[1])
    positive = one.labels == index
    if not one.one_case_each or positive.all() or not positive.any():
        return []
    areas = delong(np.stack([found.probabilities[:, index] for found in models.values()]), positive)
    names = list(models)
    return [_tested(key, pair, areas, (names.index(pair[0]), names.index(pair[1])), settings) for pair in pairs]


def _tested(key: Key, pair: tuple[str, str], areas: Areas, places: tuple[int, int], settings: Settings) -> Comparison:
    from scipy.stats import norm

    difference = float(areas.values[places[0]] - areas.values[places[1]])
    error, p_value = delong_test(areas, *places)
    if p_value is None:
        why = "the models rank the cases alike, or there are fewer than two cases of either kind"
        return Comparison(*key, *pair, difference, method="DeLong", note=why)
    half = float(norm.ppf((1 + settings.confidence) / 2)) * error
    return Comparison(*key, *pair, difference, difference - half, difference + half, p_value, None, "DeLong")
