"""What `tandem radiomics` takes as a whole process: one tumour, and 128 on one and two workers.

    OMP_NUM_THREADS=1 python -m benchmarks.radiomics_command --write

The tumours are those of `sts_nifti` (CT, PET and MR of four patients), which TANDEM_DATA holds.
"""

from __future__ import annotations

import csv
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.document import write_section

PAGE, TITLE = Path("docs/benchmarks/radiomics.md"), "Radiomics"
PATIENTS = ("STS_002", "STS_008", "STS_019", "STS_031")
ALONE = ("STS_031", "CT", "ibsi_ct")
#: Image -> preset.
IMAGES = {"CT": "ibsi_ct", "MR_T1": "ibsi_mr"}
REPEATS = 2
#: How often the eight tumours stand in the table.
TIMES = 16


def seconds(*words: str) -> tuple[float, float]:
    """Of the clock and of the processor, all its processes together; the least of several runs."""
    found = []
    for _ in range(REPEATS):
        started, before = time.perf_counter(), _processor_s()
        subprocess.run([sys.executable, "-m", "pipeline.cli", "radiomics", *words, "-q"], check=True)
        found.append((time.perf_counter() - started, _processor_s() - before))
    return min(wall for wall, _ in found), min(own for _, own in found)


def _processor_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def table_of_cases(path: Path, data: Path) -> None:
    """Four patients with CT and MR, each image with its preset, several times over."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("case_id", "image", "mask", "image_name", "mask_name", "config"))
        for number, patient, (image, config) in product(range(TIMES), PATIENTS, IMAGES.items()):
            files = [str(data / patient / f"{image}_{kind}.nii.gz") for kind in ("image", "mask")]
            writer.writerow((f"{patient}_{number}", *files, image, "GTV", config))


def main(write: Annotated[bool, typer.Option("--write", help="Write the page.")] = False) -> None:
    """Print, and on request write, the figures."""
    data = Path(os.environ["TANDEM_DATA"]) / "sts_nifti"
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        patient, image, preset = ALONE
        files = [str(data / patient / f"{image}_{kind}.nii.gz") for kind in ("image", "mask")]
        wall, own = seconds("-i", files[0], "-m", files[1], "-c", preset, "-o", str(place / "one.csv"))
        lines = [f"| one tumour ({patient}, {image}, `{preset}`) | {wall:.1f} | {own:.1f} | |"]
        table_of_cases(place / "cases.csv", data)
        several = ["--cases", str(place / "cases.csv"), "-o", str(place / "many.csv")]
        several += [word for config in IMAGES.values() for word in ("-c", config)]
        walls, several_of = [], TIMES * len(PATIENTS) * len(IMAGES)
        for jobs in (1, 2):
            wall, own = seconds(*several, "--jobs", str(jobs))
            walls.append(wall)
            lines.append(f"| {several_of} tumours, `--jobs {jobs}` | {wall:.1f} | {own:.1f} | {walls[0] / wall:.2f} |")
    head = [
        "## The command",
        "",
        "Made by `OMP_NUM_THREADS=1 python -m benchmarks.radiomics_command --write`: whole processes with their "
        f"imports, all features, the least of {REPEATS} runs; {os.cpu_count()} cores. The {several_of} tumours are "
        f"CT and MR of four patients, {TIMES} times over.",
        "",
        "| | clock, s | processor, s | times as fast |",
        "|---|---|---|---|",
    ]
    print("\n".join([*head, *lines]))
    if write:
        write_section(PAGE, TITLE, "command", "\n".join([*head, *lines]))


if __name__ == "__main__":
    typer.run(main)
