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

Out = Annotated[Path, typer.Option("--out", "-o", help="The run folder; a second run goes on where the first ended.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Do the work again even where it is done.")]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, help="How many processes work at once.")]


@contextmanager
def _usage_errors() -> Iterator[None]:
    """Say in one sentence why the command cannot start, and exit with 2."""
    try:
        yield
    except UsageError as error:
        from pipeline.progress import say

        say(str(error), error=True)
        raise typer.Exit(2) from error


@app.command()
def run(
    root: Annotated[Path, typer.Argument(help="A folder of DICOM files, at any depth.")],
    out: Out,
    spec: Annotated[Path, typer.Option("--spec", "-s", help="The data spec: which series play which role.")],
    stages: Annotated[str, typer.Option(help="Only these stages, separated by commas.")] = "",
    overwrite: Overwrite = False,
    jobs: Jobs = 1,
) -> None:
    """Run all stages over a folder of DICOM: ingest, register, preprocess, report."""
    chosen = tuple(name for name in stages.split(",") if name)
    _run(root, out, spec, chosen, overwrite, jobs)


@app.command()
def ingest(
    root: Annotated[Path, typer.Argument(help="A folder of DICOM files, at any depth.")],
    out: Out,
    spec: Annotated[Path | None, typer.Option("--spec", "-s", help="Without it: every volume of the tree.")] = None,
    overwrite: Overwrite = False,
    jobs: Jobs = 1,
) -> None:
    """Turn a folder of DICOM into volumes (NIfTI, RAS+, native grid) with a verdict for every series."""
    _run(root, out, spec, ("ingest",), overwrite, jobs)


@app.command()
def register(
    fixed: Annotated[Path, typer.Argument(help="The image that stays: a NIfTI file or a folder of one DICOM series.")],
    moving: Annotated[Path, typer.Argument(help="The image that is moved onto it: likewise.")],
    out: Out,
    fixed_modality: Annotated[str, typer.Option(help="Modality of a fixed NIfTI; DICOM says its own.")] = "CT",
    moving_modality: Annotated[str, typer.Option(help="Modality of a moving NIfTI; DICOM says its own.")] = "MR",
    overwrite: Overwrite = False,
) -> None:
    """Align one image with another: moved image, transform, quality verdict and a report."""
    from pipeline.pair import register_pair

    with _usage_errors():
        found = register_pair((fixed, fixed_modality), (moving, moving_modality), out, overwrite)
        _finish(out, found)


@app.command()
def status(out: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Show what is done, failed and quarantined in a run folder."""
    from pipeline.status import show

    with _usage_errors():
        raise typer.Exit(show(out))


@app.command()
def demo(
    out: Out = Path("out/demo"),
    cases: Annotated[int, typer.Option(min=2, help="Simulated patients; the last one is faulty.")] = 4,
    jobs: Jobs = 1,
) -> None:
    """Simulate a small cohort as DICOM, run everything on it, and print where the report is."""
    from pipeline.demo import run_demo

    with _usage_errors():
        raise typer.Exit(run_demo(out, cases, jobs))


def _run(root: Path, out: Path, spec: Path | None, stages: tuple[str, ...], overwrite: bool, jobs: int) -> None:
    from pipeline import batch

    with _usage_errors():
        found = batch.run(batch.Plan(root, out, spec, stages, overwrite, jobs))
        _finish(out, found)


def _finish(out: Path, found: dict[str, Any]) -> None:
    from pipeline.batch import exit_code
    from pipeline.progress import say

    report = out / "report.html"
    say(f"Report: {report}" if report.is_file() else f"Results: {out}")
    raise typer.Exit(exit_code(out, found))


def main() -> None:
    """The console script `tandem`."""
    sys.exit(app())


if __name__ == "__main__":
    main()
