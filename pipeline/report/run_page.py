"""`report.html`: the page of a whole run, made of the records that lie in its folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from pipeline.cases import Record
from pipeline.report.cohort import cohort_page
from pipeline.report.verdict import case_verdict, stage_status, stage_word
from pipeline.store import records
from pipeline.store.files import write_atomic

PAGE = "report.html"


class RunPage:
    """Write the page of a run."""

    def __call__(self, output_dir: Path) -> None:
        """Write `report.html` into the run folder."""
        rows = [_row(output_dir, case_id, found) for case_id, found in records.of_run(output_dir).items()]
        page = cohort_page(rows, _about(output_dir), date.today().isoformat())
        write_atomic(output_dir / PAGE, lambda path: _write(path, page))


def _row(output_dir: Path, case_id: str, found: Sequence[Record]) -> dict[str, Any]:
    paths = {item.key: output_dir / item.path for record in found for item in record.artifacts}
    verdict = case_verdict(found)
    page, thumbnail = paths.get("report_page"), paths.get("thumbnail")
    return {
        "case_id": case_id,
        "stages": [(record.stage, stage_status(record), stage_word(record)) for record in found],
        "verdict": verdict.word,
        "reason": " ".join(verdict.reasons),
        "code": verdict.code,
        "answers": {label: text for record in found for label, text in record.answers.items()},
        "page": page.relative_to(output_dir).as_posix() if page else "",
        "thumbnail": thumbnail.read_bytes() if thumbnail else None,
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
