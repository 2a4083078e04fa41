"""What a run has come to, for a person at the terminal: `tandem status`, and the last lines of a run. Nothing heavy."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from pipeline.cases import Grade, Record, worst
from pipeline.console import echo, print_table
from pipeline.errors import UsageError
from pipeline.store import records
from pipeline.words import counted

_MARKS = {"done": "[green]done[/]", "failed": "[red]failed[/]", "quarantined": "[yellow]quarantined[/]"}
_VERDICTS: dict[Grade, str] = {"warn": "with a warning", "fail": "with a failed verdict"}
_COLOURS = {"pass": "green", "warn": "yellow", "fail": "red"}

Cases = Mapping[str, Sequence[Record]]


def of_folder(output_dir: Path) -> dict[str, list[Record]]:
    """The current records of every case in a run folder, by case id.

    Raises:
        UsageError: E_NO_CASES when the folder holds no run.
    """
    cases = records.of_run(output_dir)
    if not cases:
        raise UsageError("E_NO_CASES", f"Expected a run folder, but {output_dir} holds no cases.")
    return cases


def show(output_dir: Path) -> int:
    """Print one row a case, and what else than 0 the exit code means.

    Returns:
        0 when every case is done and no verdict is `fail`, 1 otherwise.

    Raises:
        UsageError: E_NO_CASES when the folder holds no run.
    """
    cases = of_folder(output_dir)
    stages = records.stages_in_order(cases)
    labels = list(dict.fromkeys(label for found in cases.values() for record in found for label in record.answers))
    table = Table(
        "case",
        *stages,
        "verdict",
        *(escape(label.lower()) for label in labels),
        "code",
        "reason",
        box=None,
        header_style="bold",
    )
    for case_id, found in cases.items():
        table.add_row(case_id, *_row(found, stages, labels))
    print_table(table)
    return finish(output_dir, cases)


def summary(stage: str, found: Sequence[Record]) -> str:
    """One line of a stage, such as `register: 3 done (2 already; 1 with a warning), 1 quarantined`."""
    statuses = Counter(record.status for record in found)
    grades = Counter(record.verdict.grade for record in found if record.status == "done" and record.verdict)
    reused = sum(record.reused for record in found)
    judged = ", ".join(f"{grades[grade]} {words}" for grade, words in _VERDICTS.items() if grades[grade])
    more = "; ".join(filter(None, (f"{reused} already" if reused else "", judged)))
    parts = [f"{statuses['done']} done" + (f" ({more})" if more else "")]
    parts += [f"{statuses[status]} {status}" for status in ("failed", "quarantined") if statuses[status]]
    return f"{stage}: {', '.join(parts)}"


def finish(output_dir: Path, cases: Cases, passed: bool = False) -> int:
    """Print every fault and every verdict (with `passed` a pass, too), and last of all what exit code 1 comes from.

    Returns:
        The exit code.
    """
    found = [record for case in cases.values() for record in case]
    for record in found:
        for line in _said(record, passed):
            echo(line, error=record.verdict is None or record.verdict.grade != "pass")
    reasons = [*_reasons(found), *_lost(output_dir)]
    if reasons:
        echo(f"Exit code 1: {', '.join(reasons)}.", error=True)
    return int(bool(reasons))


def _said(record: Record, passed: bool) -> Iterator[str]:
    where = f"{record.case_id}, {record.stage}"
    if record.error is not None:
        yield f"{where}: {record.status}: {record.error.code}: {record.error.message} {record.error.remedy}".rstrip()
    if record.verdict is not None and (passed or record.verdict.grade != "pass"):
        yield f"{where}: verdict {record.verdict.grade}: {' '.join(record.verdict.reasons)}"


def _reasons(found: Iterable[Record]) -> Iterator[str]:
    found = tuple(found)
    for status in ("failed", "quarantined"):
        codes = [record.error.code for record in found if record.status == status and record.error]
        if codes:
            yield f"{len(codes)} {status} ({', '.join(sorted(set(codes)))})"
    judged = sum(record.status == "done" and not records.went_well(record) for record in found)
    if judged:
        yield f"{judged} with a verdict of fail"


def _lost(output_dir: Path) -> Iterator[str]:
    """What ingest could not read, or give to a series: nobody knows whose it was."""
    scan = output_dir / "scan.json"
    counts = json.loads(scan.read_text(encoding="utf-8")) if scan.is_file() else {}
    if unreadable := counts.get("files_unreadable"):
        yield f"{counted(unreadable, 'file or folder')} could not be read"
    if homeless := counts.get("files_of_no_series"):
        yield f"{counted(homeless, 'broken file')} of no series"


def _row(found: Sequence[Record], stages: Sequence[str], labels: Sequence[str]) -> list[str]:
    """What became of each stage, the worst verdict, what was found; code and reason of the first fault."""
    marks = {record.stage: _MARKS[record.status] for record in found}
    answers = {label: value for record in found for label, value in record.answers.items()}
    judged = worst(record.verdict for record in found if record.verdict)
    fault = next((record.error for record in found if record.error), None)
    doubts = judged.reasons if judged and judged.grade != "pass" else ("",)
    return [
        *(marks.get(stage, "-") for stage in stages),
        f"[{_COLOURS[judged.grade]}]{judged.grade}[/]" if judged else "-",
        *(escape(answers.get(label, "")) for label in labels),
        fault.code if fault else "",
        escape(fault.message if fault else doubts[0]),
    ]
