"""De-identify a tree of DICOM files: many files at once, going on where an earlier run ended."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, astuple, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

from pipeline import __version__
from pipeline.console import track
from pipeline.dicom.confidentiality.file import FileDeidentifier, Identity, Outcome, Source
from pipeline.dicom.confidentiality.options import Options
from pipeline.dicom.headers.neighbours import Names
from pipeline.dicom.headers.persons import Person, clashes
from pipeline.errors import UsageError
from pipeline.store.files import left_as_found, require_apart, run_lock, save_text, sha256_file, walk
from pipeline.store.pseudonyms import Pseudonyms

TABLE = "deidentified.csv"
SETTINGS = "deidentified.json"
_COLUMNS = ("patient", "file", "modality", "verdict", "code", "reason", "sha256")
_IDENTITY = ("patient_id", "study_uid", "series_uid", "sop_uid", "patient_name", "birth_date", "sex")
_PRIVATE_COLUMNS = (
    *("source", "size_bytes", "changed_ns", "verdict", "code", "reason"),
    *_IDENTITY,
    *("patient", "file", "modality", "sha256"),
)
#: After so many files the private table is written, so that a run that is killed need not begin anew.
_KEEP_EVERY = 2000
_CHUNK = 16
_COPIES = "patient-*/study-*/series-*/*"


@dataclass(frozen=True)
class TreeOutcome:
    """What became of a tree.

    Attributes:
        outcomes: of every file, in the order of the tree.
        reused: how many of the copies were there already.
        gone: how many more copies there are, of files that were in the tree and are no longer.
        private_table: where it says which copy is whose.
        parted: how many PatientIDs stand with an issuer in some files and without in others: two patients' copies.
    """

    outcomes: tuple[Outcome, ...]
    reused: int
    private_table: Path
    gone: int = 0
    parted: int = 0

    def count(self, verdict: str) -> int:
        """How many files came to a verdict."""
        return sum(outcome.verdict == verdict for outcome in self.outcomes)

    def codes(self) -> Counter[str]:
        """How many files were left out for each code."""
        return Counter(outcome.code for outcome in self.outcomes if outcome.code)


def deidentify_tree(root: Path, out: Path, options: Options, jobs: int = 1, overwrite: bool = False) -> TreeOutcome:
    """Copy the DICOM files of a tree without their patients' identity, by DICOM PS3.15 E.

    Writes the copies under pseudonymous names, `deidentified.csv` with a verdict for every DICOM file, and beside the
    key the private table that links both. Copies of files that an earlier run has found elsewhere stay.

    Args:
        root: the tree; it is never written to.
        out: the output folder, outside the tree.
        options: what is kept beyond the basic profile.
        jobs: how many processes work at once.
        overwrite: make every copy again, and allow other options than an earlier run's.

    Returns:
        What became of every file.

    Raises:
        UsageError: E_OUT, E_KEY, E_BUSY, E_EMPTY, E_NO_DICOM, E_OPTION, E_CRASH.
    """
    require_apart(out, root)
    if root.resolve().is_relative_to(out.resolve()):
        raise UsageError("E_OUT", f"The input folder lies in the output folder {out}.")
    sources = [_source(path) for path in walk(root.resolve(), out)]
    if not sources:
        raise UsageError("E_EMPTY", f"Expected DICOM files below {root}, got no file.")
    names = Pseudonyms(out)
    with left_as_found(out, SETTINGS, TABLE), run_lock(out):
        known = _known(names, out, options, overwrite)
        done = _deidentify(sources, known, FileDeidentifier(out, names, options), jobs)
        rows = _without_losses(_without_contradictions({**known, **done}))
        _remove_unlisted(out, rows.values())
        _write_table(out, rows.values())
        table = _keep(names, rows.values())
        outcomes = tuple(rows[source.path] for source in sources)
        if all(item.verdict == "not DICOM" for item in outcomes):
            got = f"{len(outcomes)} files, none of them DICOM"
            raise UsageError("E_NO_DICOM", f"Expected DICOM files below {root}, got {got}.")
    reused = sum(known.get(item.source.path) is item and item.verdict == "copied" for item in outcomes)
    left = (row for path, row in rows.items() if row.verdict == "copied" and path.is_relative_to(root.resolve()))
    gone = {row.source.path for row in left} - {source.path for source in sources}
    return TreeOutcome(outcomes, reused, table, len(gone), _without_issuer(outcomes))


def _source(path: Path) -> Source:
    try:
        state = path.stat()
    except OSError:
        return Source(path, -1, 0)  # reading it will say why
    return Source(path, state.st_size, state.st_mtime_ns)


def _known(names: Pseudonyms, out: Path, options: Options, overwrite: bool) -> dict[Path, Outcome]:
    """What an earlier run with these options has done and is still there, by source.

    Raises:
        UsageError: E_OPTION when it had other options.
    """
    path = out / SETTINGS
    there = path.is_file() or (out / TABLE).exists() or any(out.glob(_COPIES))  # else its copies were deleted
    rows = names.kept(TABLE) if there else []
    made = {"version": __version__, "columns": list(_PRIVATE_COLUMNS)}
    settings = {**made, "options": asdict(options), "key": names.of("key")}
    same = path.is_file() and json.loads(path.read_text(encoding="utf-8")) == settings and bool(rows)
    if (rows or (out / TABLE).exists()) and not same and not overwrite:
        raise UsageError(
            "E_OPTION",
            f"The output folder {out} holds copies that were made with other options, another key or another version.",
            "Choose another output folder, or make them again with --overwrite.",
        )
    if overwrite:
        _remove_unlisted(out, ())
        rows = []
    save_text(path, json.dumps(settings, indent=2))
    return {row.source.path: row for row in map(_from_private, rows) if _still_holds(row, out)}


def _still_holds(row: Outcome, out: Path) -> bool:
    if row.verdict == "copied":
        copy = out / row.output
        return copy.is_file() and sha256_file(copy) == row.sha256
    return row.verdict != "failed"


def _deidentify(
    sources: Sequence[Source], known: dict[Path, Outcome], work: FileDeidentifier, jobs: int
) -> dict[Path, Outcome]:
    todo = [item for item in sources if item.path not in known or known[item.path].source != item]
    done: dict[Path, Outcome] = {}
    for outcome in track(_outcomes(todo, work, jobs), len(todo), "deidentify"):
        done[outcome.source.path] = outcome
        if len(done) % _KEEP_EVERY == 0:
            _keep(work.names, {**known, **done}.values())
    return done


def _outcomes(todo: Sequence[Source], work: FileDeidentifier, jobs: int) -> Iterator[Outcome]:
    """Raises UsageError: E_CRASH when a process dies."""
    if jobs == 1 or len(todo) <= _CHUNK:
        yield from map(work, todo)
        return
    # fresh processes: a fork would copy the locks of the progress bar's thread
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(work, todo, chunksize=_CHUNK)
        except BrokenProcessPool as error:
            raise UsageError("E_CRASH", "A process that de-identified files has died.") from error


def _remove_unlisted(out: Path, rows: Iterable[Outcome]) -> None:
    """Remove copies that no source stands for: of files that have changed, and what a killed run has left."""
    listed = {out / row.output for row in rows if row.verdict == "copied"}
    for path in out.glob(_COPIES):
        if path not in listed:
            path.unlink()


def _without_contradictions(rows: dict[Path, Outcome]) -> dict[Path, Outcome]:
    """Files that claim to be one instance and differ, or one patient's and are two persons', are all left out."""
    return _left_out(_left_out(rows, "output", _two_files), "patient", _two_persons)


def _left_out(
    rows: dict[Path, Outcome], claim: str, fault: Callable[[list[Outcome]], tuple[str, str] | None]
) -> dict[Path, Outcome]:
    """The copies that make one claim and have a fault (code, reason) as failed: the next run tries them again."""
    claims: defaultdict[str, list[Outcome]] = defaultdict(list)
    for row in rows.values():
        if row.verdict == "copied":
            claims[getattr(row, claim)].append(row)
    result = dict(rows)
    for group in claims.values():
        if found := fault(group):
            code, reason = found
            for row in group:
                left = replace(row, verdict="failed", code=code, reason=reason, output="", sha256="")
                result[row.source.path] = left
    return result


def _two_files(group: list[Outcome]) -> tuple[str, str] | None:
    """Identical files give one copy."""
    differ = len({row.sha256 for row in group}) > 1
    return ("E_DUP_SOP", f"{len(group)} different files have one SOPInstanceUID.") if differ else None


def _two_persons(group: list[Outcome]) -> tuple[str, str] | None:
    found = clashes(_person(row.identity) for row in group)
    return ("E_CONTRADICTION", f"{' and '.join(found)} differ under one PatientID.") if found else None


def _person(identity: Identity) -> Person:
    return Person(identity.patient.split("/")[-1], identity.patient_name, identity.birth_date, identity.sex)


def _without_issuer(rows: Iterable[Outcome]) -> int:
    """How many PatientIDs stand with an issuer and without: their copies are of two patients, and may be of one."""
    patients = {row.identity.patient for row in rows if row.verdict == "copied"}
    return len({patient.split("/", 1)[1] for patient in patients if "/" in patient} & patients)


def _without_losses(rows: dict[Path, Outcome]) -> dict[Path, Outcome]:
    """A file that is named like the DICOM files beside it, but is none, has failed: a slice was there."""
    known = [path for path, row in rows.items() if row.verdict != "not DICOM"]
    names, others = Names(known), [row for row in rows.values() if row.verdict == "not DICOM" and not row.reason]
    lost = [row for row in others if known and names.has_lost(row.source.path)]
    reason = "The file is named like a DICOM file, but is none."
    return rows | {row.source.path: replace(row, verdict="failed", code="E_HEADER", reason=reason) for row in lost}


def _write_table(out: Path, rows: Iterable[Outcome]) -> None:
    shown = sorted(
        (row.patient, row.output, row.modality, row.verdict, row.code, row.reason, row.sha256)
        for row in rows
        if row.verdict != "not DICOM"
    )
    text = io.StringIO(newline="")
    csv.writer(text).writerows([_COLUMNS, *shown])
    save_text(out / TABLE, text.getvalue())


def _keep(names: Pseudonyms, rows: Iterable[Outcome]) -> Path:
    return names.keep(TABLE, _PRIVATE_COLUMNS, map(_private, rows))


def _private(row: Outcome) -> tuple[str, ...]:
    source, identity = row.source, row.identity
    return (
        *(str(source.path), str(source.size_bytes), str(source.changed_ns), row.verdict, row.code, row.reason),
        *astuple(identity),
        *(row.patient, row.output, row.modality, row.sha256),
    )


def _from_private(row: dict[str, str]) -> Outcome:
    identity = Identity(*(row[name] for name in _IDENTITY))
    source = Source(Path(row["source"]), int(row["size_bytes"]), int(row["changed_ns"]))
    given = {name: row[name] for name in ("verdict", "code", "reason", "patient", "modality", "sha256")}
    return Outcome(source, identity=identity, output=row["file"], **given)  # type: ignore[arg-type]
