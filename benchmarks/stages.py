"""Seconds and peak memory of each stage on one real case, and what the stage runner costs beside the bare chain.

    TANDEM_DATA=… .venv/bin/python -m benchmarks.stages [--patient STS_002] [--repeats 5]

Prints the tables of docs/benchmarks/stages.md.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.run import loading
from pipeline.run.plan import Plan, stages_for
from pipeline.shipped import shipped
from pipeline.spec.spec import load_spec

SPEC = shipped("data_specs", "sts_ct_mr.yaml")


def main(
    data: Annotated[Path, typer.Option(envvar="TANDEM_DATA", help="The folder of real images.")],
    patient: str = "STS_002",
    repeats: Annotated[int, typer.Option(min=1)] = 5,
) -> None:
    """Run the stages as processes, then the runner against the bare chain in this one."""
    root = data / "sts_ibsi_validation" / "dicom" / patient
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TANDEM_HOME"] = str(Path(folder) / "home")
        told = f"One case ({patient}), {os.cpu_count()} cores; load over the last 15 minutes"
        print(f"{told} {os.getloadavg()[2]:.1f}.\n")
        print_stages(root, Path(folder) / "stages")
        print_second_run(root, Path(folder) / "stages")
        print_overhead(root, Path(folder) / "overhead", repeats)


def print_stages(root: Path, out: Path) -> None:
    """Each stage as a process of its own, start of Python and imports included."""
    print("| stage | seconds (whole process) | of them on a processor | peak memory (MB) |\n|---|---|---|---|")
    for name in stages_for(load_spec(SPEC)):
        source, spec = (root, ["--spec_file", str(SPEC)]) if name == "ingest" else (out, [])
        config = shipped("bundles", name, "configs", "inference.yaml")
        folders = ["--dataset_dir", str(source), "--output_dir", str(out)]
        command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(config), *folders, *spec]
        print(f"| {name} | {measure([*command, '--bundle_root', str(shipped('bundles', name))])} |")


def print_second_run(root: Path, out: Path) -> None:
    """The same again, with nothing left to do."""
    command = [sys.executable, "-m", "pipeline.cli", "run", str(root), "--spec", str(SPEC), "--out", str(out)]
    measure(command)
    print(f"| `tandem run`, all done already | {measure(command)} |\n")


def measure(command: list[str]) -> str:
    """Cells of a command: wall and processor seconds, and peak resident memory (MB, the largest single process)."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command} ended with {os.waitstatus_to_exitcode(status)}")
    seconds = time.perf_counter() - started
    return f"{seconds:.1f} | {usage.ru_utime + usage.ru_stime:.1f} | {usage.ru_maxrss / 1024:.0f}"


def print_overhead(root: Path, out: Path, repeats: int) -> None:
    """The runner (hashes, verified writes, record) against the chain alone, same case, same process, in turn."""
    print("| stage | bare chain (s) | stage runner (s) | overhead (ms) | on a processor (ms) | target: 5 % + 50 ms |")
    print("|---|---|---|---|---|---|")
    for name in stages_for(load_spec(SPEC)):
        loaded = loading.load(name, Plan(root, out, SPEC, overwrite=True))
        (case,) = loaded.find_cases()
        bare, whole = [], []
        for _ in range(repeats + 1):
            bare.append(timed(loaded.stage.chain, dict(case)))
            whole.append(timed(loaded.stage.run_case, case))
        (chain_s, chain_on_s), (runner_s, runner_on_s) = (medians(runs[1:]) for runs in (bare, whole))
        extra_ms, extra_on_ms = (runner_s - chain_s) * 1000, (runner_on_s - chain_on_s) * 1000
        verdict = "met" if extra_ms <= 0.05 * chain_s * 1000 + 50 else "missed"
        print(f"| {name} | {chain_s:.3f} | {runner_s:.3f} | {extra_ms:.0f} | {extra_on_ms:.0f} | {verdict} |")
    shutil.rmtree(out)


def timed(call: Callable[[dict[str, Any]], object], case: dict[str, Any]) -> tuple[float, float]:
    """Seconds that a call takes, and those that this process (not its children) spends on a processor."""
    started, started_on = time.perf_counter(), time.process_time()
    call(case)
    return time.perf_counter() - started, time.process_time() - started_on


def medians(runs: list[tuple[float, float]]) -> tuple[float, float]:
    """Of the wall and of the processor seconds."""
    wall, on = zip(*runs, strict=True)
    return statistics.median(wall), statistics.median(on)


if __name__ == "__main__":
    typer.run(main)
