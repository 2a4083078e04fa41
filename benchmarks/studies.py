"""A thousand small studies, one of ten faulty, through stages that need no training: docs/benchmarks/studies.md.

    python -m benchmarks.studies FOLDER [--studies 1000] [--jobs 2] [--again] [--write]

`FOLDER` keeps the tree, the run folder and what was measured: stopped, the same command goes on where it was. With
`--again` a run that is whole is started twice more: with nothing to do, and with one new study.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import psutil
import typer

from benchmarks.document import write_section
from benchmarks.studies_data import SHAPE, SPEC, fault_of, patient, write_study
from pipeline.store.pseudonyms import Pseudonyms

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks" / "studies.md"
STAGES = ("ingest", "register", "preprocess", "radiomics", "fuse_image", "report")
#: How often memory is looked at.
LOOK_S = 1.0


def main(
    folder: Path,
    studies: Annotated[int, typer.Option(min=20)] = 1000,
    jobs: Annotated[int, typer.Option(min=1)] = 2,
    stages: str = ",".join(STAGES),
    transform: Annotated[str, typer.Option(help="How register aligns: by headers, or rigid …")] = "headers",
    minutes: Annotated[float, typer.Option(min=0.0, help="Stop the run after so many; 0: let it end.")] = 0.0,
    again: Annotated[bool, typer.Option("--again", help="Then with nothing to do, and with one new study.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Write the page.")] = False,
) -> None:
    """Simulate what is not there yet, run, and say what became of every study."""
    folder = folder.absolute()
    tree, kept = folder / "tree", folder / "measured.jsonl"
    os.environ["TANDEM_HOME"] = str(folder / "home")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")
    for number in range(studies):
        write_study(tree, number)
    (folder / "studies.yaml").write_text(SPEC.replace("TRANSFORM", transform), encoding="utf-8")
    _run(folder, f"{stages}{f', stopped after {minutes:g} min' if minutes else ''}", stages, jobs, kept, minutes)
    said = [*became(folder, studies), "", *_told(folder, kept)]
    if again:
        _run(folder, "again, with nothing to do", stages, jobs, kept)
        write_study(tree, studies)
        _run(folder, "again, with one new study", stages, jobs, kept)
        said = [*became(folder, studies + 1), "", *_told(folder, kept)]
    print("\n".join(said))
    if write:
        voxels = " x ".join(map(str, SHAPE))
        about = f"Made by `python -m benchmarks.studies`: {studies} studies of a CT and an MR of {voxels} voxels, "
        about += f"on {os.cpu_count()} cores, `--jobs {jobs}`, `register` by {transform}. Stages asked for: `{stages}`."
        name = "studies" if stages == ",".join(STAGES) else f"studies of {stages}"
        write_section(PAGE, "A thousand small studies", name, "\n".join([about, "", *said]))


def _run(folder: Path, name: str, stages: str, jobs: int, kept: Path, minutes: float = 0.0) -> None:
    """Run Tandem, and look at the memory of its first process each second; a line in `kept` for each start."""
    options = ["--stages", stages, "--jobs", str(jobs), "--spec", str(folder / "studies.yaml")]
    command = [sys.executable, "-m", "pipeline.cli", "run", str(folder / "tree"), "--out", str(folder / "out")]
    started = time.perf_counter()
    with (folder / "said.txt").open("a") as said:
        process = subprocess.Popen([*command, *options], stdout=said, stderr=said)
        memory = []
        while process.poll() is None:
            time.sleep(LOOK_S)
            if 0 < minutes * 60 < time.perf_counter() - started:
                process.send_signal(signal.SIGTERM)
                process.wait()
            try:
                memory.append(round(psutil.Process(process.pid).memory_info().rss / 1e6, 1))
            except psutil.NoSuchProcess:
                break
        code = process.wait()
    if code not in (0, 1, *((128 + signal.SIGTERM,) if minutes else ())):
        raise SystemExit(f"The run ended with exit code {code}; {folder / 'said.txt'} says why.")
    line = {"name": name, "seconds": time.perf_counter() - started, "memory_mb": memory, "load": os.getloadavg()}
    with kept.open("a") as stream:
        stream.write(json.dumps(line) + "\n")


def became(folder: Path, studies: int) -> list[str]:
    """What became of each study, found by its pseudonym, beside what must become of it."""
    names = Pseudonyms(folder / "out", folder / "home")
    rows: dict[str, dict[str, str]] = {}
    for path in (folder / "out").glob("cases/*/*/record.json"):
        record = json.loads(path.read_bytes())
        row = rows.setdefault(record["case_id"], {"code": ""})
        row[record["stage"]] = record["status"]
        row["code"] = row["code"] or (record["error"] or {}).get("code", "")
    must: Counter[tuple[str, str]] = Counter()
    right: Counter[tuple[str, str]] = Counter()
    other = []
    for number in range(studies):
        fault = fault_of(number)
        row = rows.pop(names.of("case", patient(number)), None)
        must[fault] += 1
        if row is not None and row["code"] == fault[1] and _rested(row, fault[1]):
            right[fault] += 1
        else:
            other.append(f"study {number} ({fault[0] or 'sound'}): {'lost' if row is None else _in_words(row)}")
    lines = ["| fault | must get | studies | got it |", "|---|---|---|---|"]
    lines += [
        f"| {name or 'none'} | {code or 'done, as far as it came'} | {must[name, code]} | {right[name, code]} |"
        for name, code in must
    ]
    told = f"Right: {right.total()} of {studies} studies; {len(rows)} cases that no study has."
    return [*lines, "", told, *_by_stage(folder), *(f"- {line}" for line in other[:20])]


def _by_stage(folder: Path) -> list[str]:
    """What became of the cases in each stage: a case that is not there yet counts nowhere."""
    found: dict[str, Counter[str]] = {}
    for path in sorted((folder / "out").glob("cases/*/*/record.json")):
        found.setdefault(path.parent.name, Counter())[json.loads(path.read_bytes())["status"]] += 1
    rows = [
        f"| {stage} | {found[stage]['done']} | {found[stage]['quarantined']} | {found[stage]['failed']} |"
        for stage in STAGES
        if stage in found
    ]
    return ["", "| stage | done | quarantined | failed |", "|---|---|---|---|", *rows]


def _rested(row: dict[str, str], code: str) -> bool:
    """Whether a sound study is done in every stage, or a faulty one was quarantined by the first."""
    statuses = [row.get(stage) or "" for stage in STAGES if stage in row and stage != "report"]
    return statuses[0] == "quarantined" if code else set(statuses) == {"done"}


def _in_words(row: dict[str, str]) -> str:
    stages = ", ".join(f"{stage} {row[stage]}" for stage in STAGES if row.get(stage))
    return f"{row['code'] or 'no code'}; {stages}"


def _told(folder: Path, kept: Path) -> list[str]:
    """How long each start took, and the memory of its first process."""
    lines = [
        "| start | minutes | load | memory at 1 min (MB) | last tenth (MB) | largest (MB) |",
        "|---|" + "---|" * 5,
    ]
    starts = [json.loads(line) for line in kept.read_text().splitlines()]
    for item in starts:
        memory = [value for value in item["memory_mb"] if value] or [0.0]
        early, late = memory[min(60, len(memory) - 1)], statistics.median(memory[-max(1, len(memory) // 10) :])
        cells = f"{item['seconds'] / 60:.1f} | {item['load'][1]:.1f} | {early:.0f} | {late:.0f} | {max(memory):.0f}"
        lines.append(f"| {item['name']} | {cells} |")
    return lines


if __name__ == "__main__":
    typer.run(main)
