"""What the comparison on simulated mechanisms has found, beside what it had to find, as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from benchmarks.mechanism_trials import CALIBRATED, DROPOUT_TIMES, TEST, Plan, Scale, true_posterior
from benchmarks.segmentation_report import markdown_table
from pipeline.calibration.comparison import read_calibration
from pipeline.calibration.metrics import MEASURES, Measure, measures
from pipeline.comparison.classification import (
    ClassLogits,
    Findings,
    auroc_of,
    class_logits,
    compare_variants,
    judged_folders,
    spread,
)
from pipeline.comparison.trials import DONE, EVALUATION, Trial, read_trial
from pipeline.errors import UsageError
from pipeline.evaluation.intervals import delong
from pipeline.evaluation.results import Settings
from pipeline.report.classification import interval, number, p_text

Floats = npt.NDArray[np.float64]
HEADINGS = {
    "additive": "A, additive: each modality has a cue, and the cues add up",
    "exclusive": "B, exclusive: the class is whether the cues of the modalities disagree",
    "texture": "C, texture: the class is the sign of the correlation of two textures, voxel by voxel",
}
COLUMNS = (
    "variant",
    "AUROC of one network",
    "AUROC of the mean (95 %)",
    "less intermediate (95 %)",
    "p, Holm",
    "parameters",
    "MFLOP",
    "s",
)
#: A network without a modality may lose this much AUROC against a network that never had it.
LOSS_ALLOWED = 0.01
#: The calibrated network's NLL may be this much larger than the true posterior's.
NLL_ALLOWED = 0.05
CALIBRATION_KINDS = {name: MEASURES[name] for name in ("nll", "ece")}


@dataclass(frozen=True)
class Target:
    """What a mechanism has to show.

    Attributes:
        text: in words.
        met: of the AUROC of single networks, the mean over the seeds, by variant.
    """

    text: str
    met: Callable[[dict[str, float]], bool]


SINGLE = ("CT alone", "MR alone")
TARGETS: dict[str, tuple[Target, ...]] = {
    "additive": (
        Target("late within .02 of intermediate", lambda a: abs(a["late"] - a["intermediate"]) <= 0.02),
        Target("late and intermediate at least .83", lambda a: min(a["late"], a["intermediate"]) >= 0.83),
    ),
    "exclusive": (
        Target("intermediate at least .95", lambda a: a["intermediate"] >= 0.95),
        Target("late and each modality alone at most .55", lambda a: max(a[n] for n in ("late", *SINGLE)) <= 0.55),
    ),
    "texture": (
        Target("early and intermediate at least .95", lambda a: min(a["early"], a["intermediate"]) >= 0.95),
        Target("deep concatenation and late at most .70", lambda a: max(a["deep concatenation"], a["late"]) <= 0.70),
    ),
}


def mechanism_section(plan: Plan, scale: Scale, settings: Settings | None = None) -> str:
    """Compare the variants of a mechanism and say what came out; the report lies in the plan's folder.

    Raises:
        UsageError: E_NO_CASES when no variant is done.
    """
    found = compare_variants(
        plan.protocol, plan.variants, plan.seeds, plan.folds, plan.protocol.out / "report", TEST, settings
    )
    absent = _undone(plan, [variant.name for variant in plan.variants])
    labels, posterior = true_posterior(plan.mechanism, scale)
    best = float(delong(posterior, labels == 1).values[0])
    parts = [
        f"### {HEADINGS[plan.mechanism]}",
        markdown_table(COLUMNS, _rows(found)),
        f"The true posterior has AUROC {number(best)} on these cases.",
        markdown_table(("target", "met"), _targets(plan.mechanism, found)),
        *([f"Not done: {', '.join(absent)}."] if absent else []),
    ]
    return "\n\n".join(parts)


def missing_section(plan: Plan, scale: Scale) -> str:
    """What networks lose when a modality is taken away from them, with and without modality dropout."""
    dropped, kept = "intermediate, dropout", "intermediate"
    labels, _ = true_posterior(plan.mechanism, scale)
    head = "### A modality is taken away (A)"
    if absent := _undone(plan, (dropped, kept, *SINGLE)):
        return f"{head}\n\nNot known: {', '.join(absent)} is not done."
    rows = []
    for gone, alone in (("mr", "CT alone"), ("ct", "MR alone")):
        alone_areas = _areas(plan, alone, TEST)
        for name in (kept, dropped):
            areas = _areas(plan, name, f"without_{gone}")
            losses = [own - other for own, other in zip(areas, alone_areas, strict=True)]
            verdict = "yes" if spread(losses).mean >= -LOSS_ALLOWED else "no"
            cells = (str(spread(areas)), str(spread(alone_areas)), str(spread(losses)), verdict)
            rows.append((name, gone.upper(), *cells))
    columns = ("network", "taken away", "AUROC", "AUROC of the other alone", "difference", "at least −.01")
    return "\n\n".join(
        [
            head,
            f"The {len(labels)} test cases of A, one modality hidden (`--hidden_modalities`). Mean ± standard "
            "deviation over the seeds; the network of the other modality alone has never had both. The network with "
            f"dropout (each modality hidden half of the time) has learned for {DROPOUT_TIMES} times the epochs: it "
            "learns three tasks, with both modalities and with each one alone.",
            markdown_table(columns, rows),
        ]
    )


def calibrated(folder: Path, logits: Floats) -> Floats:
    """Calibrated log-probabilities of a trial's judgement, by what was fitted on its `evaluation`; for `class_logits`.

    Raises:
        UsageError: E_CAL_FILE, E_CAL_TRAINING when the judgement is what the calibration was fitted on.
    """
    if folder.name == EVALUATION:
        got = "those that it was fitted on"
        raise UsageError("E_CAL_TRAINING", f"Expected other cases than the calibration's own, got {got}.")
    chances = np.asarray(read_calibration(folder.parent / EVALUATION / "calibration_classes.json").apply(logits))
    return np.asarray(np.log(np.clip(chances, np.finfo(np.float64).tiny, 1)))


def calibrated_section(plan: Plan, scale: Scale) -> str:
    """Calibration of one network that has learned from many cases, beside the true posterior."""
    head = "### Calibrated probabilities (A)"
    if _undone(plan, [variant.name for variant in plan.variants]):
        return f"{head}\n\nNot known: the network is not done."
    labels, posterior = true_posterior(plan.mechanism, scale)
    folders = judged_folders(plan.protocol, plan.trials, TEST)
    raw, fitted = class_logits(folders), class_logits(folders, calibrated)
    order = np.argsort([f"case-{index:03d}" for index in range(len(labels))], kind="stable")
    truth = np.stack([1 - posterior, posterior], 1)[order]
    models = {"raw": softmax(raw.logits, 1), "calibrated": softmax(fitted.logits, 1), "true posterior": truth}
    found = {name: _measures(chances, raw) for name, chances in models.items()}
    rows = [_calibration_row(name, found[name], models[name], raw) for name in models]
    ece, ratio = found["calibrated"]["ece"], found["calibrated"]["nll"].value / found["true posterior"]["nll"].value - 1
    verdicts = [
        ("ECE inside its null interval", "yes" if ece.null_low <= ece.value <= ece.null_high else "no"),
        (f"NLL within 5 % of the true posterior's ({100 * ratio:+.1f} %)", "yes" if ratio <= NLL_ALLOWED else "no"),
    ]
    columns = ("probabilities", "AUROC", "NLL (95 %)", "ECE", "null interval of the ECE")
    return "\n\n".join(
        [
            head,
            f"One intermediate network that has learned from {scale.calibrated_training:,} cases of A; temperature "
            f"fitted on {scale.calibrated_validation} others; {len(labels)} fresh test cases. The null interval is "
            "where the ECE of a perfectly calibrated model with these probabilities lies in 95 % of the cases.",
            markdown_table(columns, rows),
            markdown_table(("target", "met"), verdicts),
        ]
    )


def sections(found: Sequence[Plan], scale: Scale, settings: Settings | None = None) -> str:
    """All of the page's section; what has failed is named.

    Raises:
        UsageError: E_NO_CASES when no variant of a mechanism is done.
    """
    head = [
        "## Simulated mechanisms",
        "Made by `python -m benchmarks.fusion OUT`. Cases of 16³ voxels whose class follows from both "
        "images by a known mechanism (`tests.phantoms.mechanisms`). Each of "
        f"{len(scale.seeds)} seeds has weights and {scale.training} training cases of its own; all networks of a "
        f"mechanism are judged by the same {scale.test} fresh cases, after {scale.epochs} epochs. Class heads alone; "
        "the widths make all variants 110 to 124 thousand parameters. AUROC of one network: mean ± standard deviation "
        "over the seeds. AUROC of the mean: of the mean probability of the seeds' networks, with DeLong's interval; "
        "the difference to intermediate by the paired bootstrap, p corrected by Holm over all pairs. MFLOP: of one "
        "case. s: processor seconds of one training on one thread. The full reports (PDF, HTML, tables, ROC and loss "
        "curves) lie in `OUT/<mechanism>/report`.",
    ]
    by_name = {plan.name: plan for plan in found}
    parts = [mechanism_section(plan, scale, settings) for plan in found if plan.name in HEADINGS]
    if "additive" in by_name:
        parts.append(missing_section(by_name["additive"], scale))
    if CALIBRATED in by_name:
        parts.append(calibrated_section(by_name[CALIBRATED], scale))
    return "\n\n".join([*head, *parts])


def _rows(found: Findings) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for item in found.variants:
        best, difference, p_value = found.auroc(item.name), "", ""
        test = found.difference(item.name, "intermediate")
        if test is not None:
            value, low, high = test.difference, test.low, test.high
            difference, p_value = f"{number(value, signed=True)} ({interval(low, high)})", p_text(test.p_holm)
        area = f"{number(best.value)} ({interval(best.low, best.high)})"
        cost = (f"{item.parameters:,}", f"{item.flops / 1e6:.0f}", f"{item.seconds:.0f}")
        rows.append((item.name, str(item.auroc), area, difference, p_value, *cost))
    return rows


def _targets(mechanism: str, found: Findings) -> list[tuple[str, str]]:
    means = {item.name: item.auroc.mean for item in found.variants}
    rows = []
    for target in TARGETS[mechanism]:
        try:
            rows.append((target.text, "yes" if target.met(means) else "no"))
        except KeyError as error:
            rows.append((target.text, f"not known: {error.args[0]} is not done"))
    return rows


def _undone(plan: Plan, names: Sequence[str]) -> list[str]:
    """Variants of these names with a trial that is not done."""
    trials = [trial for trial in plan.trials if trial.variant.name in names]
    return sorted({trial.variant.name for trial in trials if read_trial(plan.protocol, trial).get("status") != DONE})


def _areas(plan: Plan, name: str, judgement: str) -> list[float]:
    variant = next(item for item in plan.variants if item.name == name)
    trials = [[Trial(variant, seed, fold) for fold in plan.folds] for seed in plan.seeds]
    return [auroc_of(class_logits(judged_folders(plan.protocol, found, judgement))) for found in trials]


def _measures(chances: Floats, found: ClassLogits) -> dict[str, Measure]:
    return {item.name: item for item in measures(chances, found.labels, found.case_ids, kinds=CALIBRATION_KINDS)}


def _calibration_row(name: str, found: dict[str, Measure], chances: Floats, cases: ClassLogits) -> tuple[str, ...]:
    nll, ece = found["nll"], found["ece"]
    area = float(delong(chances[:, 1], cases.labels == 1).values[0])
    return (
        name,
        number(area),
        f"{number(nll.value)} ({interval(nll.low, nll.high)})",
        number(ece.value),
        interval(ece.null_low, ece.null_high),
    )
