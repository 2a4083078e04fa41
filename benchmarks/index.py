"""How long indexing a hospital's tree takes, and what it costs when it is done again: docs/benchmarks/index.md.

    .venv/bin/python -m benchmarks.index [--files 50000] [--cases 2000]

Each measurement is a process of its own; the times are those after its imports.
"""

from __future__ import annotations

import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from benchmarks.index_data import SERIES, SLICES

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks" / "index.md"
NEW, STAGES = 100, 6
FIRST_S, AGAIN_S, MEMORY_MB = 60.0, 5.0, 300.0

Measured = dict[str, Any]


def peer(tree: Path, _out: Path) -> Callable[[], object]:
    """Pydicom alone: `dcmread` of every file without its pixels, and the three UIDs of it."""
    import pydicom

    def read() -> int:
        found = {}
        for path in sorted(tree.rglob("*")):
            if path.is_file():
                try:
                    header = pydicom.dcmread(path, stop_before_pixels=True)
                    found[path] = [header.get(f"{of}InstanceUID") for of in ("Study", "Series", "SOP")]
                except Exception:  # noqa: BLE001 - a tenth of the studies is faulty
                    found[path] = []
        return len(found)

    return read


def index(tree: Path, out: Path) -> Callable[[], object]:
    """What `tandem ingest` does before the first pixel: walk, headers, series, gate, selection, tables."""
    from pipeline.dicom.ingest import FindSeries
    from pipeline.spec.spec import every_volume

    find = FindSeries(tree, out, every_volume())
    return lambda: len(find())


def index_one_reader(tree: Path, out: Path) -> Callable[[], object]:
    """The same with one process that reads headers."""
    from pipeline.dicom.ingest import FindSeries
    from pipeline.spec.spec import every_volume

    find = FindSeries(tree, out, every_volume(), readers=1)
    return lambda: len(find())


def records_read(_tree: Path, out: Path) -> Callable[[], object]:
    """The records of a run folder, as every stage and `tandem status` read them."""
    from pipeline.store import records

    return lambda: sum(len(found) for found in records.of_run(out).values())


def table_written(_tree: Path, out: Path) -> Callable[[], object]:
    """`cases.csv`, as it is written after each stage."""
    import pandas as pd

    from pipeline.store import records

    pd.DataFrame([{"a": 1}]).to_csv()
    return lambda: len(records.write_table(out))


JOBS = {job.__name__: job for job in (peer, index, index_one_reader, records_read, table_written)}


def run_inside(name: str, tree: Path, out: Path) -> None:
    """Run one of the `JOBS` in this process, and print what it took."""
    job = JOBS[name](tree, out)
    start_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started, own = time.perf_counter(), time.process_time()
    result = job()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    measured = {
        "wall_s": time.perf_counter() - started,
        "own_s": time.process_time() - own,
        "children_s": children.ru_utime + children.ru_stime,
        "start_mb": start_mb,
        "more_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - start_mb,
        "result": result,
    }
    print(json.dumps(measured))


def measure(name: str, tree: Path, out: Path) -> Measured:
    """Run one of the `JOBS` in a fresh Python."""
    command = [sys.executable, "-m", "benchmarks.index", "--job", name, "--tree", str(tree), "--out", str(out)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True)
    found: Measured = json.loads(done.stdout.splitlines()[-1])
    return {**found, "load": os.getloadavg()[0]}


def write_tree(tree: Path, files: int, first: int = 0) -> None:
    """In a process of its own: this one stays small, and so do those that it forks."""
    numbers = ["--files", str(files), "--first", str(first)]
    command = [sys.executable, "-m", "benchmarks.index_data", str(tree), *numbers]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def write_records(out: Path, cases: int) -> None:
    """Records of stages that follow each other, each with two images and ten measures."""
    from pipeline.cases import Artifact, Geometry, Record, Verdict
    from pipeline.store import records

    axes = tuple(tuple(float(i == j) for j in range(4)) for i in range(4))
    for number in range(cases):
        case, before = f"case-{number:012d}", (Artifact("ct", "series", "", "0" * 64),)
        for stage in (f"stage{k}" for k in range(STAGES)):
            folder = records.case_folder(out, case) / stage
            made = tuple(
                Artifact(key, "image", f"cases/{case}/{stage}/{key}.nii.gz", f"{stage}{key}".ljust(64, "0"), place)
                for key, place in dict.fromkeys(("ct", "mr"), Geometry((128, 128, 40), axes)).items()
            )
            measures = {"seconds": 1.5, **{f"size{k}_ml": float(number + k) for k in range(10)}}
            verdict = Verdict("pass", ("All is well.",))
            record = Record(case, stage, "k" * 64, "done", before, made, measures, ("N_SPLIT: ct",), verdict)
            folder.mkdir(parents=True)
            (folder / records.RECORD).write_text(json.dumps(record.as_json(), indent=2))
            before = made


def verdicts(out: Path) -> Counter[str]:
    """How many series have which code; empty for none."""
    with (out / "series.csv").open(newline="") as stream:
        return Counter(row["code"] for row in csv.DictReader(stream))


def run(files: int, cases: int) -> str:
    """All measurements, in turn, as a page."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tree, out = folder / "tree", folder / "out"
        os.environ["TANDEM_HOME"] = str(folder / "home")
        write_tree(tree, files)
        time.sleep(3)  # what was written within two seconds is read again
        count = sum(1 for path in tree.rglob("*") if path.is_file())
        found = {"pydicom, one process": measure("peer", tree, out)}
        found["first, two readers"] = measure("index", tree, out)
        found["again, nothing has changed"] = measure("index", tree, out)
        codes = verdicts(out)
        write_tree(tree, NEW, first=files // (SERIES * SLICES) + 1)
        time.sleep(3)
        found[f"again, {NEW} new files"] = measure("index", tree, out)
        found["first, one reader"] = measure("index_one_reader", tree, folder / "one")
        write_records(folder / "run", cases)
        found[f"records of {cases} cases"] = measure("records_read", tree, folder / "run")
        found["cases.csv of them"] = measure("table_written", tree, folder / "run")
        cache = next((folder / "home").rglob("headers.jsonl"))
        return as_page(found, codes, count, cases, cache.stat().st_size)


def as_page(found: dict[str, Measured], codes: Counter[str], files: int, cases: int, cache_bytes: int) -> str:
    """The page: what was measured, then the targets."""
    about = (
        f"Made by `python -m benchmarks.index`. {files} simulated files of 1 kB of pixels, {SLICES} a series, {SERIES} "
        f"series a study; one study of ten is faulty. On {os.cpu_count()} cores, the files in the page cache; each row "
        "is a process of its own, timed after its imports. *Own* and *children* are seconds on a processor: where the "
        "machine is shared (*load*), they say more than those on the clock. *Memory* is what the process took at most "
        f"over its start, without its children. The cache takes {cache_bytes / files:.0f} bytes a file. The records "
        f"are those of {cases} cases in {STAGES} stages."
    )
    base = next(iter(found.values()))
    lines = ["# Indexing a large tree", "", textwrap.fill(about, 120), ""]
    lines += [
        "| | clock (s) | own (s) | children (s) | memory (MB) | load | clock, of pydicom's |",
        "|---|" + "---|" * 6,
    ]
    for name, row in found.items():
        ratio = "" if "records" in name or "csv" in name else f"{row['wall_s'] / base['wall_s']:.2f} x"
        times = " | ".join(f"{row[key]:.1f}" for key in ("wall_s", "own_s", "children_s"))
        lines.append(f"| {name} | {times} | {row['more_mb']:.0f} | {row['load']:.1f} | {ratio} |")
    kinds = ", ".join(f"{code or 'none'} {number}" for code, number in sorted(codes.items()))
    lines += ["", *textwrap.wrap(f"Codes of the {sum(codes.values())} series: {kinds}.", 120)]
    lines += ["", "| target | figure | |", "|---|---|---|"]
    lines += [f"| {what} | {figure} | {'met' if met else 'missed'} |" for what, figure, met in targets(found, files)]
    return "\n".join(lines) + "\n"


def targets(found: dict[str, Measured], files: int) -> list[tuple[str, str, bool]]:
    """What is asked of indexing, what it reaches, and whether that is enough."""
    first, again = found["first, two readers"], found[f"again, {NEW} new files"]
    worst_mb = max(row["more_mb"] for name, row in found.items() if name.startswith(("first", "again")))
    on_two_s = max(first["own_s"], (first["own_s"] + first["children_s"]) / 2)
    return [
        (f"{files} files in {FIRST_S:.0f} s (asked of 50,000)", f"{first['wall_s']:.1f} s", first["wall_s"] <= FIRST_S),
        ("the same, processor seconds over two cores", f"{on_two_s:.1f} s", on_two_s <= FIRST_S),
        (f"again with {NEW} new ones in {AGAIN_S:.0f} s", f"{again['wall_s']:.1f} s", again["wall_s"] <= AGAIN_S),
        ("the same, own processor seconds", f"{again['own_s']:.1f} s", again["own_s"] <= AGAIN_S),
        (f"memory at most {MEMORY_MB:.0f} MB over the start", f"{worst_mb:.0f} MB", worst_mb <= MEMORY_MB),
    ]


def main(
    files: int = 50_000, cases: int = 2000, job: str = "", tree: Path = Path(), out: Path = Path(), page: Path = PAGE
) -> None:
    """Measure, and write the page; or with `--job`, run one of them in this process."""
    if job:
        run_inside(job, tree, out)
        return
    text = run(files, cases)
    page.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    typer.run(main)
