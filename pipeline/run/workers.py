"""Who does the work of a run: this process, processes that it starts, or those of a scheduler that runs already."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from pipeline.cases import Record
from pipeline.child import THREADS
from pipeline.errors import UsageError
from pipeline.run.flow import Task, given_up, loaded_for, work
from pipeline.run.plan import STAGES, Plan, gpus
from pipeline.spec.resources import Resources, load_resources, load_slurm

#: A case that kills its process is tried again so often: another case may have been to blame, or a machine.
RETRIES = 2
#: How long a scheduler is waited for, seconds; how often limits of time are looked at; how long a run waits when it
#: has no process left: a new one may come. Jobs of SLURM may wait for days.
CONNECT_S, LOOK_S, LOST_S = 10, 1.0, 300.0
#: How many events a scheduler keeps of its past; as dask has it, it grows with the cohort.
KEPT = 100
#: What processes say when they begin a task.
BEGUN = "tandem-begun"
GPU = {"GPU": 1}
#: dask's page of its scheduler: not asked for, on a port that is free, so that two runs of a machine do not meet there.
NO_PAGE = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}


class Here:
    """This process: one task after the other."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._task: Task | None = None

    def has_room(self) -> bool:
        """Whether nothing is begun."""
        return self._task is None

    def start(self, task: Task) -> None:
        """Take a task."""
        self._task = task

    def finished(self) -> tuple[Task, Record | None]:
        """Do the task that was taken."""
        task, self._task = self._task, None
        if task is None:
            raise RuntimeError("nothing was started")
        return task, work(task)

    def check(self, task: Task) -> None:
        """Load its stage."""
        loaded_for(task)


class Cluster:
    """Processes of dask.distributed.

    Args:
        client: of their scheduler.
        plan: of the run, as they have to see it.
        resources: what stages take.
    """

    def __init__(self, client: Any, plan: Plan, resources: Resources) -> None:
        self.client, self.plan, self.resources = client, plan, resources
        self._running: dict[Any, Task] = {}
        self._begun: dict[str, tuple[float, str]] = {}
        client.subscribe_topic(BEGUN, self._note)

    def has_room(self) -> bool:
        """Whether fewer tasks are begun than there are threads that work."""
        return len(self._running) < max(1, sum(self.client.nthreads().values()))

    def start(self, task: Task) -> None:
        """Give a task away."""
        self._give(task, _work, work, task)

    def _note(self, event: tuple[float, Sequence[str]]) -> None:
        """Remember when which process has begun a task: only from then on its time counts."""
        key, address = event[1]
        self._begun[key] = time.monotonic(), address

    def finished(self) -> tuple[Task, Record | None]:
        """Wait for a task; one that has killed its process too often, or takes too long, is a failed case.

        Raises:
            UsageError: E_WORKER, also when no process is left; E_SCHEDULER when the scheduler is gone; what loading
                its stage raises.
        """
        from dask.distributed import wait

        seen = time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                wait(list(self._running), timeout=LOOK_S, return_when="FIRST_COMPLETED")
            done = next((future for future in self._running if future.done()), None)
            if done is not None:
                task = self._running.pop(done)
                self._begun.pop(done.key, None)
                return task, self._record(done, task)
            if late := self._late():
                return late
            if self.client.nthreads() or self.plan.slurm:
                seen = time.monotonic()
            elif time.monotonic() - seen > LOST_S:
                what = f"No process is left to do the work, and none came for {LOST_S:g} s."
                raise UsageError("E_WORKER", what, "Start workers again, then the same command: what is done stays.")

    def check(self, task: Task) -> None:
        """Load its stage in one of the processes."""
        self._give(task, _check, task)
        self.finished()

    def _give(self, task: Task, function: Callable[..., Any], *arguments: Any) -> None:
        needs = GPU if self.resources.of(task.stage).gpu else None
        self._running[self.client.submit(function, *arguments, pure=False, resources=needs)] = task

    def _record(self, future: Any, task: Task) -> Record | None:
        from distributed.scheduler import KilledWorker

        if future.cancelled():
            raise UsageError("E_SCHEDULER", "The scheduler that gave the work away is gone.")
        try:
            found: Record | None = future.result()
        except KilledWorker:
            if not task.case:
                what = f"The process that loaded the stage {task.stage} died {RETRIES + 1} times."
                raise UsageError("E_WORKER", what, "Give each process more memory: fewer --jobs.") from None
            return given_up(task, "E_CRASH", f"The process that worked on the case died {RETRIES + 1} times.")
        return found

    def _late(self) -> tuple[Task, Record | None] | None:
        """A task that takes longer than its stage may, with its process stopped; None where there is none."""
        for future, task in self._running.items():
            limit = self.resources.of(task.stage).time_s
            begun, address = self._begun.get(future.key, (float("inf"), ""))
            # a process that died has not begun again
            if limit and time.monotonic() - begun > limit and address in self.client.nthreads():
                self._stop(future)
                del self._running[future], self._begun[future.key]
                what = f"The stage {task.stage} took longer than the {limit:g} s that it may."
                return task, given_up(task, "E_TIME", what)
        return None

    def _stop(self, future: Any) -> None:
        """End the process that works on a task: a thread in a library's code listens to nobody."""
        where = [address for address, keys in self.client.processing().items() if future.key in keys]
        future.cancel(force=True)
        self.client.restart_workers(where, timeout=CONNECT_S, raise_for_error=False)


def _work(function: Callable[[Task], Record | None], task: Task) -> Record | None:
    """Do a task, and say that it has begun."""
    from dask.distributed import get_worker

    worker = get_worker()
    worker.log_event(BEGUN, (str(worker.get_current_task()), worker.address))
    return function(task)


def _check(task: Task) -> None:
    loaded_for(task)


@contextlib.contextmanager
def workers(plan: Plan, stages: Sequence[str]) -> Iterator[Here | Cluster]:
    """Those who do the work of a run, while the block lasts.

    Args:
        plan: of the run; with one job, no scheduler and no resources this process does all.
        stages: that are run.

    Raises:
        UsageError: E_RESOURCES, also for more than the machine has; E_SCHEDULER, E_SLURM, E_EXTRA.
    """
    resources = load_resources(plan.resources, tuple(dict.fromkeys((*STAGES, *stages))))
    cores = os.cpu_count() or 1
    each = max(1, cores // plan.jobs)
    os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", str(each))
    if plan.scheduler:
        clients = _joined(plan)
    elif plan.slurm is not None:
        clients = _submitted(plan.slurm, plan.output_dir)
    elif plan.jobs == 1 and plan.resources is None:
        yield Here(plan)
        return
    else:
        clients = _started(plan.jobs, each, any(resources.of(name).gpu for name in stages))
    with clients as client:
        _require(client, resources, stages)
        yield Cluster(client, plan, resources)


@contextlib.contextmanager
def _submitted(jobs: Path, shared: Path) -> Iterator[Any]:
    """A client of processes of SLURM's jobs."""
    import dask

    from pipeline.run.slurm import submitted

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": RETRIES}),
        submitted(load_slurm(jobs), NO_PAGE, shared) as client,
    ):
        yield client


@contextlib.contextmanager
def _started(jobs: int, threads: int, gpu: bool) -> Iterator[Any]:
    """A client of processes of our own; each may use its part of the cores, and of the memory."""
    import dask
    from dask.distributed import Client, LocalCluster

    counts = dict.fromkeys(THREADS, threads)
    settings = {
        "distributed.nanny.pre-spawn-environ": counts,
        "distributed.scheduler.allowed-failures": RETRIES,
        # one that is being started again is not lost, however often it dies: else the run would wait for nobody
        "distributed.deploy.lost-worker-timeout": "10000 h",
        "distributed.worker.memory.spill": False,  # results are records: there is nothing to put aside
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.profile.enabled": False,  # nobody looks at it, and it grows
        "distributed.admin.log-length": KEPT,  # so do these
        "distributed.admin.low-level-log-length": KEPT,
        "distributed.admin.system-monitor.log-length": KEPT,
    }
    options: dict[str, Any] = {
        "threads_per_worker": 1,
        "scheduler_kwargs": NO_PAGE,
        "host": "127.0.0.1",
        "security": True,  # a certificate of this run: nobody else on the machine can give the processes work
        "silence_logs": 50,
        "preload": ["pipeline.run.preload"],
    }
    if gpu:
        options["resources"] = GPU if gpus() >= jobs else {}
    with dask.config.set(settings):
        with _deaf_to_interruptions():
            started = LocalCluster(n_workers=jobs, processes=True, **options)
        with started as cluster, Client(cluster) as client:
            yield client


@contextlib.contextmanager
def _deaf_to_interruptions() -> Iterator[None]:
    """Processes that are begun within the block, or by threads that are, do not hear Ctrl-C: their leader ends them.

    A terminal sends it to all processes of a command; a worker would answer with a traceback. Signals that a thread
    holds back are held back in what it begins, and this one has it when the block is left.
    """
    resource_tracker.ensure_running()  # else the first process begins it, which lets the signal through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _joined(plan: Plan) -> Iterator[Any]:
    """A client of a scheduler that runs already.

    Raises:
        UsageError: E_SCHEDULER when it does not answer, or has no workers.
    """
    from dask.distributed import Client

    try:
        client = Client(plan.scheduler, timeout=CONNECT_S)
    except (OSError, ValueError, TimeoutError, TypeError) as error:  # TypeError: TLS without a certificate
        raise UsageError("E_SCHEDULER", f"The scheduler at {plan.scheduler} does not answer.") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=CONNECT_S)
        except TimeoutError as error:
            raise UsageError("E_SCHEDULER", f"The scheduler at {plan.scheduler} has no workers.") from error
        yield client


def _require(client: Any, resources: Resources, stages: Sequence[str]) -> None:
    """Refuse what the processes cannot give, of which a task would wait for ever.

    Raises:
        UsageError: E_RESOURCES.
    """
    found = client.scheduler_info(n_workers=-1)["workers"].values()
    for name in stages:
        need = resources.of(name)
        fit = [item for item in found if need.memory_gb * 1e9 <= (item["memory_limit"] or float("inf"))]
        if not fit:
            most = max(item["memory_limit"] for item in found) / 1e9
            what = f"The stage {name} needs processes of {need.memory_gb:g} GB, got {most:.1f} GB each."
            raise UsageError("E_RESOURCES", what, "Use fewer --jobs, or another machine.")
        if need.gpu and not any(item["resources"].get("GPU") for item in fit):
            what = f"The stage {name} needs a process with a GPU of its own, got none."
            raise UsageError("E_RESOURCES", what, "Use as many --jobs as there are GPUs, or workers with GPU=1.")
