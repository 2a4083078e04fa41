"""`tandem deidentify`: a tree of DICOM files in; copies without their patients' identity out."""

from __future__ import annotations

from pathlib import Path

from pipeline.console import echo, shown
from pipeline.dicom.confidentiality.options import Options
from pipeline.dicom.confidentiality.tree import TreeOutcome, deidentify_tree


def deidentify(
    root: str | Path,
    out: str | Path,
    jobs: int = 1,
    overwrite: bool = False,
    progress: bool = False,
    **options: bool,
) -> TreeOutcome:
    """Copy a tree of DICOM files without their patients' identity (DICOM PS3.15 E): `tandem deidentify`.

    Args:
        root: the tree; it is never written to.
        out: the output folder.
        jobs: how many processes work at once.
        overwrite: make every copy again.
        progress: show a bar at a terminal.
        options: what is kept beyond the basic profile: the attributes of `Options`, such as `shift_dates=True`.

    Returns:
        What became of every file.

    Raises:
        UsageError: E_OUT, E_KEY, E_BUSY, E_EMPTY, E_NO_DICOM, E_OPTION, E_CRASH.
    """
    with shown(progress):
        return deidentify_tree(Path(root), Path(out), Options(**options), jobs, overwrite)


def show(found: TreeOutcome, out: Path) -> int:
    """Say what became of a tree; the exit code: 1 when DICOM files were left out."""
    already = f" ({found.reused} already)" if found.reused else ""
    others = ", ".join(f"{found.count(verdict)} {verdict}" for verdict in ("quarantined", "failed", "not DICOM"))
    echo(f"deidentify: {found.count('copied')} copied{already}, {others}")
    for code, count in sorted(found.codes().items()):
        echo(f"{code}: {count} files", error=True)
    if found.gone:
        echo(f"{found.gone} copies of an earlier run stay whose files are no longer in the input", error=True)
    if found.parted:
        patients = f"{found.parted} PatientIDs have an issuer in some files and none in others"
        echo(f"{patients}: copies of two patients each", error=True)
    echo(f"Copies: {out}; the private table that says whose each copy is: {found.private_table}")
    return 1 if found.count("quarantined") or found.count("failed") else 0
