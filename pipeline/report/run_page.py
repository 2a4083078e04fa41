"""`report.html`: the page of a whole run, made of the records that lie in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.cases import Record
from pipeline.report.cohort import cohort_page
from pipeline.report.verdict import case_verdict
from pipeline.store import records
from pipeline.store.files import write_atomic
from pipeline.store.records import class_in_words

PAGE = "report.html"
REPORT_STAGE = "report"


class RunPage:
    """Write the page of a run.

    Args:
        moving: roles of the images that were aligned.
    """

    def __init__(self, moving: Sequence[str]) -> None:
        self.moving = tuple(moving)

    def __call__(self, output_dir: Path) -> None:
        """Write `report.html` into the run folder."""
        rows = [self._row(output_dir, case_id, found) for case_id, found in records.of_run(output_dir).items()]
        page = cohort_page(rows, _about(output_dir))
        write_atomic(output_dir / PAGE, lambda path: _write(path, page))

    def _row(self, output_dir: Path, case_id: str, found: Sequence[Record]) -> dict[str, Any]:
        measures = {name: value for record in found for name, value in record.measures.items()}
        made = {item.key: output_dir / item.path for record in found for item in record.artifacts}
        qualities = {role: measures.get(f"{role}_quality") for role in self.moving if f"{role}_aligned" in made}
        verdict = case_verdict(found, qualities)
        thumbnail = next((made[f"{role}_thumbnail"] for role in self.moving if f"{role}_thumbnail" in made), None)
        page = made.get("report_page")
        fused = class_in_words(measures)
        return {
            "case_id": case_id,
            "stages": {record.stage: record.status for record in found if record.stage != REPORT_STAGE},
            "verdict": verdict.word,
            "reason": " ".join(verdict.reasons),
            "code": verdict.code,
            "measures": _numbers(qualities) | ({"fused_class": fused} if fused else {}),
            "page": page.relative_to(output_dir).as_posix() if page else "",
            "thumbnail": thumbnail.read_bytes() if thumbnail else None,
        }


def _numbers(qualities: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Any]:
    """The numbers of the alignments that fit into a table of all cases."""
    shown = ("start_disagreement_mm", "nmi_before", "nmi_after")
    return {
        f"{role}_{name}": found[name] for role, found in qualities.items() if found for name in shown if name in found
    }


def _about(output_dir: Path) -> dict[str, Any]:
    """What the manifest and the scan say about the run."""
    about: dict[str, Any] = {}
    manifest = output_dir / "run.json"
    if manifest.is_file():
        stored = json.loads(manifest.read_text(encoding="utf-8"))
        about = {key: stored[key] for key in ("started", "stages", "device", "python")}
        about |= {"command": " ".join(stored["command"]), **stored["versions"]}
    scan = output_dir / "scan.json"
    if scan.is_file():
        about |= json.loads(scan.read_text(encoding="utf-8"))
    return about


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
