"""`tandem deidentify`: a tree of DICOM files in; copies without their patients' identity out."""

from __future__ import annotations

from pathlib import Path

from pipeline.console import echo
from pipeline.dicom.confidentiality.options import Options
from pipeline.dicom.confidentiality.tree import TreeOutcome, deidentify_tree


def deidentify(root: Path, out: Path, options: Options, jobs: int, overwrite: bool) -> int:
    """De-identify a tree and say what became of it.

    Args:
        root: the tree; it is never written to.
        out: the output folder.
        options: what is kept beyond the basic profile.
        jobs: how many processes work at once.
        overwrite: make every copy again.

    Returns:
        The exit code: 0 when every DICOM file was copied, 1 when some were left out.

    Raises:
        UsageError: E_OUT, E_KEY, E_BUSY, E_EMPTY, E_NO_DICOM, E_OPTION, E_CRASH.
    """
    found = deidentify_tree(root, out, options, jobs, overwrite)
    echo(summary(found))
    for code, count in sorted(found.codes().items()):
        echo(f"{code}: {count} files", error=True)
    echo(f"Copies: {out}; which is whose: {found.private_table}")
    return 1 if found.count("quarantined") or found.count("failed") else 0


def summary(found: TreeOutcome) -> str:
    """One line, such as `deidentify: 120 copied (100 already), 3 quarantined, 1 failed, 5 not DICOM`."""
    already = f" ({found.reused} already)" if found.reused else ""
    others = ", ".join(f"{found.count(verdict)} {verdict}" for verdict in ("quarantined", "failed", "not DICOM"))
    return f"deidentify: {found.count('copied')} copied{already}, {others}"
