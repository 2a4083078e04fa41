"""Run stages over a tree of images, and say what a run has come to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.cases import Record
from pipeline.console import shown
from pipeline.run.plan import Plan
from pipeline.run.status import of_folder


def run(  # noqa: PLR0913 - each is an option of the command
    root: str | Path,
    out: str | Path,
    spec: str | Path,
    stages: Sequence[str] = (),
    overwrite: bool = False,
    jobs: int = 1,
    device: str = "",
    resources: str | Path | None = None,
    scheduler: str = "",
    progress: bool = False,
) -> dict[str, list[Record]]:
    """Run stages over a tree of images: `tandem run`. A bad case never stops the others.

    Args:
        root: a folder of DICOM files, or of NIfTI files that the spec names; it is never written to.
        out: the run folder; a second run goes on where the first ended.
        spec: the data spec: a file, or the name of a shipped one.
        stages: names, in any order; all that the data spec has a use for when left out.
        overwrite: do the work again even where it is done.
        jobs: how many processes work at once.
        device: `cpu`, `cuda` or `cuda:N`, for networks; a GPU where there is one when left out.
        resources: a YAML file of what stages may take (docs/how-to/cohorts.md); no limits when left out.
        scheduler: the address of a running dask scheduler whose workers do the work, instead of `jobs` processes.
        progress: print a line a stage, and show a bar at a terminal.

    Returns:
        The current records of every case in the run folder, by case id.

    Raises:
        UsageError: when the run cannot start: E_SPEC, E_NO_STAGE, E_OPTION, E_EMPTY, E_NO_DICOM, E_NO_CASES, E_OUT,
            E_BUSY, E_RESOURCES, E_SCHEDULER, E_WORKER …
    """
    limits = None if resources is None else Path(resources)
    given = (Path(root), Path(out), Path(spec), tuple(stages), overwrite, jobs, device, limits, scheduler)
    return _run(Plan(*given), progress)


def ingest(
    root: str | Path,
    out: str | Path,
    spec: str | Path | None = None,
    overwrite: bool = False,
    jobs: int = 1,
    progress: bool = False,
) -> dict[str, list[Record]]:
    """Turn a tree of images into volumes with verdicts: `tandem ingest`. Arguments, result and errors as of `run`.

    Without a spec every volume of the tree is a case of its own.
    """
    found = None if spec is None else Path(spec)
    return _run(Plan(Path(root), Path(out), found, ("ingest",), overwrite, jobs), progress)


def status(out: str | Path) -> dict[str, list[Record]]:
    """The current records of every case in a run folder, by case id: what `tandem status` shows.

    Raises:
        UsageError: E_NO_CASES when the folder holds no run.
    """
    return of_folder(Path(out))


def _run(plan: Plan, progress: bool) -> dict[str, list[Record]]:
    from pipeline.run import batch

    with shown(progress):
        return batch.run(plan)
