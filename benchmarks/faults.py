"""The fault table through Tandem and four usual readers: what `ingest.py --faults` does."""

from __future__ import annotations

import tempfile
import textwrap
from collections import Counter
from importlib.metadata import version
from pathlib import Path

from benchmarks.readers import READERS, Child, ReaderCrashedError, ReaderRefusedError
from tests.phantoms.fault_table import TABLE
from tests.phantoms.oracle import ROUNDING_HU, judge_volumes
from tests.phantoms.planted import Planted

ABOUT = (
    "Made by `python -m benchmarks.ingest --faults`. Each series is a position phantom: a voxel's value is x + 2y + "
    "4z of its position (LPS, mm), in HU (CT) or Bq/ml (PET), so any error of geometry or value shows as a wrong "
    "voxel. A volume is right when every voxel is within 0.51 of its place's value (1.01 where slices have to be "
    "resampled, as some readers round a second time), and wrong when one is not. A reader that gives several volumes "
    "is right when all are. The readers are used in the usual way: SimpleITK on the files that GDCM finds for each "
    "series, MONAI's `LoadImage` on the folder, `dcm2niix` with its defaults (where it writes a corrected stack "
    "beside the original, the corrected one counts). What they give counts unless they raise an error; warnings do "
    "not. Tandem is told the unit by the data spec's role; the others take no unit, and give the rescaled values as "
    "they are. Every reader works in a child process with a time limit."
)

#: Irregular and tilted slices: readers resample them.
RESAMPLED_ROWS, TWICE_ROUNDED_HU = (9, 10), 1.01
#: In the order of the table's columns.
OUTCOMES = {
    "right": "every voxel holds what lies there",
    "refused": "an error, or no volume, where no volume is to be had",
    "incomplete": "right as far as it goes, but a volume or a part of one is missing, without an error",
    "usable rejected": "an error, or no volume, though there is one",
    "silently wrong": "a volume with wrong voxels, without an error",
    "crashed": "the process died or hung",
}


def run(page: Path) -> None:
    """Run the table and write the page."""
    children = {name: Child(name) for name in READERS}
    try:
        rows = [(item, judge_all(item, children)) for item in TABLE]
    finally:
        for child in children.values():
            child.close()
    text = as_page(rows)
    page.write_text(text, encoding="utf-8")
    print(text)


def judge_all(item: Planted, children: dict[str, Child]) -> dict[str, str]:
    """What became of one series in each reader's hands."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "series"
        truths = item.write(folder)
        outcomes = {}
        for name, child in children.items():
            try:
                judgement: str = judge_volumes(child.read(folder), truths, tolerance_hu(item))
            except ReaderRefusedError:
                judgement = "refused" if item.verdict == "refused" else "usable rejected"
            except ReaderCrashedError:
                judgement = "crashed"
            outcomes[name] = "silently wrong" if judgement == "wrong" else judgement
    return outcomes


def tolerance_hu(item: Planted) -> float:
    """Values that are resampled and kept as whole numbers have been rounded twice."""
    return TWICE_ROUNDED_HU if item.row in RESAMPLED_ROWS else ROUNDING_HU


def as_page(rows: list[tuple[Planted, dict[str, str]]]) -> str:
    """The page: counts, and a line for each series."""
    unusable = sum(item.verdict == "refused" for item, _ in rows)
    lines = [
        "# Faults in DICOM series: five readers, one oracle",
        "",
        textwrap.fill(ABOUT, 120),
        "",
        textwrap.fill(
            f"Versions: {versions()}. {len(rows)} series; {unusable} hold no volume that could be used.", 120
        ),
        "",
        f"| reader | {' | '.join(OUTCOMES)} |",
        f"|---|{'---|' * len(OUTCOMES)}",
    ]
    for name in READERS:
        count = Counter(outcomes[name] for _, outcomes in rows)
        lines.append(f"| {name} | {' | '.join(str(count[outcome]) for outcome in OUTCOMES)} |")
    lines += ["", *(f"- *{name}*: {words}." for name, words in OUTCOMES.items()), ""]
    lines += ["| no. | series | should be | " + " | ".join(READERS) + " |", f"|---|---|---|{'---|' * len(READERS)}"]
    for item, outcomes in rows:
        should = "refused" if item.verdict == "refused" else "right"
        cells = " | ".join(outcome.upper() if is_bad(outcome) else outcome for outcome in outcomes.values())
        lines.append(f"| {item.row} | {item.name} | {should} | {cells} |")
    return "\n".join(lines) + "\n"


def is_bad(outcome: str) -> bool:
    """Whether an outcome is worse than none: nobody is told."""
    return outcome in ("silently wrong", "crashed")


def versions() -> str:
    """Of the readers."""
    names = ("SimpleITK", "itk", "monai", "pydicom", "dcm2niix")
    return ", ".join(f"{name} {version(name)}" for name in names)
