"""Records on disk: what is done, the resume key, and the tables made of them. No heavy imports.

OUT/cases/<case_id>/<stage>/record.json
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cases import Fault, Record, worst
from pipeline.errors import UsageError
from pipeline.shipped import code_version
from pipeline.store import dictionary
from pipeline.store.dictionary import labels_of
from pipeline.store.files import TEMPORARY_PREFIX, save_text, sha256_file, write_atomic
from pipeline.words import as_key

if TYPE_CHECKING:
    import pandas as pd

RECORD = "record.json"
#: Beside the record of a case that met a defect.
ERROR_LOG = "error.log"
#: The kind of an input that is the records of all stages before.
RECORDS = "records"
#: The kind of an input that is what ingest found of the case: its rows of `series.csv`.
ROWS = "rows"
CASES_TABLE = "cases.csv"
#: What ingest found: one row a series of DICOM, or a file.
SERIES_TABLE = "series.csv"
#: How many files and series it found, and what became of them.
SCAN_SUMMARY = "scan.json"
#: The code of a case whose files are no longer there: nothing is to be done again, unless somebody says that they are.
WITHDRAWN = "E_WITHDRAWN"
_SERIES_COLUMNS = {"series", "case_id", "modality", "role", "verdict", "code", "reason"}
#: The page of all cases, beside the table.
PAGE = "report.html"
CASE_ID = r"[A-Za-z0-9][A-Za-z0-9_-]*"
PACKAGES = ("monai", "torch", "numpy", "SimpleITK", "itk-elastix", "pydicom", "nibabel")


def case_folder(output_dir: Path, case_id: str) -> Path:
    """Where a case lies in a run folder.

    Raises:
        UsageError: E_CASE_ID when the id is not fit to name a folder.
    """
    if not re.fullmatch(CASE_ID, case_id):
        raise UsageError("E_CASE_ID", f"Expected a case id that can name a folder, got {case_id!r}.")
    return output_dir / "cases" / case_id


@cache
def versions() -> Mapping[str, str]:
    """Versions of Tandem and of the packages that its results depend on."""
    found = {"tandem-imaging": code_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def resume_key(stage: str, chain: Any, inputs: Mapping[str, str], weights: Sequence[str]) -> str:
    """The key under which a stage's result stays valid.

    Args:
        stage: the stage's name.
        chain: `pipeline.run.fingerprint.describe` of what the stage is going to run.
        inputs: case key -> sha256 of the content.
        weights: sha256 of each file of network weights.

    Returns:
        sha256, hexadecimal: it changes with the configuration, the inputs, the weights or Tandem's code.
    """
    parts = {"stage": stage, "chain": chain, "inputs": dict(inputs), "weights": list(weights)}
    parts["version"] = code_version()
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def write(record: Record, folder: Path) -> None:
    """Write a stage's record, last of all: from now on the stage is done for the case."""
    text = json.dumps(record.as_json(), indent=2, allow_nan=False) + "\n"
    save_text(folder / RECORD, text)


def read(folder: Path) -> Record | None:
    """A stage's record, or None where there is none that can be read: then nothing is done."""
    try:
        return Record.from_json((folder / RECORD).read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def absent(output_dir: Path, stage: str, present: Collection[str]) -> list[Record]:
    """The records of a stage that finds cases, of those that are not `present`, and were not withdrawn before."""
    found = [read(path.parent) for path in (output_dir / "cases").glob(f"*/{stage}/{RECORD}")]
    return [record for record in found if record and record.case_id not in present and not is_withdrawn(record)]


def is_withdrawn(record: Record) -> bool:
    """Whether the input does not hold the case any more."""
    return record.error is not None and record.error.code == WITHDRAWN


def withdraw(output_dir: Path, gone: Iterable[Record]) -> None:
    """Set aside cases of a run folder that its input does not hold any more; no file is deleted."""
    fault = Fault.of(WITHDRAWN, "The input holds no file for this case any more.")
    for record in gone:
        new = Record(record.case_id, record.stage, "", "quarantined", error=fault, versions=record.versions)
        write(new, case_folder(output_dir, record.case_id) / record.stage)


def intact(record: Record, output_dir: Path) -> bool:
    """Whether every output of a record is on the disk with the bytes that were recorded."""
    paths = [(output_dir / artifact.path, artifact.sha256) for artifact in record.artifacts]
    return all(path.is_file() and sha256_file(path) == digest for path, digest in paths)


def of_case(folder: Path) -> list[Record]:
    """The current records of a case folder, in the order in which the stages depend on each other.

    A record whose inputs have since been made anew, or whose source is no longer done, is stale and left out. Stages
    that do not depend on each other stand in the order in which they were done; those that read all records come last.
    """
    found = [record for path in _in_order(folder) if (record := read(path))]
    last = [record for record in found if any(item.kind == RECORDS for item in record.inputs)]
    waiting = [record for record in found if record not in last]
    current: list[Record] = []
    while ready := [record for record in waiting if _follows(record, current)]:
        current += ready
        waiting = [record for record in waiting if record not in ready]
    seen = digest(current) if last else ""
    return [*current, *(r for r in last if all(i.sha256 == seen for i in r.inputs if i.kind == RECORDS))]


def _in_order(folder: Path) -> list[Path]:
    """The folders of a case's stages that have a record, in the order in which the records were written."""
    stages = []
    for stage in folder.iterdir() if folder.is_dir() else ():
        if stage.name.startswith(TEMPORARY_PREFIX):  # an attempt that goes on, or was killed
            continue
        with suppress(FileNotFoundError, NotADirectoryError):
            stages.append(((stage / RECORD).stat().st_mtime_ns, stage))
    return [stage for _, stage in sorted(stages)]


def digest(found: Iterable[Record]) -> str:
    """The sha256 of records, whatever their order, without how long they took: the same work is the same."""
    timeless = (replace(record, measures=_without_seconds(record), reused=False) for record in found)
    return hashlib.sha256("".join(sorted(map(repr, timeless))).encode()).hexdigest()


def _without_seconds(record: Record) -> dict[str, Any]:
    return {name: number for name, number in record.measures.items() if name != "seconds"}


def _follows(record: Record, current: Iterable[Record]) -> bool:
    """Whether each input that was an output in the same run is still what a finished stage has recorded."""
    made = {artifact.path: artifact.sha256 for done in current if done.status == "done" for artifact in done.artifacts}
    return all(made.get(item.path) == item.sha256 for item in record.inputs if item.path)


def of_run(output_dir: Path) -> dict[str, list[Record]]:
    """The current records of every case of a run folder, by case id."""
    return {case_id: of_case(output_dir / "cases" / case_id) for case_id in _case_ids(output_dir)}


def case_ids(output_dir: Path) -> list[str]:
    """The names of the cases of a run folder.

    Raises:
        UsageError: E_NO_CASES when the folder has none at all.
    """
    if found := _case_ids(output_dir):
        return found
    raise UsageError("E_NO_CASES", f"Expected the results of an earlier stage in {output_dir}.")


def _case_ids(output_dir: Path) -> list[str]:
    return sorted(path.name for path in (output_dir / "cases").glob("*") if path.is_dir())


def merge(mappings: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """One mapping out of several, for what a stage reads or writes."""
    return {key: kind for mapping in mappings for key, kind in mapping.items()}


class FindCases:
    """Find the cases of a run folder that have what a stage reads.

    Args:
        dataset_dir: a folder that an earlier stage has written.
        reads: key -> kind, as the stage takes it; `kind?` for what may be missing.
        all_cases: give every case that has a record, also those that miss something (for reports), and also images
            that a stage has found unfit.
        after: stages; a case in which one of them failed or was quarantined is left out.
    """

    def __init__(
        self, dataset_dir: str | Path, reads: Mapping[str, str], all_cases: bool = False, after: Sequence[str] = ()
    ) -> None:
        self.dataset_dir, self.after = Path(dataset_dir), tuple(after)
        self.reads = dict(reads)
        self.all_cases = all_cases

    def __call__(self) -> list[dict[str, Any]]:
        """The cases, each with `case_id`, a path for every key that is there, and its `records`.

        Raises:
            UsageError: E_NO_CASES when the folder has none at all.
        """
        return [case for case_id in case_ids(self.dataset_dir) if (case := self.of(case_id)) is not None]

    def of(self, case_id: str) -> dict[str, Any] | None:
        """One case as `__call__` gives it; None where it is left out."""
        records = of_case(case_folder(self.dataset_dir, case_id))
        if self._stopped(records):
            return None
        case = self._case(case_id, records)
        needed = {key for key, kind in self.reads.items() if not kind.endswith("?")}
        return case if self.all_cases or needed <= case.keys() else None

    def _stopped(self, records: Sequence[Record]) -> bool:
        return any(record.stage in self.after and record.status != "done" for record in records)

    def _case(self, case_id: str, records: list[Record]) -> dict[str, Any]:
        done = [artifact for record in records if record.status == "done" for artifact in record.artifacts]
        verdicts = [] if self.all_cases else [record.verdict for record in records if record.verdict]
        unfit = {key for verdict in verdicts for key in verdict.unfit}
        fit = [item for item in done if item.key in self.reads and item.key not in unfit]
        paths = {item.key: self.dataset_dir / item.path for item in fit}
        asked = [key for key, kind in self.reads.items() if kind.removesuffix("?") == ROWS]
        rows = {key: series_of(self.dataset_dir, case_id) for key in asked}
        return {"case_id": case_id, **paths, **rows, "records": records}


def series_of(output_dir: Path, case_id: str) -> tuple[Mapping[str, str], ...] | None:
    """What ingest found of a case: its rows of `series.csv`; None where there is no such table, or another's."""
    path = output_dir / SERIES_TABLE
    try:
        cases = _series_by_case(path, path.stat().st_mtime_ns)
    except (OSError, csv.Error):
        return None
    return None if cases is None else cases.get(case_id, ())


@lru_cache(maxsize=1)
def _series_by_case(path: Path, changed_ns: int) -> Mapping[str, tuple[Mapping[str, str], ...]] | None:
    """The rows by case, read once as long as the file is not changed; None where it has not ingest's columns."""
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
        reader = csv.DictReader(stream, restval="")
        if not {*(reader.fieldnames or ())} >= _SERIES_COLUMNS:
            return None
        rows = sorted(reader, key=lambda row: row["case_id"])
    return {case_id: tuple(of_case) for case_id, of_case in groupby(rows, key=lambda row: row["case_id"])}


def table(cases: Mapping[str, Sequence[Record]]) -> pd.DataFrame:
    """One row a case: the status of each stage, the first error, the flags and every number that was measured."""
    import pandas as pd

    stages = stages_in_order(cases)
    labels = labels_of(record for found in cases.values() for record in found)
    rows = []
    for case_id, records in cases.items():
        errors = [record.error for record in records if record.error]
        row: dict[str, Any] = {"case_id": case_id, **dict.fromkeys(stages, "")}
        row |= {record.stage: record.status for record in records}
        row |= {"code": errors[0].code if errors else "", "reason": errors[0].message if errors else ""}
        verdicts = [record.verdict for record in records if record.verdict]
        if judged := worst(verdicts):
            row |= {"verdict": judged.grade, "verdict_reason": " ".join(judged.reasons)}
        row["flags"] = "; ".join(flag for record in records for flag in record.flags)
        row |= {as_key(labels[x.stage, label]): value for x in records for label, value in x.answers.items()}
        row |= measures_of(records)
        rows.append(row)
    return pd.DataFrame(rows)


def measures_of(found: Iterable[Record]) -> dict[str, float]:
    """Every number that was measured of a case, by its column in the table: `register_mr_nmi`."""
    pairs = ((f"{record.stage}_{name}", value) for record in found for name, value in record.measures.items())
    return {name: value for name, value in pairs if _is_number(value)}


def write_table(output_dir: Path) -> pd.DataFrame:
    """Write `cases.csv`, the table of all cases, and `cases.json`, which says what its columns hold."""
    cases = of_run(output_dir)
    rows = table(cases)
    write_atomic(output_dir / CASES_TABLE, lambda path: rows.to_csv(path, index=False))
    dictionary.write(output_dir, dictionary.columns(output_dir, cases, rows.columns))
    return rows


def went_well(record: Record) -> bool:
    """Whether a stage is done, and does not think of its own results that they must not be used."""
    return record.status == "done" and (record.verdict is None or record.verdict.grade != "fail")


def stages_in_order(cases: Mapping[str, Sequence[Record]]) -> list[str]:
    """The stages of a run, each behind those that it depends on in the case that came furthest."""
    latest: dict[str, int] = {}
    for records in cases.values():
        for index, record in enumerate(records):
            latest[record.stage] = max(latest.get(record.stage, 0), index)
    return sorted(latest, key=lambda stage: latest[stage])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
