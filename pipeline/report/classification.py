"""The report of an evaluation of classifiers: measures with intervals, comparisons and charts as PDF and web page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reportlab.lib.units import mm
from reportlab.platypus import CondPageBreak, Flowable, KeepTogether, Spacer, Table

from pipeline import __version__
from pipeline.report.curves import TITLES, Chart, Confusion, Panel, confusion_chart, panel_chart
from pipeline.report.html import render
from pipeline.report.paper import TEXT_WIDTH, PlainTable, Style, build, paragraph, picture, table
from pipeline.words import NOT_AVAILABLE, clean, in_words

TITLE = "Tandem evaluation of classifiers"
MEASURE_NAMES = {
    "auroc": "AUROC",
    "brier": "Brier score",
    "f1": "F1",
    "negative_log_likelihood": "Negative log-likelihood",
}
MEASURE_COLUMNS = ("Measure", "Class", "Value", "Interval", "How the interval was made; notes")
COMPARISON_COLUMNS = ("Measure", "Class", "Models", "Difference", "Interval", "p", "p (Holm)", "How; notes")
GUTTER = 5 * mm


@dataclass(frozen=True)
class MeasureRow:
    """One measure of one model; None where it is not available, with the reason as the note."""

    model: str
    measure: str
    of: str
    value: float | None
    low: float | None
    high: float | None
    method: str
    note: str


@dataclass(frozen=True)
class ComparisonRow:
    """One measure of two models on the same cases."""

    measure: str
    of: str
    first: str
    second: str
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    p_holm: float | None
    method: str
    note: str


@dataclass(frozen=True)
class ClassificationContent:
    """All that the report says, as plain data.

    Attributes:
        name: what was evaluated, as the heading.
        summary: sentences under the heading: cases, patients.
        prevalences: class -> part of the cases, in [0, 1].
        measures: of all models.
        comparisons: of pairs of models.
        panels: curves.
        confusions: one a model.
        methods: sentences on how intervals and p values were made.
        tables: of what else is to be said, before the measures.
    """

    name: str
    summary: tuple[str, ...]
    prevalences: tuple[tuple[str, float], ...]
    measures: tuple[MeasureRow, ...]
    comparisons: tuple[ComparisonRow, ...]
    panels: tuple[Panel, ...]
    confusions: tuple[Confusion, ...]
    methods: tuple[str, ...]
    tables: tuple[PlainTable, ...] = ()


def classification_charts(content: ClassificationContent) -> tuple[Chart, ...]:
    """Draw all charts: `roc_1`, `precision_recall_1`, `decision_1`, `loss_1` …, then `confusion_1` … for each model."""
    charts, seen = [], dict.fromkeys(TITLES, 0)
    for panel in content.panels:
        seen[panel.kind] += 1
        charts.append(panel_chart(panel, f"{panel.kind}_{seen[panel.kind]}"))
    matrices = [confusion_chart(item, f"confusion_{number}") for number, item in enumerate(content.confusions, start=1)]
    return (*charts, *matrices)


def classification_pdf(content: ClassificationContent, charts: Sequence[Chart]) -> bytes:
    """Lay an evaluation out on A4.

    Returns:
        PDF bytes; the same for the same content.
    """
    story: list[Flowable] = [paragraph(TITLE, "kicker"), paragraph(content.name, "title"), Spacer(0, 2 * mm)]
    story += [paragraph(sentence, "lead") for sentence in content.summary]
    story += [paragraph("Classes", "heading"), table(("Class", "Part of the cases"), class_rows(content), (0.7, 0.3))]
    for item in content.tables:
        story += item.laid()
    story.append(paragraph("Measures", "heading"))
    for model, rows in measure_tables(content):
        head = paragraph(model, "subheading")
        story += [CondPageBreak(30 * mm), head, table(MEASURE_COLUMNS, rows, (0.23, 0.15, 0.11, 0.18, 0.33))]
    if content.comparisons:
        widths = (0.15, 0.11, 0.15, 0.12, 0.14, 0.09, 0.09, 0.15)
        story += [CondPageBreak(40 * mm), paragraph("Comparisons", "heading")]
        story.append(table(COMPARISON_COLUMNS, comparison_rows(content), widths))
    story += [CondPageBreak(110 * mm), paragraph("Charts", "heading"), *_pairs(charts)]
    methods = [paragraph(sentence, "body") for sentence in content.methods]
    story += [KeepTogether([paragraph("How the numbers were made", "heading"), *methods])]
    return build(story, TITLE, clean(content.name), f"Tandem {__version__}")


def classification_page(content: ClassificationContent, charts: Sequence[Chart]) -> bytes:
    """Lay an evaluation out as one self-contained web page.

    Returns:
        HTML bytes, UTF-8; the same for the same content.
    """
    return render(
        "classification.html",
        __version__,
        title=TITLE,
        name=clean(content.name),
        summary=[clean(sentence) for sentence in content.summary],
        classes=class_rows(content),
        tables=content.tables,
        measure_columns=MEASURE_COLUMNS,
        measures=[(clean(model), rows) for model, rows in measure_tables(content)],
        comparison_columns=COMPARISON_COLUMNS,
        comparisons=comparison_rows(content),
        charts=charts,
        methods=[clean(sentence) for sentence in content.methods],
    )


def class_rows(content: ClassificationContent) -> list[tuple[str, str]]:
    """Classes and their part of the cases, as texts."""
    return [(clean(name), f"{100 * part:.1f} %") for name, part in content.prevalences]


def measure_tables(content: ClassificationContent) -> list[tuple[str, list[tuple[str, ...]]]]:
    """One table a model, as texts."""
    tables: dict[str, list[tuple[str, ...]]] = {}
    for row in content.measures:
        remark = "; ".join(clean(text) for text in (row.method, row.note) if text)
        texts = (measure_name(row.measure), clean(row.of), number(row.value), interval(row.low, row.high), remark)
        tables.setdefault(row.model, []).append(texts)
    return list(tables.items())


def comparison_rows(content: ClassificationContent) -> list[tuple[str, ...]]:
    """The comparisons as texts."""
    return [
        (
            measure_name(row.measure),
            clean(row.of),
            f"{clean(row.first)} less {clean(row.second)}",
            number(row.difference, signed=True),
            interval(row.low, row.high),
            p_text(row.p_value),
            p_text(row.p_holm),
            "; ".join(clean(text) for text in (row.method, row.note) if text),
        )
        for row in content.comparisons
    ]


def measure_name(measure: str) -> str:
    """A measure as a person writes it: `auroc` -> `AUROC`."""
    return MEASURE_NAMES.get(measure) or in_words(measure)


def number(value: float | None, signed: bool = False) -> str:
    """Three decimals, or `not available`; a true minus sign."""
    if value is None:
        return NOT_AVAILABLE
    # + 0.0 turns a negative zero into zero
    return f"{round(value, 3) + 0.0:{'+' if signed else ''}.3f}".replace("-", "−")


def interval(low: float | None, high: float | None) -> str:
    """Both ends, or `not available`."""
    return NOT_AVAILABLE if low is None or high is None else f"{number(low)} to {number(high)}"


def p_text(value: float | None) -> str:
    """A p value with three decimals, never 0."""
    if value is None:
        return NOT_AVAILABLE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _pairs(charts: Sequence[Chart]) -> list[Flowable]:
    """The charts two by two, each with its caption."""
    width = (TEXT_WIDTH - GUTTER) / 2
    style: Style = [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LEFTPADDING", (0, 0), (-1, -1), 0),
        ("RIGHTPADDING", (0, 0), (-1, -1), 0),
        ("LEFTPADDING", (1, 0), (1, -1), GUTTER),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 3 * mm),
    ]
    rows: list[Flowable] = []
    for start in range(0, len(charts), 2):
        cells = [
            [picture(chart.png, width), paragraph(chart.caption, "caption")] for chart in charts[start : start + 2]
        ]
        padded = [*cells, [Spacer(0, 0)]][:2]
        rows.append(Table([padded], colWidths=[width, width + GUTTER], style=style))
    return rows
