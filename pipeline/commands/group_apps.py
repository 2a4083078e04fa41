"""`tandem convert …`, `weights …` and `evaluate …` as they are typed; modules of these names do the work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pipeline.commands.typed import command
from pipeline.console import echo, print_table
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.segmentation.weights import Model

convert_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Datasets for nnU-Net, and its labels back to their source."
)
weights_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Models of nnU-Net: kept with their hashes, checked before use.",
)
evaluate_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="How good predictions are: intervals.")


@command(convert_app)
def nnunet(  # noqa: PLR0913 - each is an option of the command
    *,
    out: Annotated[
        Path, typer.Option("--out", "-o", envvar="nnUNet_raw", help="The folder of raw datasets (nnUNet_raw).")
    ],
    dataset: Annotated[int, typer.Option(help="Number of the dataset, 1 to 999.")],
    name: Annotated[str, typer.Option(help="Name of the dataset: letters and digits.")],
    spec: Annotated[
        str, typer.Option("--spec", "-s", help="A data spec with the section `segment`; the run's own for --cases.")
    ] = "",
    cases: Annotated[Path | None, typer.Option(help="From a run folder of Tandem.")] = None,
    msd: Annotated[Path | None, typer.Option(help="From a dataset of the Medical Segmentation Decathlon.")] = None,
    nifti: Annotated[
        list[str] | None, typer.Option(help="From files: ROLE=PATTERN, such as mr=/data/{case}_mr.nii.gz; repeatable.")
    ] = None,
    hippocampus: Annotated[Path | None, typer.Option(help="From Udacity's pack of hippocampi.")] = None,
    sts: Annotated[Path | None, typer.Option(help="From sarcomas on one grid: {case}/CT.nii.gz and others.")] = None,
    patients: Annotated[
        Path | None, typer.Option(help="A CSV with case_id and patient_id, where a case is not a patient of its own.")
    ] = None,
    folds: Annotated[int, typer.Option(help="Folds by patient.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the folds.")] = 0,
    copy: Annotated[bool, typer.Option("--copy", help="Copy files; without it they are hard links.")] = False,
) -> int:
    """Write a raw dataset of nnU-Net: RAS+ on one grid, consecutive labels, folds by patient, checked."""
    from pipeline.commands.convert import convert_nnunet, show_written

    given = (spec, cases, msd, nifti or (), hippocampus, sts, patients)
    return show_written(convert_nnunet(out, dataset, name, *given, folds, seed, copy))


@command(convert_app)
def back(
    predictions: Annotated[Path, typer.Argument(help="A folder of nnU-Net's label images.")],
    dataset: Annotated[Path, typer.Option(help="The dataset that `tandem convert nnunet` has written.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the label images.")],
) -> int:
    """Give label images the values and the grids of the dataset's source."""
    from pipeline.commands.convert import convert_back, show_back

    return show_back(convert_back(predictions, dataset, out), out)


@command(weights_app, "add")
def add_weights(
    file: Annotated[Path, typer.Argument(help="A results folder of nnU-Net, or a zip of its export.")],
    name: Annotated[str, typer.Option(help="Of the model; its dataset and configuration when left out.")] = "",
    sha256: Annotated[str, typer.Option(help="That the zip has to have.")] = "",
) -> None:
    """Take in a model, offline: checked, without its training's state, with the sha256 of each file."""
    from pipeline.segmentation.weights import add

    _show_models(add(file, name, sha256))


@command(weights_app, "list")
def list_weights() -> None:
    """List the models: channels, labels, folds, size."""
    from pipeline.segmentation.weights import installed

    _show_models(installed())


@command(weights_app, "verify")
def verify_weights(name: Annotated[str, typer.Argument(help="A model; all of them when left out.")] = "") -> int:
    """Compare the files of models with their sha256."""
    from pipeline.segmentation.weights import names, verify

    if name:
        verify(name)
        echo(f"{name}: whole")
        return 0
    broken = 0
    for one in names():
        try:
            verify(one)
            echo(f"{one}: whole")
        except UsageError as error:
            broken += 1
            echo(f"{one}: {error}", error=True)
    return int(broken > 0)


@command(weights_app, "remove")
def remove_weights(name: Annotated[str, typer.Argument(help="A model.")]) -> None:
    """Forget a model and delete its files."""
    from pipeline.segmentation.weights import remove

    remove(name)
    echo(f"{name} removed.")


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


def _show_models(models: Sequence[Model]) -> None:
    """Print one row a model."""
    table = Table("name", "channels", "labels", "folds", "MB", box=None, header_style="bold")
    for model in models:
        parts = (", ".join(of) for of in (model.channels, model.labels, model.folds))
        table.add_row(model.name, *parts, f"{model.size / 1e6:.1f}")
    print_table(table)
