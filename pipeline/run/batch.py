"""Run the stages over a cohort. Each stage is its bundle's own configuration: there is no second definition."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.cases import Fault, Record
from pipeline.console import echo, quiet_libraries
from pipeline.errors import REMEDIES, UsageError, pipeline_cause
from pipeline.run.options import as_value, require_known
from pipeline.run.plan import STAGES, Plan, configuration, in_order, overlaid
from pipeline.run.stage import Case, Mapper, Stage
from pipeline.run.status import summary
from pipeline.shipped import bundle_root
from pipeline.spec.spec import SPEC_FILE, keep_spec, load_spec, of_ingest
from pipeline.store import records
from pipeline.store.artifacts import as_json
from pipeline.store.files import require_apart, run_lock, write_atomic, write_text

MANIFEST = "run.json"


@dataclass(frozen=True)
class Loaded:
    """A bundle's stage, ready to run: what it does, where its cases are, and what comes after them."""

    stage: Stage
    find_cases: Callable[[], Sequence[Case]]
    after: Sequence[Callable[[Path], Any]]


def run(plan: Plan) -> dict[str, list[Record]]:
    """Run the stages over all cases of a DICOM tree; a bad case never stops the others.

    Returns:
        The current records of every case in the run folder, by case id.

    Raises:
        UsageError: when the run cannot start: spec, folders, another run in the same folder.
    """
    spec = of_ingest(plan.spec_file or "")
    stages = in_order(plan.stages, spec)
    if STAGES[0] in stages:
        require_apart(plan.output_dir, plan.dataset_dir)
    with run_lock(plan.output_dir), mapper(plan.jobs) as map_cases:
        if STAGES[0] not in stages and plan.spec_file:
            keep_spec(spec, plan.output_dir)
        _write_manifest(plan, stages)
        for name in stages:
            loaded = load(name, plan)
            found = loaded.stage.run(loaded.find_cases(), map_cases)
            records.write_table(plan.output_dir)
            for step in loaded.after:
                step(plan.output_dir)
            echo(summary(name, found))
    return records.of_run(plan.output_dir)


def load(name: str, plan: Plan) -> Loaded:
    """Read a bundle's configuration, as `python -m monai.bundle run` does.

    Raises:
        UsageError: E_NO_STAGE, E_CONFIG, or what the bundle's own parts raise.
    """
    import torch
    from monai.bundle import ConfigParser

    quiet_libraries()
    paths = overlaid(configuration(name), name, _has_streams(plan.output_dir))
    parser = ConfigParser()
    parser.read_config([str(path) for path in paths])
    dataset = plan.dataset_dir if name == STAGES[0] else plan.output_dir
    spec_file = str(plan.spec_file or "") if name == STAGES[0] else ""
    folders = {"bundle_root": bundle_root(name), "dataset_dir": str(dataset), "output_dir": str(plan.output_dir)}
    settings = {**folders, "overwrite": plan.overwrite, **({"spec_file": spec_file} if "spec_file" in parser else {})}
    require_known(paths, settings)
    parser.update({key: as_value(value) for key, value in settings.items()})
    if plan.device and "device" in parser:
        parser["device"] = torch.device(plan.device)
    try:
        parts = [parser.get_parsed_content(part) for part in ("stage", "cases")]
        return Loaded(parts[0], parts[1], parser.get_parsed_content("after") if "after" in parser else ())
    except Exception as error:
        if known := pipeline_cause(error):
            raise known from error
        raise UsageError("E_CONFIG", f"The configuration {paths[-1]} cannot be used: {error}.") from error


def _has_streams(output_dir: Path) -> bool:
    """Whether a run was ingested with a data spec that has `streams`."""
    stored = output_dir / SPEC_FILE
    return stored.is_file() and bool(load_spec(stored).streams)


def _write_manifest(plan: Plan, stages: Sequence[str]) -> None:
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
    write_atomic(plan.output_dir / MANIFEST, lambda path: write_text(path, as_json(manifest)))


def _without_input(word: str, dataset_dir: Path) -> str:
    head, equals, path = word.rpartition("=")
    if Path(path).resolve() == dataset_dir.resolve():  # however it was written, such as `in//case`
        return f"{head}{equals}<input>"
    return word.replace(str(dataset_dir), "<input>")


@contextlib.contextmanager
def mapper(jobs: int) -> Iterator[Mapper]:
    """A way to map a function over cases: one after the other, or over several processes (dask.distributed)."""
    cores = os.cpu_count() or 1
    os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", str(max(1, cores // jobs)))
    if jobs == 1:
        yield map
        return
    from dask.distributed import Client, LocalCluster

    options = {"threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1", "silence_logs": 50}
    with LocalCluster(n_workers=jobs, processes=True, **options) as cluster, Client(cluster) as client:
        yield lambda function, cases: _spread(client, function, cases)


def _spread(client: Any, function: Callable[[Case], Record], cases: Sequence[Case]) -> Iterator[Record]:
    """Give each case to a process that is free; a case that kills its process three times is a failed case."""
    from dask.distributed import as_completed
    from distributed.scheduler import KilledWorker

    futures = {client.submit(function, case, pure=False): case for case in cases}
    for future in as_completed(futures):
        try:
            yield future.result()
        except KilledWorker:
            yield crashed(function.__self__, futures[future])  # type: ignore[attr-defined]  # a Stage's run_case


def crashed(stage: Stage, case: Case) -> Record:
    """Record that a case has killed its process."""
    fault = Fault("E_CRASH", "The process that worked on the case died.", REMEDIES["E_CRASH"])
    record = Record(case["case_id"], stage.name, "", "failed", error=fault, versions=records.versions())
    folder = records.case_folder(stage.output_dir, record.case_id) / stage.name
    records.forget(folder)
    records.write(record, folder)
    return record
