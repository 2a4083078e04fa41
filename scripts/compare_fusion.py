"""Compare variants of the fusion network: train, judge and calibrate each with every seed, and write one report.

    python scripts/compare_fusion.py mechanisms OUT
    python scripts/compare_fusion.py table CASES.csv OUT --modalities ct,mr

`mechanisms` is about an hour of one core's time and writes its section of docs/benchmarks/fusion.md. Both can be
stopped and started again: a training that is done is not repeated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.comparison.cohort import compare_table
from pipeline.comparison.document import write_section
from pipeline.comparison.mechanism_page import sections
from pipeline.comparison.mechanisms import Scale, plans, run_plans, trials_left
from pipeline.errors import PipelineError
from pipeline.progress import say

app = typer.Typer(add_completion=False, help=__doc__)
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks" / "fusion.md"


@app.command()
def mechanisms(
    out: Path,
    until_minutes: Annotated[float, typer.Option(help="Start no training after so long; run again for the rest.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each variant, with the seeds 0, 1 …")] = 3,
    page: Annotated[Path, typer.Option(help="The page whose section is written.")] = PAGE,
) -> None:
    """Additive, exclusive and texture, with known posteriors; a missing modality; calibrated probabilities."""
    scale = Scale(seeds=tuple(range(seeds)))
    found = plans(out, scale)
    run_plans(found, 60 * until_minutes or float("inf"))
    if left := trials_left(found):
        say(f"{left} trainings are left: run the command again.")
        return
    write_section(page, "Fusion", "mechanisms", sections(found, scale))
    say(f"Written: {page}")


@app.command()
def table(
    cases: Annotated[Path, typer.Argument(help="case_id, patient_id, a column for each modality, label.")],
    out: Path,
    modalities: Annotated[str, typer.Option(help="Names of columns, with commas.")] = "ct,mr",
    ct_modalities: Annotated[str, typer.Option(help="Those of them that are CT, in HU.")] = "ct",
    classes: int = 2,
    folds: int = 5,
    seeds: int = 3,
    settings: Annotated[list[str], typer.Option(help="KEY=VALUE of train.yaml, such as max_epochs=50.")] = [],  # noqa: B006
) -> None:
    """A labelled cohort: each modality alone, early, intermediate and late, on folds that keep patients together."""
    chosen: dict[str, Any] = dict(item.partition("=")[::2] for item in settings)
    for line in compare_table(cases, out, _names(modalities), _names(ct_modalities), classes, folds, seeds, chosen):
        say(line)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


if __name__ == "__main__":
    try:
        app()
    except PipelineError as error:
        say(str(error), error=True)
        raise SystemExit(2) from error
