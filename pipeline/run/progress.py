"""How far a run is, how fast, and how long it will take: from its log of events. Nothing heavy."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pipeline.run import events

#: How a case can leave a stage, in the order in which it is said.
WORDS = ("done", "with a warning", "with a failed verdict", "failed", "quarantined")
GRADED = {"warn": "with a warning", "fail": "with a failed verdict"}


def word_of(status: str, grade: str) -> str:
    """One of `WORDS`: how a case has left a stage."""
    return GRADED.get(grade, "done") if status == "done" else status


class Progress:
    """What a log says of its last run; how long its stages take is known from the runs before, too."""

    def __init__(self) -> None:
        self.started: datetime | None = None
        self.last = datetime.now(UTC)
        self.ended: Mapping[str, Any] | None = None
        self.stages: tuple[str, ...] = ()
        self.jobs = 1
        self.waiting = False
        self.cases: dict[str, int] = {}
        self.found: dict[str, Counter[str]] = {}
        self.reused: Counter[str] = Counter()
        self._worked: list[float] = []
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)

    def take(self, new: Sequence[Mapping[str, Any]]) -> bool:
        """Take events in, in their order; whether there were any."""
        for event in new:
            self.last = datetime.fromisoformat(event["time"])
            self._take(event)
        return bool(new)

    def _take(self, event: Mapping[str, Any]) -> None:
        kind, stage = event["event"], str(event.get("stage", ""))
        self.waiting = kind == events.WAITING
        if kind == events.RUN_STARTED:
            self.started, self.ended = self.last, None
            self.stages, self.jobs = tuple(map(str, event.get("stages", ()))), int(event.get("jobs", 1))
            self.cases, self.found, self.reused, self._worked = {}, {}, Counter(), []
        elif kind == events.RUN_ENDED:
            self.ended = event
        elif kind == events.STAGE_STARTED:
            self.cases[stage], self.found[stage] = int(event.get("cases", 0)), Counter()
        elif kind == events.CASE:
            counts = self.found.setdefault(stage, Counter())
            counts[word_of(str(event.get("status")), str(event.get("verdict", "")))] += 1
            if event.get("reused"):
                self.reused[stage] += 1
            else:
                self._worked.append(float(event.get("seconds", 0)))
                self._seconds[stage].append(float(event.get("seconds", 0)))

    def per_minute(self, now: datetime) -> float:
        """Cases through a stage a minute, without those that were done before."""
        elapsed = self._elapsed(now)
        return 60 * len(self._worked) / elapsed if elapsed > 0 else 0.0

    def seconds_left(self, now: datetime) -> tuple[float, list[str]]:
        """How long it will take, at the speed up to now.

        Returns:
            Seconds, and the stages to come that are not in them: no case of theirs was ever timed.
        """
        left = self.left()
        work = sum(self._mean(name) * number for name, number in left.items() if self._seconds[name])
        elapsed = self._elapsed(now)
        # no slower than its processes: what is in hand has not been timed yet
        at_once = max(sum(self._worked) / elapsed if elapsed > 0 else 0.0, float(self.jobs))
        return work / at_once, [name for name, number in left.items() if number > 0 and not self._seconds[name]]

    def left(self) -> dict[str, int]:
        """How many cases each stage still has to take; those that were stopped are for the last one alone."""
        expected = max(self.cases.values(), default=0)
        left, stopped = {}, 0
        for name in self.stages:
            found = self.found.get(name, Counter())
            missing = self.cases.get(name, expected) - found.total()
            left[name] = max(0, missing - (0 if name == self.stages[-1] else stopped))
            stopped += found["failed"] + found["quarantined"]
        return left

    def _mean(self, stage: str) -> float:
        return sum(self._seconds[stage]) / len(self._seconds[stage])

    def _elapsed(self, now: datetime) -> float:
        return (now - self.started).total_seconds() if self.started else 0.0


def line_of(progress: Progress, now: datetime) -> str:
    """One line of a run that goes on: `register: 120 of 1900, 3 failed; 34 a minute; about 12 min left`."""
    if progress.waiting:
        return "Waiting for studies."
    if not progress.found:
        return "The run has started."
    to_come = progress.left()
    stage = next((name for name in progress.found if to_come.get(name)), list(progress.found)[-1])
    counts = progress.found[stage]
    said = [f"{stage}: {counts.total()} of {progress.cases.get(stage, 0)}"]
    said += [f"{counts[word]} {word}" for word in WORDS[1:] if counts[word]]
    seconds, untimed = progress.seconds_left(now)
    speed = f"; {progress.per_minute(now):.3g} a minute" if progress.per_minute(now) else ""
    left = f"; about {duration(seconds)} left" if seconds else ""
    without = f" ({', '.join(untimed)} not yet timed)" if untimed else ""
    return ", ".join(said) + speed + (left + without if left else without)


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
