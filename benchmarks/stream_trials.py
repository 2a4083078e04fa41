"""Fusion of a volume and an image that share no grid, on simulated mechanisms: cases, what is trained, targets."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.segmentation_report import markdown_table
from pipeline.comparison.classification import auroc_of, class_logits, judged_folders, logits_of_seeds, spread
from pipeline.comparison.trials import DONE, Protocol, Trial, Variant, read_trial, run_trials, trials_of
from pipeline.evaluation.intervals import delong
from pipeline.store.files import write_atomic
from tests.phantoms.streams.cohort import StreamCohort, simulate_streams
from tests.phantoms.streams.cues import Mechanism
from tests.phantoms.streams.files import write_cohort

#: As they are simulated; in the ranges that are shown a deviation of the noise is a twentieth.
STREAMS = {
    "volume": {"kind": "volume", "size": [16, 16, 16], "intensity": "ct", "window": [1500, 2000]},
    "image": {"kind": "image", "size": [24, 24], "intensity": [3000, 23000]},
}
TEST, TEST_SEED = "test", 900
TRAINING, VALIDATION, TESTED = 1200, 40, 1000
WIDTH, EPOCHS, SEEDS = 8, 6, (0, 1, 2)
#: These and the epochs were chosen on cases of other seeds.
DROPOUT, DECAY, RATE = 0.3, 0.05, 0.003
#: A judgement: each case with the image of another one of its class.
WITHIN = "within-image"
HEADINGS: dict[Mechanism, str] = {
    "additive": "A, additive: each stream has a cue, and the cues add up",
    "exclusive": "B, exclusive: the class is whether the cues of the streams disagree",
}
Areas = dict[str, float]
ALONE = ("volume alone", "image alone")
TARGETS: dict[Mechanism, dict[str, Callable[[Areas], bool]]] = {
    "additive": {
        "late within .03 of intermediate": lambda a: abs(a["late"] - a["intermediate"]) <= 0.03,
        "both at least .05 above each stream alone": lambda a: (
            min(a["late"], a["intermediate"]) >= max(a[name] for name in ALONE) + 0.05
        ),
    },
    "exclusive": {
        "intermediate at least .95": lambda a: a["intermediate"] >= 0.95,
        "late and each stream alone at most .56": lambda a: max(a[name] for name in ("late", *ALONE)) <= 0.56,
        "an image of the same class's other case costs at least .3": lambda a: a["intermediate"] - a[WITHIN] >= 0.3,
    },
}


def write(folder: Path, name: str, cohort: StreamCohort, training: int) -> None:
    """Write cases and their table, unless it is there: the first are learned from (fold 1), the others are fold 0."""
    if (folder / name).is_file():
        return
    part = Path(name).stem
    if (folder / part).is_dir():  # of a simulation that was stopped
        shutil.rmtree(folder / part)
    write_cohort(folder / part, cohort)
    with (folder / part / "cases.csv").open(newline="", encoding="utf-8") as stream:
        read = enumerate(csv.DictReader(stream))
        rows = [_placed(row, part, list(cohort.streams), int(number < training)) for number, row in read]
    write_atomic(folder / name, lambda path: _write_table(path, rows))


def _placed(row: Mapping[str, str], part: str, streams: Sequence[str], fold: int) -> dict[str, object]:
    """A row of a part's own table as one of the common folder's."""
    names = {key: f"{part}-{row[key]}" for key in ("case_id", "patient_id")}
    files = {name: f"{part}/{row[name]}" for name in streams}
    return {**names, **files, "label": row["label"], "fold": fold}


def _write_table(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def variants() -> list[Variant]:
    """Each stream alone, late and intermediate fusion."""
    alone = [
        Variant(f"{name} alone", ("streams",), {"modalities": [name], "network_def::mode": "single"})
        for name in STREAMS
    ]
    shuffled = {"test_table": "test.csv", "shuffled_modalities": ["image"], "shuffle_within_class": True}
    together = Variant("intermediate", ("streams",), judgements={WITHIN: shuffled})
    return [*alone, Variant("late", ("streams", "late")), together]


def protocol(out: Path, mechanism: Mechanism, epochs: int = EPOCHS) -> Protocol:
    """What all trainings of a mechanism have in common."""
    settings = {
        "dataset_dir": str(out / mechanism / "cases"),
        "device": "cpu",
        "streams": STREAMS,
        "augmentation": False,
        "modality_dropout": 0.0,
        "network_def::width": WIDTH,
        "network_def::levels": 3,
        "network_def::token": 32,
        "network_def::dropout": DROPOUT,
        "max_epochs": epochs,
        "val_interval": epochs,
        "warmup": 0,
        "rate": RATE,
        "optimizer::weight_decay": DECAY,
        "batch": 32,
    }
    tables = {seed: f"training-{seed}.csv" for seed in SEEDS}
    return Protocol(out / mechanism, settings, {TEST: {"test_table": "test.csv"}}, "", tables)


def run(out: Path, mechanism: Mechanism) -> None:
    """Simulate what is not there, and run the trainings that are not done."""
    found = protocol(out, mechanism)
    folder = Path(found.settings["dataset_dir"])
    write(folder, "test.csv", simulate_streams(mechanism, TESTED, TEST_SEED), 0)
    for seed in SEEDS:
        write(folder, found.tables[seed], simulate_streams(mechanism, TRAINING + VALIDATION, seed), TRAINING)
    run_trials(found, trials_of(variants(), SEEDS, [0]))


def section(out: Path, mechanism: Mechanism) -> str:
    """What the trainings of a mechanism have found, beside what they had to find, as Markdown."""
    found, areas, rows = protocol(out, mechanism), {}, []
    for variant in variants():
        trials = [Trial(variant, seed) for seed in SEEDS]
        records = [record for trial in trials if (record := read_trial(found, trial)).get("status") == DONE]
        if len(records) < len(SEEDS):
            raise SystemExit(f"{mechanism}, {variant.name}: {len(records)} of {len(SEEDS)} trainings are done.")
        values = [auroc_of(class_logits(judged_folders(found, [trial], TEST))) for trial in trials]
        areas[variant.name] = float(np.mean(values))
        seconds = float(np.mean([sum(record["seconds"].values()) for record in records]))
        rows.append((variant.name, str(spread(values)), f"{records[0]['parameters']:,}", f"{seconds:.0f}"))
    cues = simulate_streams(mechanism, TESTED, TEST_SEED).cues
    best = float(delong(cues.posterior[:, 1], cues.labels == 1).values[0])
    shuffled = logits_of_seeds(found, variants()[-1], SEEDS, [0], WITHIN)
    areas[WITHIN] = float(np.mean([auroc_of(logits) for logits in shuffled]))
    targets = [(text, "yes" if met(areas) else "no") for text, met in TARGETS[mechanism].items()]
    return "\n\n".join(
        [
            f"### {HEADINGS[mechanism]}",
            markdown_table(("variant", "AUROC of one network", "parameters", "processor s a training"), rows),
            f"The true posterior has AUROC {best:.3f} on these {TESTED:,} cases. With the image of another case of the "
            f"class, intermediate fusion has {areas[WITHIN]:.3f}.",
            markdown_table(("target", "met"), targets),
        ]
    )
