"""What the columns of `cases.csv` hold: `cases.json` beside it. Nothing heavy.

The unit stands in a measure's name; what a measure means is what its stage explains in its sections (`Table.help`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from pipeline.cases import GRADES, Record, Status
from pipeline.store.files import save_text
from pipeline.store.sections import SECTIONS, Sections
from pipeline.words import as_key, in_words, unit_of

DICTIONARY = "cases.json"
#: So many cases of a stage are asked what their tables explain.
SAMPLE = 3


@dataclass(frozen=True)
class Column:
    """A column of the table of cases.

    Attributes:
        name: its head.
        kind: a `number` in a unit, a `text`, or a `category` of a few words.
        unit: of a number; empty where it has none.
        stage: that says it; empty where it is about the whole case.
        meaning: in a sentence.
    """

    name: str
    kind: Literal["number", "text", "category"]
    unit: str
    stage: str
    meaning: str


_STATUS = ", ".join((*get_args(Status), "or nothing where it did not run"))
#: Of the whole case.
_OF_CASE = (
    Column("case_id", "text", "", "", "Pseudonym of the case: the name of its folder below cases/."),
    Column("code", "category", "", "", "Error code of the first stage that failed or set the case aside: errors.md."),
    Column("reason", "text", "", "", "Why, in a sentence."),
    Column("verdict", "category", "", "", f"The worst verdict of a stage on its own results: {', '.join(GRADES)}."),
    Column("verdict_reason", "text", "", "", "The reasons of all verdicts, the most severe first."),
    Column("flags", "text", "", "", "What a reader has to know, separated by semicolons; codes N_… are in errors.md."),
)


def columns(output_dir: Path, cases: Mapping[str, Sequence[Record]], names: Iterable[str]) -> list[Column]:
    """What each column of the table of cases holds, in the order of their names."""
    found = [record for case in cases.values() for record in case]
    known = {item.name: item for item in _OF_CASE}
    helps = {stage: _help(output_dir, stage, found) for stage in dict.fromkeys(record.stage for record in found)}
    for stage in helps:
        known.setdefault(
            stage, Column(stage, "category", "", stage, f"What became of the case in the stage: {_STATUS}.")
        )
    # a name is looked at once, and not once a case
    for (stage, _), label in labels_of(found).items():
        said = Column(as_key(label), "text", "", stage, f"{label}: what the stage found, in words.")
        known.setdefault(said.name, said)
    for stage, name in dict.fromkeys((record.stage, name) for record in found for name in record.measures):
        key = f"{stage}_{name}"
        known.setdefault(key, Column(key, "number", unit_of(name), stage, _meaning(name, helps[stage])))
    return [known[name] for name in names]


def labels_of(found: Iterable[Record]) -> dict[tuple[str, str], str]:
    """(stage, label of an answer) -> the label; with the stage's name where several stages answer under one label."""
    pairs = list(dict.fromkeys((record.stage, label) for record in found for label in record.answers))
    stages = Counter(label for _, label in pairs)
    return {(stage, label): f"{label} ({stage})" if stages[label] > 1 else label for stage, label in pairs}


def write(output_dir: Path, found: Sequence[Column]) -> None:
    """Write `cases.json`: a list of columns, each with `name`, `kind`, `unit`, `stage` and `meaning`."""
    text = json.dumps([asdict(item) for item in found], indent=2, ensure_ascii=False) + "\n"
    save_text(output_dir / DICTIONARY, text)


def _meaning(name: str, helps: Mapping[str, str]) -> str:
    """What a stage explains of a measure, whose name may begin with that of an image; else its name in words."""
    words = in_words(name)
    fits = [said for said in helps if f" {words.lower()}".endswith(f" {said.lower()}")]
    if name == "seconds":
        return "How long the stage took."
    return f"{words}: {helps[max(fits, key=len)]}" if fits else f"{words}."


def _help(output_dir: Path, stage: str, found: Iterable[Record]) -> dict[str, str]:
    """What the tables of a stage's sections explain, in the words of the first cases."""
    done = [item for record in found if record.stage == stage for item in record.artifacts if item.key == SECTIONS]
    said: dict[str, str] = {}
    for item in done[:SAMPLE]:
        try:
            sections = Sections.from_json(json.loads((output_dir / item.path).read_text(encoding="utf-8")))
        except (OSError, ValueError):  # whoever reads the case's outputs is told
            continue
        said |= {
            words: text for part in sections.sections for table in part.tables for words, text in table.help.items()
        }
    return said
