"""Streams, inputs that share no grid, in figures: sections of docs/benchmarks/streams.md.

    python -m benchmarks.streams OUT --mechanisms --features --paired --cohort

`--features`: what it saves to compute what a frozen encoder says once a case; a minute.

`--mechanisms`: additive and exclusive, with known posteriors, on a volume of 16³ and an image of 24². 24 trainings, two
at a time, about a quarter of an hour on two cores. It can be stopped and started again: what is done is not repeated.

`--paired`: three images of four classes, each of another person, with a known posterior.

`--cohort`: 200 patients by one command, beside a shell loop of bundles.
"""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks import stream_cohort, stream_features, stream_paired, stream_trials
from benchmarks.document import write_section
from pipeline.console import echo

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks" / "streams.md"
INTRODUCTION = f"""## Fusion without a common grid

Each network learns from {stream_trials.TRAINING:,} simulated cases and is judged by {stream_trials.TESTED:,} others;
{len(stream_trials.SEEDS)} seeds, each with cases of its own. A case is a volume of 16 × 16 × 16 and an image of
24 × 24; in each of them how bright an ellipsoid is, somewhere in the noise, is the stream's cue. Only the class is
learned from. Epochs, rate, dropout and weight decay were chosen on cases of other seeds, after two other recipes had
missed a target of A by less than .03 on these."""


def run_alone(out: Path, mechanism: stream_trials.Mechanism) -> None:
    """Run a mechanism on one core."""
    torch.set_num_threads(1)
    stream_trials.run(out, mechanism)


def main(
    out: Path,
    mechanisms: Annotated[bool, typer.Option("--mechanisms", help="Train on simulated mechanisms.")] = False,
    features: Annotated[bool, typer.Option("--features", help="Time epochs of frozen encoders.")] = False,
    paired: Annotated[bool, typer.Option("--paired", help="Train on cases made of one class's files.")] = False,
    paired_seed: Annotated[int, typer.Option(help="Of these cases.")] = stream_paired.CASES_SEED,
    cohort: Annotated[bool, typer.Option("--cohort", help="Time a cohort beside a shell loop.")] = False,
    page: Annotated[Path, typer.Option(help="The page whose sections are written.")] = PAGE,
) -> None:
    """Measure what is asked for."""
    if not (mechanisms or features or paired or cohort):
        raise typer.BadParameter("Expected something to measure: --mechanisms, --features, --paired, --cohort.")
    if features:
        torch.set_num_threads(1)
        write_section(page, "Streams", "features", stream_features.section(out / "features"))
    if mechanisms:
        write_section(page, "Streams", "mechanisms", measure_mechanisms(out))
    if paired:
        torch.set_num_threads(1)
        stream_paired.run(out, paired_seed)
        write_section(page, "Streams", f"paired-{paired_seed}", stream_paired.section(out, paired_seed))
    if cohort:
        write_section(page, "Streams", "cohort", stream_cohort.section(out / "cohort"))
    echo(f"Written: {page}")


def measure_mechanisms(out: Path) -> str:
    """Train on both mechanisms, each on a core of its own, and say what was found."""
    started, kinds = time.perf_counter(), list(stream_trials.HEADINGS)
    with ProcessPoolExecutor(len(kinds), multiprocessing.get_context("spawn")) as pool:
        for done in [pool.submit(run_alone, out, kind) for kind in kinds]:
            done.result()
    echo(f"{(time.perf_counter() - started) / 60:.1f} min")
    return "\n\n".join([INTRODUCTION, *(stream_trials.section(out, kind) for kind in kinds)])


if __name__ == "__main__":
    typer.run(main)
