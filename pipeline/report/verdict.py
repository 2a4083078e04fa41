"""The verdict over a case: one word and the reasons for it, from the stages' records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.cases import Record, worst
from pipeline.words import clean

Word = Literal["done", "warning", "failed", "quarantined"]

#: What the verdict says at a glance.
HEADLINES: dict[Word, str] = {
    "done": "Done",
    "warning": "Done, with a warning",
    "failed": "Failed",
    "quarantined": "Quarantined",
}
#: Grade of a stage's own verdict -> the word whose colour it bears.
GRADE_WORDS: dict[str, Word] = {"pass": "done", "warn": "warning", "fail": "failed"}
#: What becomes of results that their own stage has judged as failed.
UNFIT = "What has failed is not fit for use: look at its pictures, mend the input or the data spec, and run again."
LEFT_OUT = "Later stages go on without it."
DOUBTFUL = "Look at its pictures before you use it: a warning is a doubt, not a fault."
#: Problems first.
SEVERITY: tuple[Word, ...] = ("failed", "quarantined", "warning", "done")


@dataclass(frozen=True)
class CaseVerdict:
    """The verdict over a case.

    Attributes:
        word: `done`, `warning`, `failed` or `quarantined`.
        reasons: sentences, the most severe first; never empty.
        code: stable error code, or an empty text.
        remedy: what to do, or an empty text.
        stage: the stage that failed or set the case aside, or an empty text.
        judged: all stages ran, and one of them has judged its own results as failed.
    """

    word: Word
    reasons: tuple[str, ...]
    code: str = ""
    remedy: str = ""
    stage: str = ""
    judged: bool = False

    @property
    def headline(self) -> str:
        """The verdict in words."""
        if self.judged:
            return "Failed verdict: not fit for use"
        return f"{HEADLINES[self.word]} in the {self.stage} stage" if self.stage else HEADLINES[self.word]


def case_verdict(records: Sequence[Record]) -> CaseVerdict:
    """Judge a case: a stage that failed, then what the stages think of their own results.

    A stage that thinks that its results must not be used makes the case `failed`, although it ran to the end.

    Args:
        records: one for each stage that ran, in order.
    """
    judged = worst(record.verdict for record in records if record.verdict)
    said = tuple(clean(reason) for reason in judged.reasons) if judged else ()
    stopped = next((record for record in records if record.status != "done"), None)
    if stopped is not None:
        return _stopped(stopped, said if judged and judged.grade != "pass" else ())
    if not records:
        said = ("No stage has left a record for this case: its work was broken off, or never begun.",)
        return CaseVerdict("failed", said, remedy="Run again.")
    if judged and judged.grade != "pass":
        failed = judged.grade == "fail"
        remedy = " ".join(filter(None, (UNFIT if failed else DOUBTFUL, LEFT_OUT if judged.unfit else "")))
        return CaseVerdict(GRADE_WORDS[judged.grade], said, remedy=remedy, judged=failed)
    return CaseVerdict("done", ("All stages finished.", *said))


def stage_word(record: Record) -> Word:
    """The word whose colour a stage bears."""
    if record.status != "done":
        return record.status
    return GRADE_WORDS[record.verdict.grade] if record.verdict else "done"


def stage_status(record: Record) -> str:
    """`done`, or what a reader has to know instead."""
    graded = {"warn": "warning", "fail": "failed verdict"}
    judged = record.verdict if record.status == "done" else None
    return graded.get(judged.grade, "done") if judged else record.status


def _stopped(record: Record, said: tuple[str, ...]) -> CaseVerdict:
    word: Word = "quarantined" if record.status == "quarantined" else "failed"
    if record.error is None:
        return CaseVerdict(word, ("The stage left no reason.", *said), stage=clean(record.stage))
    code, message, remedy = (clean(text) for text in (record.error.code, record.error.message, record.error.remedy))
    return CaseVerdict(word, (message, *said), code, remedy, clean(record.stage))
