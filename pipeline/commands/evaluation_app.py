"""`tandem evaluate …` as it is typed; what it does stands in the modules `evaluate` and `evaluate_segmentation`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.typed import command
from pipeline.console import echo

evaluate_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="How good predictions are: intervals.")


@command(evaluate_app)
def classification(
    probabilities: Annotated[
        list[Path], typer.Option("--probabilities", "-p", help="One .npy, .npz or .csv file for each model.")
    ],
    labels: Annotated[Path, typer.Option("--labels", "-l", help="The true classes, 0 … K - 1: one in each row.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the tables, charts and report.")],
    cases: Annotated[
        Path | None, typer.Option(help="A CSV with a column patient_id or case_id: rows of one patient stay together.")
    ] = None,
    name: Annotated[list[str] | None, typer.Option(help="A name for each model, in order.")] = None,
    class_name: Annotated[list[str] | None, typer.Option(help="A name for each class, in order.")] = None,
    specificity: Annotated[float, typer.Option(help="The specificity at which the sensitivity is read.")] = 0.9,
    seed: Annotated[int, typer.Option(min=0, help="The seed of the bootstrap's resampling.")] = 0,
) -> None:
    """Evaluate classifiers, and compare several on the same cases: table, charts, PDF and web page."""
    from pipeline.commands.evaluate import evaluate_classification, headline

    names = name or (), class_name or ()
    for found in evaluate_classification(probabilities, labels, out, cases, *names, specificity, seed):
        echo(headline(found))
    echo(f"Report: {out / 'report.html'}")


@command(evaluate_app)
def segmentation(  # noqa: PLR0913 - each is an option of the command
    predictions: Annotated[Path, typer.Argument(help="A folder of label images, named as those of the truth.")],
    truth: Annotated[Path, typer.Argument(help="The folder of the true label images (.nii.gz).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the tables, charts and report.")],
    against: Annotated[list[Path] | None, typer.Option(help="Another model's label images; repeatable.")] = None,
    images: Annotated[Path | None, typer.Option(help="Images for the pictures; else imagesTr beside labelsTr.")] = None,
    cases: Annotated[Path | None, typer.Option(help="A CSV with case_id and patient_id.")] = None,
    name: Annotated[list[str] | None, typer.Option(help="A name for each model, in order.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="A region: NAME=VALUE or NAME=1,2; else those of dataset.json; repeatable.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Of the normalised surface Dice, mm.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0,
) -> int:
    """Evaluate label images, and compare several models on the same cases: tables, worst cases as pictures, PDF."""
    from pipeline.commands.evaluate_segmentation import evaluate_segmentation, show

    folders = [predictions, *(against or ())]
    found = evaluate_segmentation(folders, truth, out, images, cases, name or (), label or (), tolerance, seed)
    return show(found, out)
