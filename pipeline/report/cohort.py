"""The page of a cohort: what became of every case, problems first. Plain dictionaries in, one HTML file out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from pipeline import __version__
from pipeline.report.html import data_uri, render
from pipeline.report.verdict import HEADLINES, SEVERITY
from pipeline.words import NOT_AVAILABLE, clean, in_words, measure_text, value_text

LABELS = {"failed": "failed", "quarantined": "quarantined", "warning": "done, with a warning", "done": "done"}
#: How a stage's status is set off in its cell.
STATUS_CLASSES = {"not run": "absent", "failed": "chip failed", "quarantined": "chip quarantined"}


def cohort_page(rows: Sequence[Mapping[str, Any]], run: Mapping[str, Any]) -> bytes:
    """Lay a cohort out as one self-contained web page.

    Args:
        rows: one a case: `case_id`, `stages` (stage -> status), `verdict` (a `verdict.Word`), `reason`, `code`,
            `measures` (name with unit -> number or text), `page` (link relative to this page), and `thumbnail` (PNG
            bytes); all but `case_id` and `verdict` may be missing.
        run: what to say about the run, such as `tandem`, `started`, `spec`, `command`, `counts`.

    Returns:
        HTML bytes, UTF-8; the same for the same input.
    """
    ordered = sorted(rows, key=lambda row: (_severity(row), str(row["case_id"])))
    stages = _keys(ordered, "stages")
    measures = _keys(ordered, "measures")
    return render(
        "cohort.html",
        clean(run.get("tandem", __version__)),
        rows=[_row(row, stages, measures) for row in ordered],
        counts=_counts(ordered),
        stages=[in_words(stage) for stage in stages],
        measures=[in_words(name) for name in measures],
        not_available=NOT_AVAILABLE,
        status_classes=defaultdict(str, STATUS_CLASSES),
        thumbnails=any(row.get("thumbnail") for row in ordered),
        run=[(in_words(key), value_text(value)) for key, value in run.items()],
    )


def safe_link(page: str) -> str:
    """A link that stays below the page's own folder, quoted; an empty text for any other."""
    path = PurePosixPath(page.replace("\\", "/"))
    if not page or path.is_absolute() or ".." in path.parts:
        return ""
    # The colon is quoted, too: no `javascript:`, no `https:`.
    return quote(path.as_posix(), safe="/")


def _severity(row: Mapping[str, Any]) -> int:
    """Problems first, and first of all what nobody knows how to read."""
    return SEVERITY.index(row["verdict"]) if row["verdict"] in SEVERITY else -1


def _keys(rows: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    """The keys of a mapping in all rows; the row that has most of them gives the order."""
    longest = sorted((row.get(name) or {} for row in rows), key=len, reverse=True)
    return list(dict.fromkeys(key for mapping in longest for key in mapping))


def _counts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    verdicts = [row["verdict"] for row in rows]
    return [{"word": word, "number": verdicts.count(word), "label": LABELS[word]} for word in reversed(SEVERITY)]


def _row(row: Mapping[str, Any], stages: Sequence[str], measures: Sequence[str]) -> dict[str, Any]:
    """One row as texts."""
    reached, values = row.get("stages") or {}, row.get("measures") or {}
    known = row["verdict"] in HEADLINES
    return {
        "case_id": clean(row["case_id"]),
        "page": safe_link(str(row.get("page") or "")),
        "thumbnail": data_uri(row["thumbnail"]) if row.get("thumbnail") else "",
        "word": row["verdict"] if known else "failed",
        "verdict": HEADLINES[row["verdict"]] if known else clean(row["verdict"]) or NOT_AVAILABLE,
        "code": clean(row.get("code") or ""),
        "reason": clean(row.get("reason") or ""),
        "stages": [clean(reached.get(stage, "not run")) for stage in stages],
        "measures": [measure_text(name, values.get(name)) for name in measures],
    }
