"""Learn a radiomics signature from a table of features, and say honestly how good it is.

python -m scripts.radiomics_signature features.csv --outcome recurrence --out signature
python -m scripts.radiomics_signature features.csv --time months --event death --out signature
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from benchmarks.signature.nested import Design
from benchmarks.signature.page import write_signature
from benchmarks.signature.signature import signature
from benchmarks.signature.table import Columns, feature_named, read_cohort, volume_of
from pipeline.commands.typed import script
from pipeline.errors import PipelineError, UsageError
from pipeline.store.files import writable_folder


def main(  # noqa: PLR0913 - one flag for each setting
    table: Annotated[Path, typer.Argument(help="CSV: case_id, patient_id where there is one, features, outcome.")],
    out: Annotated[Path, typer.Option(help="Where the results go.")],
    outcome: Annotated[str, typer.Option(help="Column of the class, 0 or 1.")] = "",
    time: Annotated[str, typer.Option(help="Column of the time until the event or the last visit.")] = "",
    event: Annotated[str, typer.Option(help="Column that is 1 where the event was seen, else 0.")] = "",
    batch: Annotated[str, typer.Option(help="Column of the scanner or centre, whose effect ComBat takes out.")] = "",
    volume: Annotated[str, typer.Option(help="Column of the volume; morph_volume where there is one.")] = "",
    baseline: Annotated[
        list[str] | None, typer.Option(help="A feature to judge alone, by its column's end; repeatable.")
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="A column that is no feature; repeatable.")] = None,
    select: Annotated[str, typer.Option(help="mrmr or l1.")] = "mrmr",
    folds: Annotated[int, typer.Option(help="Of the patients.")] = 5,
    repeats: Annotated[int, typer.Option(help="With other folds.")] = 5,
    permutations: Annotated[int, typer.Option(help="Of the outcome; 0 for no p value.")] = 200,
    seed: Annotated[int, typer.Option(help="The same seed gives the same files.")] = 0,
) -> None:
    """Learn a signature by nested cross-validation; write signature.md, signature.json, features.csv and scores.csv."""
    try:
        design = _design(select=select, folds=folds, repeats=repeats, permutations=permutations, seed=seed)
        cohort = read_cohort(table, Columns(outcome, time, event, batch, tuple(ignore or ())))
        beside = dict.fromkeys([*volume_of(cohort, volume), *(feature_named(cohort, name) for name in baseline or ())])
        found = signature(cohort, design, tuple(beside))
        write_signature(found, writable_folder(out))
    except PipelineError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    for item in found.measured:
        typer.echo(f"{item.name}: {cohort.outcome.measure} {item.value:.3f}")
    typer.echo(f"Results: {out / 'signature.md'}")


def _design(**given: object) -> Design:
    try:
        return Design.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        key, got = ".".join(map(str, first["loc"])), first["input"]
        raise UsageError("E_OPTION", f"Expected another {key}: {first['msg']}, got {got}.") from error


if __name__ == "__main__":
    script(main)
