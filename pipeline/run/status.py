"""What a run has come to, or how far it is, for a person: `tandem status`, and the last lines of a run."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from pipeline.cases import Record, worst
from pipeline.console import echo, print_table
from pipeline.run.events import Follower
from pipeline.run.progress import GRADED, WORDS, Progress, line_of, word_of
from pipeline.store import records, upkeep
from pipeline.store.dictionary import labels_of
from pipeline.store.files import is_held
from pipeline.words import counted

#: So many cases are shown one by one unless all are asked for.
ROWS = 50
#: While a run is followed: how often a screen is drawn, and a line printed where there is none.
SCREEN_S, LINE_S = 1.0, 10.0
_MARKS = {"done": "[green]done[/]", "failed": "[red]failed[/]", "quarantined": "[yellow]quarantined[/]"}
_COLOURS = {"pass": "green", "warn": "yellow", "fail": "red"}

Cases = Mapping[str, Sequence[Record]]


def of_folder(output_dir: Path) -> dict[str, list[Record]]:
    """The current records of every case in a run folder, by case id.

    Raises:
        UsageError: E_NO_CASES when the folder holds no run.
    """
    if cases := records.of_run(output_dir):
        return cases
    raise upkeep.no_cases(output_dir)


def show(output_dir: Path, cases: bool = False) -> int:
    """Print counts by stage and by code, what the log says of the run, and one row a case unless they are many.

    Args:
        output_dir: the run folder.
        cases: the rows also where there are more than `ROWS` cases.

    Returns:
        0 when every case is done, no verdict is `fail` and the last run came to its end; 1 otherwise.

    Raises:
        UsageError: E_NO_CASES when the folder holds no run.
    """
    found = records.of_run(output_dir)
    if not found and progress_of(output_dir).started is None:
        raise upkeep.no_cases(output_dir)
    stages = records.stages_in_order(found)
    print_table(counts(stages, (record for case in found.values() for record in case)))
    if is_held(output_dir):
        echo(f"A run is going on. {line_of(progress_of(output_dir), datetime.now(UTC))}")
    if cases or len(found) <= ROWS:
        print_table(_rows(found, stages))
    else:
        echo(f"{len(found)} cases: `--cases` prints a row for each, {records.CASES_TABLE} has them all.")
    return finish(output_dir, found, limit=None if cases else ROWS)


def counts(stages: Sequence[str], found: Iterable[Record]) -> Table:
    """One row a stage: how the cases have left it, each way apart, and the codes of those that are not done."""
    words: dict[str, Counter[str]] = {stage: Counter() for stage in stages}
    codes: dict[str, Counter[str]] = {stage: Counter() for stage in stages}
    for record in found:
        words[record.stage][word_of(record.status, record.verdict.grade if record.verdict else "")] += 1
        if record.error:
            codes[record.stage][record.error.code] += 1
    table = Table("stage", *WORDS, "codes", box=None, header_style="bold")
    for stage in stages:
        said = ", ".join(f"{code} {number}" for code, number in codes[stage].most_common())
        table.add_row(stage, *(str(words[stage][word] or "-") for word in WORDS), said)
    return table


def progress_of(output_dir: Path) -> Progress:
    """What the log of a run folder says of its last run."""
    progress = Progress()
    progress.take(Follower(output_dir).new())
    return progress


def _rows(cases: Cases, stages: Sequence[str]) -> Table:
    labels = labels_of(record for found in cases.values() for record in found)
    shown = (escape(label.lower()) for label in labels.values())
    table = Table(Column("case", no_wrap=True), *stages, "verdict", *shown, "code", box=None, header_style="bold")
    for case_id, found in cases.items():
        table.add_row(case_id, *_row(found, stages, labels))
    return table


def summary(stage: str, found: Sequence[Record]) -> str:
    """One line of a stage, such as `register: 3 done (2 already; 1 with a warning), 1 quarantined`."""
    statuses = Counter(record.status for record in found)
    grades = Counter[str](record.verdict.grade for record in found if record.status == "done" and record.verdict)
    reused = sum(record.reused for record in found)
    judged = ", ".join(f"{grades[grade]} {words}" for grade, words in GRADED.items() if grades[grade])
    more = "; ".join(filter(None, (f"{reused} already" if reused else "", judged)))
    parts = [f"{statuses['done']} done" + (f" ({more})" if more else "")]
    parts += [f"{statuses[status]} {status}" for status in ("failed", "quarantined") if statuses[status]]
    return f"{stage}: {', '.join(parts)}"


def finish(output_dir: Path, cases: Cases, passed: bool = False, limit: int | None = ROWS) -> int:
    """Print faults and verdicts, and last of all what exit code 1 comes from.

    Args:
        output_dir: the run folder.
        cases: the records of each.
        passed: say a verdict that is a pass, too.
        limit: how many lines about cases are printed; None for all. What was left out is said.

    Returns:
        The exit code.
    """
    found = [record for case in cases.values() for record in case]
    tell(output_dir, found, passed, limit)
    reasons = [*_reasons(found), *_lost(output_dir), *_broken_off(output_dir)]
    if reasons:
        echo(f"Exit code 1: {', '.join(reasons)}.", error=True)
    return int(bool(reasons))


def tell(output_dir: Path, found: Iterable[Record], passed: bool = False, limit: int | None = ROWS) -> None:
    """Print faults and verdicts, as `finish` does."""
    lines = [(line, record) for record in found for line in _said(record, passed)]
    if limit is not None and len(lines) > limit:
        lines.sort(key=lambda item: _severity(item[1]))
    for line, record in lines[:limit]:
        echo(line, error=record.verdict is None or record.verdict.grade != "pass")
    if left := len(lines[len(lines) if limit is None else limit :]):
        echo(f"… and {left} more like these: `tandem status {output_dir} --cases` prints them all.", error=True)


def _severity(record: Record) -> int:
    """What stopped a case first, then what must not be used, then warnings."""
    return WORDS[::-1].index(word_of(record.status, record.verdict.grade if record.verdict else ""))


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
    scan = output_dir / records.SCAN_SUMMARY
    counts = json.loads(scan.read_text(encoding="utf-8")) if scan.is_file() else {}
    if unreadable := counts.get("files_unreadable"):
        yield f"{counted(unreadable, 'file or folder')} could not be read"
    if homeless := counts.get("files_of_no_series"):
        yield f"{counted(homeless, 'broken file')} of no series"


def _broken_off(output_dir: Path) -> Iterator[str]:
    """A run that has not come to its end may have left cases out that nothing else tells of."""
    progress = progress_of(output_dir)
    if progress.started is None or is_held(output_dir):
        return
    if progress.ended is None:
        yield "the last run was broken off"
    elif code := progress.ended.get("code"):
        yield "the last run was stopped" if code == "stopped" else f"the last run could not go on ({code})"


def _row(found: Sequence[Record], stages: Sequence[str], labels: Mapping[tuple[str, str], str]) -> list[str]:
    """What became of each stage, the worst verdict, what was found; the code of the first fault. `tell` has reasons."""
    marks = {record.stage: _MARKS[record.status] for record in found}
    answers = {(record.stage, label): value for record in found for label, value in record.answers.items()}
    judged = worst(record.verdict for record in found if record.verdict)
    fault = next((record.error for record in found if record.error), None)
    return [
        *(marks.get(stage, "-") for stage in stages),
        f"[{_COLOURS[judged.grade]}]{judged.grade}[/]" if judged else "-",
        *(escape(answers.get(pair, "")) for pair in labels),
        fault.code if fault else "",
    ]


def follow(output_dir: Path) -> None:
    """Show how far a run is until its folder is free: a table drawn anew at a terminal, plain lines elsewhere."""
    console = Console()
    if not console.is_terminal:
        _follow(output_dir, LINE_S, lambda progress: echo(line_of(progress, datetime.now(UTC))), always=False)
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        draw = partial(live.update, refresh=True)
        _follow(output_dir, SCREEN_S, lambda progress: draw(screen(progress, datetime.now(UTC))), always=True)


def screen(progress: Progress, now: datetime) -> Group:
    """What is drawn: a row for each stage that has begun, and the line of the one that goes on."""
    table = Table("stage", "cases", "already", *WORDS, box=None, header_style="bold")
    for stage, found in progress.found.items():
        words = (str(found[word] or "-") for word in WORDS)
        table.add_row(stage, f"{found.total()} of {progress.cases.get(stage, 0)}", str(progress.reused[stage]), *words)
    return Group(table, Text(line_of(progress, now)))


def _follow(output_dir: Path, every_s: float, show: Callable[[Progress], object], always: bool) -> None:
    """Show what the log says, `always` or when it says something new, until no run holds the folder."""
    log, progress = Follower(output_dir), Progress()
    shown, due = -every_s, always
    while is_held(output_dir):
        due = progress.take(log.new()) or due
        if due and time.monotonic() - shown >= every_s:
            show(progress)
            shown, due = time.monotonic(), always
        time.sleep(min(SCREEN_S, every_s))
