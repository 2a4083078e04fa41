"""A stage runs a chain over cases: resume, isolation of failures, verified atomic writes, provenance."""

from __future__ import annotations

import hashlib
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.cases import Artifact, Fault, NiftiFile, Record, Series, Status
from pipeline.console import echo, track
from pipeline.errors import CaseError, PipelineError, QuarantineError, UsageError, pipeline_cause, root_words
from pipeline.run import events
from pipeline.run.fingerprint import describe
from pipeline.run.status import finish, summary
from pipeline.run.stopping import code_of, leave, sentence, stoppable
from pipeline.store import records
from pipeline.store.artifacts import save
from pipeline.store.attempts import Attempt
from pipeline.store.files import run_lock, save_text, sha256_file
from pipeline.store.plain import plain
from pipeline.store.sections import SECTIONS, joined

Case = dict[str, Any]
Chain = Callable[[Case], Case]

#: An identifier of fewer letters is taken out of a text as a word alone: `B` stands in many words.
SHORT = 4


class Stage:
    """Run a chain over cases and keep what it made.

    What the chain writes is asked of its transforms: `writes()` gives key -> kind (`pipeline.cases.Kind`), with `?`
    behind the kind of what may be missing. What they say to a reader of the case is asked of them too: `sections(case)`
    gives `pipeline.store.sections.Sections`. Under `measures`, `flags` and `verdict` a chain leaves what goes into the
    record.

    Args:
        name: the stage's name: its folder below each case.
        chain: a MONAI `Compose`: dictionary in, dictionary out; it writes no file.
        reads: key -> kind of what the chain needs; `kind?` for what may be missing.
        writes: key -> kind of what transforms make that do not say so themselves, such as MONAI's own.
        output_dir: the run folder.
        weights: files of network weights; their content is part of the resume key.
        overwrite: do the work again even where a valid record exists.
    """

    def __init__(
        self,
        name: str,
        chain: Chain,
        reads: Mapping[str, str],
        writes: Mapping[str, str] | None = None,
        output_dir: str | Path = "out",
        weights: Sequence[str | Path] = (),
        overwrite: bool = False,
    ) -> None:
        self.name = name
        self.chain = chain
        self.reads = dict(reads)
        self.writes = writes_of(chain) | dict(writes or {})
        self.output_dir = Path(output_dir)
        self.overwrite = overwrite
        self._weights = [sha256_file(Path(path)) for path in weights]
        self._description = describe([chain, self.reads, self.writes])

    def run(self, cases: Sequence[Case]) -> list[Record]:
        """Run every case; a failing one does not stop the others.

        Args:
            cases: dictionaries with `case_id` and what the stage reads.

        Returns:
            One record a case, in the order of the cases.
        """
        found = []
        with events.of_stage(self.output_dir, self.name, len(cases)):
            for record in track(map(self.run_case, cases), len(cases), self.name):
                events.of_case(self.output_dir, record)
                found.append(record)
        return found

    def run_case(self, case: Case, run: str | None = None) -> Record:
        """Run one case. Never raises for a bad case: the record says failed or quarantined, the code and the reason.

        `run` is the name of the run that asks for it (`pipeline.store.files.run_of`): in another nothing of it counts.
        """
        started = time.perf_counter()
        case = {**case, "records": [record for record in case.get("records", ()) if record.stage != self.name]}
        attempt = Attempt(self.output_dir, records.case_folder(self.output_dir, case["case_id"]) / self.name, run)
        record, log = Record(case["case_id"], self.name, "", "failed", versions=records.versions()), ""
        try:
            record = replace(record, inputs=self._inputs(case))
            digests = {item.key: item.sha256 for item in record.inputs}
            record = replace(record, key=records.resume_key(self.name, self._description, digests, self._weights))
            before = records.read(attempt.folder)
            if before is not None and self._still_valid(before, record.key):
                return replace(before, reused=True)
            attempt.open()
            record = self._done(record, self.chain(dict(case)), attempt)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong with one case must not stop the cohort
            record, log = _failed(record, error, case, self.output_dir)
        record = replace(record, measures={"seconds": round(time.perf_counter() - started, 3), **record.measures})
        return keep(record, attempt, log)

    def main(self, find_cases: Callable[[], Sequence[Case]], after: Sequence[Callable[[Path], Any]] = ()) -> None:
        """Run the stage as a command of its own, as `python -m monai.bundle run` does.

        Args:
            find_cases: gives the cases.
            after: what to do with the run folder when the cases are done, such as a page about all of them.

        Raises:
            SystemExit: 1 when a case failed or was quarantined, 2 when the stage could not start, 130 or 143 when it
                was stopped.
        """
        try:
            with stoppable(), run_lock(self.output_dir), events.of_run(self.output_dir, [self.name]):
                found = self.run(find_cases())
                records.write_table(self.output_dir)
                for step in after:
                    step(self.output_dir)
        except UsageError as error:
            echo(str(error), error=True)
            sys.exit(2)
        except KeyboardInterrupt as stop:
            echo(sentence(code_of(stop)), error=True)
            leave(code_of(stop))
        echo(summary(self.name, found))
        if code := finish(self.output_dir, {self.name: found}):
            sys.exit(code)

    def _inputs(self, case: Case) -> tuple[Artifact, ...]:
        inputs = [_input(key, kind, case.get(key), self.output_dir) for key, kind in self.reads.items()]
        present = tuple(item for item in inputs if item is not None)
        recorded = {a.path: a.sha256 for r in case.get("records", ()) for a in r.artifacts}
        for item in present:
            if item.path and recorded.get(item.path, item.sha256) != item.sha256:
                raise CaseError("E_CHANGED", f"The content of {item.path} is not what was recorded.")
        return present

    def _still_valid(self, before: Record, key: str) -> bool:
        if self.overwrite or before.key != key or before.status != "done":
            return False
        return records.intact(before, self.output_dir)

    def _done(self, record: Record, result: Case, attempt: Attempt) -> Record:
        said = joined(transform.sections(result) for transform in transforms_of(self.chain, "sections"))
        artifacts = []
        for key, kind, value in (*self._outputs(result), *([(SECTIONS, "measure", said.as_json())] if said else ())):
            path, artifact = save(key, kind, value, attempt.path)
            place = attempt.folder / path.relative_to(attempt.path)
            artifacts.append(replace(artifact, path=place.relative_to(self.output_dir).as_posix()))
        return replace(
            record,
            status="done",
            artifacts=tuple(artifacts),
            measures=plain(result.get("measures", {})),
            flags=tuple(result.get("flags", ())),
            verdict=result.get("verdict"),
            answers={answer.label: answer.value for answer in said.answers},
        )

    def _outputs(self, result: Case) -> Iterator[tuple[str, str, Any]]:
        """Key, kind and value of all that the chain has made."""
        for key, kind in self.writes.items():
            if key not in result and kind.endswith("?"):
                continue
            if key not in result:
                raise CaseError("E_OUTPUT", f"Expected the stage {self.name} to give {key}, but it did not.")
            if kind.removesuffix("?") == "documents":
                yield from ((name, "document", document) for name, document in result[key].items())
            else:
                yield key, kind.removesuffix("?"), result[key]


def transforms_of(chain: Any, method: str) -> list[Any]:
    """The transforms of a chain, and of the chains in it, that have a method."""
    parts = [part for item in getattr(chain, "transforms", ()) for part in transforms_of(item, method)]
    return [*([chain] if callable(getattr(chain, method, None)) else []), *parts]


def writes_of(chain: Any) -> dict[str, str]:
    """What the transforms of a chain write: key -> kind.

    Raises:
        UsageError: E_CONFIG when two of them write the same key.
    """
    found: dict[str, str] = {}
    for transform in transforms_of(chain, "writes"):
        made = transform.writes()
        if twice := found.keys() & made.keys():
            raise UsageError("E_CONFIG", f"Expected one transform that writes {min(twice)}, got two.")
        found |= made
    return found


def _failed(record: Record, error: Exception, case: Case, output_dir: Path) -> tuple[Record, str]:
    """The record of a case that went wrong, and a log of what happened where that is a defect of ours."""
    known = pipeline_cause(error) or _as_pipeline_error(error)
    status: Status = "quarantined" if isinstance(known, QuarantineError) else "failed"
    fault = Fault(known.code, scrub(known.message, case).replace(f"{output_dir}/", ""), known.remedy)
    log = scrub("".join(traceback.format_exception(error)), case) if known.code == "E_INTERNAL" else ""
    return replace(record, status=status, error=fault), log


def keep(record: Record, attempt: Attempt, log: str = "") -> Record:
    """Write the record, and let the attempt take its place; of a case that went wrong, only the log is kept beside.

    Where another attempt came first, its record is given.
    """
    try:
        if attempt.is_late():
            return _settled(record, attempt)
        if record.status != "done":
            attempt.open()
        if log:
            save_text(attempt.path / records.ERROR_LOG, log)
        records.write(record, attempt.path)
        return record if attempt.commit(record.key) else _settled(record, attempt)
    except (OSError, PipelineError) as error:
        reason = f"The record of the stage could not be written ({type(error).__name__})."
        return replace(record, status="failed", artifacts=(), error=Fault.of("E_DISK", reason))
    finally:
        attempt.close()


def _settled(record: Record, attempt: Attempt) -> Record:
    """What another attempt has come to."""
    if (found := records.read(attempt.folder)) is not None:
        return replace(found, reused=True)
    reason = "The work was given to another process, or belongs to a run that has ended."
    return replace(record, status="failed", artifacts=(), error=Fault.of("E_BUSY", reason))


def scrub(text: str, case: Case) -> str:
    """Take the hospital's identifiers and input paths of a case out of a text that is going to be kept."""
    series = [value for value in case.values() if isinstance(value, Series)]
    parents = [parent for item in series for path in item.files for parent in path.parents]
    secrets = {str(parent) for parent in parents if len(parent.parts) > 2}
    secrets |= {secret for item in series for secret in (item.patient_id, item.study_uid, item.series_uid) if secret}
    files = [path for item in case.values() if isinstance(item, NiftiFile) for path in item.files]
    files += [item for item in case.values() if isinstance(item, Path)]
    secrets |= {secret for path in files for secret in (str(path), str(path.parent), path.name)}
    for secret in sorted(secrets, key=len, reverse=True):
        whole = r"\b" if len(secret) < SHORT else ""  # an ID such as B is in many words
        text = re.sub(f"{whole}{re.escape(secret)}{whole}", "<input>", text)
    return text


def _as_pipeline_error(error: Exception) -> PipelineError:
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        return CaseError("E_UNREADABLE", f"A file could not be read or written ({error.strerror or error}).")
    return CaseError("E_INTERNAL", root_words(error))


def _input(key: str, kind: str, value: Any, output_dir: Path) -> Artifact | None:
    """Describe an input by its content.

    Raises:
        CaseError: E_INPUT when it is needed and missing, E_UNREADABLE when a file of it is gone.
    """
    if value is None and kind.endswith("?"):
        return None
    kind = kind.removesuffix("?")
    if isinstance(value, Series | NiftiFile):
        try:
            digests = sorted(sha256_file(path) for path in value.files)
        except FileNotFoundError as error:
            raise CaseError("E_UNREADABLE", f"A file of {key} is gone since it was found.") from error
        return Artifact(key, kind, "", hashlib.sha256("".join(digests).encode()).hexdigest())
    if kind == records.ROWS:
        return Artifact(key, kind, "", hashlib.sha256(repr(value).encode()).hexdigest())
    if isinstance(value, str | Path) and Path(value).is_file():
        path = Path(value)
        inside = path.is_relative_to(output_dir / "cases")
        return Artifact(key, kind, path.relative_to(output_dir).as_posix() if inside else "", sha256_file(path))
    if isinstance(value, list) and all(isinstance(item, Record) for item in value):
        return Artifact(key, kind, "", records.digest(value))
    raise CaseError("E_INPUT", f"Expected {key} ({kind}), got nothing that can be read.")
