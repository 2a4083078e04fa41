"""Run stages over a tree of images, and say what a run has come to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.cases import Record
from pipeline.console import shown
from pipeline.run.plan import Plan
from pipeline.run.room import MIN_FREE_GB
from pipeline.run.status import of_folder

#: A study counts as whole when none of its files has changed for so long: senders pause between series.
QUIET_S = 60.0


def run(  # noqa: PLR0913 - each is an option of the command
    root: str | Path,
    out: str | Path,
    spec: str | Path,
    stages: Sequence[str] = (),
    overwrite: bool = False,
    jobs: int = 1,
    device: str = "",
    min_free_gb: float = MIN_FREE_GB,
    resources: str | Path | None = None,
    scheduler: str = "",
    slurm: str | Path | None = None,
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
        min_free_gb: GB (1e9 bytes) that have to be free before a stage starts; more where its earlier cases took more;
            0: nobody looks.
        resources: a YAML file of what stages may take (docs/how-to/cohorts.md); no limits when left out.
        scheduler: the address of a running dask scheduler whose workers do the work, instead of `jobs` processes.
        slurm: a YAML file of the jobs of SLURM that do the work.
        progress: print a line a stage, and show a bar at a terminal.

    Returns:
        The current records of every case in the run folder, by case id.

    Raises:
        UsageError: when the run cannot start: E_SPEC, E_NO_STAGE, E_OPTION, E_EMPTY, E_NO_DICOM, E_NO_CASES, E_OUT,
            E_BUSY, E_DISK, E_RESOURCES, E_SCHEDULER, E_SLURM, E_WORKER …
    """
    how = {"overwrite": overwrite, "jobs": jobs, "device": device, "min_free_gb": min_free_gb, "scheduler": scheduler}
    return work(_plan(root, out, spec, stages, resources=resources, slurm=slurm, **how), progress)


def _plan(root: str | Path, out: str | Path, spec: str | Path, stages: Sequence[str] = (), **how: Any) -> Plan:
    return Plan(Path(root), Path(out), Path(spec), tuple(stages), **fields_of(**how))


def fields_of(resources: str | Path | None = None, slurm: str | Path | None = None, **how: Any) -> dict[str, Any]:
    """Fields of a plan, of who does the work and how, out of what was asked for."""
    limits, asked = (None if path is None else Path(path) for path in (resources, slurm))
    return {"min_free_gb": MIN_FREE_GB, "resources": limits, "slurm": asked, **how}


def ingest(
    root: str | Path,
    out: str | Path,
    spec: str | Path | None = None,
    overwrite: bool = False,
    jobs: int = 1,
    min_free_gb: float = MIN_FREE_GB,
    progress: bool = False,
) -> dict[str, list[Record]]:
    """Turn a tree of images into volumes with verdicts: `tandem ingest`. Arguments, result and errors as of `run`.

    Without a spec every volume of the tree is a case of its own.
    """
    found = None if spec is None else Path(spec)
    plan = Plan(Path(root), Path(out), found, ("ingest",), overwrite, jobs, min_free_gb=min_free_gb)
    return work(plan, progress)


def watch(
    root: str | Path,
    out: str | Path,
    spec: str | Path,
    quiet_s: float = QUIET_S,
    once: bool = False,
    progress: bool = False,
    **options: Any,
) -> dict[str, list[Record]]:
    """Take the studies that arrive in a folder, until it is stopped: `tandem watch`. Other options as of `run`.

    A case is taken when none of its files has changed for `quiet_s` seconds, and again when it grows; with `once` it
    ends when all that is there has been taken. What has left the folder stays in the run folder as it is.

    Raises:
        UsageError: as of `run`. A full disk and an empty folder are waited out.
    """
    from pipeline.run import incoming

    with shown(progress):
        incoming.watch(_plan(root, out, spec, **options), quiet_s, once)
    return of_folder(Path(out))


def status(out: str | Path) -> dict[str, list[Record]]:
    """The current records of every case in a run folder, by case id: what `tandem status` shows.

    Raises:
        UsageError: E_NO_CASES when the folder holds no run.
    """
    return of_folder(Path(out))


def work(plan: Plan, progress: bool) -> dict[str, list[Record]]:
    """Carry a plan out; print a line a stage where it is asked for.

    Raises:
        UsageError: when the run cannot start.
    """
    from pipeline.run import batch

    with shown(progress):
        return batch.run(plan)
