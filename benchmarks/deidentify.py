"""How many files a second `tandem deidentify` copies, beside dicom-anonymizer on the same files.

    .venv/bin/python -m benchmarks.deidentify [--files 1000] [--size 256]

Prints the table of docs/reference/deidentification.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from dicomanonymizer import anonymize_dicom_file

from pipeline.simulation.dicom import SeriesHeader, write_series
from tests.phantoms.phantom import position_phantom


def main(
    files: Annotated[int, typer.Option(min=100, help="Simulated CT slices.")] = 1000,
    size: Annotated[int, typer.Option(min=16, help="Rows and columns.")] = 256,
) -> None:
    """Time each of them once on files that are in the cache."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "in"
        for number in range(files // 100):
            phantom = position_phantom(shape=(size, size, 100), spacing_mm=(0.1, 0.1, 0.1))
            write_series(phantom, root / str(number), SeriesHeader(patient_id=f"SIM-{number}"))
        print(f"{files // 100 * 100} files of {size} x {size}, {os.cpu_count()} cores.\n")
        print("| | files a second | CPU time (ms a file) |\n|---|---|---|")
        for jobs in (1, 2):
            out = Path(folder) / f"out{jobs}"
            show(f"`tandem deidentify --jobs {jobs}`", files, lambda jobs=jobs, out=out: tandem(root, out, jobs))
        show("the same again, all done already", files, lambda: tandem(root, Path(folder) / "out2", 2))
        show("dicom-anonymizer, one process", files, lambda: peer(root, Path(folder) / "peer"))


def show(name: str, files: int, work: Callable[[], None]) -> None:
    """Print one row."""
    started, before_s = time.perf_counter(), cpu_s()
    work()
    seconds, used_s = time.perf_counter() - started, cpu_s() - before_s
    print(f"| {name} | {files / seconds:.0f} | {1000 * used_s / files:.1f} |")


def cpu_s() -> float:
    """Processor time of this process and of those that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def tandem(root: Path, out: Path, jobs: int) -> None:
    """The command as a process of its own, start of Python and imports included."""
    command = [sys.executable, "-m", "pipeline.cli", "deidentify", str(root), "--out", str(out), "--jobs", str(jobs)]
    environment = os.environ | {"TANDEM_HOME": str(out.parent / "home")}
    subprocess.run(command, env=environment, check=True, capture_output=True)


def peer(root: Path, out: Path) -> None:
    """The peer's function for one file, in this process; it neither checks nor flushes what it writes."""
    out.mkdir()
    for number, path in enumerate(sorted(path for path in root.rglob("*") if path.is_file())):
        anonymize_dicom_file(str(path), str(out / f"{number}.dcm"))


if __name__ == "__main__":
    typer.run(main)
