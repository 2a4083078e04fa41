"""How fast ingest is beside its peers, and with --faults how right: docs/benchmarks/ingest.md and faults.md.

    .venv/bin/python -m benchmarks.ingest [--rounds 3] [--slices 300] [--size 512] [--files 3000]
    .venv/bin/python -m benchmarks.ingest --faults

Needs the extra `bench` (dcm2niix, dicom2nifti).
"""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
import tempfile
import textwrap
from functools import partial
from importlib.metadata import version
from pathlib import Path

import typer

from benchmarks import contenders
from benchmarks.contenders import Timing

PAGES = Path(__file__).parents[1] / "docs" / "benchmarks"
TANDEM, INDEX, COMMAND, DCM2NIIX = "Tandem, ingest", "Tandem, headers only", "Tandem, the bundle", "dcm2niix"


def main(faults: bool = False, rounds: int = 3, slices: int = 300, size: int = 512, files: int = 3000) -> None:
    """Run one of the two benchmarks and write its page."""
    missing = [name for name in ("dcm2niix", "dicom2nifti") if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(f"{' and '.join(missing)} are missing: install the extra with pip install '.[bench]'.")
    if faults:
        from benchmarks.faults import run

        run(PAGES / "faults.md")
        return
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["TANDEM_HOME"] = str(Path(scratch) / "home")
        series, tree = Path(scratch) / "series", Path(scratch) / "tree"
        # in a process of its own: a child's peak memory counts from its parent's
        numbers = [str(number) for number in (size, slices, files)]
        command = [sys.executable, "-m", "benchmarks.ingest_data", str(series), str(tree), *numbers]
        subprocess.run(command, check=True)
        count = sum(1 for path in tree.rglob("*") if path.is_file())
        timings = measure(series, tree, rounds)
        page = as_page(timings, (size, size, slices), count, rounds)
    (PAGES / "ingest.md").write_text(page, encoding="utf-8")
    print(page)


def measure(series: Path, tree: Path, rounds: int) -> dict[str, Timing]:
    """Each contender once a round, in turn; the medians."""
    jobs = {
        TANDEM: lambda: contenders.run_library(TANDEM, series),
        COMMAND: lambda: contenders.run_program(contenders.tandem_command(series), "*.nii.gz"),
        DCM2NIIX: lambda: contenders.run_program(contenders.dcm2niix_command(series), "*.nii.gz"),
        INDEX: lambda: contenders.run_library(INDEX, tree),
    }
    for name in (name for name in contenders.LIBRARIES if name not in jobs):
        jobs[name] = partial(contenders.run_library, name, series)
    found: dict[str, list[Timing]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            found[name].append(job())
    return {name: contenders.median(timings) for name, timings in found.items()}


def as_page(timings: dict[str, Timing], shape: tuple[int, int, int], files: int, rounds: int) -> str:
    """The page: seconds and memory, then the targets."""
    volume_mb = 4 * math.prod(shape) / 2**20
    versions = ", ".join(f"{name} {version(name)}" for name in ("dcm2niix", "dicom2nifti", "SimpleITK", "itk", "monai"))
    about = (
        "Made by `python -m benchmarks.ingest`. One simulated CT series (smooth anatomy and noise of 12 HU) of "
        f"{' x '.join(map(str, shape))} voxels goes to .nii.gz, on {os.cpu_count()} cores, with its files in the "
        f"page cache; medians of {rounds} rounds in turn. *After imports* is the work in a Python that has loaded "
        "its libraries; *whole process* is what a shell sees. Peak memory is that of the largest process of all; "
        f"the volume as float32 takes {volume_mb:.0f} MB. Tandem also judges the geometry, checks every written voxel "
        "against the file on the disk, hashes inputs and output, and keeps a record."
    )
    lines = [
        "# Ingest: time and memory beside the peers",
        "",
        textwrap.fill(about, 120),
        "",
        f"Peers: {versions}.",
        "",
        "| | after imports (s) | whole process (s) | peak memory (MB) | of the volume | of it by imports (MB) |",
        "|---|---|---|---|---|---|",
    ]
    for name, timing in timings.items():
        if name != INDEX:
            inside = "" if timing.inside_s is None else f"{timing.inside_s:.2f}"
            imports = "" if timing.imports_mb is None else f"{timing.imports_mb:.0f}"
            memory = f"{timing.peak_mb:.0f} | {timing.peak_mb / volume_mb:.1f} x | {imports}"
            figures = f"{inside} | {timing.whole_s:.2f} | {memory}"
            lines.append(f"| {name} | {figures} |")
    lines += ["", "| target | figure | |", "|---|---|---|"]
    lines += [
        f"| {target} | {figure} | {'met' if met else 'missed'} |"
        for target, figure, met in targets(timings, files, volume_mb)
    ]
    return "\n".join(lines) + "\n"


def targets(timings: dict[str, Timing], files: int, volume_mb: float) -> list[tuple[str, str, bool]]:
    """What is asked of ingest, what it reaches, and whether that is enough."""
    ours, command, index = timings[TANDEM], timings[COMMAND], timings[INDEX]
    peer, slow = timings[DCM2NIIX].whole_s, timings["dicom2nifti"]
    inside_s, slow_s, index_s = (timing.inside_s or timing.whole_s for timing in (ours, slow, index))
    memory = max(ours.peak_mb, command.peak_mb) / volume_mb
    above = (ours.peak_mb - (ours.imports_mb or 0.0)) / volume_mb
    return [
        ("at most 2 x dcm2niix's time, after imports", f"{inside_s / peer:.2f} x", inside_s <= 2 * peer),
        ("at most 2 x dcm2niix's time, whole process", f"{command.whole_s / peer:.2f} x", command.whole_s <= 2 * peer),
        ("at least 4 x faster than dicom2nifti, after imports", f"{slow_s / inside_s:.1f} x", slow_s >= 4 * inside_s),
        (
            *("at least 4 x faster than dicom2nifti, whole process", f"{slow.whole_s / command.whole_s:.1f} x"),
            slow.whole_s >= 4 * command.whole_s,
        ),
        (f"at least 1,500 headers/s ({files} files)", f"{files / index_s:,.0f} /s", files >= 1500 * index_s),
        ("peak memory at most 3 x the volume as float32", f"{memory:.2f} x", memory <= 3),
        ("the same, above what the imports take", f"{above:.2f} x", above <= 3),
    ]


if __name__ == "__main__":
    typer.run(main)
