"""Cases on their way through stages: each goes on by itself, and those that have begun come first."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from pipeline.cases import Fault, Record
from pipeline.console import track
from pipeline.errors import UsageError
from pipeline.run import events
from pipeline.run.loading import Loaded, load
from pipeline.run.plan import Plan
from pipeline.run.stage import Case, keep
from pipeline.shipped import code_version
from pipeline.store import records
from pipeline.store.attempts import Attempt
from pipeline.store.files import run_of

if TYPE_CHECKING:
    from pipeline.run.workers import Cluster, Here


class Group(NamedTuple):
    """Stages that a case goes through without waiting for others.

    Attributes:
        stages: in order.
        plan: of the run.
        epoch: a name of its own: what a process has loaded for another group is let go.
        run: the name of the run in the run folder's lock.
    """

    stages: tuple[str, ...]
    plan: Plan
    epoch: str
    run: str = ""


@dataclass(frozen=True)
class Task:
    """One stage of one case.

    Attributes:
        group: its stages.
        place: of the stage among them.
        case: what the input holds of it, or its `case_id` alone where the run folder has the rest.
        version: of the code that gives the task: another one must not do it.
    """

    group: Group
    place: int
    case: Case
    version: str

    @property
    def stage(self) -> str:
        """The stage's name."""
        return self.group.stages[self.place]

    def following(self) -> Task | None:
        """The next stage of the case; None behind the last one."""
        if self.place + 1 == len(self.group.stages):
            return None
        return replace(self, place=self.place + 1, case={"case_id": self.case["case_id"]})


def through(group: Group, cases: Sequence[Case], pool: Here | Cluster) -> dict[str, list[Record]]:
    """Bring cases through the stages of a group.

    No more tasks are given than are begun at once, and a case that has begun goes first: what is in flight stays small,
    however large the cohort.

    Returns:
        Stage -> what became of each case, without what it was made of: a cohort's records need not fit in memory.

    Raises:
        UsageError: where a stage cannot be loaded: before any case has begun.
    """
    version = code_version()
    for place in range(len(group.stages)):
        pool.check(Task(group, place, {}, version))
    found: dict[str, list[Record]] = {name: [] for name in group.stages}
    waiting = deque(Task(group, 0, case, version) for case in cases)
    steps = _steps(waiting, pool)
    output_dir = group.plan.output_dir
    with ExitStack() as stack:
        for name in group.stages:
            stack.enter_context(events.of_stage(output_dir, name, len(cases)))
        for task, record in track(steps, len(cases) * len(group.stages), ", ".join(group.stages)):
            if record is not None:
                events.of_case(output_dir, record)
                found[task.stage].append(replace(record, inputs=(), artifacts=(), measures={}))
    return found


def _steps(waiting: deque[Task], pool: Here | Cluster) -> Iterator[tuple[Task, Record | None]]:
    begun: list[Task] = []
    running = 0
    while waiting or begun or running:
        while (waiting or begun) and pool.has_room():
            pool.start(begun.pop() if begun else waiting.popleft())
            running += 1
        task, record = pool.finished()
        running -= 1
        if (following := task.following()) is not None:
            begun.append(following)
        yield task, record


def work(task: Task) -> Record | None:
    """Do a task in this process.

    Returns:
        Its record; None where the stage has no use for the case.

    Raises:
        UsageError: E_WORKER in a process of another version; E_BUSY for a run that has ended; of loading the stage.
    """
    loaded = loaded_for(task)
    if run_of(task.group.plan.output_dir) != task.group.run:
        raise UsageError("E_BUSY", "The task belongs to a run that does not hold its folder any more.")
    first = task.case.keys() - {"case_id"}
    case = task.case if first else loaded.find_cases.of(task.case["case_id"])
    return None if case is None else loaded.stage.run_case(case, task.group.run)


def loaded_for(task: Task) -> Loaded:
    """The stage of a task, loaded once in a process.

    Raises:
        UsageError: E_WORKER in a process of another version; what loading the stage raises.
    """
    if task.version != code_version():
        what = f"Expected a worker of the version {task.version}, got {code_version()}."
        raise UsageError("E_WORKER", what)
    kept = _kept(task.group.epoch)
    if task.stage not in kept:
        kept[task.stage] = load(task.stage, task.group.plan)
    return kept[task.stage]


@functools.lru_cache(maxsize=1)
def _kept(epoch: str) -> dict[str, Loaded]:
    """What this process has loaded for a group of stages; for another group it begins anew."""
    return {}


def given_up(task: Task, code: str, message: str) -> Record:
    """Record that a case has failed without having come back."""
    plan = task.group.plan
    fault = Fault.of(code, message)
    record = Record(task.case["case_id"], task.stage, "", "failed", error=fault, versions=records.versions())
    folder = records.case_folder(plan.output_dir, record.case_id) / task.stage
    return keep(record, Attempt(plan.output_dir, folder, task.group.run))
