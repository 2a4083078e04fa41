"""Fusion of a volume and an image that share no grid, on simulated mechanisms: cases, what is trained, targets."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy.special import expit

from benchmarks.segmentation_report import markdown_table
from pipeline.comparison.classification import auroc_of, class_logits, judged_folders, spread
from pipeline.comparison.trials import DONE, Protocol, Trial, Variant, read_trial, run_trials, trials_of
from pipeline.evaluation.intervals import delong
from pipeline.store.files import write_atomic
from tests.phantoms.stream_cases import READERS

Mechanism = Literal["additive", "exclusive"]
Floats = npt.NDArray[np.float64]
SIZES = {"volume": (16, 16, 16), "image": (24, 24)}
#: Half the distance of the cues of the classes, in their deviations: Bayes' AUROC is .875 of both, and .99.
HALF_DISTANCE: dict[Mechanism, float] = {"additive": 0.57517, "exclusive": 2.0}
#: Brightness of an ellipsoid in deviations of the noise, what a deviation of the cue adds, and its radii.
BRIGHTNESS, CUE_BRIGHTNESS, RADII = 2.5, 0.5, (0.44, 0.75)
TEST, TEST_SEED = "test", 900
TRAINING, VALIDATION, TESTED = 1200, 40, 1000
WIDTH, EPOCHS, SEEDS = 8, 5, (0, 1, 2)
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
    },
}


@dataclass(frozen=True)
class Cases:
    """Cases as arrays: `streams` by name, (N,) labels, (N,) the true posterior of class 1."""

    streams: dict[str, npt.NDArray[np.float32]]
    labels: npt.NDArray[np.int64]
    posterior: Floats


def simulate(mechanism: Mechanism, count: int, seed: int) -> Cases:
    """A bright ellipsoid somewhere in the noise of each stream; its brightness is the stream's cue."""
    random = np.random.default_rng([seed, len(mechanism)])
    labels, free = random.integers(0, 2, count), random.integers(0, 2, count)
    signs = np.stack([free, free ^ labels] if mechanism == "exclusive" else [labels, labels], 1) * 2 - 1
    half = HALF_DISTANCE[mechanism]
    cues = half * signs + random.standard_normal(signs.shape)
    up = expit(2 * half * cues)  # that a stream's sign is up, given its cue
    posterior = expit(2 * half * cues.sum(1))
    if mechanism == "exclusive":
        posterior = up[:, 0] * (1 - up[:, 1]) + up[:, 1] * (1 - up[:, 0])
    streams = {
        name: np.stack([_ellipsoid(size, cue, random) for cue in cues[:, place]])
        for place, (name, size) in enumerate(SIZES.items())
    }
    return Cases(streams, labels, posterior)


def _ellipsoid(size: tuple[int, ...], cue: float, random: np.random.Generator) -> npt.NDArray[np.float32]:
    axes = np.meshgrid(*[(np.arange(side) + 0.5) * 2 / side - 1 for side in size], indexing="ij")
    radii = random.uniform(*RADII, len(size))
    centre = random.uniform(radii - 1, 1 - radii)
    apart = sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, radii, strict=True))
    bright = (apart <= 1) * (BRIGHTNESS + CUE_BRIGHTNESS * cue)
    return (bright + random.standard_normal(size)).astype(np.float32)


def write(folder: Path, name: str, mechanism: Mechanism, training: int, held_out: int, seed: int) -> None:
    """Write cases and their table, unless it is there: fold 1 is learned from, fold 0 judged by."""
    if (folder / name).is_file():
        return
    cases, part = simulate(mechanism, training + held_out, seed), Path(name).stem
    (folder / part).mkdir(parents=True, exist_ok=True)
    rows = []
    for number, label in enumerate(cases.labels.tolist()):
        case = f"{part}-{number:04d}"
        files = {"volume": f"{part}/{case}.nii", "image": f"{part}/{case}.npy"}
        nib.save(nib.Nifti1Image(cases.streams["volume"][number], np.eye(4)), folder / files["volume"])
        np.save(folder / files["image"], cases.streams["image"][number][None])
        rows.append({"case_id": case, "patient_id": case, **files, "label": label, "fold": int(number < training)})
    write_atomic(folder / name, lambda path: _write_table(path, rows))


def _write_table(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def variants() -> list[Variant]:
    """Each stream alone, late and intermediate fusion."""
    alone = [
        Variant(f"{name} alone", ("streams",), {"modalities": [name], "network_def::mode": "single"}) for name in SIZES
    ]
    return [*alone, Variant("late", ("streams", "late")), Variant("intermediate", ("streams",))]


def protocol(out: Path, mechanism: Mechanism, epochs: int = EPOCHS) -> Protocol:
    """What all trainings of a mechanism have in common."""
    settings = {
        "dataset_dir": str(out / mechanism / "cases"),
        "device": "cpu",
        "streams": {
            "volume": {"kind": "volume", "size": list(SIZES["volume"]), "intensity": "none"},
            "image": {"kind": "image", "size": list(SIZES["image"])},
        },
        **READERS,
        "augmentation": False,
        "modality_dropout": 0.0,
        "network_def::width": WIDTH,
        "network_def::levels": 3,
        "network_def::token": 32,
        "network_def::dropout": 0.0,
        "max_epochs": epochs,
        "val_interval": epochs,
        "warmup": 0,
        "rate": 0.005,
        "batch": 32,
    }
    tables = {seed: f"training-{seed}.csv" for seed in SEEDS}
    return Protocol(out / mechanism, settings, {TEST: {"test_table": "test.csv"}}, "", tables)


def run(out: Path, mechanism: Mechanism) -> None:
    """Simulate what is not there, and run the trainings that are not done."""
    found = protocol(out, mechanism)
    folder = Path(found.settings["dataset_dir"])
    write(folder, "test.csv", mechanism, 0, TESTED, TEST_SEED)
    for seed in SEEDS:
        write(folder, found.tables[seed], mechanism, TRAINING, VALIDATION, seed)
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
    truth = simulate(mechanism, TESTED, TEST_SEED)
    best = float(delong(truth.posterior, truth.labels == 1).values[0])
    targets = [(text, "yes" if met(areas) else "no") for text, met in TARGETS[mechanism].items()]
    return "\n\n".join(
        [
            f"### {HEADINGS[mechanism]}",
            markdown_table(("variant", "AUROC of one network", "parameters", "processor s a training"), rows),
            f"The true posterior has AUROC {best:.3f} on these {TESTED:,} cases.",
            markdown_table(("target", "met"), targets),
        ]
    )
