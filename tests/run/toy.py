"""Stages that write down when they begin, crash or hang, for processes that know no fixture."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from pipeline.cases import Record
from pipeline.run.flow import Task
from pipeline.run.stage import Stage
from pipeline.store import records


class Chain:
    """Write the stage, the case and the process down; what a case is called says what it does in the stage `second`."""

    def __init__(self, stage: str, folder: Path) -> None:
        self.stage, self.folder = stage, folder

    def __call__(self, case: dict[str, Any]) -> dict[str, Any]:
        name = str(case["case_id"])
        with (self.folder / "begun.txt").open("a") as stream:
            stream.write(f"{self.stage} {name} {os.getpid()}\n")
        if self.stage == "second" and name == "case-hang":
            time.sleep(600)
        if self.stage == "second" and name == "case-crash":
            os._exit(11)
        return case


def toy_work(task: Task) -> Record:
    out = task.group.plan.output_dir
    return Stage(task.stage, Chain(task.stage, out), {}, {}, out).run_case(dict(task.case))


def toy_check(task: Task) -> None:
    """There is nothing to load."""


def begun(out: Path) -> list[tuple[str, str]]:
    """Stage and case of all that has begun, in order."""
    return [(line.split()[0], line.split()[1]) for line in (out / "begun.txt").read_text().splitlines()]


def statuses(out: Path) -> dict[str, dict[str, str]]:
    """Case -> stage -> its status, or the code of what went wrong."""
    return {
        case: {record.stage: record.error.code if record.error else record.status for record in found}
        for case, found in records.of_run(out).items()
    }
