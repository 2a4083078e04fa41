"""What happens in a run folder, one JSON object a line in `log.jsonl`: no patient, no path of the machine.

The process that leads the run writes it, never a worker. Each line is appended by one write; one that was cut by a kill
or a full disk is skipped by readers. Past `LARGEST_BYTES` the log becomes `log.old.jsonl` when a run starts, in the
place of the former one: the two grow by what one run writes, some 200 bytes for each case and stage.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.cases import Record
from pipeline.errors import pipeline_cause

LOG = "log.jsonl"
OLD = "log.old.jsonl"
LARGEST_BYTES = 32 << 20

#: What an event may be.
RUN_STARTED, RUN_ENDED = "run started", "run ended"
STAGE_STARTED, STAGE_ENDED = "stage started", "stage ended"
CASE, WAITING = "case", "waiting"


@contextmanager
def of_run(output_dir: Path, stages: Sequence[str], jobs: int = 1) -> Iterator[None]:
    """Note that a run starts, and how it ends: without a code when its stages are through."""
    started = time.monotonic()
    with suppress(OSError):
        if (output_dir / LOG).stat().st_size > LARGEST_BYTES:
            (output_dir / LOG).replace(output_dir / OLD)
    note(output_dir, RUN_STARTED, stages=list(stages), jobs=jobs)
    code = ""
    try:
        yield
    except KeyboardInterrupt:
        code = "stopped"
        raise
    except BaseException as error:
        known = pipeline_cause(error)
        code = known.code if known else "E_INTERNAL"
        raise
    finally:
        note(output_dir, RUN_ENDED, seconds=_since(started), **({"code": code} if code else {}))


@contextmanager
def of_stage(output_dir: Path, stage: str, cases: int) -> Iterator[None]:
    """Note that a stage starts, and that it is through with all its cases."""
    started = time.monotonic()
    note(output_dir, STAGE_STARTED, stage=stage, cases=cases)
    yield
    note(output_dir, STAGE_ENDED, stage=stage, seconds=_since(started))


def of_case(output_dir: Path, record: Record) -> None:
    """Note what became of a case in a stage."""
    said: dict[str, Any] = {"stage": record.stage, "case": record.case_id, "status": record.status}
    said |= {"verdict": record.verdict.grade} if record.verdict else {}
    said |= {"code": record.error.code} if record.error else {}
    said |= {"reused": True} if record.reused else {"seconds": record.measures.get("seconds", 0)}
    note(output_dir, CASE, **said)


def note(output_dir: Path, event: str, **said: Any) -> None:
    """Append a line. A log that cannot be written stops no run: what is done is what has a record."""
    moment = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = json.dumps({"time": moment, "event": event, **said}) + "\n"
    with suppress(OSError):
        output_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(output_dir / LOG, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            cut = size and os.pread(descriptor, 1, size - 1) != b"\n"
            os.write(descriptor, (b"\n" if cut else b"") + line.encode())
        finally:
            os.close(descriptor)


class Follower:
    """Reads a log as it grows.

    Args:
        output_dir: the run folder.
    """

    def __init__(self, output_dir: Path) -> None:
        self._path = output_dir / LOG
        self._file, self._read = (0, 0), 0

    def new(self) -> list[dict[str, Any]]:
        """The events since the last call, all at the first; a line that is not yet whole comes with a later call."""
        try:
            with self._path.open("rb") as stream:
                state = os.fstat(stream.fileno())
                if (state.st_dev, state.st_ino) != self._file:  # a new log
                    self._file, self._read = (state.st_dev, state.st_ino), 0
                stream.seek(self._read)
                whole, ending, _ = stream.read().rpartition(b"\n")
        except OSError:
            return []
        self._read += len(whole) + len(ending)
        return [event for line in whole.split(b"\n") if (event := _event(line))]


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
        datetime.fromisoformat(found["time"])
    except (ValueError, TypeError, KeyError):  # cut, or of another program
        return None
    return found if isinstance(found.get("event"), str) else None


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)
