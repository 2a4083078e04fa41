"""`tandem evaluate classification`: files of probabilities in; tables, charts, PDF and web page out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cases import Document
from pipeline.commands.arrays import read_array, read_names
from pipeline.errors import CaseError, UsageError
from pipeline.evaluation.classification import compare, evaluate, require_settings
from pipeline.evaluation.decision import Curve, decision_curve, precision_recall_curve, roc_curve, treat_all
from pipeline.evaluation.intervals import BCA_BELOW
from pipeline.evaluation.results import (
    Comparison,
    Evaluation,
    Predictions,
    Settings,
    comparison_table,
    evaluation_table,
    predictions,
)
from pipeline.report.classification import (
    ClassificationContent,
    ComparisonRow,
    MeasureRow,
    classification_charts,
    classification_page,
    classification_pdf,
    interval,
    number,
)
from pipeline.report.curves import Confusion, Line, Panel
from pipeline.report.paper import PlainTable
from pipeline.store.files import run_lock

if TYPE_CHECKING:
    import pandas as pd

#: What an evaluation with other models or classes may have left.
OWN_FILE = re.compile(r"(roc|precision_recall|decision|loss|confusion)_\d+\.png|comparisons\.csv")


def evaluate_classification(  # noqa: PLR0913 - each is an option of the command
    probabilities: Sequence[str | Path],
    labels: str | Path,
    out: str | Path,
    cases: str | Path | None = None,
    name: Sequence[str] = (),
    class_name: Sequence[str] = (),
    specificity: float = 0.9,
    seed: int = 0,
    resamples: int = 2000,
) -> tuple[Evaluation, ...]:
    """Evaluate and compare models, and write what was found: `tandem evaluate classification`.

    Writes `table.csv`, `comparisons.csv` where there are several models, `roc_1.png` and the other charts, `report.pdf`
    and `report.html`; what an earlier evaluation left of these in the folder goes.

    Args:
        probabilities: one file a model: (N, K), or (N,) for class 1 of two; `.npy`, `.npz` or `.csv`.
        labels: (N,) true classes, 0 … K - 1.
        out: the folder to write to.
        cases: which rows are one patient's, the unit that is resampled (`read_names`); without it every row is one.
        name: one for each model; the files' names without suffix when left out.
        class_name: one for each of the K classes.
        specificity: at which sensitivity is read, in [0, 1].
        seed: of the resamples.
        resamples: of the bootstrap.

    Returns:
        An evaluation a model: every measure with its interval.

    Raises:
        UsageError: E_TABLE, E_ROWS, E_PROBABILITY, E_LABEL, E_NAMES, E_OPTION; E_OUT, E_BUSY, E_DISK.
    """
    settings = Settings(specificity, resamples=resamples, seed=seed)
    require_settings(settings)
    files = [Path(path) for path in probabilities]
    models = read_models(files, Path(labels), None if cases is None else Path(cases), name, class_name)
    return write_evaluation(models, Path(out), settings)[0]


def write_evaluation(
    models: Mapping[str, Predictions],
    out: Path,
    settings: Settings,
    panels: Sequence[Panel] = (),
    tables: Sequence[PlainTable] = (),
    methods: Sequence[str] = (),
    summary: Sequence[str] = (),
) -> tuple[tuple[Evaluation, ...], tuple[Comparison, ...]]:
    """Evaluate and compare models, and write what was found, as `evaluate_classification` does.

    Args:
        models: name -> predictions of the same cases.
        out: the folder to write to.
        settings: specificity, confidence, resamples, seed.
        panels: further curves for the report.
        tables: further tables for it.
        methods: further sentences for it.
        summary: those that stand under its heading.

    Raises:
        UsageError: E_ROWS, E_OPTION; E_OUT, E_BUSY, E_DISK.
    """
    with run_lock(out):
        evaluations, comparisons = evaluate(models, settings), compare(models, settings)
        content = report_content(models, evaluations, comparisons, settings)
        content = replace(
            content,
            panels=(*content.panels, *panels),
            tables=tuple(tables),
            methods=(*content.methods, *methods),
            summary=(*content.summary, *summary),
        )
        try:
            _write_all(out, content, evaluation_table(evaluations), comparison_table(comparisons))
        except CaseError as error:
            raise UsageError(error.code, error.message) from error
    return evaluations, comparisons


def read_models(
    probabilities: Sequence[Path], labels: Path, cases: Path | None, names: Sequence[str], classes: Sequence[str]
) -> dict[str, Predictions]:
    """Read the files of all models.

    Raises:
        UsageError: E_TABLE, E_ROWS, E_PROBABILITY, E_LABEL, E_NAMES.
    """
    called = tuple(names) or tuple(path.stem for path in probabilities)
    if not probabilities or len(called) != len(probabilities) or len(set(called)) != len(called):
        got = ", ".join(called) or "none"
        raise UsageError("E_NAMES", f"Expected {max(1, len(probabilities))} different names of models, got {got}.")
    truth, patients = read_array(labels), None if cases is None else read_names(cases).tolist()
    return {
        name: predictions(read_array(path), truth, patients, classes, path.name)
        for name, path in zip(called, probabilities, strict=True)
    }


def report_content(
    models: Mapping[str, Predictions],
    evaluations: Sequence[Evaluation],
    comparisons: Sequence[Comparison],
    settings: Settings,
) -> ClassificationContent:
    """What the report says, as plain data."""
    first, one = evaluations[0], next(iter(models.values()))
    panels = [panel for index in one.scored for panel in _panels(models, index, settings)]
    return ClassificationContent(
        name=", ".join(models),
        summary=_summary(first, one),
        prevalences=tuple(first.prevalences.items()),
        measures=tuple(MeasureRow(item.model, **asdict(found)) for item in evaluations for found in item.estimates),
        comparisons=tuple(ComparisonRow(**asdict(item)) for item in comparisons),
        panels=tuple(panels),
        confusions=tuple(Confusion(item.model, one.classes, item.confusion) for item in evaluations),
        methods=_methods(first, settings, bool(comparisons)),
    )


def _panels(models: Mapping[str, Predictions], index: int, settings: Settings) -> list[Panel]:
    """The three charts of one class; no ROC curve where the class or the rest is absent."""
    one = next(iter(models.values()))
    of, share = one.classes[index], float((one.labels == index).mean())
    resampled = settings.resamples, settings.confidence, settings.seed
    rocs = {name: roc_curve(found, index, *resampled) for name, found in models.items()}
    recalls = {name: precision_recall_curve(found, index) for name, found in models.items()}
    decisions = {name: decision_curve(found, index) for name, found in models.items()}
    panels = []
    if all(rocs.values()):
        band = f"{100 * settings.confidence:g} % interval at each point, from resampled patients"
        chance = Line("chance", (0, 1), (0, 1), reference=True)
        panels.append(Panel("roc", of, (*_lines(rocs), chance), f"Positive: {of}. Shaded: {band}."))
    if all(recalls.values()):
        prevalence = Line("chance", (0, 1), (share, share), reference=True)
        text = f"Positive: {of}, {100 * share:.1f} % of the cases."
        panels.append(Panel("precision_recall", of, (*_lines(recalls), prevalence), text))
    all_treated = treat_all(one, index)
    everybody = Line("treat everybody", all_treated.x.tolist(), all_treated.y.tolist(), reference=True)
    nobody = Line("treat nobody", (0, 1), (0, 0), reference=True)
    text = f"Positive: {of}. True positives less false positives, weighed by the odds of the probability."
    panels.append(Panel("decision", of, (*_lines(decisions), everybody, nobody), text))
    return panels


def _lines(curves: Mapping[str, Curve | None]) -> list[Line]:
    return [
        Line(name, *(part.tolist() for part in (curve.x, curve.y, curve.band_x, curve.low, curve.high)))
        for name, curve in curves.items()
        if curve is not None
    ]


def _summary(first: Evaluation, one: Predictions) -> tuple[str, ...]:
    counted = f"{first.case_count} cases of {first.patient_count} patients"
    independent = "every case counts as a patient of its own" if one.one_case_each else "patients are resampled whole"
    absent = [name for name, share in first.prevalences.items() if not share]
    missing = (f"No case is {', '.join(absent)}: what needs such cases is not available.",) if absent else ()
    return (f"{counted}; {independent}.", *missing)


def _methods(first: Evaluation, settings: Settings, compared: bool) -> tuple[str, ...]:
    few = first.patient_count < BCA_BELOW
    kind = f"bias-corrected and accelerated (BCa), because there are fewer than {BCA_BELOW} patients"
    sentences = [
        f"Intervals are {100 * settings.confidence:g} % intervals from {settings.resamples} resamples of the patients, "
        f"each with all of their cases (seed {settings.seed}): {kind if few else 'percentiles'}. DeLong's interval is "
        "made on the logit scale and takes one case a patient.",
        "Accuracy, precision, recall and F1 take the most probable class. Sensitivity at a given specificity is that "
        "of the best threshold on these cases. The Brier score of two classes is the squared error of class 1; of more "
        "classes, the sum over classes. The negative log-likelihood is in nats.",
        "What is undefined is not available, never 0; the note says why.",
    ]
    if compared:
        sentences.insert(
            1,
            "Differences are paired: the same resamples for both models. P values are two-sided and, in the column "
            "Holm, corrected over all pairs of models for each measure; not over the measures.",
        )
    return tuple(sentences)


def headline(found: Evaluation) -> str:
    """A model's AUROC, or its accuracy, with the interval, in one line."""
    ranked = [item for item in found.estimates if item.measure == "auroc" and item.value is not None]
    averaged = [item for item in ranked if item.of == "macro average"]
    chosen = (*averaged, *ranked, found.estimate("accuracy", "all classes"))[0]
    name = "AUROC" if chosen.measure == "auroc" else "accuracy"
    return f"{found.model}: {name} {number(chosen.value)}, {interval(chosen.low, chosen.high)} ({chosen.of})"


def _write_all(out: Path, content: ClassificationContent, table: pd.DataFrame, comparisons: pd.DataFrame) -> None:
    """Write every file, verified and atomically, and remove those that belong to a former evaluation alone."""
    from pipeline.store.artifacts import save

    charts = classification_charts(content)
    written = [save("table", "table", table, out)[0]]
    if len(comparisons):
        written.append(save("comparisons", "table", comparisons, out)[0])
    written += [save(chart.key, "document", Document(".png", chart.png), out)[0] for chart in charts]
    for former in out.iterdir():
        if OWN_FILE.fullmatch(former.name) and former not in written:
            former.unlink()
    save("report", "document", Document(".pdf", classification_pdf(content, charts)), out)
    save("report", "document", Document(".html", classification_page(content, charts)), out)
