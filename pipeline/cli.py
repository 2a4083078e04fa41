"""The command line: `tandem …`. Thin: it reads arguments, calls the library and turns errors into exit codes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.errors import UsageError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Two modalities of one patient, in tandem: DICOM in; aligned, enhanced and measured cases with reports out. "
    "Exit codes: 0 all done, 1 some cases failed or were quarantined, 2 the command could not start. "
    "Research use only, not a medical device.",
)

evaluate_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="How good predictions are, with intervals."
)
app.add_typer(evaluate_app, name="evaluate")

Out = Annotated[Path, typer.Option("--out", "-o", help="The run folder; a second run goes on where the first ended.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Do the work again even where it is done.")]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, help="How many processes work at once.")]


@contextmanager
def _usage_errors() -> Iterator[None]:
    """Say in one sentence why the command cannot start, and exit with 2."""
    try:
        yield
    except UsageError as error:
        from pipeline.console import echo

        echo(str(error), error=True)
        raise typer.Exit(2) from error


@app.command()
def run(
    root: Annotated[Path, typer.Argument(help="A folder of DICOM files, or of NIfTI files that the spec names.")],
    out: Out,
    spec: Annotated[Path, typer.Option("--spec", "-s", help="The data spec: which series play which role.")],
    stages: Annotated[str, typer.Option(help="Only these stages, separated by commas.")] = "",
    overwrite: Overwrite = False,
    jobs: Jobs = 1,
) -> None:
    """Run all stages over a folder of DICOM: ingest, register, preprocess, fuse, report."""
    chosen = tuple(name for name in stages.split(",") if name)
    _run(root, out, spec, chosen, overwrite, jobs)


@app.command()
def ingest(
    root: Annotated[Path, typer.Argument(help="A folder of DICOM files, or of NIfTI files that the spec names.")],
    out: Out,
    spec: Annotated[Path | None, typer.Option("--spec", "-s", help="Without it: every volume of the tree.")] = None,
    overwrite: Overwrite = False,
    jobs: Jobs = 1,
) -> None:
    """Turn a folder of DICOM into volumes (NIfTI, RAS+, native grid) with a verdict for every series."""
    _run(root, out, spec, ("ingest",), overwrite, jobs)


@app.command()
def register(  # noqa: PLR0913 - a flag for each thing that may be known of the two images
    fixed: Annotated[Path, typer.Argument(help="The image that stays: a NIfTI file or a folder of one DICOM series.")],
    moving: Annotated[Path, typer.Argument(help="The image that is moved onto it: likewise.")],
    out: Out,
    fixed_modality: Annotated[str, typer.Option(help="Modality of a fixed NIfTI; DICOM says its own.")] = "CT",
    moving_modality: Annotated[str, typer.Option(help="Modality of a moving NIfTI; DICOM says its own.")] = "MR",
    transform: Annotated[
        str, typer.Option(help="rigid, affine, bspline; or by landmarks alone: landmarks_rigid, landmarks_affine.")
    ] = "rigid",
    parameters: Annotated[
        str | None, typer.Option(help="An elastix parameter file, or the name of a shipped one.")
    ] = None,
    fixed_mask: Annotated[Path | None, typer.Option(help="Where to look in the fixed image, on its grid.")] = None,
    moving_mask: Annotated[Path | None, typer.Option(help="Where to look in the moving image, on its grid.")] = None,
    fixed_landmarks: Annotated[
        Path | None, typer.Option(help="Landmarks in mm: .mrk.json, .fcsv, .csv with its convention, elastix' .txt.")
    ] = None,
    moving_landmarks: Annotated[Path | None, typer.Option(help="The same points of the moving image.")] = None,
    apply_to: Annotated[
        list[Path] | None, typer.Option(help="A label volume of the moving image, to be carried along; repeatable.")
    ] = None,
    fixed_label: Annotated[
        list[Path] | None, typer.Option(help="The same of the fixed image, for comparison: one for each --apply-to.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Align one image with another: moved image, transform and its inverse, quality verdict and a report."""
    with _usage_errors():
        from pipeline.commands.register import Options, checked_transform, register_pair

        options = Options(
            checked_transform(transform),
            parameters,
            masks=(fixed_mask, moving_mask),
            landmarks=(fixed_landmarks, moving_landmarks),
            labels=apply_to or (),
            fixed_labels=fixed_label or (),
            overwrite=overwrite,
        )
        found = register_pair((fixed, fixed_modality), (moving, moving_modality), out, options)
        _finish(out, found)


@app.command()
def status(out: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Show what is done, failed and quarantined in a run folder."""
    from pipeline.run.status import show

    with _usage_errors():
        raise typer.Exit(show(out))


@app.command()
def deidentify(  # noqa: PLR0913 - one flag for each option of the profile
    root: Annotated[Path, typer.Argument(help="A folder of DICOM files, at any depth; it is never written to.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the copies, outside the input.")],
    shift_dates: Annotated[
        bool, typer.Option("--shift-dates", help="Move a patient's dates by one secret number of days.")
    ] = False,
    retain_dates: Annotated[bool, typer.Option("--retain-dates", help="Keep dates and times as they are.")] = False,
    retain_uids: Annotated[bool, typer.Option("--retain-uids", help="Keep the hospital's UIDs.")] = False,
    retain_device: Annotated[bool, typer.Option("--retain-device", help="Keep devices' names and numbers.")] = False,
    retain_institution: Annotated[bool, typer.Option("--retain-institution", help="Keep institutions.")] = False,
    retain_patient_characteristics: Annotated[
        bool, typer.Option("--retain-patient-characteristics", help="Keep sex, age (90 at most), size and weight.")
    ] = False,
    retain_safe_private: Annotated[
        bool, typer.Option("--retain-safe-private", help="Keep private attributes that are known to be safe.")
    ] = False,
    clean_descriptors: Annotated[
        bool, typer.Option("--clean-descriptors", help="Keep the words of descriptions that are known to be safe.")
    ] = False,
    clean_structured_content: Annotated[
        bool, typer.Option("--clean-structured-content", help="Copy reports, without their texts.")
    ] = False,
    overwrite: Overwrite = False,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="How many processes work at once.")] = 2,
) -> None:
    """Copy DICOM files without their patients' identity (DICOM PS3.15 E); what may show a name stays behind."""
    with _usage_errors():
        from pipeline.commands.deidentify import deidentify as run_deidentify
        from pipeline.dicom.confidentiality.options import Options

        options = Options(
            retain_uids=retain_uids,
            retain_dates=retain_dates,
            shift_dates=shift_dates,
            retain_device=retain_device,
            retain_institution=retain_institution,
            retain_patient_characteristics=retain_patient_characteristics,
            retain_safe_private=retain_safe_private,
            clean_descriptors=clean_descriptors,
            clean_structured_content=clean_structured_content,
        )
        raise typer.Exit(run_deidentify(root, out, options, jobs, overwrite))


@app.command()
def demo(
    out: Out = Path("out/demo"),
    cases: Annotated[int, typer.Option(min=2, help="Simulated patients; the last one is faulty.")] = 4,
    jobs: Jobs = 1,
) -> None:
    """Simulate a small cohort as DICOM, run everything on it, and print where the report is."""
    from pipeline.commands.demo import run_demo

    with _usage_errors():
        raise typer.Exit(run_demo(out, cases, jobs))


@app.command()
def calibrate(
    logits: Annotated[Path, typer.Option(help="The model's logits, (N, C) or (N,): .npy, .npz or .csv.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The calibration (.json), or with --apply the .npy file.")],
    labels: Annotated[Path | None, typer.Option(help="The true classes, 0 … C - 1, one a row.")] = None,
    method: Annotated[
        str, typer.Option(help="temperature, platt, vector, beta, dirichlet, matrix, isotonic; or recommended.")
    ] = "temperature",
    cases: Annotated[Path | None, typer.Option(help="The case of each row: a case's rows stay together.")] = None,
    report: Annotated[Path | None, typer.Option(help="A PDF that compares all methods on held-out cases.")] = None,
    source: Annotated[str, typer.Option(help="Where the logits come from: validation or out_of_fold.")] = "validation",
    apply: Annotated[Path | None, typer.Option(help="Apply this calibration to the logits instead.")] = None,
) -> None:
    """Fit a calibration on logits of cases that the model was not trained on, or apply one."""
    from pipeline.commands import calibrate as command
    from pipeline.console import echo

    with _usage_errors():
        if apply is not None:
            command.require_alone(labels=labels, cases=cases, report=report)
            command.apply_calibration(apply, logits, out)
            echo(f"Probabilities: {out}")
            return
        fitted = command.calibrate(logits, command.required(labels), out, method, cases, report, source)
        for note in fitted.record.notes:
            echo(note, error=True)
        echo(command.summary(fitted))
        echo(f"Calibration: {out}" if report is None else f"Calibration: {out}, report: {report}")


@evaluate_app.command("classification")
def evaluate_classification(
    probabilities: Annotated[
        list[Path], typer.Option("--probabilities", "-p", help="A file a model: .npy, .npz or .csv, one row a case.")
    ],
    labels: Annotated[Path, typer.Option("--labels", "-l", help="The true classes, 0 … K - 1, one a row.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the tables, charts and report.")],
    cases: Annotated[
        Path | None, typer.Option(help="A CSV with a column patient_id or case_id: rows of one patient stay together.")
    ] = None,
    name: Annotated[list[str] | None, typer.Option(help="A name for each model, in order.")] = None,
    class_name: Annotated[list[str] | None, typer.Option(help="A name for each class, in order.")] = None,
    specificity: Annotated[float, typer.Option(help="At which the sensitivity is read.")] = 0.9,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0,
) -> None:
    """Evaluate classifiers, and compare several on the same cases: table, charts, PDF and web page."""
    from pipeline.commands.evaluate import evaluate_classification as run_evaluation
    from pipeline.console import echo
    from pipeline.evaluation.results import Settings

    settings = Settings(specificity=specificity, seed=seed)
    with _usage_errors():
        for line in run_evaluation(probabilities, labels, out, cases, name or (), class_name or (), settings):
            echo(line)
    echo(f"Report: {out / 'report.html'}")


def _run(root: Path, out: Path, spec: Path | None, stages: tuple[str, ...], overwrite: bool, jobs: int) -> None:
    from pipeline.run import batch

    with _usage_errors():
        found = batch.run(batch.Plan(root, out, spec, stages, overwrite, jobs))
        _finish(out, found)


def _finish(out: Path, found: dict[str, Any]) -> None:
    from pipeline.console import echo
    from pipeline.run.status import finish

    report = out / "report.html"
    echo(f"Report: {report}" if report.is_file() else f"Results: {out}")
    raise typer.Exit(finish(out, found))


def main() -> None:
    """The console script `tandem`."""
    sys.exit(app())


if __name__ == "__main__":
    main()
