"""Identical copies of an instance, as they come of a folder that was exported twice."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from pipeline.cases import Fault, Instance, Series
from pipeline.errors import REMEDIES
from pipeline.storage import sha256_file


def drop_copies(series: Series) -> Series:
    """Keep one of several identical copies of an instance.

    Args:
        series: as scanned.

    Returns:
        The series with each instance once; or with the fault E_DUP_SOP, where files of different content claim to be
        one instance: nothing says which of them is right.
    """
    by_uid: defaultdict[tuple[str, int], list[Instance]] = defaultdict(list)
    for instance in series.instances:
        by_uid[instance.sop_uid, instance.frame].append(instance)
    copies = [same for same in by_uid.values() if len(same) > 1]
    if not copies:
        return series
    hashes = {path: sha256_file(path) for path in {instance.path for same in copies for instance in same}}
    for same in copies:
        if len({hashes[instance.path] for instance in same}) > 1:
            message = f"{len(same)} different files have one SOPInstanceUID."
            return replace(series, fault=Fault("E_DUP_SOP", message, REMEDIES["E_DUP_SOP"]))
    kept = tuple(same[0] for same in by_uid.values())
    return replace(series, instances=kept, notes=(*series.notes, "N_COPIES_DROPPED"))
