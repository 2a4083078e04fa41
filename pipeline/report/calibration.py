"""The PDF report of a calibration: which method and why, all methods side by side, reliability before and after."""

from __future__ import annotations

import math
from dataclasses import dataclass

from reportlab.lib.units import inch, mm
from reportlab.platypus import Flowable, KeepTogether, PageBreak, Spacer

from pipeline.report.curves import Diagram, reliability_figure
from pipeline.report.paper import VERDICT_COLOURS, Png, banner, build, paragraph, table
from pipeline.report.sheet import DPI

TITLE = "Calibration"
COLUMNS = ("Method", "NLL", "Behind the best", "Brier", "ECE", "ECE if perfect", "Debiased ECE")
WIDTHS = (0.16, 0.14, 0.13, 0.14, 0.14, 0.12, 0.17)
EXPLANATION = (
    "Every figure is of held-out cases: each case was calibrated by a fit that had not seen it. In brackets: the 95 % "
    "bootstrap interval over cases, corrected for the upward bias of the ECE. ECE if perfect: where 95 % of the ECEs "
    "of a perfectly calibrated model with these probabilities would lie at this number of cases; an ECE in there is "
    "no sign of miscalibration. Behind the best: difference of NLL to the lowest one, with its paired standard error. "
    "The simplest method within one standard error is recommended."
)
CAPTION = (
    "The predicted class's confidence against how often it was right, on held-out cases. Bars: Wilson's 95 % "
    "intervals; on the dashed line confidence is frequency. Below: how many predictions each point stands for."
)


@dataclass(frozen=True)
class Figure:
    """A number with its intervals.

    Attributes:
        value: the number.
        low: lower end of its interval.
        high: upper end.
        null_low: lower end of what a perfectly calibrated model would show.
        null_high: upper end.
    """

    value: float
    low: float
    high: float
    null_low: float = math.nan
    null_high: float = math.nan


@dataclass(frozen=True)
class MethodRow:
    """One method on held-out cases.

    Attributes:
        name: of the method.
        figures: `nll`, `brier`, `ece`, `ece_debiased`; empty where it could not be fitted.
        excess: its NLL less the best one's.
        excess_error: standard error of that.
        fault: why it could not be fitted.
    """

    name: str
    figures: dict[str, Figure]
    excess: float = math.nan
    excess_error: float = math.nan
    fault: str = ""


@dataclass(frozen=True)
class CalibrationContent:
    """What the report says.

    Attributes:
        recommended: name of the method to take.
        used: name of the method that was fitted and saved.
        reason: why the one is recommended.
        notes: what a reader has to know, such as that there are too few cases.
        methods: the table's rows, from the simplest to the most flexible.
        diagrams: reliability before and after.
        provenance: names and texts.
        tandem: version of Tandem.
        sets: of classes: what they promise and what held-out cases show, names and texts; empty where there are none.
    """

    recommended: str
    used: str
    reason: str
    notes: tuple[str, ...]
    methods: tuple[MethodRow, ...]
    diagrams: tuple[Diagram, ...]
    provenance: tuple[tuple[str, str], ...]
    tandem: str
    sets: tuple[tuple[str, str], ...] = ()


def calibration_pdf(content: CalibrationContent) -> bytes:
    """Lay the report out on A4.

    Returns:
        PDF bytes; the same for the same content.
    """
    return build(
        [*_summary(content), PageBreak(), *_diagrams(content)], TITLE, content.used, f"Tandem {content.tandem}"
    )


def interval_text(figure: Figure | None) -> str:
    """`0.716 (0.661–0.772)`."""
    if figure is None:
        return "–"
    return f"{_number(figure.value)} ({_number(figure.low)}–{_number(figure.high)})"


def _number(value: float) -> str:
    if math.isnan(value):
        return "n/a"
    return f"{value:.3f}" if math.isfinite(value) else "infinite"


def _summary(content: CalibrationContent) -> list[Flowable]:
    story: list[Flowable] = [paragraph(TITLE, "kicker"), paragraph(_titled(content.used), "title"), Spacer(0, 3 * mm)]
    rows = [_row(method, content) for method in content.methods]
    story += [_banner(content), paragraph("Methods on held-out cases", "heading"), table(COLUMNS, rows, WIDTHS)]
    return [*story, paragraph(EXPLANATION, "caption")]


def _titled(name: str) -> str:
    return "No calibration" if name == "none" else f"{name.capitalize()} calibration"


def _banner(content: CalibrationContent) -> Flowable:
    agreed = content.recommended == content.used
    word = "done" if agreed and not content.notes else "warning"
    lead = f"Take {content.recommended}" if content.recommended != "none" else "Take the model's own probabilities"
    cell: list[Flowable] = [paragraph(lead, "verdict", VERDICT_COLOURS[word]), paragraph(content.reason, "lead")]
    if not agreed:
        cell.append(paragraph(f"The saved calibration is {content.used}, as asked for.", "strong"))
    cell += [paragraph(note, "body") for note in content.notes]
    return banner(word, cell)


def _row(method: MethodRow, content: CalibrationContent) -> tuple[str, ...]:
    marks = [
        word for word, name in (("recommended", content.recommended), ("saved", content.used)) if name == method.name
    ]
    name = f"{method.name} ({', '.join(marks)})" if marks else method.name
    if method.fault:
        return name, f"not fitted. {method.fault}", "–", "–", "–", "–", "–"
    figures, ece = method.figures, method.figures["ece"]
    return (
        name,
        interval_text(figures["nll"]),
        "best" if method.excess == 0 else f"{_number(method.excess)} ± {_number(method.excess_error)}",
        interval_text(figures["brier"]),
        interval_text(ece),
        f"{_number(ece.null_low)} to {_number(ece.null_high)}",
        interval_text(figures["ece_debiased"]),
    )


def _diagrams(content: CalibrationContent) -> list[Flowable]:
    image = Png(reliability_figure(content.diagrams))
    image.drawWidth, image.drawHeight = image.imageWidth / DPI * inch, image.imageHeight / DPI * inch
    story: list[Flowable] = [paragraph("Reliability before and after", "heading"), image, paragraph(CAPTION, "caption")]
    if content.sets:
        rows = table(("What", "Value"), content.sets, (0.3, 0.7))
        story.append(KeepTogether([paragraph("Sets of classes", "heading"), rows]))
    provenance = [paragraph("Provenance", "heading"), table(("What", "Value"), content.provenance, (0.3, 0.7))]
    return [*story, KeepTogether(provenance)]
