"""`tandem status`, `retry`, `verify`, `clean` and `cohort` as they are typed: what can be done with a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.typed import Jobs, Options, command, finished, pairs
from pipeline.console import echo
from pipeline.errors import UsageError
from pipeline.words import counted

cohort_app = typer.Typer(rich_markup_mode=None)

Folder = Annotated[Path, typer.Argument(help="A run folder.")]


@command(cohort_app)
def status(
    out: Folder,
    watch: Annotated[bool, typer.Option("--watch", help="Show how far a run is until it ends.")] = False,
    cases: Annotated[bool, typer.Option("--cases", help="A row for each case, however many there are.")] = False,
) -> int:
    """Show what is done, failed and quarantined in a run folder, by stage and code, and how far a run is."""
    from pipeline.run.status import follow, show

    if watch:
        follow(out)
    return show(out, cases)


@command(cohort_app)
def retry(
    *,
    out: Folder,
    code: Annotated[list[str] | None, typer.Option(help="Only what stopped with this code; repeatable.")] = None,
    case: Annotated[list[str] | None, typer.Option(help="Only this case; repeatable.")] = None,
    stage: Annotated[list[str] | None, typer.Option(help="Only what stopped in this stage; repeatable.")] = None,
    input_: Annotated[
        Path | None, typer.Option("--input", "-i", help="The input folder, where ingest is done again.")
    ] = None,
    how: Options,
) -> int:
    """Do again what failed or was quarantined, and what comes after it, with the run's own data spec and stages."""
    from pipeline.commands.cohort import retry as again
    from pipeline.run.retry import find

    chosen = (code or (), case or (), stage or ())
    nothing = not find(out, *chosen).cases
    found = again(out, *chosen, input_, True, **how)
    return 0 if nothing else finished(out, found)


@command(cohort_app)
def verify(out: Folder, jobs: Jobs = 2) -> int:
    """Hash every output again: say what is missing or changed, and which files no record names."""
    from pipeline.commands.cohort import show_checked
    from pipeline.commands.cohort import verify as check

    return show_checked(check(out, jobs, progress=True), out)


@command(cohort_app)
def clean(
    out: Folder,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete it; without this it is only listed.")] = False,
) -> None:
    """List what lies below cases/ and no record names, and cases that the input holds no more; --yes deletes it."""
    from pipeline.commands.cohort import clean as tidy
    from pipeline.commands.cohort import show_strays

    show_strays(tidy(out, yes), yes)


@command(cohort_app)
def cohort(
    out: Folder,
    parquet: Annotated[bool, typer.Option("--parquet", help="cases.parquet, too, with the columns' types.")] = False,
    bids: Annotated[Path | None, typer.Option(help="A new folder for a BIDS dataset of images, labels …")] = None,
    bids_suffix: Annotated[
        list[str] | None, typer.Option(help="What kind of MR a role is (mr=T1w, t2=FLAIR …); once for each role of MR.")
    ] = None,
) -> int:
    """Write the table of all cases anew, what its columns mean, and the page of all cases; a dataset of BIDS."""
    from pipeline.commands.bids import export_bids, show_exported
    from pipeline.commands.cohort import PARQUET
    from pipeline.commands.cohort import cohort as export

    if bids is None and bids_suffix:
        raise UsageError("E_OPTION", "Expected --bids FOLDER beside --bids-suffix, got none.", "Name a new folder.")
    made = export_bids(out, bids, pairs(bids_suffix or (), "mr=T1w")) if bids else None
    found = export(out, parquet)
    size = f"{counted(len(found), 'case')} with {len(found.columns)} columns"
    echo(f"{size}: {out / 'cases.csv'}, explained in cases.json")
    if parquet:
        echo(f"The same with types: {out / PARQUET}")
    echo(f"Page: {out / 'report.html'}")
    return show_exported(made) if made else 0
