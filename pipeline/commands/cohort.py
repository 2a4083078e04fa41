"""A run folder after the run: what failed done again, outputs checked, what no record names taken away, tables."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cases import Record
from pipeline.commands.run import fields_of, work
from pipeline.console import echo, shown, track
from pipeline.errors import CaseError, UsageError
from pipeline.run.retry import Retry, find
from pipeline.run.status import of_folder
from pipeline.store import records, upkeep
from pipeline.store.files import run_lock, write_atomic
from pipeline.store.upkeep import GONE, Checked, Stray
from pipeline.words import counted

if TYPE_CHECKING:
    import pandas as pd

PARQUET = "cases.parquet"
#: Of a long list so many are printed.
SHOWN = 50


def retry(
    out: str | Path,
    codes: Sequence[str] = (),
    cases: Sequence[str] = (),
    stages: Sequence[str] = (),
    root: str | Path | None = None,
    progress: bool = False,
    **options: Any,
) -> dict[str, list[Record]]:
    """Do again what failed or was quarantined, and what comes after it: `tandem retry`.

    Args:
        out: the run folder; its own data spec and stages are used.
        codes: only cases that stopped with one of these, such as `E_DISK`; all but `E_WITHDRAWN` when left out.
        cases: only these.
        stages: only what stopped in one of these.
        root: the input folder; needed where ingest is done again, since a run keeps no path of it.
        progress: print a line a stage, and show a bar at a terminal.
        options: `jobs`, `device`, `resources`, `scheduler`, `slurm`, `min_free_gb`, as of `run`.

    Returns:
        The current records of every case in the run folder, by case id.

    Raises:
        UsageError: E_NO_CASES, E_OPTION, and what `run` raises.
    """
    found = find(Path(out), codes, cases, stages)
    with shown(progress):
        echo(_said(found))
    if not found.cases:
        return of_folder(Path(out))
    return work(found.plan(Path(out), Path(root) if root else None, **fields_of(**options)), progress)


def verify(out: str | Path, jobs: int = 1, progress: bool = False) -> Checked:
    """Hash every output of a run folder again: `tandem verify`. Nothing is written.

    Args:
        out: the run folder.
        jobs: how many threads read.
        progress: show a bar at a terminal.

    Raises:
        UsageError: E_NO_CASES; E_BUSY while a run is working in the folder.
    """
    folder = Path(out)
    upkeep.require_free(folder)
    items = upkeep.outputs(folder)
    with shown(progress):
        return upkeep.checked(folder, track(upkeep.check(folder, items, jobs), len(items), "verify"))


def clean(out: str | Path, yes: bool = False) -> list[Stray]:
    """Find, and with `yes` delete, what lies below `cases/` and no record names: `tandem clean`.

    These are temporary files of killed runs, files that no record names, and the folders of cases that the input does
    not hold any more. Nothing outside `cases/` is touched.

    Args:
        out: the run folder.
        yes: delete it; else it is only listed.

    Raises:
        UsageError: E_NO_CASES, E_OUT; E_BUSY while a run is working in the folder.
    """
    folder = Path(out)
    upkeep.require_free(folder)
    if not yes:
        return upkeep.strays(folder)
    with run_lock(folder):
        found = upkeep.strays(folder)
        upkeep.remove(folder, found)
        if any(item.reason == GONE for item in found):
            records.write_table(folder)
            if (folder / records.PAGE).is_file():  # it is never older than the table
                from pipeline.report.cohort import RunPage

                RunPage()(folder)
    return found


def cohort(out: str | Path, parquet: bool = False) -> pd.DataFrame:
    """Write the table of the cases, what its columns mean, and the page of all cases: `tandem cohort`.

    Args:
        out: the run folder: `cases.csv`, `cases.json` and `report.html` are written into it.
        parquet: `cases.parquet`, too, with the columns' types.

    Returns:
        The table: one row a case.

    Raises:
        UsageError: E_NO_CASES, E_BUSY, E_OUT; E_EXTRA for parquet without pyarrow.
        CaseError: E_DISK; E_VERIFY when the disk does not hold what was written.
    """
    from pipeline.report.cohort import RunPage

    folder = Path(out)
    of_folder(folder)
    if parquet and find_spec("pyarrow") is None:
        what = "Expected pyarrow, to write Parquet, got no such package."
        raise UsageError("E_EXTRA", what, "Install the extra: pip install 'tandem-imaging[parquet]'.")
    with run_lock(folder):
        table = records.write_table(folder)
        if parquet:
            write_atomic(folder / PARQUET, lambda path: table.to_parquet(path, index=False), partial(_require, table))
        RunPage()(folder)
    return table


def _require(table: pd.DataFrame, path: Path) -> None:
    """Read a Parquet file again, and compare it with what was meant."""
    import pandas as pd

    if not pd.read_parquet(path).equals(table):
        raise CaseError("E_VERIFY", f"The file {path.name} does not hold the table that was written.")


def show_checked(found: Checked, out: Path) -> int:
    """Print what is not as it was recorded; the exit code."""
    for word in ("missing", "changed", "unreadable", "unrecorded"):
        paths: tuple[str, ...] = getattr(found, word)
        for path in paths[:SHOWN]:
            echo(f"{word}: {path}", error=word != "unrecorded")
        if paths[SHOWN:]:
            echo(f"{word}: … and {len(paths) - SHOWN} more", error=word != "unrecorded")
    others = f"; {counted(len(found.unrecorded), 'file')} that no record names: see `tandem clean`"
    echo(f"{counted(found.whole, 'output')} as recorded{others if found.unrecorded else ''}")
    if found.is_whole:
        return 0
    said = (
        f"{len(getattr(found, word))} {word}" for word in ("missing", "changed", "unreadable") if getattr(found, word)
    )
    remedy = "The next `tandem run` makes them again, or delete the stage's folder of the case and run."
    echo(f"Exit code 1: E_CHANGED: {', '.join(said)} in {out}. {remedy}", error=True)
    return 1


def show_strays(found: Sequence[Stray], deleted: bool) -> None:
    """Print what was, or would be, deleted."""
    for stray in found[:SHOWN]:
        echo(f"{stray.path}: {stray.reason}")
    if found[SHOWN:]:
        echo(f"… and {len(found) - SHOWN} more")
    size = sum(item.size for item in found) / 1e6
    what = f"{counted(len(found), 'file or folder')}, {size:.1f} MB"
    if not found:
        echo("Nothing to delete: every file below cases/ is named by a record.")
    else:
        echo(f"Deleted: {what}" if deleted else f"Nothing was deleted; `--yes` deletes {what}.")


def _said(found: Retry) -> str:
    if not found.cases:
        return "Nothing to do again: no case has stopped so."
    codes = ", ".join(f"{code} {number}" for code, number in found.codes.most_common())
    return f"Again: {counted(len(found.cases), 'case')} ({codes}), through {', '.join(found.stages)}"
