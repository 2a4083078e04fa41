"""The verdict over a case: one word and the reasons for it, from the stages' records and the quality of alignment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.cases import Record
from pipeline.words import clean, in_words

Word = Literal["done", "warning", "failed", "quarantined"]

#: What the verdict says at a glance.
HEADLINES: dict[Word, str] = {
    "done": "Done",
    "warning": "Done, with a warning",
    "failed": "Failed",
    "quarantined": "Quarantined",
}
#: Grade of an alignment -> the word whose colour it bears; an alignment that nobody judged is a warning.
GRADE_WORDS: dict[str, Word] = {"pass": "done", "warn": "warning", "fail": "failed", "": "warning"}
#: Problems first.
SEVERITY: tuple[Word, ...] = ("failed", "quarantined", "warning", "done")


@dataclass(frozen=True)
class Verdict:
    """The verdict over a case.

    Attributes:
        word: `done`, `warning`, `failed` or `quarantined`.
        reasons: sentences, the most severe first; never empty.
        code: stable error code, or an empty text.
        remedy: what to do, or an empty text.
        stage: the stage that failed or set the case aside, or an empty text.
    """

    word: Word
    reasons: tuple[str, ...]
    code: str = ""
    remedy: str = ""
    stage: str = ""

    @property
    def headline(self) -> str:
        """The verdict in words."""
        return HEADLINES[self.word]


def case_verdict(records: Sequence[Record], qualities: Mapping[str, Mapping[str, Any] | None]) -> Verdict:
    """Judge a case: a stage that failed, then the quality of every alignment, then what has no verdict.

    An alignment whose quality failed makes the case `failed`, although its stage ran to the end: the images must not be
    used together.

    Args:
        records: one for each stage that ran, in order.
        qualities: moving role -> `{"verdict": "pass" | "warn" | "fail", "reason": …}`; None where the alignment was
            made but never judged.
    """
    stopped = next((record for record in records if record.status != "done"), None)
    if stopped is not None:
        return _stopped(stopped)
    reasons = {word: _reasons(qualities, grade) for word, grade in (("failed", "fail"), ("warning", "warn"))}
    if reasons["failed"]:
        return Verdict("failed", reasons["failed"] + reasons["warning"])
    unknown = tuple(
        f"The alignment of {in_words(role)} has no quality verdict."
        for role, quality in qualities.items()
        if quality is None or quality.get("verdict") not in ("pass", "warn", "fail")
    )
    if not records:
        unknown = ("No stage has left a record for this case.", *unknown)
    if reasons["warning"] or unknown:
        return Verdict("warning", reasons["warning"] + unknown)
    return Verdict("done", (_all_well(records, qualities),))


def _stopped(record: Record) -> Verdict:
    word: Word = "quarantined" if record.status == "quarantined" else "failed"
    if record.error is None:
        return Verdict(word, (f"The stage {clean(record.stage)} left no reason.",), stage=clean(record.stage))
    error = record.error
    return Verdict(word, (clean(error.message),), clean(error.code), clean(error.remedy), clean(record.stage))


def _reasons(qualities: Mapping[str, Mapping[str, Any] | None], grade: str) -> tuple[str, ...]:
    return tuple(
        f"Alignment of {in_words(role)}: {clean(quality.get('reason') or 'no reason was given')}"
        for role, quality in qualities.items()
        if quality is not None and quality.get("verdict") == grade
    )


def _all_well(records: Sequence[Record], qualities: Mapping[str, Any]) -> str:
    stages = ", ".join(clean(record.stage) for record in records)
    checked = "every alignment passed its quality check" if qualities else "no images were aligned"
    return f"All stages finished ({stages}), and {checked}."
