"""`tandem status`: what is done in a run folder. Reads records only, and imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline import records
from pipeline.cases import Record
from pipeline.errors import UsageError

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
    table = Table("case", *stages, "code", "reason", box=None, header_style="bold")
    for case_id, found in cases.items():
        table.add_row(case_id, *_row(found, stages))
    console = Console()
    console = console if console.is_terminal else Console(width=WIDTH)
    console.print(table)
    return int(not all(records.went_well(record) for case in cases.values() for record in case))


def _row(found: list[Record], stages: list[str]) -> list[str]:
    marks = {record.stage: _MARKS[record.status] for record in found}
    fault = next((record.error for record in found if record.error), None)
    return [*(marks.get(stage, "-") for stage in stages), fault.code if fault else "", fault.message if fault else ""]
