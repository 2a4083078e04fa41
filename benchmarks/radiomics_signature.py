"""Is a signature's nested AUROC honest? Pure noise, where the truth is .5, and 33 real tumours.

    python -m benchmarks.radiomics_signature noise --page docs/benchmarks/radiomics-signature.md
    TANDEM_DATA=… python -m benchmarks.radiomics_signature sarcoma OUT --page docs/benchmarks/radiomics-signature.md

Both print their tables; `sarcoma` also writes the features as a CSV, and what the script makes of them, into OUT.
"""

from __future__ import annotations

import csv
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import nibabel as nib
import numpy as np
import typer

from benchmarks.document import write_section
from benchmarks.signature.nested import Design, nested
from benchmarks.signature.page import ends, wrapped, write_signature
from benchmarks.signature.selection import Training
from benchmarks.signature.signature import Measured, Signature, signature
from benchmarks.signature.table import Cohort, Columns, Outcome, read_cohort
from pipeline.radiomics import extract, preset

TITLE = "Radiomics signatures"
#: Like a table of radiomics: so many features, of so many things that vary, and each with something of its own.
FEATURES, FACTORS = 482, 30
PATIENTS, EVENTS = 60, 20
SIZE = 4
#: The presets on the grid of 4 mm as it is, texture merged in three dimensions; each image's file and unit.
CHANGES = {"spacing_mm": None, "aggregations": ("3D_comb",)}
IMAGES = {
    "ct": ("CT", 1.0, preset("ibsi_ct").model_copy(update=CHANGES)),
    "mr": ("MR_T1", 1.0, preset("ibsi_mr").model_copy(update=CHANGES)),
    "pet": ("PET_SUVx100", 0.01, preset("ibsi_pet").model_copy(update=CHANGES)),
}
VOLUME, SUV_MAX = "ct_morph_volume", "pet_stat_max"
app = typer.Typer(add_completion=False)
Page = Annotated[Path | None, typer.Option(help="The page whose section is written.")]


@dataclass(frozen=True)
class Judged:
    """What one cohort of noise has given.

    Attributes:
        inside: AUROC with everything learned in the loop.
        outside: with the features chosen on all cases before.
        low: lower end of the interval of `inside`.
        high: upper end.
    """

    inside: float
    outside: float
    low: float
    high: float


def noise_cohort(seed: int) -> Cohort:
    """Correlated features that know nothing of the class."""
    rng = np.random.default_rng([seed, 2611])
    common = rng.normal(size=(PATIENTS, FACTORS)) @ rng.normal(size=(FACTORS, FEATURES)) / FACTORS**0.5
    values = common + 0.5 * rng.normal(size=common.shape)
    names = tuple(f"case-{number}" for number in range(PATIENTS))
    event = rng.permutation(PATIENTS) < EVENTS
    features = tuple(f"f{number}" for number in range(FEATURES))
    return Cohort(names, np.arange(PATIENTS), features, values, Outcome(event))


def judged(cohort: Cohort, design: Design) -> Judged:
    """Both ways to judge, on the same folds."""
    found = signature(cohort, design)
    chosen = Training.of(cohort).order(design.select, SIZE, design.least_apart)
    names = tuple(cohort.features[at] for at in chosen)
    few = Cohort(cohort.case_ids, cohort.patients, names, cohort.values[:, chosen], cohort.outcome)
    leaky = nested(few, design.model_copy(update={"sizes": (SIZE,)}), found.nested.folds)
    best = found.measured[0]
    low, high = best.interval.low, best.interval.high
    ends_of = (np.nan, np.nan) if low is None or high is None else (low, high)
    return Judged(best.value, leaky.concordance(few).value, *ends_of)


@app.command()
def noise(cohorts: int = 200, page: Page = None) -> None:
    """Cohorts of pure noise: mean AUROC inside and outside of the loop, and how often the interval holds .5."""
    about = (
        f"{cohorts} cohorts of {PATIENTS} patients, {EVENTS} of class 1; {FEATURES} features, mixed of {FACTORS} "
        "independent ones. Five folds, three inner ones, once. Outside of the loop: "
        f"{SIZE} features are chosen on all cases, their weights then learned and judged on the same folds. The truth "
        "is 0.5. ± 1.96 standard errors; seconds of processor time."
    )
    lines = ["## Pure noise", "", *wrapped(about), ""]
    lines.append("| choice of features | AUROC in the loop | AUROC outside of it | intervals that hold 0.5 | seconds |")
    lines.append("|---|---|---|---|---|")
    for method in ("mrmr", "l1"):
        started = time.process_time()
        design = Design.model_validate({"select": method, "repeats": 1, "permutations": 0})
        found = [judged(noise_cohort(seed), design) for seed in range(cohorts)]
        seconds = time.process_time() - started
        held = np.mean([item.low <= 0.5 <= item.high for item in found if np.isfinite(item.low)])
        inside, outside = (_mean([getattr(item, name) for item in found]) for name in ("inside", "outside"))
        lines.append(f"| {method} | {inside} | {outside} | {held:.0%} | {seconds:.0f} |")
    _show("\n".join(lines), "noise", page)


@app.command()
def sarcoma(out: Path, permutations: int = 200, page: Page = None) -> None:
    """Lung metastases of 33 patients with a soft-tissue sarcoma, by features of CT, MR and PET."""
    table = write_features(Path(os.environ["TANDEM_DATA"]) / "sts_fusion_lowres", out / "features.csv")
    cohort = read_cohort(table, Columns("lung_metastasis"))
    started = time.process_time()
    found = signature(cohort, Design(permutations=permutations), (VOLUME, SUV_MAX))
    seconds = time.process_time() - started
    write_signature(found, out / "signature")
    rows = [_row("CT, MR and PET", found.measured[0])]
    for name in IMAGES:
        alone = signature(_of_image(cohort, name), Design(permutations=0))
        rows.append(_row(f"{name.upper()} alone", alone.measured[0]))
    names = {VOLUME: "volume alone", SUV_MAX: "SUVmax alone"}
    rows += [_row(names[item.name], item) for item in found.measured[1:]]
    _show("\n".join([*_about(found, seconds), *rows]), "sarcoma", page)


def write_features(data: Path, path: Path) -> Path:
    """The features of every tumour, a row a patient, and the outcome."""
    with (data / "labels.csv").open(newline="", encoding="utf-8") as stream:
        labels = {row["patient_id"]: row["lung_metastasis"] for row in csv.DictReader(stream)}
    rows = [{"case_id": name, "lung_metastasis": label, **_features(data / name)} for name, label in labels.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def _features(folder: Path) -> dict[str, float | None]:
    mask = nib.load(folder / "GTV.nii.gz")
    inside = (np.asarray(mask.dataobj) > 0).astype(np.uint8)
    found: dict[str, float | None] = {}
    for name, (stem, scale, settings) in IMAGES.items():
        image = nib.load(folder / f"{stem}.nii.gz")
        values = extract(image.get_fdata() * scale, inside, image.affine, settings, mask_affine=mask.affine).values
        found |= {f"{name}_{tag}": value for tag, value in values.items()}
    return found


def _of_image(cohort: Cohort, name: str) -> Cohort:
    own = [at for at, feature in enumerate(cohort.features) if feature.startswith(f"{name}_")]
    features = tuple(cohort.features[at] for at in own)
    return Cohort(cohort.case_ids, cohort.patients, features, cohort.values[:, own], cohort.outcome)


def _about(found: Signature, seconds: float) -> list[str]:
    cohort, null = found.cohort, found.null
    assert found.stability is not None
    about = (
        f"{len(cohort.case_ids)} patients, {int(cohort.outcome.event.sum())} with lung metastases; "
        f"{len(cohort.features)} features of the tumour in CT, MR and PET on a grid of 4 mm. Five folds, three inner "
        "ones, five times. Of a feature alone nothing is learned, not even its direction."
    )
    chance = (
        f"Shuffled outcomes give {null.mean():.3f} on average, and {np.quantile(null, 0.95):.3f} or more in 5 %: "
        f"p = {found.p_value:.3f}. The stability of the choice is {found.stability:.2f}. {seconds:.0f} s of processor "
        f"time, {len(null)} permutations among them."
    )
    lines = ["## Lung metastases of sarcomas", "", *wrapped(about), "", *wrapped(chance), ""]
    return [*lines, "| | AUROC | 95 % interval |", "|---|---|---|"]


def _row(name: str, item: Measured) -> str:
    return f"| {name} | {item.value:.3f} | {ends(item.interval)} |"


def _mean(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ± {1.96 * np.std(values, ddof=1) / len(values) ** 0.5:.3f}"


def _show(text: str, name: str, page: Path | None) -> None:
    print(text)
    if page is not None:
        write_section(page, TITLE, name, text)


if __name__ == "__main__":
    app()
