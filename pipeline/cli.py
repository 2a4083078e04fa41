"""The command line: `tandem …`. Thin: it reads arguments, calls `pipeline.api` and turns errors into exit codes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline import __version__, api
from pipeline.commands.cohort_app import cohort_app
from pipeline.commands.group_apps import convert_app, evaluate_app, weights_app
from pipeline.commands.images_app import images_app
from pipeline.commands.run import QUIET_S
from pipeline.commands.typed import (
    HELP,
    Device,
    Jobs,
    MinFree,
    Options,
    Out,
    Overwrite,
    Quiet,
    Verbose,
    command,
    finished,
    names_in,
    show_specs,
)
from pipeline.console import echo
from pipeline.errors import UsageError
from pipeline.run.plan import STAGES
from pipeline.run.room import MIN_FREE_GB
from pipeline.run.stopping import CODES, leave
from pipeline.spared import spare, spare_nothing
from pipeline.spec.explain import find_spec, shipped_specs

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=HELP,
    help="Two modalities of one patient, in tandem: DICOM in; aligned, enhanced and measured cases with reports out. "
    "Exit codes: 0 all done, 1 some cases failed or were quarantined, 2 the command could not start, "
    "130 and 143 it was stopped. "
    "Research use only, not a medical device.",
)
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(convert_app, name="convert")
app.add_typer(weights_app, name="weights")
app.add_typer(images_app)
app.add_typer(cohort_app)

# Whether a folder can be read is said with a code, and not by the command line's parser.
Root = Annotated[
    Path | None,
    typer.Argument(readable=False, help="A folder of DICOM files, or of NIfTI files that the spec names."),
]
DicomRoot = Annotated[
    Path | None, typer.Argument(readable=False, help="A folder of DICOM files, at any depth; it is not written to.")
]
Input = Annotated[Path | None, typer.Option("--input", "-i", readable=False, help="The same as ROOT.")]
SPEC_HELP = "The data spec: which series play which role. A file, or a name that `tandem specs` lists."
SpecName = Annotated[str, typer.Option("--spec", "-s", autocompletion=lambda: list(shipped_specs()), help=SPEC_HELP)]
OnlyStages = Annotated[str, typer.Option("--stages", help=f"Only some, separated by commas: {', '.join(STAGES)}.")]


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"tandem {__version__}")
        raise typer.Exit


@app.callback()
def _tandem(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    context.obj = {"quiet": quiet, "verbose": verbose}


@command(app)
def run(
    *,
    root: Root = None,
    input_: Input = None,
    out: Out,
    spec: SpecName,
    stages: OnlyStages = "",
    overwrite: Overwrite = False,
    how: Options,
) -> int:
    """Run all stages that the spec has: ingest, register, preprocess, segment, radiomics, fuse_image, fuse, report."""
    return finished(out, api.run(_root(root, input_), out, spec, names_in(stages), overwrite, progress=True, **how))


@command(app)
def watch(
    *,
    root: Root = None,
    input_: Input = None,
    out: Out,
    spec: SpecName,
    quiet_s: Annotated[
        float, typer.Option("--quiet-s", min=0, help="A study is taken when none of its files changed for so long.")
    ] = QUIET_S,
    stages: OnlyStages = "",
    once: Annotated[bool, typer.Option("--once", help="End when all that is there has been taken.")] = False,
    how: Options,
) -> int:
    """Run the stages on studies as they arrive in a folder, until it is stopped; one that grows is taken again."""
    found = api.watch(_root(root, input_), out, spec, quiet_s, once, True, stages=names_in(stages), **how)
    return finished(out, found)


@command(app, "slurm-script")
def slurm_script(config: Annotated[Path, typer.Argument(help="The YAML file of `--slurm`.")]) -> None:
    """Print the job's script that `tandem run --slurm` would submit; nothing is submitted."""
    from pipeline.run.slurm import script
    from pipeline.spec.resources import load_slurm

    typer.echo(script(load_slurm(config)), nl=False)


@command(app)
def ingest(
    *,
    root: Root = None,
    input_: Input = None,
    out: Out,
    spec: Annotated[
        str | None, typer.Option("--spec", "-s", help="A file or a name; without it: every volume of the tree.")
    ] = None,
    overwrite: Overwrite = False,
    jobs: Jobs = 1,
    min_free: MinFree = MIN_FREE_GB,
) -> int:
    """Turn a folder of DICOM into volumes (NIfTI, RAS+, native grid) with a verdict for every series."""
    return finished(out, api.ingest(_root(root, input_), out, spec, overwrite, jobs, min_free, progress=True))


@command(app)
def series(
    root: DicomRoot = None,
    input_: Input = None,
    draft: Annotated[
        Path | None, typer.Option(help="Write a data spec that fits these series, such as my_study.yaml.")
    ] = None,
) -> int:
    """Show on the screen which series a folder of DICOM holds, for writing a data spec. Private: nothing is kept."""
    from pipeline.commands.series import show, show_draft

    found = api.series(_root(root, input_), progress=True)
    show(found)
    return 0 if draft is None else show_draft(found, api.draft_spec(found, draft), draft)


@command(app)
def specs(
    name: Annotated[
        str, typer.Argument(autocompletion=lambda: list(shipped_specs()), help="Print this one, as YAML.")
    ] = "",
) -> None:
    """List the data specs that come with Tandem, or print one, to start your own from."""
    if name:
        typer.echo(find_spec(name).read_text(encoding="utf-8"), nl=False)
    else:
        show_specs(api.specs())


@command(app)
def deidentify(
    *,
    root: DicomRoot = None,
    input_: Input = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the copies, outside the input.")],
    profile: Options,
    overwrite: Overwrite = False,
    jobs: Jobs = 2,
) -> int:
    """Copy DICOM files without their patients' identity (DICOM PS3.15 E); what may show a name stays behind."""
    from pipeline.commands.deidentify import show

    return show(api.deidentify(_root(root, input_), out, jobs, overwrite, progress=True, **profile), out)


@command(app)
def demo(
    out: Out = Path("out/demo"),
    cases: Annotated[int, typer.Option(min=2, help="Simulated patients; the last one is faulty.")] = 4,
    jobs: Jobs = 1,
    device: Device = "",
) -> int:
    """Simulate a small cohort as DICOM, run everything on it, and print where the report is."""
    from pipeline.commands.demo import run_demo

    return run_demo(out, cases, jobs, device)


@command(app)
def calibrate(  # noqa: PLR0913 - each is an option of the command
    logits: Annotated[Path, typer.Option(help="The model's logits, (N, C) or (N,): .npy, .npz or .csv.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The calibration (.json), or with --apply the .npy file.")],
    labels: Annotated[Path | None, typer.Option(help="The true classes, 0 … C - 1: one in each row.")] = None,
    method: Annotated[
        str, typer.Option(help="temperature, platt, vector, beta, dirichlet, matrix, isotonic; or recommended.")
    ] = "temperature",
    cases: Annotated[Path | None, typer.Option(help="The patient or case of each row: its rows stay together.")] = None,
    report: Annotated[Path | None, typer.Option(help="A PDF that compares all methods on held-out cases.")] = None,
    source: Annotated[str, typer.Option(help="Where the logits come from: validation or out_of_fold.")] = "validation",
    sets: Annotated[
        float | None, typer.Option(help="Fit sets of classes too, which miss the true class in at most this share.")
    ] = None,
    sets_rule: Annotated[str | None, typer.Option(help="The rule of the sets: lac (the default), aps or raps.")] = None,
    apply: Annotated[Path | None, typer.Option(help="Apply this calibration to the logits instead.")] = None,
) -> None:
    """Fit a calibration on logits of cases that the model was not trained on, or apply one."""
    from pipeline.commands.calibrate import require_alone, sets_file, summary

    if apply is not None:
        require_alone(labels=labels, cases=cases, report=report, sets=sets, sets_rule=sets_rule)
        api.apply_calibration(apply, logits, out)
        sets_out = sets_file(out)
        echo(f"Probabilities: {out}" + (f", sets of classes: {sets_out}" if sets_out.is_file() else ""))
        return
    if labels is None:
        raise UsageError("E_TABLE", "Expected labels to fit on, got none.", "Give --labels, or --apply.")
    fitted = api.calibrate(logits, labels, out, method, cases, report, source, sets=sets, sets_rule=sets_rule)
    for note in fitted.record.notes:
        echo(note, error=True)
    echo(summary(fitted))
    echo(f"Calibration: {out}" if report is None else f"Calibration: {out}, report: {report}")


@command(app)
def compare(  # noqa: PLR0913 - each is an option of the command
    cases: Annotated[Path, typer.Argument(help="A table: case_id, patient_id, a column for each modality, label.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the trainings and the report.")],
    modalities: Annotated[
        str | None, typer.Option(help="Columns of the table, separated by commas: ct,mr, or all streams.")
    ] = None,
    ct_modalities: Annotated[str | None, typer.Option(help="Which of these are CT, in HU: ct; no streams.")] = None,
    streams: Annotated[str, typer.Option(help="Where they share no grid: a data spec with `streams`.")] = "",
    classes: Annotated[int, typer.Option(help="How many classes there are.")] = 2,
    folds: Annotated[int, typer.Option(help="How many folds, where the table has no column `fold`.")] = 5,
    seeds: Annotated[int, typer.Option(help="How many trainings of each variant and fold.")] = 3,
    settings: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE of train.yaml, such as max_epochs=50; repeatable.")
    ] = None,
    fact: Annotated[
        list[str] | None,
        typer.Option(help="Of streams: a column that controls are told, such as the file's source; repeatable."),
    ] = None,
    judge: Annotated[
        list[int] | None, typer.Option(help="A fold to judge, such as 0 of a set for validation; repeatable; else all.")
    ] = None,
    class_name: Annotated[
        list[str] | None, typer.Option(help="Of each class, for the report, in the order of the labels; repeatable.")
    ] = None,
) -> int:
    """Train and compare each modality alone and early, intermediate and late fusion, on a cohort of your own."""
    spare_nothing()
    from pipeline.comparison.cohort import headline

    if bare := [item for item in settings or () if "=" not in item]:
        raise UsageError("E_OPTION", f"Expected --settings KEY=VALUE, got {bare[0]}.")
    chosen = dict(item.partition("=")[::2] for item in settings or ())
    columns, ct = (None if text is None else names_in(text) for text in (modalities, ct_modalities))
    found = api.compare(
        cases, out, columns, ct, classes, folds, seeds, chosen, streams, fact or (), judge or (), class_name or ()
    )
    for item in found.variants:
        echo(headline(found, item.name))
    for sentence in found.said:
        echo(sentence)
    echo(f"Report: {out / 'report' / 'report.html'}")
    return int(bool(found.left_out))


@command(app)
def table(
    root: Annotated[Path, typer.Argument(help="A folder of folders by class; for medmnist an .npz file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The table (.csv), or the folder for it.")],
    layout: Annotated[
        str,
        typer.Option(
            help="processed_dataset_split ({train,valid,test}/{stream}/{class}/file), classes ({class}/file, also in "
            "{train,valid,test}) or medmnist."
        ),
    ],
    pair: Annotated[
        str, typer.Option(help="Cases are files of one name (stem) or of one class (class); auto: as the names tell.")
    ] = "auto",
    duplicates: Annotated[
        str, typer.Option(help="Equal files in two splits or classes: refuse, or leave_out all but one.")
    ] = "refuse",
    stream: Annotated[str, typer.Option(help="The name of the column of files, where no folder names it.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Of the order in which files of a class meet.")] = 0,
) -> int:
    """Make the table of a data set (case_id, files, label, fold) out of folders of pictures, sounds and volumes."""
    from pipeline.commands.table import show

    return show(api.table(root, out, layout, pair, duplicates, stream, seed, progress=True))


def _root(root: Path | None, given: Path | None) -> Path:
    """The input, which is given once: as ROOT, or by `--input`.

    Raises:
        UsageError: E_OPTION.
    """
    if (root is None) == (given is None):
        got = "neither" if root is None else "both"
        raise UsageError("E_OPTION", f"Expected the input as ROOT or as --input, got {got}.", "Give it once.")
    return root or given or Path()


def main() -> None:
    """The console script `tandem`."""
    spare()
    try:
        app()
    except SystemExit as end:
        if end.code in CODES:
            leave(int(end.code))
        raise


if __name__ == "__main__":
    main()
