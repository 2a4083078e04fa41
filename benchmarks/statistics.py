"""Do the intervals cover, do the tests keep their level, do conformal sets keep their promise?

    .venv/bin/python -m benchmarks.statistics [--simulations 2000]

Prints the tables of docs/benchmarks/statistics.md. The truth is analytic: scores are normal in either class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from scipy.special import softmax
from scipy.stats import norm

from pipeline.calibration.conformal import ScoreRule, fit_sets
from pipeline.calibration.rows import Rows
from pipeline.evaluation.classification import bootstrap_p_value
from pipeline.evaluation.intervals import (
    Interval,
    bootstrap_interval,
    delong,
    delong_interval,
    delong_test,
    leave_one_out,
)
from pipeline.evaluation.measures import auroc, rank
from pipeline.probabilities import group_resamples

Array = npt.NDArray
Measure = Callable[[Array, Array, Array], Array]
PREVALENCE = 0.3
RESAMPLES = 2000


@dataclass(frozen=True)
class Coverage:
    """How often an interval held the truth, with the binomial standard error, and how often there was an interval."""

    rate: float
    error: float
    defined: float

    @classmethod
    def of(cls, intervals: list[Interval], truth: float) -> Coverage:
        """Count."""
        held = [item.low <= truth <= item.high for item in intervals if item.low is not None and item.high is not None]
        rate = float(np.mean(held))
        return cls(rate, (rate * (1 - rate) / len(held)) ** 0.5, len(held) / len(intervals))

    def __str__(self) -> str:
        text = f"{100 * self.rate:.1f} ± {100 * self.error:.1f}"
        return text if self.defined > 0.995 else f"{text} (of the {100 * self.defined:.0f} % with an interval)"


def scores_of(labels: Array, separation: float, generator: np.random.Generator, patients: Array | None = None) -> Array:
    """Normal scores of variance 1, `separation` apart: AUROC = Phi(separation / sqrt 2), accuracy Phi(separation / 2).

    With patients, two thirds of the variance are common to the cases of one patient.
    """
    own = generator.normal(size=len(labels))
    if patients is not None:
        common = generator.normal(size=int(patients.max()) + 1)[patients]
        own = np.sqrt(1 / 3) * own + np.sqrt(2 / 3) * common
    return own + separation * (labels - 0.5)


def area(scores: Array, labels: Array, weights: Array) -> Array:
    """AUROC under weights (B, N)."""
    return auroc(rank(scores, labels == 1, weights))


def accuracy(scores: Array, labels: Array, weights: Array) -> Array:
    """Accuracy of the cut at 0 under weights (B, N)."""
    return weights @ ((scores > 0) == (labels == 1)).astype(float) / weights.sum(axis=1)


def intervals(
    measure: Measure, data: tuple[Array, Array, Array], generator: np.random.Generator
) -> tuple[Interval, Interval]:
    """The percentile and the BCa interval of one data set: scores, labels, patients."""
    scores, labels, patients = data
    drawn = np.concatenate(
        [measure(scores, labels, weights) for weights in group_resamples(patients, RESAMPLES, generator)]
    )
    estimate = float(measure(scores, labels, np.ones((1, len(scores))))[0])
    without = measure(scores, labels, leave_one_out(patients))
    return bootstrap_interval(estimate, drawn, None), bootstrap_interval(estimate, drawn, without)


def coverage(
    measure: Measure, separation: float, count: int, simulations: int, seed: int = 0
) -> tuple[Coverage, Coverage]:
    """How often the percentile and the BCa interval hold the truth, with one case a patient."""
    generator, patients = np.random.default_rng(seed), np.arange(count)
    found = []
    for _ in range(simulations):
        labels = _labels(count, generator)
        data = (scores_of(labels, separation, generator), labels, patients)
        found.append(intervals(measure, data, generator))
    truth = float(norm.cdf(separation / (2**0.5 if measure is area else 2)))
    return Coverage.of([pair[0] for pair in found], truth), Coverage.of([pair[1] for pair in found], truth)


def delong_coverage(separation: float, count: int, simulations: int, seed: int = 0) -> Coverage:
    """How often DeLong's interval on the logit scale holds the truth."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(simulations):
        labels = _labels(count, generator)
        areas = delong(scores_of(labels, separation, generator), labels == 1)
        found.append(delong_interval(float(areas.values[0]), float(areas.covariance[0, 0])))
    return Coverage.of(found, float(norm.cdf(separation / 2**0.5)))


def clustered_coverage(
    by_patient: bool, simulations: int, patient_count: int = 100, seed: int = 0
) -> tuple[Coverage, Coverage]:
    """AUROC with one to five cases a patient, resampled by patient, or wrongly by case: percentile and BCa."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(simulations):
        patients = np.repeat(np.arange(patient_count), generator.integers(1, 6, patient_count))
        labels = _labels(patient_count, generator)[patients]
        units = patients if by_patient else np.arange(len(patients))
        data = (scores_of(labels, 1.19, generator, patients), labels, units)
        found.append(intervals(area, data, generator))
    truth = float(norm.cdf(1.19 / 2**0.5))
    return Coverage.of([pair[0] for pair in found], truth), Coverage.of([pair[1] for pair in found], truth)


def false_findings(count: int, simulations: int, seed: int = 0) -> tuple[float, float]:
    """How often two equally good models differ at p < 0.05: by paired bootstrap, and by DeLong's test."""
    generator = np.random.default_rng(seed)
    found = np.zeros((simulations, 2))
    for row in range(simulations):
        labels = _labels(count, generator)
        common = generator.normal(size=count)
        models = [1.19 * (labels - 0.5) + np.sqrt(0.5) * (common + generator.normal(size=count)) for _ in range(2)]
        weights = np.concatenate(list(group_resamples(np.arange(count), RESAMPLES, generator)))
        difference = area(models[0], labels, weights) - area(models[1], labels, weights)
        p_value = delong_test(delong(np.stack(models), labels == 1), 0, 1)[1]
        found[row] = bootstrap_p_value(difference[np.isfinite(difference)]) < 0.05, (p_value or 1.0) < 0.05
    return float(found[:, 0].mean()), float(found[:, 1].mean())


def class_set_coverage(rule: ScoreRule, splits: int, count: int = 300, alpha: float = 0.1) -> tuple[float, float]:
    """Mean coverage and mean size of sets of four classes over calibration sets of `count` cases."""
    generator = np.random.default_rng(1)
    held, sizes = np.empty(splits), np.empty(splits)
    for split in range(splits):
        probabilities, labels = _four_classes(2 * count, generator)
        fitted = fit_sets(Rows.of(np.log(probabilities[:count]), labels[:count], None), alpha, rule)
        found = fitted.predict(np.log(probabilities[count:]))
        held[split], sizes[split] = found[np.arange(count), labels[count:]].mean(), found.sum(axis=1).mean()
    return float(held.mean()), float(sizes.mean())


def _labels(count: int, generator: np.random.Generator) -> Array:
    """Labels with at least one of either class."""
    while True:
        labels = (generator.random(count) < PREVALENCE).astype(int)
        if 0 < labels.sum() < count:
            return labels


def _four_classes(count: int, generator: np.random.Generator) -> tuple[Array, Array]:
    """Probabilities of four classes that are true, and labels drawn from them."""
    probabilities = softmax(generator.normal(0, 1.5, (count, 4)), axis=1)
    labels = (probabilities.cumsum(axis=1) < generator.random((count, 1))).sum(axis=1)
    return probabilities, np.minimum(labels, 3)


def main(simulations: Annotated[int, typer.Option(min=100)] = 2000) -> None:
    """Print every table."""
    print(
        f"Nominal 95 %, {simulations} simulations a row, {RESAMPLES} resamples, prevalence {PREVALENCE}; "
        "± standard error.\n"
    )
    print("| patients | truth | measure | percentile | BCa | DeLong (logit) |\n|---|---|---|---|---|---|")
    for count in (20, 30, 50, 100, 200, 500):
        for separation in (1.19, 2.33):
            for name, measure, divisor in (("AUROC", area, 2**0.5), ("accuracy", accuracy, 2.0)):
                line = [str(found) for found in coverage(measure, separation, count, simulations)]
                line.append(str(delong_coverage(separation, count, simulations)) if measure is area else "–")
                truth = norm.cdf(separation / divisor)
                print(f"| {count} | {truth:.3f} | {name} | {' | '.join(line)} |", flush=True)
    print("\n| 100 patients, one to five cases each: AUROC, resampled by | percentile | BCa |\n|---|---|---|")
    for by_patient in (True, False):
        percentile, bca = clustered_coverage(by_patient, simulations)
        print(f"| {'patient' if by_patient else 'case (wrong)'} | {percentile} | {bca} |", flush=True)
    print("\n| cases | two equal models found different at p < 0.05: paired bootstrap | DeLong |\n|---|---|---|")
    for count in (50, 100, 300):
        first, second = false_findings(count, simulations)
        print(f"| {count} | {100 * first:.1f} % | {100 * second:.1f} % |", flush=True)
    print_conformal()


def print_conformal(splits: int = 1000) -> None:
    """The table of conformal sets."""
    print(f"\n{splits} calibration sets a row, alpha 0.1.\n")
    print("| sets of four classes, n = 300 | coverage | mean size |\n|---|---|---|")
    for rule in (ScoreRule("lac"), ScoreRule("aps"), ScoreRule("raps", 0.05, 1)):
        held, size = class_set_coverage(rule, splits)
        print(f"| {rule.method.upper()} | {held:.4f} | {size:.2f} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
