"""A stage for processes that know no fixture: the first process that has a case says so and waits to be woken."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from dask.distributed import get_worker

from pipeline.cases import Record
from pipeline.run.flow import Task
from pipeline.run.stage import Stage


class Sleeper:
    """Give a measure that holds the process's number: two processes never make the same."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def __call__(self, case: dict[str, Any]) -> dict[str, Any]:
        try:
            (self.out / "asleep").open("x").write(f"{os.getpid()} {get_worker().address}")
            first = True
        except FileExistsError:
            first = False
            (self.out / "second").touch()
        while first and not (self.out / "wake").exists():
            time.sleep(0.01)
        while not first and not (self.out / "go").exists():
            time.sleep(0.05)
        return {**case, "made": {"process": os.getpid()}}


class Woken(Stage):
    """A stage that says when a process is through with a case, whatever has become of it."""

    def run_case(self, case: dict[str, Any], run: str | None = None) -> Record:
        record = super().run_case(case, run)
        (self.output_dir / f"through-{os.getpid()}").write_text(record.status)
        return record


def sleepy_work(task: Task) -> Record:
    out = task.group.plan.output_dir
    stage = Woken(task.stage, Sleeper(out), {}, {"made": "measure"}, out)
    return stage.run_case(dict(task.case), task.group.run)
