"""How fast a cohort goes through the stages: docs/benchmarks/batch.md.

    python -m benchmarks.batch [--cases 24] [--spacing-mm 6] [--loop-cases 2] [--write]

Simulated heads (DICOM) go through ingest, register, preprocess and report: by one process on one core, by two on two,
by one that has two, and, for a few of them, by a shell loop of `python -m monai.bundle run` for each case and stage, as
people write who have no batch.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.document import write_section
from pipeline.commands.demo import SPEC
from pipeline.shipped import shipped
from pipeline.simulation.cohort import simulate_cohort

STAGES = ("ingest", "register", "preprocess", "report")
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks" / "batch.md"

#: Counts Fourier transforms of ten seconds.
TRANSFORMS = """
import time
import numpy
image, count = numpy.random.default_rng(0).normal(size=(64, 64, 64)), 0
until = time.perf_counter() + 10
while time.perf_counter() < until:
    numpy.fft.fftn(image)
    count += 1
print(count)
"""


@dataclass(frozen=True)
class Taken:
    """What a way through a cohort takes: cases, wall-clock seconds, seconds on processors, MB of the parent process."""

    cases: int
    seconds: float
    on_processors: float
    parent_mb: float

    @property
    def a_case(self) -> float:
        """Wall-clock seconds a case."""
        return self.seconds / self.cases


def main(
    cases: Annotated[int, typer.Option(min=2)] = 24,
    spacing_mm: float = 6.0,
    loop_cases: Annotated[int, typer.Option(min=1)] = 2,
    write: Annotated[bool, typer.Option("--write", help="Write the page.")] = False,
) -> None:
    """Simulate, run, and print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["TANDEM_HOME"] = str(folder / "home")
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")
        simulate_cohort(folder / "cohort", cases, spacing_mm)
        root = folder / "cohort" / "dicom"
        # elastix and N4 work on two threads, whatever the machine has, so that a result does not depend on it
        found = {"`--jobs 1` on one core": taken(cases, tandem(root, folder / "one", 1), cores=(0,))}
        found["`--jobs 2` on two cores"] = taken(cases, tandem(root, folder / "two", 2))
        found["`--jobs 1` on two cores"] = taken(cases, tandem(root, folder / "alone", 1))
        loop = [
            command
            for patient in sorted(root.iterdir())[:loop_cases]
            for command in by_hand(patient, folder / "hand" / patient.name, shipped(*SPEC), STAGES)
        ]
        found["shell loop of bundles"] = taken(loop_cases, *loop)
        lines = [*table(found), "", *overhead(folder / "one", found["`--jobs 1` on one core"]), "", ceiling()]
    print("\n".join(lines))
    if write:
        told = f"{cases} simulated heads at {spacing_mm:g} mm, CT and MR; the loop takes {loop_cases} of them. "
        told += f"{os.cpu_count()} cores, a thread a process."
        write_section(PAGE, "Cohorts", "throughput", "\n".join([told, "", *lines]))


def tandem(root: Path, out: Path, jobs: int) -> list[str]:
    """The command that runs all cases."""
    options = ["--stages", ",".join(STAGES), "--jobs", str(jobs), "--spec", str(shipped(*SPEC))]
    return [sys.executable, "-m", "pipeline.cli", "run", str(root), "--out", str(out), *options]


def by_hand(
    patient: Path, run: Path, spec: Path, stages: Sequence[str], overlays: Mapping[str, str] | None = None
) -> list[list[str]]:
    """The commands of one case: a bundle a stage, with the overlay of those that have one."""
    commands = []
    for name in stages:
        source, more = (patient, ["--spec_file", str(spec)]) if name == "ingest" else (run, [])
        configs = shipped("bundles", name, "configs")
        config = str(configs / "inference.yaml")
        if overlay := (overlays or {}).get(name):
            config = str([config, str(configs / "overlays" / overlay)])
        folders = ["--dataset_dir", str(source), "--output_dir", str(run)]
        commands.append([sys.executable, "-m", "monai.bundle", "run", "--config_file", config, *folders, *more])
    return commands


def taken(cases: int, *commands: Sequence[str], cores: Collection[int] = ()) -> Taken:
    """Run commands one after the other, on all cores or on these; what they and their children took."""
    words = ["taskset", "--cpu-list", ",".join(map(str, cores))] if cores else []
    before, started, parent = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter(), 0.0
    for command in commands:
        process = subprocess.Popen([*words, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if os.waitstatus_to_exitcode(status) not in (0, 1):  # 1: the cohort has a case with a planted fault
            raise SystemExit(f"{command} ended with {os.waitstatus_to_exitcode(status)}")
        parent = max(parent, usage.ru_maxrss / 1024)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    on = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Taken(cases, seconds, on, parent)


def ceiling() -> str:
    """What two cores give for plain arithmetic that shares nothing: no way through a cohort can scale better."""
    (alone,), pair = _counted(0), _counted(0, 1)
    return (
        f"The machine itself: two processes that do nothing but Fourier transforms get through {sum(pair) / alone:.2f} "
        f"times as many of them on two cores as one on one."
    )


def _counted(*cores: int) -> list[int]:
    """How many transforms processes do at once, each on a core of its own."""
    words = [["taskset", "--cpu-list", str(core), sys.executable, "-c", TRANSFORMS] for core in cores]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in words]
    return [int(process.communicate()[0]) for process in started]


def table(found: dict[str, Taken]) -> list[str]:
    """Rows of all ways, each beside the first."""
    first = next(iter(found.values()))
    head = "| | cases | seconds | a case (s) | throughput | on processors, a case (s) | parent (MB) |"
    rows = [
        f"| {name} | {item.cases} | {item.seconds:.0f} | {item.a_case:.1f} | {first.a_case / item.a_case:.2f} x | "
        f"{item.on_processors / item.cases:.1f} | {item.parent_mb:.0f} |"
        for name, item in found.items()
    ]
    return [head, "|---|---|---|---|---|---|---|", *rows]


def overhead(out: Path, whole: Taken) -> list[str]:
    """What is not spent on cases, for each stage of each case: start, loading of the bundles and tables included."""
    seconds = [json.loads(path.read_text())["measures"]["seconds"] for path in out.glob("cases/*/*/record.json")]
    left = whole.seconds - sum(seconds)
    return [
        f"Beside the {len(seconds)} stages of cases themselves: {left:.1f} s in all (Python's start, imports, bundles, "
        f"finding cases, tables), {1000 * left / len(seconds):.0f} ms for each."
    ]


if __name__ == "__main__":
    typer.run(main)
