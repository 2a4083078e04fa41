"""Whether the headers of two images may be believed: what ingest has found out about their frames of reference."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import CaseError

UNKNOWN = "Nothing says whether the two images share a frame of reference."


def require_one_frame(case: Mapping[Hashable, Any], fixed: str, moving: str) -> bool:
    """Refuse to believe headers that are known to speak of different frames of reference.

    Args:
        case: with `frames`, the path of what ingest wrote (role -> number of its frame), where DICOM said it.
        fixed: the role that the other one is aligned with.
        moving: the role that is aligned.

    Returns:
        Whether both frames are known.

    Raises:
        CaseError: E_FRAME when the two are not the same.
    """
    path = case.get("frames")
    numbers = {} if path is None else json.loads(Path(path).read_text())
    if fixed not in numbers or moving not in numbers:
        return False
    if numbers[fixed] != numbers[moving]:
        raise CaseError("E_FRAME", f"Expected {fixed} and {moving} in one frame of reference, got two.")
    return True


def note_unknown_frames(quality: Mapping[str, Any]) -> dict[str, Any]:
    """The quality of an alignment by headers whose frames nobody knows; its reason says so, its verdict stays."""
    return {**quality, "reason": f"{quality['reason']} {UNKNOWN}"}
