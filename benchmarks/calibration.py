"""Simulations with known truth behind the figures of calibration: recovery, nulls, coverage, speed and memory.

    OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.calibration [--simulations 1000] [--costs-alone]

Prints the tables of docs/benchmarks/calibration.md.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks.calibration_measures import ALL
from pipeline.calibration import METHODS, About, Resampling, measures
from pipeline.calibration.comparison import compare

ABOUT = About("simulation", "2026-01-01")
TRUE_TEMPERATURE = 2.0
COVERED = ("nll", "brier", "ks", "ece", "ece_debiased", "squared_error_debiased", "mce")


def main(
    simulations: Annotated[int, typer.Option(min=10)] = 1000,
    resamples: Annotated[int, typer.Option(min=100)] = 400,
    costs_alone: Annotated[bool, typer.Option("--costs-alone")] = False,
) -> None:
    """Print every table."""
    if not costs_alone:
        print_recovery(simulations)
        print_nulls(simulations, resamples)
        print_coverage(simulations, resamples)
    print_costs()
    print_recommendation()


def simulate(
    random: np.random.Generator, rows: int, temperature: float = TRUE_TEMPERATURE, classes: int = 3
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits z ~ N(0, 9), the probabilities softmax(z / temperature), and labels drawn from softmax(z / 2)."""
    logits = 3 * random.normal(size=(rows, classes))
    true = softmax(logits / TRUE_TEMPERATURE)
    labels = (random.random((rows, 1)) > true.cumsum(axis=1)[:, :-1]).sum(axis=1)
    return logits, softmax(logits / temperature), labels


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N, C)."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def print_recovery(simulations: int) -> None:
    """T of temperature scaling over simulated sets of three sizes, against the reported standard error."""
    print("## Temperature recovered (truth 2)\n\n| classes | cases | T, mean ± SD | mean reported standard error |")
    print("|---|---|---|---|")
    random = np.random.default_rng(1)
    for classes in (3, 5, 10):
        for rows, repeats in ((200, simulations), (1000, simulations // 2), (10_000, simulations // 10)):
            found, errors = [], []
            for _ in range(repeats):
                logits, _, labels = simulate(random, rows, classes=classes)
                fitted = METHODS["temperature"].fit_rows(rows_of(logits, labels), ABOUT)
                found.append(fitted.temperature)
                errors.append(fitted.temperature * fitted.relative_error)
            spread = f"{np.mean(found):.3f} ± {np.std(found):.3f}"
            print(f"| {classes} | {rows} | {spread} | {np.mean(errors):.3f} |", flush=True)
    print()


def rows_of(logits: np.ndarray, labels: np.ndarray):  # type: ignore[no-untyped-def]
    """Checked rows."""
    from pipeline.calibration.rows import Rows

    return Rows.of(logits, labels)


def print_nulls(simulations: int, resamples: int) -> None:
    """How often a perfectly calibrated model lies in the null interval that is printed beside it."""
    print("## Perfect model inside its 95 % null interval\n\n| measure | cases | inside (%) |\n|---|---|---|")
    random = np.random.default_rng(2)
    names = ("ece", "ece_equal_mass", "ece_debiased", "ece_classwise", "ks", "mce", "brier", "nll")
    kinds = {name: ALL[name] for name in names}
    for rows in (200, 1000):
        inside = dict.fromkeys(names, 0)
        for number in range(simulations):
            _, probabilities, labels = simulate(random, rows)
            for item in measures(
                probabilities, labels, kinds=kinds, resampling=Resampling(resamples=resamples, seed=number)
            ):
                inside[item.name] += item.null_low <= item.value <= item.null_high
        for name in names:
            print(f"| {name} | {rows} | {100 * inside[name] / simulations:.1f} |", flush=True)
    print()


def print_coverage(simulations: int, resamples: int) -> None:
    """How often the bootstrap interval holds the figure that an endless number of cases would give."""
    print("## Bootstrap intervals (95 %): how often they hold the truth\n")
    print("| model | measure | cases | truth | mean | inside (%) |\n|---|---|---|---|---|---|")
    random = np.random.default_rng(3)
    for model, temperature in (("overconfident, T 1 for 2", 1.0), ("nearly calibrated, T 1.7 for 2", 1.7)):
        truth = endless(random, temperature)
        for rows in (200, 500, 1000):
            inside, values = dict.fromkeys(COVERED, 0), {name: 0.0 for name in COVERED}
            for number in range(simulations):
                _, probabilities, labels = simulate(random, rows, temperature)
                settings = Resampling(resamples=resamples, seed=number)
                for item in measures(
                    probabilities, labels, kinds={name: ALL[name] for name in COVERED}, resampling=settings
                ):
                    inside[item.name] += item.low <= truth[item.name] <= item.high
                    values[item.name] += item.value / simulations
            for name in COVERED:
                share = f"{100 * inside[name] / simulations:.1f}"
                print(f"| {model} | {name} | {rows} | {truth[name]:.4f} | {values[name]:.4f} | {share} |", flush=True)
    print()


def endless(random: np.random.Generator, temperature: float) -> dict[str, float]:
    """The measures on two million cases."""
    found = []
    for _ in range(8):
        _, probabilities, labels = simulate(random, 250_000, temperature)
        one = np.ones((1, len(labels)))
        found.append([float(ALL[name].kernel(probabilities, 15)(one, labels[None])[0]) for name in COVERED])
    return dict(zip(COVERED, np.mean(found, axis=0).tolist(), strict=True))


def print_costs() -> None:
    """Seconds and memory of the largest jobs."""
    print("## Costs\n\n| job | seconds | memory beside the data (MB) | data (MB) |\n|---|---|---|---|")
    generator = torch.Generator().manual_seed(4)
    small = 3 * torch.randn(2000, 3, generator=generator)
    labels = torch.multinomial(torch.softmax(small / 2, 1), 1, generator=generator)[:, 0]
    # the first search imports what torch needs for it
    fitted = {
        name: METHODS[name].fit_rows(rows_of(small, labels), ABOUT) for name in ("temperature", "vector", "matrix")
    }
    print_fit_cost(generator)
    volume = torch.randn(3, 512, 512, 300, generator=generator).mul_(3)
    for name, calibration in fitted.items():
        print_cost(f"apply {name}, 3 x 512 x 512 x 300 float32", volume, lambda found=calibration: found.apply(volume))


def print_recommendation(rows: int = 5000, classes: int = 10) -> None:
    """Processor seconds of the whole command that compares all methods, and which of them cannot be fitted."""
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, rows)
    logits = random.normal(0, 1.2, (rows, classes))
    logits[np.arange(rows), labels] += 3.0
    with TemporaryDirectory() as folder:
        files = {name: str(Path(folder, f"{name}.npy")) for name in ("logits", "labels")}
        np.save(files["logits"], 2.2 * logits)
        np.save(files["labels"], labels)
        options = [word for name, path in files.items() for word in (f"--{name}", path)]
        command = [sys.executable, "-m", "pipeline.cli", "calibrate", *options, "--method", "recommended"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*command, "--out", str(Path(folder, "found.json"))], capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    faults = [item.name for item in compare(2.2 * logits, labels).candidates if item.fault]
    job = f"`tandem calibrate --method recommended`, {rows:,} x {classes}"
    print(f"\n{job}: {spent:.1f} s of processor time; methods that cannot be fitted: {', '.join(faults) or 'none'}.")


def print_fit_cost(generator: torch.Generator) -> None:
    """Temperature on many classes."""
    logits = 3 * torch.randn(50_000, 1000, generator=generator)
    parts = (torch.softmax(part / 2, 1) for part in logits.split(1000))
    labels = torch.cat([torch.multinomial(part, 1, generator=generator)[:, 0] for part in parts])
    job = "fit temperature, 50,000 x 1,000 float32"
    print_cost(job, logits, lambda: METHODS["temperature"].fit(logits, labels, ABOUT))


def print_cost(job: str, data: torch.Tensor, run) -> None:  # type: ignore[no-untyped-def]
    """Run one job; the memory is how much the process's peak rises, so larger jobs come later."""
    before, started = peak_mb(), time.perf_counter()
    run()
    seconds, size = time.perf_counter() - started, data.numel() * data.element_size() / 2**20
    print(f"| {job} | {seconds:.1f} | {peak_mb() - before:.0f} | {size:.0f} |", flush=True)


def peak_mb() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    typer.run(main)
