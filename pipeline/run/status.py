"""`tandem status`: what is done in a run folder. Reads records only, and imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.cases import Record
from pipeline.errors import UsageError
from pipeline.store import records
from pipeline.store.records import class_in_words

#: Where the output goes to a file or a pipe, a row stays on one line.
WIDTH = 250
_MARKS = {"done": "[green]done[/]", "failed": "[red]failed[/]", "quarantined": "[yellow]quarantined[/]"}


def show(output_dir: Path) -> int:
    """Print one row a case.

    Returns:
        0 when every case is done, 1 otherwise.

    Raises:
        UsageError: E_NO_CASES when the folder holds no run.
    """
    cases = records.of_run(output_dir)
    if not cases:
        raise UsageError("E_NO_CASES", f"Expected a run folder, but {output_dir} holds no cases.")
    stages = records.stages_in_order(cases)
    classes = {case_id: _class(found) for case_id, found in cases.items()}
    column = ["class"] if any(classes.values()) else []
    table = Table("case", *stages, *column, "code", "reason", box=None, header_style="bold")
    for case_id, found in cases.items():
        marks, fault = _row(found, stages)
        table.add_row(case_id, *marks, *([classes[case_id]] if column else []), *fault)
    console = Console()
    console = console if console.is_terminal else Console(width=WIDTH)
    console.print(table)
    return int(not all(records.went_well(record) for case in cases.values() for record in case))


def _class(found: list[Record]) -> str:
    """The class that the fusion network has given the case."""
    return next((words for record in found if (words := class_in_words(record.measures))), "")


def _row(found: list[Record], stages: list[str]) -> tuple[list[str], tuple[str, str]]:
    """What became of each stage; code and reason of the first fault."""
    marks = {record.stage: _MARKS[record.status] for record in found}
    fault = next((record.error for record in found if record.error), None)
    return [marks.get(stage, "-") for stage in stages], (fault.code, fault.message) if fault else ("", "")
