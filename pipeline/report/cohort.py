"""The page of a cohort: what became of every case, problems first. Plain dictionaries in, one HTML file out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from pipeline import __version__
from pipeline.cases import Record
from pipeline.report.distributions import Distribution, distributions
from pipeline.report.html import data_uri, render
from pipeline.report.verdict import HEADLINES, SEVERITY, case_verdict, stage_status, stage_word
from pipeline.store import records
from pipeline.store.dictionary import labels_of
from pipeline.store.files import write_atomic
from pipeline.words import NOT_AVAILABLE, clean, in_words, value_text

LABELS = {"failed": "failed", "quarantined": "quarantined", "warning": "done, with a warning", "done": "done"}
#: More answers than these share one column, so that the page fits a screen.
ANSWER_COLUMNS = 4
#: Of more cases the page has no pictures: it would take seconds to open. Each row opens its case, which has them.
THUMBNAILS = 200


def cohort_page(rows: Sequence[Mapping[str, Any]], run: Mapping[str, Any], today: str) -> bytes:
    """Lay a cohort out as one self-contained web page that sorts and filters; its only script is known by its hash.

    Args:
        rows: one a case: `case_id`, `verdict` (a `verdict.Word`), `reason`, `code`, `remedy`, `stages` (name, status
            and the word whose colour it bears, in order), `answers` (label -> text), `page` (link relative to this
            page), `thumbnail` (PNG bytes), and `measures` (column of `cases.csv` -> number); all but `case_id` and
            `verdict` may be missing.
        run: what to say about the run, such as `tandem`, `started`, `spec`, `command`, `counts`.
        today: date of the page.

    Returns:
        HTML bytes, UTF-8; the same for the same input.
    """
    ordered = sorted(rows, key=lambda row: (_severity(row), str(row["case_id"])))
    labels = list(dict.fromkeys(clean(label) for row in ordered for label in row.get("answers") or {}))
    apart = len(labels) <= ANSWER_COLUMNS
    shown = distributions([row.get("measures") or {} for row in ordered])
    unusual = [[item.note(index) for item in shown if item.far[index]] for index in range(len(ordered))]
    marked = ["Unusual"] if any(unusual) else []
    return render(
        "cohort.html",
        clean(run.get("tandem", __version__)),
        script="cohort.js" if rows else "",
        date=today,
        columns=["Case", "Verdict", *(labels if apart else ["Answers"]), *marked, "Stages", "Reason"],
        rows=[
            _row(row, labels if apart else None) | {"unusual": notes, "numbers": _numbers(shown, index)}
            for index, (row, notes) in enumerate(zip(ordered, unusual, strict=True))
        ],
        marked=bool(marked),
        measures=[_measure(item) for item in shown],
        counts=_counts(ordered),
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


def _counts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    verdicts = [row["verdict"] for row in rows]
    return [{"word": word, "number": verdicts.count(word), "label": LABELS[word]} for word in reversed(SEVERITY)]


def _numbers(shown: Sequence[Distribution], index: int) -> str:
    """What a case has of each measure, as JSON for the page's script; of outliers the second number is 1."""
    values = [(item.values[index], item.far[index]) for item in shown]
    plain = [None if value != value else [float(f"{value:.6g}"), int(far)] for value, far in values]
    return json.dumps(plain, separators=(",", ":"))


def _measure(item: Distribution) -> dict[str, Any]:
    """A distribution as the template draws it: bars from 0 to 1."""
    most = max(bar.cases for bar in item.bars)
    bars = [(bar, bar.cases / most) for bar in item.bars]
    return {"column": clean(item.column), "title": clean(item.title), "summary": clean(item.summary), "bars": bars}


def _row(row: Mapping[str, Any], labels: Sequence[str] | None) -> dict[str, Any]:
    """One row as texts; each label's answer in a cell of its own, or all answers in one where there are no labels."""
    answers = {clean(label): clean(text) for label, text in (row.get("answers") or {}).items()}
    cells = [list(answers.items())] if labels is None else [[("", answers[x])] if x in answers else [] for x in labels]
    known = row["verdict"] in HEADLINES
    return {
        "case_id": clean(row["case_id"]),
        "page": safe_link(str(row.get("page") or "")),
        "thumbnail": data_uri(row["thumbnail"]) if row.get("thumbnail") else "",
        "severity": _severity(row),
        "word": row["verdict"] if known else "failed",
        "verdict": HEADLINES[row["verdict"]] if known else clean(row["verdict"]) or NOT_AVAILABLE,
        "code": clean(row.get("code") or ""),
        "reason": clean(row.get("reason") or ""),
        "remedy": clean(row.get("remedy") or ""),
        "answers": cells,
        "stages": [(clean(stage), clean(status), word) for stage, status, word in row.get("stages") or ()],
    }


class RunPage:
    """Write the page of a run."""

    def __call__(self, output_dir: Path) -> None:
        """Write `report.html` into the run folder."""
        cases = records.of_run(output_dir)
        drawn = len(cases) <= THUMBNAILS
        labels = labels_of(record for found in cases.values() for record in found)
        rows = [_case_row(output_dir, case_id, found, drawn, labels) for case_id, found in cases.items()]
        page = cohort_page(rows, _about(output_dir), date.today().isoformat())
        write_atomic(output_dir / records.PAGE, lambda path: path.write_bytes(page))


def _case_row(
    output_dir: Path, case_id: str, found: Sequence[Record], drawn: bool, labels: Mapping[tuple[str, str], str]
) -> dict[str, Any]:
    paths = {item.key: output_dir / item.path for record in found for item in record.artifacts}
    verdict = case_verdict(found)
    page, thumbnail = paths.get("report_page"), paths.get("thumbnail")
    return {
        "case_id": case_id,
        "stages": [(record.stage, stage_status(record), stage_word(record)) for record in found],
        "verdict": verdict.word,
        "reason": " ".join(verdict.reasons),
        "code": verdict.code,
        "remedy": verdict.remedy,
        "answers": {labels[item.stage, label]: text for item in found for label, text in item.answers.items()},
        "page": page.relative_to(output_dir).as_posix() if page else "",
        "thumbnail": thumbnail.read_bytes() if thumbnail and drawn else None,
        "measures": records.measures_of(found),
    }


def _about(output_dir: Path) -> dict[str, Any]:
    """What the manifest and the scan say about the run."""
    about: dict[str, Any] = {}
    manifest = output_dir / "run.json"
    if manifest.is_file():
        stored = json.loads(manifest.read_text(encoding="utf-8"))
        about = {key: stored[key] for key in ("started", "stages", "device", "python")}
        about |= {"command": " ".join(stored["command"]), **stored["versions"]}
    scan = output_dir / records.SCAN_SUMMARY
    if scan.is_file():
        about |= json.loads(scan.read_text(encoding="utf-8"))
    return about
