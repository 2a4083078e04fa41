"""`tandem watch INCOMING`: studies that arrive in a folder are taken when nothing of them changes any more.

Each round finds the cases of the whole folder (only new files are read), and takes those of which no file is arriving
and which have changed since they were taken. A watch that is stopped goes on as a run does.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.console import echo, printing
from pipeline.errors import PipelineError, UsageError, pipeline_cause
from pipeline.run import events
from pipeline.run.batch import bring, write_manifest
from pipeline.run.loading import parser_of, part_of
from pipeline.run.plan import STAGES, Plan, in_order
from pipeline.run.stage import Case
from pipeline.run.status import tell
from pipeline.run.workers import Cluster, Here, workers
from pipeline.spec.spec import of_ingest
from pipeline.store.files import require_apart, run_lock, walk
from pipeline.words import counted

#: Of a backlog so many cases are taken in a round, so that what arrives meanwhile does not wait for all of it.
ROUND = 32
#: Looks are so far apart at most, seconds; and so many times as long as the last one took, for a folder of many files.
LOOK_S, SHARE = 5.0, 4.0
TROUBLE_S = 30.0  # before another try where the disk is full
#: Nothing has come yet, or the folder is away: a watch waits, as it does for room on a full disk.
_NOTHING = ("E_EMPTY", "E_NO_DICOM", "E_NO_CASES")
#: A file that nobody knows and that never stops changing (a log) holds its neighbours back so many times `quiet_s`.
PATIENCE = 10

#: Bytes, and nanoseconds of the last change of content and of inode: who copies a file may set the first time back.
Stamp = tuple[int, int, int]


def watch(plan: Plan, quiet_s: float, once: bool = False) -> None:
    """Take what arrives in the plan's input folder until the process is stopped, or `once` when all has been taken.

    Raises:
        UsageError: as of a run that cannot start; E_SCHEDULER, E_WORKER when nobody is left to do the work.
    """
    plan = plan.resolved()
    stages = in_order(plan.stages, of_ingest(plan.spec_file or ""))
    if STAGES[0] not in stages:
        raise UsageError("E_OPTION", f"Expected {STAGES[0]} among the stages, got {', '.join(stages)}.")
    require_apart(plan.output_dir, plan.dataset_dir)
    arrivals = Arrivals(plan.dataset_dir, plan.output_dir, quiet_s)
    arrivals.look(time.monotonic())
    with run_lock(plan.output_dir), workers(plan, stages) as pool:
        write_manifest(plan, stages)
        events.note(plan.output_dir, events.WAITING)
        echo(f"Waiting for studies in {plan.dataset_dir}; Ctrl-C ends it, and the same command goes on.")
        incoming = Incoming(plan, stages, pool, arrivals)
        while not incoming.step(quiet_s) or not once:
            time.sleep(incoming.pause_s)


class Incoming:
    """The rounds of a watch; `pause_s` says how long to wait before the next step."""

    def __init__(self, plan: Plan, stages: Sequence[str], pool: Here | Cluster, arrivals: Arrivals) -> None:
        self._plan, self._stages, self._pool, self._arrivals = plan, stages, pool, arrivals
        self._find = part_of(parser_of(STAGES[0], plan), "cases")
        self._epoch = uuid.uuid4().hex
        self._taken: dict[str, str] = {}
        self._quiet: dict[Path, Stamp] = {}
        self._again, self._said = False, ""
        self.pause_s = 0.0

    def step(self, quiet_s: float) -> bool:
        """Look at the folder, and take what is whole and new; whether nothing is arriving or left."""
        began = time.monotonic()
        try:
            self._arrivals.look(began)
            new = self._new(began)
            self.pause_s = max(min(quiet_s / 4, LOOK_S), SHARE * (time.monotonic() - began))
            if new:
                self._take(new)
                self.pause_s = 0.0
            self._said = ""
        except (PipelineError, OSError) as error:
            self._wait_out(error)
            self._again, self.pause_s = True, min(TROUBLE_S, quiet_s)
            return self._said.startswith(_NOTHING) and not self._arrivals.arriving(time.monotonic())
        return not (new or self._again or self._arrivals.arriving(time.monotonic()))

    def _new(self, now_s: float) -> list[tuple[Case, str]]:
        """Cases that are whole and were not taken as they are, each with the digest of its files."""
        quiet = self._arrivals.quiet(now_s)
        if not quiet or (quiet == self._quiet and not self._again):
            return []
        arriving = self._arrivals.arriving(now_s)
        with printing("nothing"):  # of half-copied files; the tables have what there is to say
            cases = self._find.all()
        now_s = time.monotonic()
        self._arrivals.look(now_s)
        arriving |= self._arrivals.arriving(now_s)  # what has changed while headers were read
        whole = self._arrivals.whole(self._find.owners, arriving, now_s)
        known = [(case, whole.get(case["case_id"], "")) for case in cases]
        new = [(case, made) for case, made in known if made and made != self._taken.get(case["case_id"])]
        self._quiet, self._again = quiet, len(new) > ROUND or any(not made for _, made in known)
        return new[:ROUND]

    def _take(self, new: Sequence[tuple[Case, str]]) -> None:
        cases = [case for case, _ in new]
        plan = replace(self._plan, cases=frozenset(case["case_id"] for case in cases))
        echo(f"Taken: {counted(len(cases), 'case')}")
        with events.of_run(plan.output_dir, self._stages, plan.jobs):
            found = bring(plan, self._stages, self._pool, cases, self._epoch)
        self._taken |= {case["case_id"]: made for case, made in new}
        tell(plan.output_dir, found)
        events.note(plan.output_dir, events.WAITING)

    def _wait_out(self, error: Exception) -> None:
        """Say once what is waited out; raise what is not."""
        known = pipeline_cause(error)
        if known is not None and known.code not in (*_NOTHING, "E_DISK"):
            raise error
        said = str(known or error)
        plain = re.sub(r"[\d.]+", "", said)  # how much room there is changes while others write
        if plain != self._said and not said.startswith(_NOTHING):
            echo(f"Waiting: {said}", error=True)
        self._said = plain


@dataclass(frozen=True)
class _Seen:
    stamp: Stamp
    since_s: float
    first_s: float


class Arrivals:
    """The files of `root`, and since when each is as it is: for `quiet_s` seconds, and it counts as whole.

    No link of it may lead to `apart`, the run folder.
    """

    def __init__(self, root: Path, apart: Path, quiet_s: float) -> None:
        self._root, self._apart, self._quiet_s = root, apart, quiet_s
        self._seen: dict[Path, _Seen] = {}

    def look(self, now_s: float) -> None:
        """Look at every file, at a time of a clock that is never set; E_EMPTY when the folder is not there."""
        seen: dict[Path, _Seen] = {}
        for path in walk(self._root, self._apart):
            try:
                state = path.stat()
            except OSError:  # gone since it was listed, or a link to nothing
                continue
            if stat.S_ISREG(state.st_mode):
                stamp = (state.st_size, state.st_mtime_ns, state.st_ctime_ns)
                before = self._seen.get(path, _Seen(stamp, now_s, now_s))
                seen[path] = before if before.stamp == stamp else _Seen(stamp, now_s, before.first_s)
        self._seen = seen

    def arriving(self, now_s: float) -> set[Path]:
        """The files that have changed within the last `quiet_s` seconds."""
        return {path for path, item in self._seen.items() if now_s - item.since_s < self._quiet_s}

    def quiet(self, now_s: float) -> dict[Path, Stamp]:
        """The others, as they are."""
        arriving = self.arriving(now_s)
        return {path: item.stamp for path, item in self._seen.items() if path not in arriving}

    def whole(self, owners: Mapping[Path, str], arriving: Set[Path], now_s: float) -> dict[str, str]:
        """The cases of which nothing is arriving, with a digest of their files, which changes when one has grown.

        What arrives and has no owner yet (its header is not there) holds back the cases of its folder and of the
        folders beside it, as a patient's studies and series lie. `owners`: file -> its case.
        """
        foreign = {path for path in arriving - owners.keys() if self._is_young(path, now_s)}
        near = {_study(path.parent, self._root) for path in foreign}
        files: defaultdict[str, list[Path]] = defaultdict(list)
        held = {owners[path] for path in arriving & owners.keys()}
        for path, case in owners.items():
            files[case].append(path)
            if path.parent in near or not near.isdisjoint({*path.parents} - {self._root, *self._root.parents}):
                held.add(case)
        return {case: self._digest(paths) for case, paths in files.items() if case not in held}

    def _is_young(self, path: Path, now_s: float) -> bool:
        item = self._seen.get(path)
        return item is None or now_s - item.first_s < PATIENCE * self._quiet_s

    def _digest(self, paths: list[Path]) -> str:
        known = [(os.fspath(path), self._seen[path].stamp) for path in sorted(paths) if path in self._seen]
        return hashlib.sha256(repr(known).encode(errors="surrogateescape")).hexdigest()


def _study(folder: Path, root: Path) -> Path:
    """The folder above a folder, unless that is the root."""
    return folder if folder == root or folder.parent == root else folder.parent
