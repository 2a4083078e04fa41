"""Equal files, and equal images under other names: in two folds they let a network be judged by what it has learned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.commands.equal_files import content_hash
from pipeline.errors import CaseError, UsageError
from pipeline.learning.table import Row
from pipeline.store.files import sha256_file


def find_duplicates(paths: Iterable[Path]) -> tuple[tuple[Path, ...], ...]:
    """Groups of files that are equal by what is in them; by their bytes where one cannot be read.

    Args:
        paths: files; a path that comes twice counts once.

    Returns:
        Groups of two or more, each in the order given.
    """
    groups: dict[str, list[Path]] = {}
    for path in dict.fromkeys(paths):
        groups.setdefault(_hash(path), []).append(path)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def shared_between_folds(rows: Sequence[Row]) -> tuple[tuple[str, ...], ...]:
    """Cases in different folds that have a file in common, by its bytes or by what is in it.

    Args:
        rows: with folds.

    Returns:
        Groups of case ids, in the order of the rows; a file of one fold alone makes none.
    """
    owners: dict[Path, list[Row]] = {}
    for row in rows:
        for path in row.images.values():
            owners.setdefault(path, []).append(row)
    same = find_duplicates(owners)
    alone = [(path,) for path, cases in owners.items() if len(cases) > 1 and not any(path in group for group in same)]
    found = []
    for group in [*same, *alone]:
        cases = {row.case_id: row.fold for path in group for row in owners[path]}
        if len(set(cases.values())) > 1:
            found.append(tuple(cases))
    return tuple(found)


def require_apart(rows: Sequence[Row]) -> None:
    """Refuse equal files or pixels in two folds.

    Raises:
        UsageError: E_DUPLICATE, with the first cases.
    """
    found = shared_between_folds(rows)
    if found:
        got = f"{len(found)} in two, such as that of {' and '.join(found[0][:3])}"
        remedy = (
            "Keep one of the equal files, or give all cases that share a file one patient_id: they then share a fold."
        )
        raise UsageError("E_DUPLICATE", f"Expected every file in one fold alone, got {got}.", remedy)


def _hash(path: Path) -> str:
    try:
        return content_hash(path)
    except CaseError:
        return sha256_file(path)
