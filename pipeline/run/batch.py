"""Run the stages over a cohort. Each stage is its bundle's own configuration: there is no second definition."""

from __future__ import annotations

import ctypes
import sys
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pipeline.cases import Record
from pipeline.console import echo
from pipeline.run import events
from pipeline.run.flow import Group, through
from pipeline.run.loading import parser_of, part_of
from pipeline.run.plan import STAGES, Plan, in_order
from pipeline.run.room import require_room
from pipeline.run.stage import Case
from pipeline.run.status import summary
from pipeline.run.workers import Cluster, Here, workers
from pipeline.spec.spec import keep_spec, of_ingest
from pipeline.store import records
from pipeline.store.files import require_apart, run_lock, run_of
from pipeline.store.plain import write_json

MANIFEST = "run.json"


def run(plan: Plan) -> dict[str, list[Record]]:
    """Run the stages over all cases of a DICOM tree; a bad case never stops the others.

    Each case goes through the stages by itself. All wait for each other only where what follows may need the cohort:
    behind a stage whose bundle has a step about all cases (`after`), such as a table.

    Returns:
        The current records of every case in the run folder, by case id.

    Raises:
        UsageError: when the run cannot start: spec, folders, another run in the same folder, workers.
    """
    plan = plan.resolved()
    spec = of_ingest(plan.spec_file or "")
    stages = in_order(plan.stages, spec)
    if STAGES[0] in stages:
        require_apart(plan.output_dir, plan.dataset_dir)
    else:
        records.case_ids(plan.output_dir)  # of the stages before
    with (
        run_lock(plan.output_dir),
        events.of_run(plan.output_dir, stages, plan.jobs),
        workers(plan, stages) as pool,
    ):
        if STAGES[0] not in stages and plan.spec_file:
            keep_spec(spec, plan.output_dir)
        if not plan.cases:
            write_manifest(plan, stages)
        bring(plan, stages, pool)
    return records.of_run(plan.output_dir)


def bring(
    plan: Plan, stages: Sequence[str], pool: Here | Cluster, first: Sequence[Case] | None = None, epoch: str = ""
) -> list[Record]:
    """Bring cases through the stages of a plan, group by group, with the tables behind each.

    `first` are the cases that the first stage begins with, those that it finds when left out; under `epoch` processes
    keep what they have loaded, each group under its own when left out.

    Raises:
        UsageError: E_DISK before a group, and what `through` raises.
    """
    done: list[Record] = []
    for names in groups(stages, plan):
        given = first if names[0] == stages[0] else None
        cases = _first_cases(names[0], plan) if given is None else given
        require_room(plan.output_dir, names, [case["case_id"] for case in cases], plan.min_free_gb)
        found = through(Group(names, pool.plan, epoch or uuid.uuid4().hex, run_of(plan.output_dir)), cases, pool)
        records.write_table(plan.output_dir)
        _after(names[-1], plan)
        for name in names:
            echo(summary(name, found[name]))
            done += found[name]
    if STAGES[-1] not in stages and (plan.output_dir / records.PAGE).is_file():  # it is never older than the table
        _after(STAGES[-1], plan)
    return done


def _after(stage: str, plan: Plan) -> None:
    """What a bundle does about all cases; the memory of that goes back to the machine, which glibc would keep."""
    for step in part_of(parser_of(stage, plan), "after", ()):
        step(plan.output_dir)
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def groups(stages: Sequence[str], plan: Plan) -> Iterator[tuple[str, ...]]:
    """The stages, parted behind each that has a step about all cases."""
    group: list[str] = []
    for name in stages:
        group.append(name)
        if "after" in parser_of(name, plan):
            yield tuple(group)
            group = []
    if group:
        yield tuple(group)


def _first_cases(name: str, plan: Plan) -> list[Case]:
    """The cases of a group: those of the input, or all that the run folder holds, each by its name alone.

    Where the plan names cases, only those.

    Raises:
        UsageError: E_NO_CASES when the folder has none at all; what finding cases raises.
    """
    if name == STAGES[0]:
        found = list(part_of(parser_of(name, plan), "cases")())
    else:
        found = [{"case_id": case_id} for case_id in records.case_ids(plan.output_dir)]
    return [case for case in found if not plan.cases or case["case_id"] in plan.cases]


def write_manifest(plan: Plan, stages: Sequence[str]) -> None:
    """Keep how the run was started. The input path may name a patient, so it is not kept."""
    import torch

    arguments = [_without_input(word, plan.dataset_dir) for word in sys.argv[1:]]
    manifest = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": ["tandem", *arguments],
        "stages": list(stages),
        "device": plan.device or ("cuda" if torch.cuda.is_available() else "cpu"),
        "python": sys.version.split()[0],
        "versions": records.versions(),
    }
    write_json(plan.output_dir / MANIFEST, manifest)


def _without_input(word: str, dataset_dir: Path) -> str:
    """A word of a command without the path of the input, or one below it, however written: `in//case`, `-iin`."""
    root = dataset_dir.resolve()
    for start in (0, len("-i") if word.startswith("-i") else 0, word.rfind("=") + 1):
        path, resolved = Path(word[start:]), Path(word[start:]).resolve()
        if word[start:] and (resolved == root or (path.exists() and resolved.is_relative_to(root))):
            return f"{word[:start]}<input>{'' if resolved == root else '/…'}"
    whole = {str(path) for path in (root, dataset_dir) if path.is_absolute() and len(path.parts) > 1}
    for text in sorted(whole, key=len, reverse=True):  # such as `--out /x/DOE^JANE-out`
        word = word.replace(text, "<input>")
    return word
