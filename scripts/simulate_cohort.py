"""Simulate a cohort of CT and MR heads as hospital DICOM, with the truth beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.typed import script
from pipeline.errors import UsageError
from pipeline.simulation.cohort import simulate_cohort


def main(
    out: Annotated[Path, typer.Option(help="Where to write dicom/ and truth/.")],
    cases: Annotated[int, typer.Option(help="How many patients.")] = 6,
    spacing_mm: Annotated[float, typer.Option(help="Voxel size of the CT in mm.")] = 3.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same files.")] = 0,
    faulty: Annotated[int, typer.Option(help="How many of the patients miss a slice in their CT.")] = 1,
) -> None:
    """Simulate a cohort of CT and MR heads with known truth (needs the extra `demo`)."""
    try:
        cohort = simulate_cohort(out, cases, spacing_mm, seed, faulty)
    except UsageError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    typer.echo(f"DICOM of {len(cohort.patients)} patients: {cohort.dicom}")
    typer.echo(f"Truth to compare with: {cohort.truth}")
    for patient in cohort.patients:
        if patient.faulty:
            typer.echo(f"{patient.patient_id} has to be set aside with {patient.expected_code}.")


if __name__ == "__main__":
    script(main)
