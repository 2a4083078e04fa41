"""Controls that see no disease, on radiographs and CT slices: what they reach, and what folds by patient take away.

    TANDEM_DATA=… python -m benchmarks.streams_controls [--page docs/benchmarks/streams.md]

`cxr3`: three classes of chest radiographs from two sources. `ct_slices`: COVID or not, of 216 papers. Logistic
regression only: some minutes on one core.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.document import write_section
from benchmarks.segmentation_report import markdown_table
from pipeline.comparison.stream_controls import ControlFindings, controls, told_facts
from pipeline.comparison.stream_report import control_sentences, controls_table
from pipeline.learning.table import read_table

#: Set -> its stream, its classes, and facts that its table tells of the original files.
SETS = {"cxr3": ("cxr", 3, ("original_size",)), "ct_slices": ("ct", 2, ("original_size",))}
TITLES = {
    "cxr3": "Radiographs (`cxr3`: 485 of 322 patients; healthy and pneumonia of one source, COVID of another)",
    "ct_slices": "CT slices (`ct_slices`: 470 of 216 papers, COVID or not)",
}
TITLE = "Radiographs, slices, volumes and sounds"
HEAD = """## Controls

Nothing below has seen a disease. A network is worth its name by what it reaches beyond these, on the same folds. All
files of a set are PNG of one size, so that of their own facts only the size in bytes differs; the table still tells the
`original_size`. Written by `python -m benchmarks.streams_controls`."""


def main(
    page: Annotated[Path, typer.Option(help="That takes the section.")] = Path("docs/benchmarks/streams.md"),
    folds: Annotated[int, typer.Option(help="Of patients.")] = 5,
) -> None:
    """Judge the controls on both sets and write the section."""
    parts = [HEAD]
    for name in SETS:
        found = judged(Path(os.environ["TANDEM_DATA"]) / name, folds)
        parts.append(section(name, found))
        print(parts[-1])
    write_section(page, TITLE, "controls", "\n\n".join(parts))


def judged(folder: Path, folds: int = 5) -> ControlFindings:
    """The controls of one set."""
    stream, classes, columns = SETS[folder.name]
    rows = read_table(folder / "cases.csv", [stream], classes)
    return controls(rows, [stream], folds, told=told_facts(folder / "cases.csv", columns))


def section(name: str, found: ControlFindings) -> str:
    """Table and sentences of one set, Markdown."""
    table = controls_table(found)
    confusion = next(item for item in found.by_patient if item.model == "File facts").confusion
    counts = "; ".join(f"class {label}: {', '.join(map(str, row))}" for label, row in enumerate(confusion))
    said = "\n".join(f"- {text}" for text in control_sentences(found))
    parts = [f"### {TITLES[name]}", markdown_table(table.columns, table.rows), said]
    return "\n\n".join([*parts, f"File facts, true class and how often each was predicted: {counts}.", table.note])


if __name__ == "__main__":
    typer.run(main)
