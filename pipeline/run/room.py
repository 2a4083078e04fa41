"""Whether the disk has room for a stage, before it starts: what its earlier cases took, for each case that is to do."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from pipeline.cases import Record
from pipeline.errors import UsageError
from pipeline.store import records

GB = 1e9
#: What commands that run stages over a cohort ask for, unless they are told otherwise.
MIN_FREE_GB = 1.0
#: So many of a stage's earlier cases say what one takes.
SAMPLE = 50
_REMEDY = "Free some, then run again: finished cases are not repeated. `--min-free 0` starts all the same."


def require_room(output_dir: Path, stages: Sequence[str], case_ids: Sequence[str], min_free_gb: float) -> None:
    """Refuse to start stages for which the disk has not enough room.

    Args:
        output_dir: the run folder.
        stages: their names.
        case_ids: of the cases that they are given; those that are done already take nothing.
        min_free_gb: GB (1e9 bytes) that have to be free whatever earlier cases took; 0: nothing is asked.

    Raises:
        UsageError: E_DISK.
    """
    if min_free_gb <= 0:
        return
    waiting = {name: sum(not _done(output_dir, case, name) for case in case_ids) for name in stages}
    if not any(waiting.values()):
        return
    wanted = sum(_bytes_each(_written(output_dir, name), output_dir) * count for name, count in waiting.items())
    needed, free = max(min_free_gb * GB, wanted), shutil.disk_usage(output_dir).free
    if free < needed:
        how = f": {max(waiting.values())} cases like the earlier ones" if wanted > min_free_gb * GB else ""
        got = f"Expected {needed / GB:.2f} GB of free room before {', '.join(stages)}{how}, got {free / GB:.2f} GB."
        raise UsageError("E_DISK", got, _REMEDY)


def _done(output_dir: Path, case_id: str, stage: str) -> bool:
    found = records.read(records.case_folder(output_dir, case_id) / stage)
    return found is not None and found.status == "done"


def _written(output_dir: Path, stage: str) -> Iterable[Record]:
    paths = islice((output_dir / "cases").glob(f"*/{stage}/{records.RECORD}"), SAMPLE)
    found = (records.read(path.parent) for path in paths)
    return (record for record in found if record and record.status == "done")


def _bytes_each(found: Iterable[Record], output_dir: Path) -> float:
    """What a case of a stage takes on the disk, on average; 0 where none is done."""
    sizes = [sum(_size(output_dir / item.path) for item in record.artifacts) for record in found]
    return sum(sizes) / len(sizes) if sizes else 0.0


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
