"""Fusion strategies on real tumours: soft-tissue sarcomas in CT, MR and PET, segmented in five folds of patients.

    TANDEM_DATA=… python -m benchmarks.fusion_sts OUT --page docs/benchmarks/fusion-sts.md

Makes the table of cases of `sts_fusion_lowres`, trains every variant on every fold through the bundle `fuse`, and
writes report.pdf, cases.csv, means.csv, differences.csv and the charts into OUT, and the figures of the page. A run
that was stopped goes on where it was; `--until-s` stops it early, and what is missing is named. One thread.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
import typer

from benchmarks.document import write_section
from benchmarks.segmentation_comparison import SegmentationComparison, compare_segmentations
from benchmarks.segmentation_report import dice_chart, example_chart, markdown, tables_of, write_report
from pipeline.comparison.trials import EVALUATION, Protocol, Variant, run_trials, trials_of
from pipeline.console import echo
from pipeline.errors import PipelineError, UsageError
from pipeline.report.segmentation import SegmentationContent

FILES = {"ct": "CT", "mr": "MR_T1", "pet": "PET_SUVx100", "mask": "GTV"}
FOLDS = range(5)
#: Two voxels.
TOLERANCE_MM = 8.0
#: Widths with which all networks have 398,000 to 463,000 parameters.
WIDTHS = {("early", 2): 9, ("early", 3): 9, ("intermediate", 2): 7, ("intermediate", 3): 6, ("late", 2): 6}
WIDTHS |= {("late", 3): 5, ("single", 1): 9}
SETS = (("ct", "mr"), ("ct", "pet"), ("ct", "mr", "pet"))
SINGLES = (("ct",), ("mr",), ("pet",))
MODES = ("early", "intermediate", "late")
#: Chosen on six patients held out of fold 0's training part, by early fusion alone; see the page.
RECIPE: dict[str, Any] = {
    "classes": 0,
    "patch": [32, 32, 32],
    "batch": 2,
    "max_epochs": 6,
    "val_interval": 6,
    "warmup": 1,
    "rate": 0.005,
    "modality_dropout": 0.0,
    "cache_rate": 1.0,
    "network_def::levels": 4,
    "network_def::deep": 0,
}
METHODS = (
    "Every network has learned from four fifths of the patients for the same number of epochs, and the last epoch's "
    "network is judged: no patient has chosen the network that it is judged by.",
    "NSD counts surfaces within 8 mm (two voxels) as the same. Where nothing is found, Dice and NSD are 0 and HD95 is "
    "the image's diagonal.",
    "The networks of all variants have as many parameters, within ten percent of their middle.",
)


def main(out: Path, page: Path | None = None, until_s: float = 1e9) -> None:
    """Compare."""
    torch.set_num_threads(1)
    try:
        compare(out, page, until_s)
    except PipelineError as error:
        echo(str(error), error=True)
        raise typer.Exit(2) from error


def compare(out: Path, page: Path | None, until_s: float) -> None:
    """Run the trials that are left; write the report of what is done, and the page where all of it is.

    Raises:
        PipelineError: those of the trials' table, of the comparison and of what is written.
    """
    data = os.environ.get("TANDEM_DATA")
    if not data:
        raise UsageError("E_INPUT", "Expected TANDEM_DATA to name the folder of real images, got nothing.")
    protocol = protocol_of(out, write_table(Path(data) / "sts_fusion_lowres", out / "data"))
    variants = [variant(names, mode) for names in SETS for mode in MODES] + [variant(one, "single") for one in SINGLES]
    run_trials(protocol, trials_of(variants, [0], FOLDS), until_s)
    found = compare_segmentations(protocol, variants, FOLDS, families(), TOLERANCE_MM)
    write_report(found, content_of(found, protocol, variants), out)
    if found.left_out:
        echo(f"Left out: {', '.join(found.left_out)}. Run the command again; the page waits for all of them.")
    elif page is not None:
        write_section(page, "Fusion on real tumours", "figures", markdown(tables_of(found)))


def protocol_of(out: Path, table: Path, recipe: Mapping[str, Any] = RECIPE) -> Protocol:
    """All that the trials have in common; their voxel logits are kept."""
    judgements = {EVALUATION: {"keep_logits": True}}
    return Protocol(out, {"dataset_dir": str(table.parent), **recipe}, judgements, calibration="")


def content_of(found: SegmentationComparison, protocol: Protocol, variants: Sequence[Variant]) -> SegmentationContent:
    """What the PDF says; the example shows the strategies of the largest set of modalities that is done."""
    done = {item.name for item in found.variants}
    sets = [[item for item in variants if item.name in {name_of(names, mode) for mode in MODES}] for names in SETS]
    drawn = [group for group in sets if {item.name for item in group} <= done]
    charts = [dice_chart(found)]
    charts += [example_chart(found, protocol, drawn[-1], FOLDS, ("ct", "mr", "pet"))] if drawn else []
    count = len(found.variants[0].case_ids)
    summary = f"{count} patients with one tumour each, 4 mm voxels, {len(FOLDS)} folds of patients, one seed."
    return SegmentationContent(
        "Soft-tissue sarcoma: early, intermediate and late fusion",
        (summary,),
        tuple(tables_of(found)),
        tuple(charts),
        METHODS,
    )


def write_table(data: Path, folder: Path) -> Path:
    """The table that the bundle reads: every patient's files where they lie, no class.

    Raises:
        UsageError: E_TABLE when there is no patient, or a patient's file is not there.
    """
    patients = sorted(path.name for path in data.glob("STS_*") if path.is_dir())
    rows = [[name, name, *(str(_file(data / name, stem)) for stem in FILES.values())] for name in patients]
    if not rows:
        raise UsageError("E_TABLE", f"Expected patients STS_… in {data.name}, got none.")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "cases.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["case_id", "patient_id", *FILES], *rows])
    return path


def variant(modalities: tuple[str, ...], mode: str) -> Variant:
    """A mode with some modalities, at the width that gives it the common number of parameters."""
    settings = {"modalities": list(modalities), "ct_modalities": [name for name in modalities if name == "ct"]}
    network = {"network_def::mode": mode, "network_def::width": WIDTHS[mode, len(modalities)]}
    return Variant(name_of(modalities, mode), settings={**settings, **network})


def name_of(modalities: tuple[str, ...], mode: str) -> str:
    """Such as `ct+pet early`; a single modality is its own name."""
    return "+".join(modalities) + ("" if mode == "single" else f" {mode}")


def families() -> dict[str, list[tuple[str, str]]]:
    """What is tested: the strategies beside each other, and intermediate fusion beside each modality that it has."""
    strategies = [
        (name_of(names, one), name_of(names, other)) for names in SETS for one, other in combinations(MODES, 2)
    ]
    alone = [(name_of(names, "intermediate"), one) for names in SETS for one in names]
    more = [(name_of(SETS[2], "intermediate"), name_of(names, "intermediate")) for names in SETS[:2]]
    return {"Strategies": strategies, "More modalities": alone + more}


def _file(folder: Path, stem: str) -> Path:
    path = folder / f"{stem}.nii.gz"
    if not path.is_file():
        raise UsageError("E_TABLE", f"Expected {path.name} of {folder.name}, got none.")
    return path.resolve()


if __name__ == "__main__":
    typer.run(main)
