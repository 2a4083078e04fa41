"""Compare variants of the fusion network on mechanisms whose truth is known: its section of docs/benchmarks/fusion.md.

    python -m benchmarks.fusion OUT

About an hour of one core's time. It can be stopped and started again: a training that is done is not repeated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.document import write_section
from benchmarks.mechanism_page import sections
from benchmarks.mechanism_trials import Scale, plans, run_plans, trials_left
from pipeline.console import echo
from pipeline.errors import PipelineError

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
        echo(f"{left} trainings are left: run the command again.")
        return
    write_section(page, "Fusion", "mechanisms", sections(found, scale))
    echo(f"Written: {page}")


if __name__ == "__main__":
    try:
        app()
    except PipelineError as error:
        echo(str(error), error=True)
        raise SystemExit(2) from error
